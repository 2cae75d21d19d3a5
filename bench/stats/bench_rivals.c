/* bench_rivals [DIM [ADAPTERS [SAMPLES]]]: the statistics of a made-up pool, seconds of CPU time and of the clock.
 *
 *   fit      scatters, shrinkage, calibration, miss rates: one thread, and as many as there are cores
 *   rivals   all Bhattacharyya distances in compact form, their sums and the nearest eight: likewise
 *   dense    the same distance from d x d covariances (three Cholesky factors): some pairs, scaled up to all */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "compiler/base/workers.h"
#include "compiler/linalg.h"
#include "compiler/stats/density.h"
#include "compiler/stats/rivals.h"

enum { DENSE_PAIRS = 8, KEPT = 8 };

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void require(bool good) {
    if (!good) {
        fputs("bench_rivals: out of memory, or LAPACK failed\n", stderr);
        exit(1);
    }
}

/* Samples of forty tasks: means near one another, scatter of the same size. */
static float *make_samples(size_t count, size_t m, size_t d) {
    float *samples = malloc(count * m * d * sizeof *samples);
    require(samples != NULL);
    uint64_t state = 1;
    for (size_t i = 0; i < count * m * d; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const size_t task = i / (m * d) % 40, column = i % d;
        samples[i] = (float)((double)(state >> 40) / (1 << 24) - 0.5 + 0.3 * sin((double)(task * d + column)));
    }
    return samples;
}

static void time_fit(const float *const *samples, const size_t *m, size_t count, size_t d, size_t threads,
                     hlc_pool_stats *stats) {
    const hlc_stats_options options = {.threads = threads};
    const double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    require(hlc_pool_stats_fit(samples, m, count, d, &options, stats));
    printf("fit      %2zu threads  %8.2f s CPU  %8.2f s\n", threads, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu,
           seconds(CLOCK_MONOTONIC) - wall);
}

static void time_rivals(const hlc_pool_stats *stats, size_t threads, hlc_rivals *rivals) {
    const double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    require(hlc_rivals_find(stats, KEPT, HLC_CERTIFIED_ADAPTERS, threads, rivals));
    printf("rivals   %2zu threads  %8.2f s CPU  %8.2f s\n", threads, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu,
           seconds(CLOCK_MONOTONIC) - wall);
}

/* Adds half of an adapter's covariance; d x d, column-major. */
static void add_half(const hlc_pool_stats *stats, size_t i, double *rows, double *covariance) {
    const hlc_scatter *scatter = &stats->scatter[i];
    const size_t d = stats->d;
    for (size_t j = 0; j < scatter->q; j++) {
        const double root = sqrt(hlc_excess(scatter, &stats->gaussian[i], j) / 2);
        for (size_t c = 0; c < d; c++) {
            rows[j * d + c] = root * (double)scatter->basis[j * d + c];
        }
    }
    require(hlc_gemm(false, true, d, d, scatter->q, 1, rows, d, rows, d, 1, covariance, d));
    for (size_t c = 0; c < d; c++) {
        covariance[c * (d + 1)] += stats->gaussian[i].lambda / 2;
    }
}

static double log_det(size_t d, double *covariance) {
    double sum = 0;
    require(hlc_cholesky(d, covariance));
    for (size_t c = 0; c < d; c++) {
        sum += 2 * log(covariance[c * (d + 1)]);
    }
    return sum;
}

static double dense_distance(const hlc_pool_stats *stats, size_t i, size_t j, double *rows, double *covariance,
                             double *x) {
    const size_t d = stats->d, pairs[3][2] = {{i, i}, {j, j}, {i, j}};
    double logs[3], form = 0;
    for (size_t k = 0; k < 3; k++) {
        for (size_t at = 0; at < d * d; at++) {
            covariance[at] = 0;
        }
        add_half(stats, pairs[k][0], rows, covariance);
        add_half(stats, pairs[k][1], rows, covariance);
        logs[k] = log_det(d, covariance);
    }
    for (size_t c = 0; c < d; c++) { /* the upper factor of the mean covariance is still there */
        x[c] = (double)stats->scatter[i].mean[c] - (double)stats->scatter[j].mean[c];
        for (size_t r = 0; r < c; r++) {
            x[c] -= covariance[c * d + r] * x[r];
        }
        x[c] /= covariance[c * (d + 1)];
        form += x[c] * x[c];
    }
    return form / 8 + 0.5 * (logs[2] - 0.5 * (logs[0] + logs[1]));
}

static void time_dense(const hlc_pool_stats *stats, const hlc_rivals *rivals) {
    const size_t d = stats->d, count = stats->count;
    double *rows = malloc(stats->d * d * sizeof *rows), *covariance = malloc(d * d * sizeof *covariance);
    double *x = malloc(d * sizeof *x), off = 0;
    require(rows && covariance && x);
    const double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t i = 0; i < DENSE_PAIRS; i++) {
        const double dense = dense_distance(stats, i, rivals->nearest[i * rivals->kept], rows, covariance, x);
        off = fmax(off, fabs(dense - rivals->distance[i * rivals->kept]));
    }
    const double pair = (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / DENSE_PAIRS;
    printf("dense    %.1f ms a pair of CPU time: %.0f s for all; distances differ by %.1e nats at most\n", 1e3 * pair,
           pair * 0.5 * (double)count * (double)(count - 1), off);
    free(rows);
    free(covariance);
    free(x);
}

int main(int argc, char **argv) {
    const size_t d = argc > 1 ? strtoul(argv[1], NULL, 10) : 384, count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
    const size_t m = argc > 3 ? strtoul(argv[3], NULL, 10) : 20, cores = hlc_default_threads();
    if (d < 2 || m < 3 || count <= DENSE_PAIRS) {
        fprintf(stderr, "bench_rivals: at least 2 dimensions, 3 samples and %d adapters\n", DENSE_PAIRS + 1);
        return 2;
    }
    hlc_linalg_setup();
    float *values = make_samples(count, m, d);
    const float **samples = malloc(count * sizeof *samples);
    size_t *counts = malloc(count * sizeof *counts);
    require(samples && counts);
    for (size_t i = 0; i < count; i++) {
        samples[i] = values + i * m * d;
        counts[i] = m;
    }
    printf("%zu adapters, d = %zu, %zu samples each\n", count, d, m);
    hlc_pool_stats stats;
    hlc_rivals rivals;
    time_fit(samples, counts, count, d, cores, &stats);
    hlc_pool_stats_free(&stats);
    time_fit(samples, counts, count, d, 1, &stats);
    time_rivals(&stats, cores, &rivals);
    hlc_rivals_free(&rivals);
    time_rivals(&stats, 1, &rivals);
    time_dense(&stats, &rivals);
    hlc_rivals_free(&rivals);
    hlc_pool_stats_free(&stats);
    free(samples);
    free(counts);
    free(values);
    return 0;
}
