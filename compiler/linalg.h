/* The only door to LAPACK and BLAS. Column-major as they are, float64, single-threaded inside a call.
 *
 * Every function returns false when memory is out, a dimension exceeds what the libraries' 32-bit integers can address,
 * or LAPACK reports failure; outputs are then undefined. Inputs must be finite: nothing here looks for NaN. Safe from any
 * thread after hlc_linalg_setup. On one machine the same input gives the same bits, whatever other threads do, when arrays start
 * where malloc put them or a fixed distance from there: kernels for CPUs before AVX depend on the alignment to 16 bytes. */
#ifndef HILORA_COMPILER_LINALG_H
#define HILORA_COMPILER_LINALG_H

#include <stdbool.h>
#include <stddef.h>

/* Makes BLAS single-threaded inside each of our workers, so results never depend on the thread count, and turns LAPACKE's
 * search for NaN off. At start, before any thread of ours; again is harmless. */
void hlc_linalg_setup(void);
/* Whether there is address space for the buffer of 128 MiB that OpenBLAS takes for each thread that calls it. It tries for ever to get
 * one, so a run under a tight limit must ask first; without room for those of its own threads, its handlers at fork and exit wait for ever, too. */
bool hlc_linalg_has_room(size_t threads);

/* The R factor of a = Q R for a (m x n, ld m, destroyed), min(m, n) x n in r (ld min(m, n)), zeros below the diagonal. */
bool hlc_qr_r(size_t m, size_t n, double *a, double *r);
/* Thin SVD a = u diag(s) vt of a (m x n, ld m, destroyed), k = min(m, n): u m x k (ld m), s k, vt k x n (ld k). */
bool hlc_svd(size_t m, size_t n, double *a, double *u, double *s, double *vt);
/* The upper factor u with u^T u = a, from and into the upper triangle of a (n x n, ld n); the strict lower triangle becomes
 * zero. False, too, when a is not positive definite. Read row-major, the result is the lower factor. */
bool hlc_cholesky(size_t n, double *a);
/* The inverse of an upper triangular a (n x n, ld n) in place. */
bool hlc_invert_upper(size_t n, double *a);
/* c = alpha op(a) op(b) + beta c; op(a) is m x k, op(b) k x n; leading dimensions as stored. */
bool hlc_gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda,
              const double *b, size_t ldb, double beta, double *c, size_t ldc);

#endif
