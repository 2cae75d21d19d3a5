/* The statistics of a pool: a scatter per adapter, then all that follows from the scatters. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/stats/calibration.h"
#include "compiler/stats/density.h"
#include "compiler/stats/misses.h"
#include "compiler/stats/quantiles.h"
#include "compiler/stats/tasks.h"
#include "compiler/stats/scatter.h"
#include "compiler/stats/whiten.h"

/* In the pool-wide quantiles no adapter counts for more than this many values. */
enum { POOLED_VALUES = 64 };

static const double relative_floor = 1e-6, absolute_floor = 1e-12;
static const double least_temperature = 1e-3, temperature_share = 0.25, default_temperature = 0.05;

static bool has_scatter(const hlc_scatter *scatter) {
    return scatter->m > 0 && scatter->tau > 0;
}

/* buffer: count doubles. */
static double least_lambda(const hlc_pool_stats *stats, double *buffer) {
    size_t n = 0;
    for (size_t i = 0; i < stats->count; i++) {
        if (has_scatter(&stats->scatter[i])) {
            buffer[n++] = stats->scatter[i].tau;
        }
    }
    return n > 0 ? relative_floor * hlc_median(buffer, n) : absolute_floor;
}

static double median_oas(const hlc_pool_stats *stats, double *buffer) {
    size_t n = 0;
    for (size_t i = 0; i < stats->count; i++) {
        if (has_scatter(&stats->scatter[i]) && stats->scatter[i].m > 2) {
            buffer[n++] = stats->scatter[i].oas;
        }
    }
    return n > 0 ? hlc_median(buffer, n) : 1;
}

static double pool_rho(const hlc_pool_stats *stats, double number, double *buffer) {
    switch (stats->shrinkage) {
    case HLC_SHRINKAGE_POOL:
        return median_oas(stats, buffer);
    case HLC_SHRINKAGE_NUMBER:
        return number;
    default:
        return NAN;
    }
}

static double adapter_rho(const hlc_pool_stats *stats, size_t i) {
    switch (stats->shrinkage) {
    case HLC_SHRINKAGE_OAS:
        return stats->scatter[i].oas;
    case HLC_SHRINKAGE_LEDOIT_WOLF:
        return stats->scatter[i].ledoit_wolf;
    default:
        return stats->rho;
    }
}

static bool calibrate_adapter(void *context, size_t worker, size_t i) {
    const hlc_pool_stats *stats = context;
    (void)worker;
    stats->gaussian[i] = (hlc_gaussian){.rho = NAN, .lambda = NAN, .log_norm = NAN};
    if (stats->scatter[i].m > 0) {
        stats->gaussian[i] =
            hlc_gaussian_of(&stats->scatter[i], adapter_rho(stats, i), stats->floor, stats->whiten_log_det);
    }
    return hlc_calibrate(&stats->scatter[i], &stats->gaussian[i], stats->floor, stats->whiten_log_det,
                         &stats->calibration[i]);
}

/* The values of one adapter that enter the pool-wide quantiles: all, or POOLED_VALUES of its quantiles. Returns how many. */
static size_t pooled_values(const hlc_calibration *calibration, size_t m, double *sorted, double *out) {
    memcpy(sorted, calibration->values, m * sizeof *sorted);
    if (m <= POOLED_VALUES) {
        memcpy(out, sorted, m * sizeof *out);
        return m;
    }
    hlc_sort(sorted, m);
    for (size_t j = 0; j < POOLED_VALUES; j++) {
        out[j] = hlc_quantile(sorted, m, ((double)j + 0.5) / POOLED_VALUES);
    }
    return POOLED_VALUES;
}

static bool pool_quantiles(hlc_pool_stats *stats) {
    size_t most = 0;
    for (size_t i = 0; i < stats->count; i++) {
        most = stats->scatter[i].m > most ? stats->scatter[i].m : most;
    }
    double *sorted = malloc((most + 1) * sizeof *sorted);
    double *values = malloc((stats->calibrated * POOLED_VALUES + 1) * sizeof *values);
    const bool ok = sorted && values;
    size_t n = 0;
    for (size_t i = 0; ok && i < stats->count; i++) {
        if (stats->calibration[i].calibrated) {
            n += pooled_values(&stats->calibration[i], stats->scatter[i].m, sorted, values + n);
        }
    }
    if (n > 0) {
        hlc_sort(values, n);
    }
    for (size_t i = 0; ok && i < HLC_QUANTILES; i++) {
        stats->quantiles[i] = n > 0 ? hlc_quantile(values, n, hlc_quantile_levels[i]) : NAN;
    }
    free(sorted);
    free(values);
    return ok;
}

static double temperature(const hlc_pool_stats *stats, double *buffer) {
    size_t n = 0;
    for (size_t i = 0; i < stats->count; i++) {
        if (stats->calibration[i].calibrated) {
            buffer[n++] = stats->calibration[i].deviation;
        }
    }
    const double d = (double)stats->d;
    return n > 0 ? fmax(least_temperature * d, temperature_share * hlc_median(buffer, n)) : default_temperature * d;
}

/* Everything that follows from stats->scatter, in stats that hold nothing else yet but the whitening. */
static bool derive(hlc_pool_stats *stats, const hlc_stats_options *options) {
    const size_t count = stats->count;
    stats->shrinkage = options->shrinkage;
    stats->gaussian = calloc(count + 1, sizeof *stats->gaussian);
    stats->calibration = calloc(count + 1, sizeof *stats->calibration);
    double *buffer = malloc((count + 1) * sizeof *buffer);
    bool ok = stats->gaussian && stats->calibration && buffer;
    if (ok) {
        stats->rho = pool_rho(stats, options->number, buffer);
        stats->floor = least_lambda(stats, buffer);
        ok = hlc_tasks(options->threads, count, calibrate_adapter, stats);
    }
    for (size_t i = 0; ok && i < count; i++) {
        stats->calibrated += stats->calibration[i].calibrated;
    }
    if (ok) {
        stats->temperature = temperature(stats, buffer);
        ok = pool_quantiles(stats) && hlc_miss_rates(stats, options->threads);
    }
    free(buffer);
    return ok;
}

typedef struct fit_job {
    const float *const *samples;
    const size_t *m;
    hlc_pool_stats *stats;
} fit_job;

static bool fit_adapter(void *context, size_t worker, size_t i) {
    const fit_job *job = context;
    hlc_pool_stats *stats = job->stats;
    const size_t m = job->m[i], d = stats->d;
    (void)worker;
    if (m == 0) {
        return true;
    }
    if (!stats->whitened) {
        return hlc_scatter_fit(job->samples[i], m, d, &stats->scatter[i]);
    }
    float *mapped = malloc(m * d * sizeof *mapped);
    const bool ok = mapped && hlc_whiten_apply(stats->whiten, d, job->samples[i], m, mapped) &&
                    hlc_scatter_fit(mapped, m, d, &stats->scatter[i]);
    free(mapped);
    return ok;
}

static bool fit_whitening(hlc_pool_stats *stats, const fit_job *job, size_t threads) {
    const size_t d = stats->d;
    if (d > SIZE_MAX / sizeof *stats->whiten / d) {
        return false;
    }
    stats->whitened = true;
    stats->whiten = malloc(d * d * sizeof *stats->whiten);
    return stats->whiten && hlc_whiten_fit(job->samples, job->m, stats->count, d, threads, stats->whiten, &stats->whiten_log_det);
}

bool hlc_pool_stats_fit(const float *const *samples, const size_t *m, size_t count, size_t d, const hlc_stats_options *options,
                        hlc_pool_stats *out) {
    *out = (hlc_pool_stats){.count = count, .d = d, .scatter = calloc(count + 1, sizeof *out->scatter)};
    fit_job job = {.samples = samples, .m = m, .stats = out};
    const bool ok = out->scatter && d > 0 && (!options->whiten || fit_whitening(out, &job, options->threads)) &&
                    hlc_tasks(options->threads, count, fit_adapter, &job) && derive(out, options);
    if (!ok) {
        hlc_pool_stats_free(out);
    }
    return ok;
}

static bool keep_whitening(hlc_pool_stats *stats, const hlc_stats_options *options) {
    const size_t d = stats->d;
    if (!options->whitening) {
        return true;
    }
    if (d > SIZE_MAX / sizeof *stats->whiten / d) {
        return false;
    }
    stats->whiten = malloc(d * d * sizeof *stats->whiten);
    if (!stats->whiten) {
        return false;
    }
    memcpy(stats->whiten, options->whitening, d * d * sizeof *stats->whiten);
    stats->whitened = true;
    stats->whiten_log_det = options->whitening_log_det;
    return true;
}

static void take_over(hlc_scatter *scatters, hlc_pool_stats *stats) {
    for (size_t i = 0; i < stats->count; i++) {
        if (!stats->scatter) {
            hlc_scatter_free(&scatters[i]);
            continue;
        }
        stats->scatter[i] = scatters[i];
        scatters[i] = (hlc_scatter){0};
        if (stats->scatter[i].m > 0) {
            hlc_scatter_coefficients(&stats->scatter[i]);
        }
    }
}

bool hlc_pool_stats_derive(hlc_scatter *scatters, size_t count, size_t d, const hlc_stats_options *options, hlc_pool_stats *out) {
    *out = (hlc_pool_stats){.count = count, .d = d, .scatter = calloc(count + 1, sizeof *out->scatter)};
    take_over(scatters, out);
    const bool ok = out->scatter && d > 0 && keep_whitening(out, options) && derive(out, options);
    if (!ok) {
        hlc_pool_stats_free(out);
    }
    return ok;
}

void hlc_pool_stats_free(hlc_pool_stats *stats) {
    for (size_t i = 0; i < stats->count; i++) {
        if (stats->scatter) {
            hlc_scatter_free(&stats->scatter[i]);
        }
        if (stats->calibration) {
            free(stats->calibration[i].values);
        }
    }
    free(stats->scatter);
    free(stats->gaussian);
    free(stats->calibration);
    free(stats->whiten);
    *stats = (hlc_pool_stats){0};
}
