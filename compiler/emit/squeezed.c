#include "compiler/emit/squeezed.h"

#include <float.h>
#include <stdlib.h>

#include "compiler/decompose/squeeze.h"

static const char remedy[] = "compile this adapter without --energy and --max-rank, with --decompose raw";

typedef struct components {
    double *a, *bt, *singular; /* rank rows each */
} components;

static void free_components(components *c) {
    free(c->a);
    free(c->bt);
    free(c->singular);
}

/* The first `keep` components. */
static bool decompose(const hlc_target *target, const double *a, const double *bt, size_t keep, const char *path,
                      components *out, hlc_faults *faults) {
    hlc_decompose_status status = HLC_DECOMPOSE_NO_MEMORY;
    *out = (components){.a = malloc(keep * target->d_in * sizeof *out->a),
                        .bt = malloc(keep * target->d_out * sizeof *out->bt),
                        .singular = malloc(target->rank * sizeof *out->singular)};
    if (out->a && out->bt && out->singular) {
        status = hlc_truncate(a, bt, target->rank, target->d_in, target->d_out, target->scale, keep, out->a, out->bt,
                              out->singular);
    }
    if (status == HLC_DECOMPOSE_OK && out->singular[0] > (double)FLT_MAX) {
        status = HLC_DECOMPOSE_NON_FINITE_GAUGE; /* the importance could not hold it */
    }
    if (status != HLC_DECOMPOSE_OK) {
        hlc_decompose_fault(status, path, target, remedy, faults);
    }
    return status == HLC_DECOMPOSE_OK;
}

/* The narrowest type that may be used and keeps the rows; NONE when even float32 does not. */
static hlf_dtype choose_dtype(const double *rows, size_t count, size_t width, bool short_sources) {
    return short_sources && hlc_rows_fit(rows, count, width, HLF_DTYPE_F16) ? HLF_DTYPE_F16
           : hlc_rows_fit(rows, count, width, HLF_DTYPE_F32)                ? HLF_DTYPE_F32
                                                                            : HLF_DTYPE_NONE;
}

static bool choose(const hlc_compile_options *options, const hlc_target *target, const double *a, const double *bt,
                   const char *path, hlc_squeeze *out, hlc_faults *faults) {
    components found;
    bool good = decompose(target, a, bt, target->rank, path, &found, faults);
    if (good) {
        const double energy = options->energy > 0 ? options->energy : 1;
        const bool short_sources = hlf_dtype_size(target->a.dtype) == 2 && hlf_dtype_size(target->b.dtype) == 2;
        out->rank = (uint32_t)hlc_squeezed_rank(found.singular, target->rank, energy, options->max_rank);
        out->a = choose_dtype(found.a, out->rank, target->d_in, short_sources);
        out->b = choose_dtype(found.bt, out->rank, target->d_out, short_sources);
        good = out->a != HLF_DTYPE_NONE && out->b != HLF_DTYPE_NONE;
        if (!good) {
            hlc_decompose_fault(HLC_DECOMPOSE_NON_FINITE_GAUGE, path, target, remedy, faults);
        }
    }
    free_components(&found);
    return good;
}

bool hlc_squeeze_choose(const hlc_compile_options *options, const hlc_adapter *adapter, const hlc_target *target,
                        hlc_tensor_cache *cache, hlc_squeeze *out, hlc_faults *faults) {
    hlc_rows a, bt;
    bool good = hlc_rows_read(adapter, target, cache, &a, &bt, faults);
    if (good) {
        double *a64 = hlc_rows_double(&a), *bt64 = hlc_rows_double(&bt);
        if (!a64 || !bt64) {
            hlc_out_of_memory(faults, adapter->path, (a.count * a.width + bt.count * bt.width) * sizeof *a64);
            good = false;
        }
        good = good && choose(options, target, a64, bt64, adapter->path, out, faults);
        free(a64);
        free(bt64);
    }
    hlc_rows_free(&a);
    hlc_rows_free(&bt);
    return good;
}

/* Rounds n numbers for the file, and back to what a reader will see. */
static bool store(double *values, size_t n, hlf_dtype dtype, void **out) {
    *out = malloc(n * hlf_dtype_size(dtype));
    if (*out) {
        hlf_convert(*out, dtype, values, HLF_DTYPE_F64, n);
        hlf_to_f64(values, *out, dtype, n);
    }
    return *out != NULL;
}

bool hlc_squeeze_rows(const hlc_squeeze *squeeze, const hlc_target *target, const double *a, const double *bt,
                      const char *path, hlc_squeezed_rows *out, hlc_faults *faults) {
    const size_t keep = squeeze->rank, d_in = target->d_in, d_out = target->d_out;
    components found;
    *out = (hlc_squeezed_rows){0};
    bool good = decompose(target, a, bt, keep, path, &found, faults);
    if (good) {
        const hlc_factors whole = {a, bt, target->rank, target->scale}, part = {found.a, found.bt, keep, 1};
        if (!store(found.a, keep * d_in, squeeze->a, &out->a) || !store(found.bt, keep * d_out, squeeze->b, &out->bt) ||
            !hlc_relative_error(&whole, &part, d_in, d_out, &out->error)) {
            hlc_decompose_fault(HLC_DECOMPOSE_NO_MEMORY, path, target, NULL, faults);
            good = false;
        }
        if (found.singular[0] == 0) {
            out->error = 0; /* an update that is nothing but rounding */
        }
        out->singular = found.singular;
        found.singular = NULL;
    }
    free_components(&found);
    return good;
}

void hlc_squeezed_rows_free(hlc_squeezed_rows *rows) {
    free(rows->a);
    free(rows->bt);
    free(rows->singular);
    *rows = (hlc_squeezed_rows){0};
}
