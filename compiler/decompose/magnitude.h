/* Sizes of vectors, safe against overflow and quick over whole factors. */
#ifndef HILORA_COMPILER_DECOMPOSE_MAGNITUDE_H
#define HILORA_COMPILER_DECOMPOSE_MAGNITUDE_H

#include <stdbool.h>
#include <stddef.h>

bool hlc_all_finite(const double *x, size_t n);
/* max |x_i|, 0 for none. */
double hlc_largest(const double *x, size_t n);
/* |x|, scaled by a power of two where its square would leave float64. */
double hlc_norm(const double *x, size_t n);

#endif
