#include "compiler/emit/factors.h"

#include <stdlib.h>

#include "compiler/emit/transpose.h"

/* `turn`: the components are the columns of the file's matrix. */
static bool read_side(const hlc_adapter *adapter, const hlc_matrix_source *source, bool turn, hlc_tensor_cache *cache,
                      hlc_rows *out, hlc_faults *faults) {
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

bool hlc_rows_read(const hlc_adapter *adapter, const hlc_target *target, hlc_tensor_cache *cache, hlc_rows *a,
                   hlc_rows *bt, hlc_faults *faults) {
    *a = *bt = (hlc_rows){0};
    return read_side(adapter, &target->a, target->a.transposed, cache, a, faults) &&
           read_side(adapter, &target->b, !target->b.transposed, cache, bt, faults) &&
           (!target->e.key.bytes || (a->diagonal = hlc_read_diagonal(adapter, target, faults)));
}

void hlc_rows_free(hlc_rows *rows) {
    free(rows->bytes);
    free(rows->diagonal);
    *rows = (hlc_rows){0};
}

double *hlc_read_diagonal(const hlc_adapter *adapter, const hlc_target *target, hlc_faults *faults) {
    const size_t rank = target->rank, size = rank * hlf_dtype_size(target->e.dtype);
    hlc_tensor_cache none = {0};
    void *stored = malloc(size);
    double *values = malloc(rank * sizeof *values);
    bool good = stored && values;
    if (!good) {
        hlc_out_of_memory(faults, adapter->path, rank * sizeof *values);
    }
    good = good && hlc_adapter_read(adapter, &target->e, &none, stored, faults);
    if (good) {
        hlf_to_f64(values, stored, target->e.dtype, rank);
    } else {
        free(values);
        values = NULL;
    }
    free(stored);
    return values;
}

double *hlc_rows_double(const hlc_rows *rows) {
    double *values = malloc(rows->count * rows->width * sizeof *values);
    if (values) {
        hlf_to_f64(values, rows->bytes, rows->dtype, rows->count * rows->width);
    }
    for (size_t i = 0; values && rows->diagonal && i < rows->count * rows->width; i++) {
        values[i] *= rows->diagonal[i / rows->width];
    }
    return values;
}

static const char *failure_of(hlc_decompose_status status) {
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

void hlc_decompose_fault(hlc_decompose_status status, const char *path, const hlc_target *target, const char *remedy,
                         hlc_faults *faults) {
    const bool memory = status == HLC_DECOMPOSE_NO_MEMORY;
    char place[HLC_PLACE_SIZE];
    hlc_fault(faults, HLC_ERROR, memory ? HLC_FAULT_RESOURCE : HLC_FAULT_INPUT, path,
              hlc_place(place, "module", target->module.bytes, target->module.length), memory ? NULL : remedy, "%s",
              failure_of(status));
}
