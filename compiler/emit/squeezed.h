/* --energy and --max-rank: how many components of a module are kept, in which type, and their rows. */
#ifndef HILORA_COMPILER_SQUEEZED_H
#define HILORA_COMPILER_SQUEEZED_H

#include "compiler/compile.h"
#include "compiler/emit/factors.h"

static inline bool hlc_squeezes(const hlc_compile_options *options) {
    return options->energy > 0 || options->max_rank > 0;
}

/* What the first pass settles. */
typedef struct hlc_squeeze {
    uint32_t rank; /* components to keep, at least 1 */
    hlf_dtype a,
        b; /* their element types: float32, or float16 where both sources have 16 bits and every kept row survives it */
} hlc_squeeze;

bool hlc_squeeze_choose(const hlc_compile_options *options, const hlc_adapter *adapter, const hlc_target *target,
                        hlc_tensor_cache *cache, hlc_squeeze *out, hlc_faults *faults);

/* Rows of A' and of B' transposed as they are stored. */
typedef struct hlc_squeezed_rows {
    void *a, *bt;     /* malloc'd, little-endian elements of squeeze->a and squeeze->b */
    double *singular; /* malloc'd: of all components, dropped ones included */
    double error;     /* |s B A - B' A'|_F / |s B A|_F of what is stored */
} hlc_squeezed_rows;

/* a, bt: the module's own rows. False after a fault. Free *out in any case. */
bool hlc_squeeze_rows(const hlc_squeeze *squeeze, const hlc_target *target, const double *a, const double *bt,
                      const char *path, hlc_squeezed_rows *out, hlc_faults *faults);
void hlc_squeezed_rows_free(hlc_squeezed_rows *rows);

#endif
