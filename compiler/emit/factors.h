/* The two factors of an (adapter, module) pair as rows of components, read from the source; and what can be wrong with
 * them. */
#ifndef HILORA_COMPILER_FACTORS_H
#define HILORA_COMPILER_FACTORS_H

#include "compiler/decompose/decompose.h"
#include "compiler/ingest/adapter.h"

/* A matrix of components as rows (A as it is, B transposed), in the source's element type. */
typedef struct hlc_rows {
    void *bytes; /* malloc'd */
    size_t count, width, size;
    hlf_dtype dtype;
    double *diagonal; /* AdaLoRA's factor of each row of A, malloc'd; else NULL */
} hlc_rows;

/* Rows of A and of B transposed. False after a fault. Free both in any case. */
bool hlc_rows_read(const hlc_adapter *adapter, const hlc_target *target, hlc_tensor_cache *cache, hlc_rows *a,
                   hlc_rows *bt, hlc_faults *faults);
void hlc_rows_free(hlc_rows *rows);
/* The rows, times the diagonal where there is one. Malloc'd; NULL when memory is out. */
double *hlc_rows_double(const hlc_rows *rows);

/* A target's diagonal as rank float64, malloc'd. NULL after a fault. */
double *hlc_read_diagonal(const hlc_adapter *adapter, const hlc_target *target, hlc_faults *faults);

/* `remedy` is for faults of the input; a shortage of memory has none. */
void hlc_decompose_fault(hlc_decompose_status status, const char *path, const hlc_target *target, const char *remedy,
                         hlc_faults *faults);

#endif
