/* The header of a NumPy array file (.npy, versions 1 to 3), after NEP 1. */
#ifndef HILORA_COMPILER_NPY_H
#define HILORA_COMPILER_NPY_H

#include <stdbool.h>
#include <stdint.h>

#include "compiler/base/faults.h"
#include "compiler/base/files.h"
#include "format/dtype.h"

/* A matrix of floating-point numbers. */
typedef struct hlc_npy {
    hlf_dtype dtype;          /* F16, F32 or F64 */
    bool big_endian, fortran; /* Fortran order: column after column */
    uint64_t rows, cols;
    uint64_t data_at; /* where the elements start in the file, which holds exactly rows * cols of them from there on */
} hlc_npy;

/* False after a fault: no .npy file, another type or rank, or a size that does not fit the file. */
bool hlc_npy_read_header(const hlc_file *file, const char *path, hlc_npy *out, hlc_faults *faults);

#endif
