#include "compiler/emit/entry.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/emit/factors.h"
#include "compiler/emit/squeezed.h"
#include "compiler/emit/transpose.h"
#include "format/checksum.h"
#include "format/sha256.h"

static bool all_finite(const double *values, size_t n) {
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        finite &= isfinite(values[i]) != 0;
    }
    return finite;
}

static bool encode(const hlc_compile_options *options, const void *values, hlf_dtype dtype, size_t n, hlc_encoder *encoder, hlc_coded_chunk *out) {
    const size_t width = hlf_dtype_size(dtype);
    size_t room = options->codec == HLF_CODEC_STORE ? n * width : hlc_encode_bound(width, n);
    out->bytes = malloc(room);
    if (!out->bytes) {
        return false;
    }
    if (options->codec == HLF_CODEC_STORE) {
        memcpy(out->bytes, values, room);
        out->size = room;
    } else {
        out->size = hlc_encode_chunk(encoder, values, width, n, out->bytes, room);
        void *fitted = out->size ? realloc(out->bytes, out->size) : NULL;
        out->bytes = fitted ? fitted : out->bytes;
    }
    out->checksum = hlf_checksum(out->bytes, out->size);
    return out->size > 0;
}

static bool encode_rows(const hlc_compile_options *options, const hlc_rows *r, hlf_dtype stored, hlc_encoder *encoder,
                        hlc_coded_chunk *out) {
    const size_t n = r->count * r->width;
    if (stored == r->dtype) {
        return encode(options, r->bytes, stored, n, encoder, out);
    }
    void *narrowed = malloc(n * hlf_dtype_size(stored));
    if (!narrowed) {
        return false;
    }
    hlf_convert(narrowed, stored, r->bytes, r->dtype, n);
    bool good = encode(options, narrowed, stored, n, encoder, out);
    free(narrowed);
    return good;
}

static bool encode_gauge(const hlc_compile_options *options, const float *gauge, size_t rank, const char *path,
                         hlc_encoder *encoder, hlc_coded_entry *out, hlc_faults *faults) {
    const size_t count = 2 * rank * rank;
    if (!encode(options, gauge, HLF_DTYPE_F32, count, encoder, &out->gauge)) {
        hlc_out_of_memory(faults, path, count * sizeof *gauge);
        return false;
    }
    return true;
}

/* G_A of diag(e) A becomes that of A. False when an entry leaves float32. */
static bool absorb_diagonal(float *gauge, const double *diagonal, size_t rank) {
    bool finite = true;
    for (size_t i = 0; diagonal && i < rank * rank; i++) {
        gauge[i] = (float)((double)gauge[i] * diagonal[i % rank]);
        finite &= isfinite(gauge[i]) != 0;
    }
    return finite;
}

/* The gauge chunk, G_A above the transpose of G_B: both turn stored rows into components from the left. a: with the
 * diagonal, where there is one. */
static bool make_gauge(const hlc_compile_options *options, const hlc_target *target, const double *a, const double *bt,
                       const double *diagonal, const char *path, hlc_encoder *encoder, hlc_coded_entry *out,
                       hlc_faults *faults) {
    const size_t rank = target->rank, square = rank * rank;
    bool good = false;
    float *gauge = malloc(3 * square * sizeof *gauge);
    double *sv = malloc(rank * sizeof *sv);
    if (!gauge || !sv) {
        hlc_out_of_memory(faults, path, 3 * square * sizeof *gauge);
        goto done;
    }
    float *gb = gauge + 2 * square;
    hlc_decompose_status status = hlc_gauge(a, bt, rank, target->d_in, target->d_out, target->scale, gauge, gb, sv);
    if (status == HLC_DECOMPOSE_OK && (!absorb_diagonal(gauge, diagonal, rank) ||
                                       sv[0] > (double)FLT_MAX)) { /* the gauge may hold its root, the importance cannot */
        status = HLC_DECOMPOSE_NON_FINITE_GAUGE;
    }
    if (status != HLC_DECOMPOSE_OK) {
        hlc_decompose_fault(status, path, target, diagonal ? NULL : "--decompose raw", faults);
        goto done;
    }
    hlc_transpose(gauge + square, gb, rank, rank, sizeof *gauge);
    for (size_t j = 0; j < rank; j++) {
        out->importance[j] = (float)sv[j];
    }
    good = encode_gauge(options, gauge, rank, path, encoder, out, faults);
done:
    free(sv);
    free(gauge);
    return good;
}

static void measure_raw(const hlc_target *target, const double *a, const double *bt, double *importance,
                        hlc_coded_entry *out) {
    out->non_finite = !all_finite(a, target->rank * target->d_in) || !all_finite(bt, target->rank * target->d_out);
    hlc_raw_importance(a, bt, target->rank, target->d_in, target->d_out, target->scale, importance);
    for (size_t j = 0; j < target->rank; j++) {
        out->importance[j] = (float)importance[j];
    }
}

/* Raw components of AdaLoRA: G_A is s times the diagonal, G_B the identity. */
static bool make_diagonal_gauge(const hlc_compile_options *options, const hlc_target *target, const double *diagonal,
                                const char *path, hlc_encoder *encoder, hlc_coded_entry *out, hlc_faults *faults) {
    const size_t rank = target->rank;
    bool finite = !out->non_finite;
    float *gauge = calloc(2 * rank * rank, sizeof *gauge);
    if (!gauge) {
        hlc_out_of_memory(faults, path, 2 * rank * rank * sizeof *gauge);
        return false;
    }
    for (size_t j = 0; j < rank; j++) {
        gauge[j * rank + j] = (float)(target->scale * diagonal[j]);
        gauge[(rank + j) * rank + j] = 1;
        finite &= isfinite(gauge[j * rank + j]) != 0;
    }
    if (!finite) { /* one such weight would spread over all components */
        hlc_decompose_fault(out->non_finite ? HLC_DECOMPOSE_NON_FINITE_INPUT : HLC_DECOMPOSE_NON_FINITE_GAUGE, path, target,
                            NULL, faults);
    }
    bool good = finite && encode_gauge(options, gauge, rank, path, encoder, out, faults);
    free(gauge);
    return good;
}

/* The weights as trained, and the gauge or the importances. */
static bool code_trained(const hlc_compile_options *options, const hlc_plan_entry *entry, const hlc_rows *a,
                         const hlc_rows *bt, const double *a64, const double *bt64, const char *path,
                         hlc_encoder *encoder, hlc_coded_entry *out, hlc_faults *faults) {
    const hlc_target *target = entry->target;
    hlf_sha256_bytes(a->bytes, a->size, out->sha256_a);
    hlf_sha256_bytes(bt->bytes, bt->size, out->sha256_b);
    if (a->diagonal) {
        hlf_sha256_bytes(a->diagonal, target->rank * sizeof *a->diagonal, out->sha256_e); /* little-endian, as machines are */
    }
    if (options->decomposition == HLC_DECOMPOSE_SVD) {
        if (!make_gauge(options, target, a64, bt64, a->diagonal, path, encoder, out, faults)) {
            return false;
        }
    } else {
        double *importance = malloc(target->rank * sizeof *importance);
        if (!importance) {
            hlc_out_of_memory(faults, path, target->rank * sizeof *importance);
            return false;
        }
        measure_raw(target, a64, bt64, importance, out);
        free(importance);
        if (a->diagonal && !make_diagonal_gauge(options, target, a->diagonal, path, encoder, out, faults)) {
            return false;
        }
    }
    if (!encode_rows(options, a, entry->stored_a, encoder, &out->a) ||
        !encode_rows(options, bt, entry->stored_b, encoder, &out->b)) {
        hlc_out_of_memory(faults, path, a->size + bt->size);
        return false;
    }
    return true;
}

/* The strongest components themselves. */
static bool code_squeezed(const hlc_compile_options *options, const hlc_plan_entry *entry, const double *a64,
                          const double *bt64, const char *path, hlc_encoder *encoder, hlc_coded_entry *out,
                          hlc_faults *faults) {
    const hlc_target *target = entry->target;
    const hlc_squeeze squeeze = {entry->rank, entry->stored_a, entry->stored_b};
    const size_t a_count = entry->rank * target->d_in, b_count = entry->rank * target->d_out;
    hlc_squeezed_rows made;
    bool good = hlc_squeeze_rows(&squeeze, target, a64, bt64, path, &made, faults);
    if (good) {
        hlf_sha256_bytes(made.a, a_count * hlf_dtype_size(squeeze.a), out->sha256_a);
        hlf_sha256_bytes(made.bt, b_count * hlf_dtype_size(squeeze.b), out->sha256_b);
        for (size_t j = 0; j < entry->rank; j++) {
            out->importance[j] = (float)made.singular[j];
        }
        out->squeeze_error = made.error;
        good = encode(options, made.a, squeeze.a, a_count, encoder, &out->a) &&
               encode(options, made.bt, squeeze.b, b_count, encoder, &out->b);
        if (!good) {
            hlc_out_of_memory(faults, path, (a_count + b_count) * sizeof(float));
        }
    }
    hlc_squeezed_rows_free(&made);
    return good;
}

static bool code_rows(const hlc_compile_options *options, const hlc_plan_entry *entry, const hlc_rows *a,
                      const hlc_rows *bt, const char *path, hlc_encoder *encoder, hlc_coded_entry *out) {
    double *a64 = hlc_rows_double(a), *bt64 = hlc_rows_double(bt);
    bool good = a64 && bt64;
    if (!good) {
        hlc_out_of_memory(out->faults, path, (a->count * a->width + bt->count * bt->width) * sizeof *a64);
    } else if (entry->squeezed) {
        good = code_squeezed(options, entry, a64, bt64, path, encoder, out, out->faults);
    } else {
        good = code_trained(options, entry, a, bt, a64, bt64, path, encoder, out, out->faults);
    }
    free(bt64);
    free(a64);
    return good;
}

hlc_coded_entry *hlc_code_entry(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_plan_entry *entry,
                                hlc_encoder *encoder, hlc_tensor_cache *cache) {
    const hlc_adapter *adapter = inputs->adapters[entry->adapter];
    const hlc_target *target = entry->target;
    hlc_rows a, bt;
    hlc_coded_entry *out = calloc(1, sizeof *out);
    if (!out || !(out->faults = hlc_faults_create()) || !(out->importance = malloc(target->rank * sizeof *out->importance))) {
        hlc_coded_entry_free(out);
        return NULL;
    }
    out->failed = !hlc_rows_read(adapter, target, cache, &a, &bt, out->faults) ||
                  !code_rows(options, entry, &a, &bt, adapter->path, encoder, out);
    hlc_rows_free(&a);
    hlc_rows_free(&bt);
    return out;
}

void hlc_coded_entry_free(hlc_coded_entry *entry) {
    if (entry) {
        free(entry->a.bytes);
        free(entry->b.bytes);
        free(entry->gauge.bytes);
        free(entry->importance);
        hlc_faults_destroy(entry->faults);
        free(entry);
    }
}
