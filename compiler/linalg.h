/* The only door to LAPACK and BLAS. Column-major as they are, float64, single-threaded inside a call.
 *
 * Every function returns false when memory is out or LAPACK reports failure; outputs are then undefined. Safe from any
 * thread after hlc_linalg_setup. */
#ifndef HILORA_COMPILER_LINALG_H
#define HILORA_COMPILER_LINALG_H

#include <stdbool.h>
#include <stddef.h>

/* Makes BLAS single-threaded inside each of our workers, so results never depend on the thread count. Once, at start. */
void hlc_linalg_setup(void);

/* The R factor of a = Q R for a (m x n, ld m, destroyed), min(m, n) x n in r (ld min(m, n)), zeros below the diagonal. */
bool hlc_qr_r(size_t m, size_t n, double *a, double *r);
/* Thin SVD a = u diag(s) vt of a (m x n, ld m, destroyed), k = min(m, n): u m x k (ld m), s k, vt k x n (ld k). */
bool hlc_svd(size_t m, size_t n, double *a, double *u, double *s, double *vt);
/* c = alpha op(a) op(b) + beta c; op(a) is m x k, op(b) k x n; leading dimensions as stored. */
void hlc_gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda,
              const double *b, size_t ldb, double beta, double *c, size_t ldc);

#endif
