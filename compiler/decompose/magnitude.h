/* Sizes of vectors, safe against overflow and quick over whole factors. */
#ifndef HILORA_COMPILER_DECOMPOSE_MAGNITUDE_H
#define HILORA_COMPILER_DECOMPOSE_MAGNITUDE_H

#include <stdbool.h>
#include <stddef.h>

/* *largest = max |x_i|, 0 for none; false when an x_i is not finite. */
bool hlc_finite_largest(const double *x, size_t n, double *largest);
double hlc_largest(const double *x, size_t n);
/* |x|, scaled by a power of two where its square would leave float64. */
double hlc_norm(const double *x, size_t n);

#endif
