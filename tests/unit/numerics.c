/* The compiler's numerics behind a pipe, for the oracle tests in Python (tests/interop/test_numerics*.py).
 *
 * A message, either way: the counts of its float64 and float32 numbers as two uint64, then the numbers, native byte order.
 * The first float64 numbers of a request are its operation and arguments. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/decompose/decompose.h"
#include "compiler/linalg.h"
#include "compiler/stats/calibration.h"
#include "compiler/stats/gaussian.h"
#include "compiler/stats/quantiles.h"
#include "compiler/stats/rivals.h"

enum { POOLS = 32 };

enum operation { QR, SVD, QUANTILE, FIT, DERIVE, POOL, ADAPTER, DENSITY, GAUGE, TRUNCATE, IMPORTANCE, SQUEEZED, RIVALS };

typedef struct message {
    uint64_t doubles, floats;
    double *d;
    float *f;
} message;

static void *allocate(size_t bytes) {
    void *block = malloc(bytes + 1);
    if (!block) {
        abort();
    }
    return block;
}

static message reply_of(size_t doubles, size_t floats) {
    return (message){.doubles = doubles,
                     .floats = floats,
                     .d = allocate(doubles * sizeof(double)),
                     .f = allocate(floats * sizeof(float))};
}

static bool receive(message *request) {
    uint64_t counts[2];
    if (fread(counts, sizeof *counts, 2, stdin) != 2) {
        return false;
    }
    *request = reply_of(counts[0], counts[1]);
    return fread(request->d, sizeof(double), request->doubles, stdin) == request->doubles &&
           fread(request->f, sizeof(float), request->floats, stdin) == request->floats;
}

static void answer(const message *reply) {
    const uint64_t counts[2] = {reply->doubles, reply->floats};
    fwrite(counts, sizeof *counts, 2, stdout);
    fwrite(reply->d, sizeof(double), reply->doubles, stdout);
    fwrite(reply->f, sizeof(float), reply->floats, stdout);
    fflush(stdout);
}

static void release(message *used) {
    free(used->d);
    free(used->f);
}

/* argument[0] is the operation. */
static size_t size_argument(const message *request, size_t i) {
    return (size_t)request->d[1 + i];
}

static message qr(const message *request) {
    const size_t m = size_argument(request, 0), n = size_argument(request, 1);
    message reply = reply_of((m < n ? m : n) * n, 0);
    if (!hlc_qr_r(m, n, request->d + 3, reply.d)) {
        reply.doubles = 0;
    }
    return reply;
}

static message svd(const message *request) {
    const size_t m = size_argument(request, 0), n = size_argument(request, 1), k = m < n ? m : n;
    message reply = reply_of(m * k + k + k * n, 0);
    if (!hlc_svd(m, n, request->d + 3, reply.d, reply.d + m * k, reply.d + m * k + k)) {
        reply.doubles = 0;
    }
    return reply;
}

static message quantile(const message *request) {
    message reply = reply_of(1, 0);
    reply.d[0] = hlc_quantile(request->d + 2, request->doubles - 2, request->d[1]);
    return reply;
}

/* pool, d, shrinkage, number, whiten, threads, m of each adapter; the samples. Answers whether it worked. */
static message fit(const message *request, hlc_pool_stats *pool) {
    const size_t d = size_argument(request, 1), count = request->doubles - 7;
    const hlc_stats_options options = {.shrinkage = (hlc_shrinkage)size_argument(request, 2),
                                       .number = request->d[4],
                                       .whiten = request->d[5] != 0,
                                       .threads = size_argument(request, 5)};
    size_t *m = allocate(count * sizeof *m);
    const float **rows = allocate(count * sizeof *rows), *next = request->f;
    for (size_t i = 0; i < count; i++) {
        m[i] = size_argument(request, 6 + i);
        rows[i] = m[i] > 0 ? next : NULL;
        next += m[i] * d;
    }
    message reply = reply_of(1, 0);
    hlc_pool_stats_free(pool);
    reply.d[0] = hlc_pool_stats_fit(rows, m, count, d, &options, pool);
    free(m);
    free(rows);
    return reply;
}

static void *copy(const void *from, size_t bytes) {
    void *to = allocate(bytes);
    memcpy(to, from, bytes);
    return to;
}

/* Only what a pool stores; the rest is poisoned. */
static hlc_scatter stored_part(const hlc_scatter *from) {
    if (from->m == 0) {
        return (hlc_scatter){0};
    }
    return (hlc_scatter){.m = from->m,
                         .d = from->d,
                         .q = from->q,
                         .mean = copy(from->mean, from->d * sizeof *from->mean),
                         .basis = copy(from->basis, from->q * from->d * sizeof *from->basis),
                         .w = copy(from->w, from->m * from->q * sizeof *from->w),
                         .sv = copy(from->sv, from->q * sizeof *from->sv),
                         .tau = from->tau,
                         .oas = NAN,
                         .ledoit_wolf = NAN};
}

/* pool, shrinkage, number, threads: the pool becomes the one derived from what it stores. */
static message derive(const message *request, hlc_pool_stats *pool) {
    hlc_pool_stats derived;
    hlc_scatter *scatters = allocate(pool->count * sizeof *scatters);
    for (size_t i = 0; i < pool->count; i++) {
        scatters[i] = stored_part(&pool->scatter[i]);
    }
    const hlc_stats_options options = {.shrinkage = (hlc_shrinkage)size_argument(request, 1),
                                       .number = request->d[3],
                                       .threads = size_argument(request, 3),
                                       .whitening = pool->whiten,
                                       .whitening_log_det = pool->whiten_log_det};
    message reply = reply_of(1, 0);
    reply.d[0] = hlc_pool_stats_derive(scatters, pool->count, pool->d, &options, &derived);
    free(scatters);
    hlc_pool_stats_free(pool);
    *pool = derived;
    return reply;
}

/* rho, floor, temperature, calibrated, miss_first, miss_third, miss_samples, log|det C|, the quantiles, C^-1 where there is one. */
static message describe_pool(const hlc_pool_stats *pool) {
    const double numbers[] = {pool->rho,        pool->floor,      pool->temperature,          (double)pool->calibrated,
                              pool->miss_first, pool->miss_third, (double)pool->miss_samples, pool->whiten_log_det};
    enum { NUMBERS = sizeof numbers / sizeof *numbers };
    const size_t entries = pool->whitened ? pool->d * pool->d : 0;
    message reply = reply_of(NUMBERS + HLC_QUANTILES + entries, 0);
    memcpy(reply.d, numbers, sizeof numbers);
    memcpy(reply.d + NUMBERS, pool->quantiles, sizeof pool->quantiles);
    if (entries > 0) {
        memcpy(reply.d + NUMBERS + HLC_QUANTILES, pool->whiten, entries * sizeof(double));
    }
    return reply;
}

/* pool, adapter: m, q, tau, oas, ledoit_wolf, rho, lambda, log_norm, calibrated, deviation, the quantiles, sv, w, the values; mean, basis. */
static message describe_adapter(const message *request, const hlc_pool_stats *pool) {
    const size_t i = size_argument(request, 1);
    const hlc_scatter *scatter = &pool->scatter[i];
    const hlc_gaussian *gaussian = &pool->gaussian[i];
    const hlc_calibration *calibration = &pool->calibration[i];
    const double numbers[] = {(double)scatter->m, (double)scatter->q,  scatter->tau,
                              scatter->oas,       scatter->ledoit_wolf, gaussian->rho,
                              gaussian->lambda,   gaussian->log_norm,   (double)calibration->calibrated,
                              calibration->deviation};
    enum { NUMBERS = sizeof numbers / sizeof *numbers };
    const size_t m = scatter->m, q = scatter->q, d = m > 0 ? scatter->d : 0, values = calibration->calibrated ? m : 0;
    message reply = reply_of(NUMBERS + HLC_QUANTILES + q + m * q + values, d + q * d);
    double *next = reply.d;
    memcpy(next, numbers, sizeof numbers);
    memcpy(next += NUMBERS, calibration->quantiles, sizeof calibration->quantiles);
    next += HLC_QUANTILES;
    for (size_t j = 0; j < q; j++) {
        *next++ = scatter->sv[j];
    }
    for (size_t at = 0; at < m * q; at++) {
        *next++ = scatter->w[at];
    }
    for (size_t k = 0; k < values; k++) {
        *next++ = calibration->values[k];
    }
    for (size_t at = 0; at < d + q * d; at++) {
        reply.f[at] = at < d ? scatter->mean[at] : scatter->basis[at - d];
    }
    return reply;
}

/* pool, adapter; queries. */
static message density(const message *request, const hlc_pool_stats *pool) {
    const size_t i = size_argument(request, 1), n = request->floats / pool->d;
    message reply = reply_of(n, 0);
    for (size_t k = 0; k < n; k++) {
        reply.d[k] = hlc_log_density(&pool->scatter[i], &pool->gaussian[i], request->f + k * pool->d);
    }
    return reply;
}

/* rank, d_in, d_out, scale, A, B^T; answers status, sv; G_A, G_B. */
static message gauge(const message *request) {
    const size_t rank = size_argument(request, 0), d_in = size_argument(request, 1), d_out = size_argument(request, 2);
    const double *a = request->d + 5;
    message reply = reply_of(1 + rank, 2 * rank * rank);
    reply.d[0] = hlc_gauge(a, a + rank * d_in, rank, d_in, d_out, request->d[4], reply.f, reply.f + rank * rank, reply.d + 1);
    return reply;
}

/* rank, d_in, d_out, scale, keep, A, B^T; answers status, sv, A', B'^T. */
static message truncate_factors(const message *request) {
    const size_t rank = size_argument(request, 0), d_in = size_argument(request, 1), d_out = size_argument(request, 2);
    const size_t keep = size_argument(request, 4);
    const double *a = request->d + 6;
    message reply = reply_of(1 + rank + keep * (d_in + d_out), 0);
    double *sv = reply.d + 1, *a_out = sv + rank, *bt_out = a_out + keep * d_in;
    reply.d[0] = hlc_truncate(a, a + rank * d_in, rank, d_in, d_out, request->d[4], keep, a_out, bt_out, sv);
    return reply;
}

static message importance(const message *request) {
    const size_t rank = size_argument(request, 0), d_in = size_argument(request, 1), d_out = size_argument(request, 2);
    const double *a = request->d + 5;
    message reply = reply_of(rank, 0);
    hlc_raw_importance(a, a + rank * d_in, rank, d_in, d_out, request->d[4], reply.d);
    return reply;
}

/* energy, max_rank, sv */
static message squeezed(const message *request) {
    message reply = reply_of(1, 0);
    reply.d[0] = (double)hlc_squeezed_rank(request->d + 3, request->doubles - 3, request->d[1], size_argument(request, 1));
    return reply;
}

/* pool, kept, most, threads; answers the sums, the distances and the rivals' indices (-1: none). */
static message rivals(const message *request, const hlc_pool_stats *pool) {
    hlc_rivals found;
    if (!hlc_rivals_find(pool, size_argument(request, 1), size_argument(request, 2), size_argument(request, 3), &found)) {
        return reply_of(0, 0);
    }
    const size_t entries = found.count * found.kept;
    message reply = reply_of(found.count + 2 * entries, 0);
    memcpy(reply.d, found.sum, found.count * sizeof *found.sum);
    memcpy(reply.d + found.count, found.distance, entries * sizeof *found.distance);
    for (size_t at = 0; at < entries; at++) {
        reply.d[found.count + entries + at] = found.nearest[at] == HLC_NO_RIVAL ? -1 : (double)found.nearest[at];
    }
    hlc_rivals_free(&found);
    return reply;
}

static hlc_pool_stats *pool_argument(const message *request, hlc_pool_stats *pools) {
    const size_t i = size_argument(request, 0);
    if (i >= POOLS) {
        abort();
    }
    return &pools[i];
}

static message serve(const message *request, hlc_pool_stats *pools) {
    switch ((enum operation)request->d[0]) {
    case QR:
        return qr(request);
    case SVD:
        return svd(request);
    case QUANTILE:
        return quantile(request);
    case FIT:
        return fit(request, pool_argument(request, pools));
    case DERIVE:
        return derive(request, pool_argument(request, pools));
    case POOL:
        return describe_pool(pool_argument(request, pools));
    case ADAPTER:
        return describe_adapter(request, pool_argument(request, pools));
    case DENSITY:
        return density(request, pool_argument(request, pools));
    case GAUGE:
        return gauge(request);
    case TRUNCATE:
        return truncate_factors(request);
    case IMPORTANCE:
        return importance(request);
    case SQUEEZED:
        return squeezed(request);
    case RIVALS:
        return rivals(request, pool_argument(request, pools));
    }
    abort();
}

int main(void) {
    static hlc_pool_stats pools[POOLS];
    message request;
    hlc_linalg_setup();
    while (receive(&request)) {
        message reply = serve(&request, pools);
        answer(&reply);
        release(&request);
        release(&reply);
    }
    for (size_t i = 0; i < POOLS; i++) {
        hlc_pool_stats_free(&pools[i]);
    }
    return 0;
}
