/* Log-likelihoods and cosines of an embedding under the Gaussians of a pool's adapters (docs/ROUTING.md, "Scoring"). */
#ifndef HILORA_RUNTIME_SCORE_H
#define HILORA_RUNTIME_SCORE_H

#include "runtime/pool.h"

/* Prepares an embedding of `dim` elements at src: converts it to float32, checks it (finite, of the pool's length,
 * normalised where the pool says so), whitens it where the pool is whitened. z gets pool.stride floats, zeros behind
 * dim; scratch: pool.stride doubles. HL_ERR_INPUT, with `row` in the message; HL_ERR_CORRUPT (whitening matrix). */
HL_NODISCARD hl_status hlr_embedding_prepare(const hl_pool *pool, const void *src, hl_dtype dtype, size_t dim,
                                             size_t row, float *z, double *scratch, hl_diag *diag);

/* What one adapter's densities need; pointers into the pool. */
typedef struct hlr_gaussian {
    const float *mean, *basis;
    const uint8_t *singular;
    hlf_stats_record stats;
} hlr_gaussian;

/* For an adapter that has statistics. Verifies them on first use. */
HL_NODISCARD hl_status hlr_gaussian_of(const hl_pool *pool, uint32_t adapter, hlr_gaussian *out, hl_diag *diag);

/* log N(z; mu, Sigma) in nats; finite. z as prepared; scratch: pool.stride doubles. */
double hlr_log_density(const hl_pool *pool, const hlr_gaussian *gaussian, const float *z, double *scratch);

/* The cosine of z and mu; 0 where either is zero. */
double hlr_cosine(const hl_pool *pool, const hlr_gaussian *gaussian, const float *z, double *scratch);

#endif
