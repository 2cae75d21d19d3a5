/* The scatter of one adapter's samples: mean, principal directions, coordinates, and the shrinkage that follows from them. */
#include "compiler/stats/scatter.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/linalg.h"
#include "compiler/stats/lanes.h"

bool hlc_center(const float *samples, size_t m, size_t d, double *mean, double *centred) {
    memset(mean, 0, d * sizeof *mean);
    for (size_t k = 0; k < m; k++) {
        for (size_t i = 0; i < d; i++) {
            mean[i] += (double)samples[k * d + i];
        }
    }
    for (size_t i = 0; i < d; i++) {
        mean[i] /= (double)m;
    }
    for (size_t k = 0; k < m; k++) {
        for (size_t i = 0; i < d; i++) {
            centred[k * d + i] = (double)samples[k * d + i] - mean[i];
        }
    }

    /* A second pass takes out the rounding of the mean: it would add a direction to samples that lie far from the origin. */
    double *rest = calloc(d, sizeof *rest);
    if (!rest) {
        return false;
    }
    for (size_t k = 0; k < m; k++) {
        for (size_t i = 0; i < d; i++) {
            rest[i] += centred[k * d + i];
        }
    }
    for (size_t i = 0; i < d; i++) {
        rest[i] /= (double)m;
    }
    for (size_t k = 0; k < m; k++) {
        for (size_t i = 0; i < d; i++) {
            centred[k * d + i] -= rest[i];
        }
    }
    free(rest);
    return true;
}

static size_t kept_directions(const double *s, size_t m, size_t d) {
    const size_t most = m - 1 < d ? m - 1 : d;
    const double threshold = (double)(m > d ? m : d) * DBL_EPSILON * s[0];
    size_t q = 0;
    while (q < most && s[q] > threshold) {
        q++;
    }
    return q;
}

static bool largest_entry_is_negative(const double *row, size_t d) {
    size_t largest = 0;
    for (size_t i = 1; i < d; i++) {
        if (fabs(row[i]) > fabs(row[largest])) {
            largest = i;
        }
    }
    return row[largest] < 0;
}

static float other_neighbour(double exact, float nearest) {
    if ((double)nearest == exact) {
        return nearest;
    }
    return nextafterf(nearest, (double)nearest < exact ? INFINITY : -INFINITY);
}

/* How the products of row j with rows 0 .. j change when its entry i goes from one value to another. */
static void product_changes(const float *basis, size_t j, size_t d, size_t i, float from, float to, double *change) {
    const double step = (double)to - (double)from;
    for (size_t k = 0; k < j; k++) {
        change[k] = step * (double)basis[k * d + i];
    }
    change[j] = step * ((double)to + (double)from);
}

/* Moves entries of basis row j (u, rounded) to their other float32 neighbour where that keeps rows 0 .. j nearer to orthonormal.
 * The part of a sample beyond the basis, |z - mu|^2 - |p|^2, would otherwise be off by 1e-8 |z - mu|^2 and more, which
 * a small lambda magnifies. weight: of rows 0 .. j; scratch: 2 (j + 1). */
static void orthonormalise_row(const double *u, double sign, const double *weight, size_t j, size_t d, float *basis,
                               double *scratch) {
    float *row = basis + j * d;
    double *error = scratch, *change = scratch + j + 1;
    for (size_t k = 0; k <= j; k++) {
        error[k] = hlc_dot_rows(basis + k * d, row, d);
    }
    error[j] -= 1;
    for (size_t i = 0; i < d; i++) {
        const float other = other_neighbour(sign * u[i], row[i]);
        double gain = 0;
        product_changes(basis, j, d, i, row[i], other, change);
        for (size_t k = 0; k <= j; k++) {
            gain -= weight[k] * weight[k] * change[k] * (2 * error[k] + change[k]);
        }
        if (gain > 0) {
            row[i] = other;
            for (size_t k = 0; k <= j; k++) {
                error[k] += change[k];
            }
        }
    }
}

static bool allocate_factors(hlc_scatter *out) {
    out->basis = malloc((out->q * out->d + 1) * sizeof *out->basis);
    out->w = malloc((out->m * out->q + 1) * sizeof *out->w);
    out->sv = malloc((out->q + 1) * sizeof *out->sv);
    return out->basis && out->w && out->sv;
}

/* u: d x k column-major, vt: k x m column-major. */
static bool keep_factors(const double *u, const double *s, const double *vt, size_t k, hlc_scatter *out) {
    const size_t m = out->m, d = out->d, q = out->q;
    double *scratch = malloc((2 * q + 1) * sizeof *scratch);
    double total = 0;
    if (!scratch || !allocate_factors(out)) {
        free(scratch);
        return false;
    }
    memcpy(out->sv, s, q * sizeof *s);
    for (size_t j = 0; j < q; j++, u += d) {
        const double sign = largest_entry_is_negative(u, d) ? -1 : 1;
        for (size_t i = 0; i < d; i++) {
            out->basis[j * d + i] = (float)(sign * u[i]);
        }
        for (size_t sample = 0; sample < m; sample++) {
            out->w[sample * q + j] = sign * vt[sample * k + j];
        }
        if (q < d) {
            orthonormalise_row(u, sign, s, j, d, out->basis, scratch);
        }
        total += s[j] * s[j];
    }
    out->tau = total / ((double)(m - 1) * (double)d);
    free(scratch);
    return true;
}

bool hlc_scatter_fit(const float *samples, size_t m, size_t d, hlc_scatter *out) {
    *out = (hlc_scatter){.m = m, .d = d};
    const size_t k = m < d ? m : d, long_side = m < d ? d : m;
    if (m < 2 || d == 0 || long_side > SIZE_MAX / sizeof(double) / k) {
        return false;
    }
    double *mean = malloc(d * sizeof *mean);
    double *centred = malloc(m * d * sizeof *centred);
    double *u = malloc(d * k * sizeof *u);
    double *s = malloc(k * sizeof *s);
    double *vt = malloc(k * m * sizeof *vt);
    out->mean = malloc(d * sizeof *out->mean);

    bool ok = mean && centred && u && s && vt && out->mean && hlc_center(samples, m, d, mean, centred) &&
              hlc_svd(d, m, centred, u, s, vt);
    if (ok) {
        for (size_t i = 0; i < d; i++) {
            out->mean[i] = (float)mean[i];
        }
        out->q = kept_directions(s, m, d);
        ok = keep_factors(u, s, vt, k, out);
    }
    free(mean);
    free(centred);
    free(u);
    free(s);
    free(vt);
    if (!ok) {
        hlc_scatter_free(out);
        return false;
    }
    hlc_scatter_coefficients(out);
    return true;
}

void hlc_scatter_free(hlc_scatter *scatter) {
    free(scatter->mean);
    free(scatter->basis);
    free(scatter->w);
    free(scatter->sv);
    *scatter = (hlc_scatter){0};
}

double hlc_oas(double mean_square, double mean_variance, double samples, size_t d) {
    if (d == 1) {
        return 0;
    }
    const double numerator = mean_square + mean_variance * mean_variance;
    const double denominator = (samples + 1) * (mean_square - mean_variance * mean_variance / (double)d);
    return numerator < denominator ? numerator / denominator : 1;
}

/* Ledoit and Wolf's beta needs sum_k sum_ab x_ka^2 x_kb^2 = sum_k |x_k|^4, and |x_k|^2 = sum_j (W_kj sv_j)^2. */
static double sum_of_fourth_powers(const hlc_scatter *scatter) {
    double sum = 0;
    for (size_t k = 0; k < scatter->m; k++) {
        double square = 0;
        for (size_t j = 0; j < scatter->q; j++) {
            const double y = scatter->w[k * scatter->q + j] * scatter->sv[j];
            square += y * y;
        }
        sum += square * square;
    }
    return sum;
}

static double ledoit_wolf(const hlc_scatter *scatter, double trace, double frobenius2) {
    const double m = (double)scatter->m, d = (double)scatter->d;
    if (scatter->d == 1) {
        return 0;
    }
    const double beta = (sum_of_fourth_powers(scatter) / m - frobenius2) / m;
    const double delta = frobenius2 - trace * trace / d;
    if (!(beta > 0)) {
        return 0;
    }
    return beta < delta ? beta / delta : 1;
}

void hlc_scatter_coefficients(hlc_scatter *scatter) {
    if (!(scatter->tau > 0)) {
        scatter->oas = scatter->ledoit_wolf = 1;
        return;
    }
    /* Of scikit-learn's empirical covariance, X^T X / m. */
    const double m = (double)scatter->m, d = (double)scatter->d;
    double trace = 0, frobenius2 = 0;
    for (size_t j = 0; j < scatter->q; j++) {
        const double variance = scatter->sv[j] * scatter->sv[j] / m;
        trace += variance;
        frobenius2 += variance * variance;
    }
    scatter->oas = hlc_oas(frobenius2 / (d * d), trace / d, m, scatter->d);
    scatter->ledoit_wolf = ledoit_wolf(scatter, trace, frobenius2);
}

void hlc_scatter_coordinates(const hlc_scatter *scatter, double *y) {
    for (size_t k = 0; k < scatter->m; k++) {
        for (size_t j = 0; j < scatter->q; j++) {
            y[k * scatter->q + j] = scatter->w[k * scatter->q + j] * scatter->sv[j];
        }
    }
}

void hlc_scatter_deviation(const hlc_scatter *scatter, size_t k, double *deviation) {
    memset(deviation, 0, scatter->d * sizeof *deviation);
    for (size_t j = 0; j < scatter->q; j++) {
        const double y = scatter->w[k * scatter->q + j] * scatter->sv[j];
        const float *row = scatter->basis + j * scatter->d;
        for (size_t i = 0; i < scatter->d; i++) {
            deviation[i] += y * (double)row[i];
        }
    }
}
