/* Linear algebra of a LoRA's size, in float64, without LAPACK: checking files must not need the memory and the threads
 * that a BLAS takes when it is loaded. Pure but for what it allocates; the same bits for the same input on every
 * machine. */
#ifndef HILORA_RULES_SMALL_SVD_H
#define HILORA_RULES_SMALL_SVD_H

#include <stdbool.h>
#include <stddef.h>

/* a^T b in a fixed order. */
double hlc_dot(const double *a, const double *b, size_t n);

/* The singular values of scale B A, descending, min(rank, d_in, d_out) of them: a is rank x d_in, bt (B transposed)
 * rank x d_out, row-major and finite. By Householder's triangles of both and one-sided Jacobi rotations of their
 * product (Hestenes 1958). False when memory is out or a number leaves float64. O(rank^2 (d_in + d_out) + rank^3). */
bool hlc_singular_values(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale,
                         double *sv);

#endif
