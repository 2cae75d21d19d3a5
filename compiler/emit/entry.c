#include "compiler/emit/entry.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/emit/transpose.h"
#include "format/checksum.h"
#include "format/sha256.h"

/* A matrix of components as rows (A as it is, B transposed), in the source's element type. */
typedef struct rows {
    void *bytes;
    size_t count, width, size;
    hlf_dtype dtype;
} rows;

/* `turn`: the components are the columns of the file's matrix. */
static bool read_rows(const hlc_adapter *adapter, const hlc_matrix_source *source, bool turn, hlc_tensor_cache *cache, rows *out,
                      hlc_faults *faults) {
    const size_t element = hlf_dtype_size(source->dtype);
    out->count = turn ? source->cols : source->rows;
    out->width = turn ? source->rows : source->cols;
    out->size = out->count * out->width * element;
    out->dtype = source->dtype;
    out->bytes = malloc(out->size);
    if (!out->bytes) {
        hlc_out_of_memory(faults, adapter->path, out->size);
        return false;
    }
    if (!turn) {
        return hlc_adapter_read(adapter, source, cache, out->bytes, faults);
    }
    void *as_stored = malloc(out->size);
    if (!as_stored) {
        hlc_out_of_memory(faults, adapter->path, out->size);
        return false;
    }
    bool good = hlc_adapter_read(adapter, source, cache, as_stored, faults);
    if (good) {
        hlc_transpose(out->bytes, as_stored, source->rows, source->cols, element);
    }
    free(as_stored);
    return good;
}

static double *to_double(const rows *r) {
    double *values = malloc(r->count * r->width * sizeof *values);
    if (values) {
        hlf_to_f64(values, r->bytes, r->dtype, r->count * r->width);
    }
    return values;
}

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

static bool encode_rows(const hlc_compile_options *options, const rows *r, hlf_dtype stored, hlc_encoder *encoder, hlc_coded_chunk *out) {
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

static const char *gauge_failure(hlc_decompose_status status) {
    switch (status) {
    case HLC_DECOMPOSE_NON_FINITE_INPUT:
        return "a weight is NaN or infinite: it has no singular values";
    case HLC_DECOMPOSE_NON_FINITE_GAUGE:
        return "the weights' scale is beyond float32: the components cannot be formed";
    case HLC_DECOMPOSE_LAPACK:
        return "the singular value decomposition did not converge";
    default:
        return "out of memory";
    }
}

/* The gauge chunk, G_A above the transpose of G_B: both turn stored rows into components from the left. */
static bool make_gauge(const hlc_compile_options *options, const hlc_target *target, const double *a, const double *bt,
                       const char *path, hlc_encoder *encoder, hlc_coded_entry *out, hlc_faults *faults) {
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
    if (status == HLC_DECOMPOSE_OK && sv[0] > (double)FLT_MAX) { /* the gauge may hold its root, the importance cannot */
        status = HLC_DECOMPOSE_NON_FINITE_GAUGE;
    }
    if (status != HLC_DECOMPOSE_OK) {
        char place[HLC_PLACE_SIZE];
        hlc_fault(faults, HLC_ERROR, status == HLC_DECOMPOSE_NO_MEMORY ? HLC_FAULT_RESOURCE : HLC_FAULT_INPUT, path,
                  hlc_place(place, "module", target->module.bytes, target->module.length),
                  status == HLC_DECOMPOSE_NO_MEMORY ? NULL : "--decompose raw", "%s", gauge_failure(status));
        goto done;
    }
    hlc_transpose(gauge + square, gb, rank, rank, sizeof *gauge);
    for (size_t j = 0; j < rank; j++) {
        out->importance[j] = (float)sv[j];
    }
    good = encode(options, gauge, HLF_DTYPE_F32, 2 * square, encoder, &out->gauge);
    if (!good) {
        hlc_out_of_memory(faults, path, 2 * square * sizeof *gauge);
    }
done:
    free(sv);
    free(gauge);
    return good;
}

static bool make_components(const hlc_compile_options *options, const hlc_target *target, const rows *a, const rows *bt,
                            const char *path, hlc_encoder *encoder, hlc_coded_entry *out, hlc_faults *faults) {
    bool good = false;
    double *a64 = to_double(a), *bt64 = to_double(bt), *importance = malloc(target->rank * sizeof *importance);
    if (!a64 || !bt64 || !importance) {
        hlc_out_of_memory(faults, path, (a->count * a->width + bt->count * bt->width) * sizeof *a64);
    } else if (options->decomposition == HLC_DECOMPOSE_SVD) {
        good = make_gauge(options, target, a64, bt64, path, encoder, out, faults);
    } else {
        out->non_finite = !all_finite(a64, a->count * a->width) || !all_finite(bt64, bt->count * bt->width);
        hlc_raw_importance(a64, bt64, target->rank, target->d_in, target->d_out, target->scale, importance);
        for (size_t j = 0; j < target->rank; j++) {
            out->importance[j] = (float)importance[j];
        }
        good = true;
    }
    free(importance);
    free(bt64);
    free(a64);
    return good;
}

hlc_coded_entry *hlc_code_entry(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_plan_entry *entry,
                                hlc_encoder *encoder, hlc_tensor_cache *cache) {
    const hlc_adapter *adapter = inputs->adapters[entry->adapter];
    const hlc_target *target = entry->target;
    rows a = {0}, bt = {0};
    hlc_coded_entry *out = calloc(1, sizeof *out);
    if (!out || !(out->faults = hlc_faults_create()) || !(out->importance = malloc(target->rank * sizeof *out->importance))) {
        hlc_coded_entry_free(out);
        return NULL;
    }
    hlc_faults *faults = out->faults;
    bool good = false;
    if (!read_rows(adapter, &target->a, target->a.transposed, cache, &a, faults) ||
        !read_rows(adapter, &target->b, !target->b.transposed, cache, &bt, faults)) {
        goto done;
    }
    hlf_sha256_bytes(a.bytes, a.size, out->sha256_a);
    hlf_sha256_bytes(bt.bytes, bt.size, out->sha256_b);
    if (!make_components(options, target, &a, &bt, adapter->path, encoder, out, faults)) {
        goto done;
    }
    good = encode_rows(options, &a, entry->stored_a, encoder, &out->a) && encode_rows(options, &bt, entry->stored_b, encoder, &out->b);
    if (!good) {
        hlc_out_of_memory(faults, adapter->path, a.size + bt.size);
    }
done:
    free(a.bytes);
    free(bt.bytes);
    out->failed = !good;
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
