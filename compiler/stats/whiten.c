#include "compiler/stats/whiten.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/linalg.h"
#include "compiler/stats/tasks.h"
#include "compiler/stats/scatter.h"

/* Centred samples are added to the covariance in batches of about this many rows, and columns in strips: fixed sizes, so that
 * the sums do not depend on the threads. */
enum { BATCH_ROWS = 2048, STRIP = 128 };

typedef struct centred_batch {
    const double *rows; /* n rows of d */
    size_t n, d;
    double *covariance; /* d x d, the upper triangle column-major */
} centred_batch;

static bool add_strip(void *context, size_t worker, size_t index) {
    const centred_batch *batch = context;
    const size_t d = batch->d, first = index * STRIP;
    const size_t width = d - first < STRIP ? d - first : STRIP;
    (void)worker;
    return hlc_gemm(false, true, first + width, width, batch->n, 1, batch->rows, d, batch->rows + first, d, 1,
                    batch->covariance + first * d, d);
}

/* Adds the scatter of all adapters; *degrees = sum (m_i - 1). */
static bool pool_scatter(const float *const *samples, const size_t *m, size_t count, size_t d, size_t threads,
                         double *covariance, double *degrees) {
    size_t most = 0;
    for (size_t i = 0; i < count; i++) {
        most = m[i] > most ? m[i] : most;
    }
    const size_t capacity = most + BATCH_ROWS;
    double *rows = malloc(capacity * d * sizeof *rows);
    double *mean = malloc(d * sizeof *mean);
    bool ok = rows && mean;
    size_t filled = 0;
    *degrees = 0;
    for (size_t i = 0; i < count && ok; i++) {
        if (m[i] > 0) {
            ok = hlc_center(samples[i], m[i], d, mean, rows + filled * d);
            filled += m[i];
            *degrees += (double)(m[i] - 1);
        }
        if (ok && (filled >= BATCH_ROWS || i + 1 == count)) {
            centred_batch full = {.rows = rows, .n = filled, .d = d, .covariance = covariance};
            ok = hlc_tasks(threads, (d + STRIP - 1) / STRIP, add_strip, &full);
            filled = 0;
        }
    }
    free(rows);
    free(mean);
    return ok;
}

/* covariance: the pooled scatter in, its shrunk covariance out (upper triangle). False when there is no scatter. */
static bool shrink(double *covariance, size_t d, double degrees) {
    double trace = 0, squares = 0;
    for (size_t column = 0; column < d; column++) {
        for (size_t row = 0; row <= column; row++) {
            const double entry = covariance[column * d + row] / degrees;
            covariance[column * d + row] = entry;
            squares += row < column ? 2 * entry * entry : entry * entry;
        }
        trace += covariance[column * d + column];
    }
    if (!(trace > 0)) {
        return false;
    }
    const double mean_variance = trace / (double)d;
    const double rho = hlc_oas(squares / ((double)d * (double)d), mean_variance, degrees, d);
    for (size_t column = 0; column < d; column++) {
        for (size_t row = 0; row <= column; row++) {
            covariance[column * d + row] *= 1 - rho;
        }
        covariance[column * d + column] += rho * mean_variance;
    }
    return true;
}

bool hlc_whiten_fit(const float *const *samples, const size_t *m, size_t count, size_t d, size_t threads, double *inverse,
                    double *log_det) {
    double degrees = 0;
    memset(inverse, 0, d * d * sizeof *inverse);
    if (!pool_scatter(samples, m, count, d, threads, inverse, &degrees)) {
        return false;
    }
    *log_det = 0;
    if (!(degrees > 0) || !shrink(inverse, d, degrees)) {
        memset(inverse, 0, d * d * sizeof *inverse);
        for (size_t i = 0; i < d; i++) {
            inverse[i * d + i] = 1;
        }
        return true;
    }
    if (!hlc_cholesky(d, inverse)) {
        return false;
    }
    for (size_t i = 0; i < d; i++) {
        *log_det += log(inverse[i * d + i]);
    }
    return hlc_invert_upper(d, inverse);
}

bool hlc_whiten_apply(const double *inverse, size_t d, const float *rows, size_t m, float *out) {
    double *in = malloc(m * d * sizeof *in);
    double *mapped = malloc(m * d * sizeof *mapped);
    bool ok = in && mapped;
    for (size_t i = 0; ok && i < m * d; i++) {
        in[i] = (double)rows[i];
    }
    /* Column-major, the row-major lower inverse is its transpose. */
    ok = ok && hlc_gemm(true, false, d, m, d, 1, inverse, d, in, d, 0, mapped, d);
    for (size_t i = 0; ok && i < m * d; i++) {
        ok = fabs(mapped[i]) <= FLT_MAX;
        out[i] = ok ? (float)mapped[i] : 0;
    }
    free(in);
    free(mapped);
    return ok;
}
