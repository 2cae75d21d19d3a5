/* Samples to fit, and the dense Gaussian in plain loops to compare with. */
#ifndef HILORA_TESTS_GAUSSIAN_FIXTURE_H
#define HILORA_TESTS_GAUSSIAN_FIXTURE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/stats/gaussian.h"
#include "tests/support/random.h"

/* m samples of dimension d about a mean of their own, of a spectrum that falls; the first `distinct` differ (0: all). */
static inline float *samples_of(uint64_t seed, size_t m, size_t d, size_t distinct) {
    hlt_rng rng = hlt_rng_for(seed, m, d, distinct);
    float *samples = malloc(m * d * sizeof *samples), *mean = malloc(d * sizeof *mean);
    for (size_t i = 0; i < d; i++) {
        mean[i] = (float)hlt_normal(&rng);
    }
    for (size_t k = 0; k < m; k++) {
        for (size_t i = 0; i < d; i++) {
            const float fresh = mean[i] + (float)(hlt_normal(&rng) / (1 + (double)i));
            samples[k * d + i] = distinct > 0 && k >= distinct ? samples[(k % distinct) * d + i] : fresh;
        }
    }
    free(mean);
    return samples;
}

/* S, d x d; mean: d. skip: a sample to leave out, m for none. */
static inline void sample_covariance(const float *samples, size_t m, size_t d, size_t skip, double *mean, double *s) {
    const double n = (double)m - (skip < m);
    memset(mean, 0, d * sizeof *mean);
    memset(s, 0, d * d * sizeof *s);
    for (size_t k = 0; k < m; k++) {
        for (size_t i = 0; i < d && k != skip; i++) {
            mean[i] += (double)samples[k * d + i] / n;
        }
    }
    for (size_t k = 0; k < m; k++) {
        for (size_t i = 0; i < d && k != skip; i++) {
            for (size_t j = 0; j < d; j++) {
                s[i * d + j] += ((double)samples[k * d + i] - mean[i]) * ((double)samples[k * d + j] - mean[j]) / (n - 1);
            }
        }
    }
}

/* log N(z; mean, (1 - rho) s + max(rho tr(s) / d, floor) I), by Cholesky. */
static inline double dense_log_density(const double *mean, const double *s, size_t d, double rho, double floor, const float *z) {
    double *l = calloc(d * d, sizeof *l), *white = malloc(d * sizeof *white), trace = 0;
    for (size_t i = 0; i < d; i++) {
        trace += s[i * d + i];
    }
    const double lambda = fmax(rho * trace / (double)d, floor);
    double log_det = 0, form = 0;
    for (size_t i = 0; i < d; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = (1 - rho) * s[i * d + j] + (i == j) * lambda;
            for (size_t k = 0; k < j; k++) {
                sum -= l[i * d + k] * l[j * d + k];
            }
            l[i * d + j] = i == j ? sqrt(sum) : sum / l[j * d + j];
        }
        white[i] = (double)z[i] - mean[i];
        for (size_t k = 0; k < i; k++) {
            white[i] -= l[i * d + k] * white[k];
        }
        white[i] /= l[i * d + i];
        log_det += 2 * log(l[i * d + i]);
        form += white[i] * white[i];
    }
    free(l);
    free(white);
    return -0.5 * ((double)d * log(2 * 3.14159265358979323846) + log_det + form);
}

/* The documented bound on a log density's error. */
static inline double density_tolerance(double value, size_t d) {
    return 1e-5 * fmax(fabs(value), (double)d);
}

#endif
