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
} hlc_rows;

/* Rows of A and of B transposed. False after a fault. Free both in any case. */
bool hlc_rows_read(const hlc_adapter *adapter, const hlc_target *target, hlc_tensor_cache *cache, hlc_rows *a,
                   hlc_rows *bt, hlc_faults *faults);
/* malloc'd; NULL when memory is out. */
double *hlc_rows_double(const hlc_rows *rows);

/* `remedy` is for faults of the input; a shortage of memory has none. */
void hlc_decompose_fault(hlc_decompose_status status, const char *path, const hlc_target *target, const char *remedy,
                         hlc_faults *faults);

#endif
