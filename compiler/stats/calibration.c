#include "compiler/stats/calibration.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/linalg.h"
#include "compiler/stats/quantiles.h"
#include "compiler/stats/scatter.h"

static const double log_two_pi = 1.8378770664093453;
/* Below this the closed form's downdate is refitted. */
static const double least_downdate = 1e-6;

/* ddof 1; scaled, so that no square overflows. */
static double standard_deviation(const double *values, size_t n) {
    double mean = 0, largest = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        mean += values[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs(values[i] - mean));
    }
    if (!(largest > 0)) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        const double part = (values[i] - mean) / largest;
        sum += part * part;
    }
    return largest * sqrt(sum / (double)(n - 1));
}

/* Everything of one adapter's leave-one-out that does not depend on the sample. */
typedef struct left_out {
    const hlc_scatter *scatter;
    double rho, floor, log_det;
    double gain;   /* m / (m - 1): x_k less the mean of the others is gain times x_k less the mean of all */
    double slope;  /* (1 - rho) / (m - 2) */
    double total;  /* sum sv^2 */
    double *y;     /* m x q: W diag(sv) */
} left_out;

static double log_likelihood(const left_out *loo, double log_det_sigma, double form) {
    const double d = (double)loo->scatter->d;
    return -0.5 * (d * log_two_pi + log_det_sigma + form) - loo->log_det;
}

/* The likelihood of sample k under the others, given their u (q x least, column-major) and s. */
static double refitted_likelihood(const left_out *loo, size_t k, size_t least, const double *u, const double *s) {
    const size_t q = loo->scatter->q, d = loo->scatter->d;
    const double *own = loo->y + k * q;
    double total = 0, square = 0;
    for (size_t j = 0; j < least; j++) {
        total += s[j] * s[j];
    }
    for (size_t j = 0; j < q; j++) {
        square += own[j] * own[j];
    }
    const double tau = total / ((double)d * (double)(loo->scatter->m - 2));
    const double lambda = fmax(loo->rho * tau, loo->floor);

    double form = 0, projected = 0, log_det = (double)(d - least) * log(lambda);
    for (size_t j = 0; j < least; j++) {
        double p = 0;
        for (size_t i = 0; i < q; i++) {
            p += u[j * q + i] * own[i];
        }
        const double variance = lambda + loo->slope * s[j] * s[j];
        log_det += log(variance);
        projected += p * p;
        form += p * p / variance;
    }
    if (least < d && square > projected) {
        form += (square - projected) / lambda;
    }
    return log_likelihood(loo, log_det, loo->gain * loo->gain * form);
}

/* The SVD of the other samples, in the coordinates of the basis: for when the downdate has lost its digits. */
static bool refit(const left_out *loo, size_t k, double *value) {
    const size_t others = loo->scatter->m - 1, q = loo->scatter->q;
    const size_t least = others < q ? others : q;
    double *scratch = malloc((others * q + q * least + least + least * others) * sizeof *scratch);
    if (!scratch) {
        return false;
    }
    double *rest = scratch, *u = rest + others * q, *s = u + q * least, *vt = s + least;
    const double *own = loo->y + k * q;
    for (size_t i = 0; i < others; i++) {
        const double *other = loo->y + (i < k ? i : i + 1) * q;
        for (size_t j = 0; j < q; j++) {
            rest[i * q + j] = other[j] + own[j] / (double)others; /* the mean of the others is -own / others */
        }
    }
    const bool ok = hlc_svd(q, others, rest, u, s, vt);
    if (ok) {
        *value = refitted_likelihood(loo, k, least, u, s);
    }
    free(scratch);
    return ok;
}

/* The closed form (docs/ROUTING.md). 1 - slope gain h, the downdate, is written without its cancellation:
 * (1 - gain sum W^2) + gain sum W^2 lambda / D, whose first part is exactly zero when q = m - 1. */
static bool leave_one_out(const left_out *loo, size_t k, double *value) {
    const hlc_scatter *scatter = loo->scatter;
    const size_t q = scatter->q, m = scatter->m;
    const double *w = scatter->w + k * q, *y = loo->y + k * q;
    double square = 0, leverage = 0;
    for (size_t j = 0; j < q; j++) {
        square += y[j] * y[j];
        leverage += w[j] * w[j];
    }
    const double tau = (loo->total - loo->gain * square) / ((double)scatter->d * (double)(m - 2));
    const double lambda = fmax(loo->rho * tau, loo->floor);

    double h = 0, kept = 0, log_det = (double)(scatter->d - q) * log(lambda);
    for (size_t j = 0; j < q; j++) {
        const double variance = lambda + loo->slope * scatter->sv[j] * scatter->sv[j];
        h += y[j] * y[j] / variance;
        kept += w[j] * w[j] * lambda / variance;
        log_det += log(variance);
    }
    const double beyond = q == m - 1 ? 0 : fmax(0, 1 - loo->gain * leverage);
    const double downdate = beyond + loo->gain * kept;
    if (downdate < least_downdate && q < m - 1) {
        return refit(loo, k, value);
    }
    *value = log_likelihood(loo, log_det + log(downdate), loo->gain * loo->gain * h / downdate);
    return true;
}

static bool all_left_out(const left_out *loo, double *values) {
    for (size_t k = 0; k < loo->scatter->m; k++) {
        if (!leave_one_out(loo, k, &values[k])) {
            return false;
        }
    }
    return true;
}

static bool summarise(hlc_calibration *out, size_t m) {
    double *sorted = malloc(m * sizeof *sorted);
    if (!sorted) {
        return false;
    }
    memcpy(sorted, out->values, m * sizeof *sorted);
    hlc_sort(sorted, m);
    for (size_t i = 0; i < HLC_QUANTILES; i++) {
        out->quantiles[i] = hlc_quantile(sorted, m, hlc_quantile_levels[i]);
    }
    out->deviation = standard_deviation(out->values, m);
    out->calibrated = true;
    free(sorted);
    return true;
}

static hlc_calibration uncalibrated(void) {
    hlc_calibration none = {.deviation = NAN};
    for (size_t i = 0; i < HLC_QUANTILES; i++) {
        none.quantiles[i] = NAN;
    }
    return none;
}

bool hlc_calibrate(const hlc_scatter *scatter, const hlc_gaussian *gaussian, double floor, double log_det, hlc_calibration *out) {
    *out = uncalibrated();
    const size_t m = scatter->m, q = scatter->q;
    if (m < 3 || !(scatter->tau > 0)) {
        return true;
    }
    left_out loo = {.scatter = scatter,
                    .rho = gaussian->rho,
                    .floor = floor,
                    .log_det = log_det,
                    .gain = (double)m / (double)(m - 1),
                    .slope = (1 - gaussian->rho) / (double)(m - 2)};
    for (size_t j = 0; j < q; j++) {
        loo.total += scatter->sv[j] * scatter->sv[j];
    }
    loo.y = malloc(m * q * sizeof *loo.y);
    out->values = malloc(m * sizeof *out->values);
    bool ok = loo.y && out->values;
    if (ok) {
        hlc_scatter_coordinates(scatter, loo.y);
        ok = all_left_out(&loo, out->values) && summarise(out, m);
    }
    free(loo.y);
    if (!ok) {
        free(out->values);
        *out = uncalibrated();
    }
    return ok;
}
