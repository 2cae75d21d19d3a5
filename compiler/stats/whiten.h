/* The pool's own covariance as the unit of measure (`--whiten pool`, docs/ROUTING.md). */
#ifndef HILORA_COMPILER_WHITEN_H
#define HILORA_COMPILER_WHITEN_H

#include <stdbool.h>
#include <stddef.h>

/* C C^T is the pooled within-adapter covariance of samples[i] (m[i] x d row-major, m[i] = 0 or >= 2), divisor n = sum (m_i - 1),
 * shrunk by OAS with that n; C is its lower Cholesky factor, the identity when no adapter has scatter.
 * inverse: d x d row-major, C^-1, lower triangular; log_det: log|det C|. False when memory is out or LAPACK fails. */
bool hlc_whiten_fit(const float *const *samples, const size_t *m, size_t count, size_t d, size_t threads, double *inverse,
                    double *log_det);
/* out = C^-1 z for each of m rows, in float64, then rounded. False when memory is out or a value leaves float32's range. */
bool hlc_whiten_apply(const double *inverse, size_t d, const float *rows, size_t m, float *out);

#endif
