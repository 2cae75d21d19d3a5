/* The thin SVD of s B A by its small core, before anything is rounded (docs/ROUTING.md, "Decomposition"). */
#ifndef HILORA_COMPILER_DECOMPOSE_CORE_H
#define HILORA_COMPILER_DECOMPOSE_CORE_H

#include "compiler/decompose/decompose.h"

/* With A = 2^exponent_a A0 and B = 2^exponent_b B0 (exponents even, both 0 for ordinary sizes), B0 = Q_B R_B, A0^T = Q_A R_A and
 * R_B R_A^T = P S0 Q^T: row j < kept of A' is weight[j] 2^((exponent_a + exponent_b) / 2) to_a[j] A0, and column j
 * of B' is B0 to_b[j] times the same and the sign of s. */
typedef struct hlc_core {
    size_t rank, kept;
    int exponent_a, exponent_b;
    double *to_a;   /* kept rows of rank: the signed P^T R_B */
    double *to_b;   /* kept rows of rank: the signed Q^T R_A */
    double *weight; /* kept: sqrt(|s| / S0_j) */
    double *sv;     /* rank: the singular values of s B A, zero where dropped */
    double *storage;
} hlc_core;

/* *out is to be freed when OK, empty otherwise. */
hlc_decompose_status hlc_core_solve(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale,
                                    hlc_core *out);
void hlc_core_free(hlc_core *core);

/* *norm = |B A|_F from the triangles of B and A^T, NaN when an entry is not finite. False when memory is out or LAPACK
 * fails. */
bool hlc_core_product_norm(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double *norm);

/* out = weights x0, row-major, for d columns x = 2^exponent x0 of a factor, whose rows (rank of them) are `stride` apart; weights:
 * rows x rank, out: rows x d. False when memory is out. */
bool hlc_core_rows(const double *x, size_t stride, int exponent, size_t rank, size_t d, const double *weights, size_t rows,
                   double *out);

#endif
