/* A Gaussian per adapter in compact form, after HiLoRA (arXiv 2510.12266) with this project's shrinkage (docs/ROUTING.md).
 *
 * m samples x_k (float32, then float64 arithmetic) of dimension d: mu their mean, X = W diag(sv) U^T the thin SVD of the
 * centred samples, q = the number of kept singular values, q <= min(m - 1, d); singular values at or below
 * max(m, d) eps sv_1 are dropped (all of them when all samples are equal). Sigma = (1 - rho) S + lambda I with S = X^T X / (m - 1),
 * lambda = max(rho tau, floor), tau = tr(S) / d; t_j = (1 - rho) sv_j^2 / (m - 1). */
#ifndef HILORA_COMPILER_GAUSSIAN_H
#define HILORA_COMPILER_GAUSSIAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What does not depend on rho; what a pool stores. */
typedef struct hlc_scatter {
    size_t m, d, q;
    float *mean;   /* d; the float64 mean rounded: everything below and all scoring uses the rounded one */
    float *basis;  /* q rows of d: row j is u_j, each entry one of its two float32 neighbours, chosen to keep rows orthonormal */
    double *w;     /* m x q, row-major */
    double *sv;    /* q, descending, positive */
    double tau;    /* tr(S) / d */
    double oas, ledoit_wolf; /* shrinkage coefficients of these samples alone, as scikit-learn's; 1 when tau is 0 */
} hlc_scatter;

/* samples: m x d row-major, m >= 2, finite. False when m < 2, memory is out or LAPACK fails; *out is then empty.
 * The rows of the basis have a canonical sign (largest magnitude entry positive, ties to the lower index; w follows). */
bool hlc_scatter_fit(const float *samples, size_t m, size_t d, hlc_scatter *out);
void hlc_scatter_free(hlc_scatter *scatter);

typedef enum hlc_shrinkage {
    HLC_SHRINKAGE_POOL = 0,
    HLC_SHRINKAGE_OAS = 1,
    HLC_SHRINKAGE_LEDOIT_WOLF = 2,
    HLC_SHRINKAGE_NUMBER = 3
} hlc_shrinkage;

/* What depends on rho: enough to score. */
typedef struct hlc_gaussian {
    double rho, lambda;
    double log_norm; /* -1/2 [d log 2 pi + (d - q) log lambda + sum_j log(lambda + t_j)] - log|det C| */
} hlc_gaussian;

enum { HLC_QUANTILES = 7 }; /* at 0, 1, 2, 5, 10, 25, 50 percent, numpy's type 7 */

/* The leave-one-out calibration of one adapter. */
typedef struct hlc_calibration {
    bool calibrated; /* false for m = 2 or no scatter: the rest is then NaN, values NULL */
    double quantiles[HLC_QUANTILES];
    double deviation; /* standard deviation of the values, ddof 1 */
    double *values;   /* m leave-one-out log-likelihoods in nats, in the order of the samples */
} hlc_calibration;

/* The statistics of a pool. Arrays have one element per adapter, in the pool's order; adapters without samples have m = 0. */
typedef struct hlc_pool_stats {
    size_t count, d;
    hlc_shrinkage shrinkage;
    double rho;   /* of the pool; NaN when each adapter has its own */
    double floor; /* least lambda */
    double temperature;              /* nats */
    size_t calibrated;               /* adapters */
    double quantiles[HLC_QUANTILES]; /* pool-wide; NaN when calibrated is 0 */
    double miss_first, miss_third;   /* leave-one-out miss rates: own not ranked first, not among the best 3; NaN likewise */
    size_t miss_samples;             /* over so many samples */
    bool whitened;
    double *whiten;           /* whitened: C^-1, d x d row-major, lower triangular or full; else NULL */
    double whiten_log_det;    /* log|det C|; 0 else */
    hlc_scatter *scatter;     /* in the whitened space when whitened */
    hlc_gaussian *gaussian;
    hlc_calibration *calibration;
} hlc_pool_stats;

typedef struct hlc_stats_options {
    hlc_shrinkage shrinkage;
    double number;  /* HLC_SHRINKAGE_NUMBER: rho in [0, 1] */
    bool whiten;    /* --whiten pool */
    size_t threads; /* >= 1; never changes a result */
    /* hlc_pool_stats_derive alone: the C^-1 (d x d, copied) in whose space the scatters are, NULL for none, and its log|det C|.
     * There `whiten` is ignored: a new whitening needs the samples. */
    const double *whitening;
    double whitening_log_det;
} hlc_stats_options;

/* samples[i]: m[i] x d row-major, finite, m[i] >= 2, or NULL with m[i] = 0. False when memory is out, LAPACK fails, or whitening
 * takes a sample out of float32's range; *out is then empty. Call hlc_linalg_setup first. */
bool hlc_pool_stats_fit(const float *const *samples, const size_t *m, size_t count, size_t d, const hlc_stats_options *options,
                        hlc_pool_stats *out);
/* The same from scatters that are already there (joining pools); takes ownership of the scatters' contents, also on failure.
 * oas and ledoit_wolf need not be filled in. Of the stored quantities (m, d, q, mean, basis, w, sv, tau) of a pool it makes, bit for
 * bit, the statistics that hlc_pool_stats_fit made with them. */
bool hlc_pool_stats_derive(hlc_scatter *scatters, size_t count, size_t d, const hlc_stats_options *options, hlc_pool_stats *out);
void hlc_pool_stats_free(hlc_pool_stats *stats);

/* log N(z; mu, Sigma) in nats in float64; z is d floats (already whitened where the pool is). In the order of operations of
 * docs/ROUTING.md, "Scoring": the same bits on every machine for the same scatter and Gaussian. */
double hlc_log_density(const hlc_scatter *scatter, const hlc_gaussian *gaussian, const float *z);

#endif
