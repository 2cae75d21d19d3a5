#include "compiler/decompose/decompose.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "compiler/decompose/core.h"
#include "compiler/decompose/magnitude.h"

/* False when the value leaves float32. */
static bool round_to_float(double value, float *out) {
    const bool fits = fabs(value) <= FLT_MAX;
    *out = fits ? (float)value : 0;
    return fits;
}

static bool round_gauge(const hlc_core *core, double scale, float *ga, float *gb) {
    const size_t rank = core->rank;
    const int lift = core->exponent_b / 2 - core->exponent_a / 2;
    bool fits = true;
    for (size_t j = 0; j < core->kept; j++) {
        const double weight = core->weight[j];
        for (size_t l = 0; l < rank; l++) {
            const double to_a = ldexp(weight * core->to_a[j * rank + l], lift);
            const double to_b = ldexp(copysign(weight, scale) * core->to_b[j * rank + l], -lift);
            fits = round_to_float(to_a, &ga[j * rank + l]) && round_to_float(to_b, &gb[l * rank + j]) && fits;
        }
        fits = fits && isfinite(core->sv[j]);
    }
    return fits;
}

hlc_decompose_status hlc_gauge(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale, float *ga,
                               float *gb, double *sv) {
    hlc_core core;
    hlc_decompose_status status = hlc_core_solve(a, bt, rank, d_in, d_out, scale, &core);
    if (status != HLC_DECOMPOSE_OK) {
        return status;
    }
    memset(ga, 0, rank * rank * sizeof *ga);
    memset(gb, 0, rank * rank * sizeof *gb);
    memcpy(sv, core.sv, rank * sizeof *sv);
    if (!round_gauge(&core, scale, ga, gb)) {
        status = HLC_DECOMPOSE_NON_FINITE_GAUGE;
    }
    hlc_core_free(&core);
    return status;
}

void hlc_raw_importance(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale, double *out) {
    for (size_t j = 0; j < rank; j++) {
        out[j] = fabs(scale) * hlc_norm(a + j * d_in, d_in) * hlc_norm(bt + j * d_out, d_out);
    }
}

/* out: rows of d; row j becomes sign factor[j] 2^lift times what it was. False when it leaves float64. */
static bool weigh_rows(const double *factor, double sign, int lift, size_t rows, size_t d, double *out) {
    double largest = 0;
    for (size_t j = 0; j < rows; j++) {
        for (size_t i = 0; i < d; i++) {
            const double entry = sign * factor[j] * out[j * d + i];
            out[j * d + i] = lift == 0 ? entry : ldexp(entry, lift);
        }
    }
    return hlc_finite_largest(out, rows * d, &largest);
}

hlc_decompose_status hlc_truncate(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale, size_t keep,
                                  double *a_out, double *bt_out, double *sv) {
    hlc_core core;
    hlc_decompose_status status = hlc_core_solve(a, bt, rank, d_in, d_out, scale, &core);
    if (status != HLC_DECOMPOSE_OK) {
        return status;
    }
    const size_t rows = keep < core.kept ? keep : core.kept;
    const int lift = core.exponent_a / 2 + core.exponent_b / 2;
    memset(a_out, 0, keep * d_in * sizeof *a_out);
    memset(bt_out, 0, keep * d_out * sizeof *bt_out);
    memcpy(sv, core.sv, rank * sizeof *sv);
    if (!hlc_core_rows(a, d_in, core.exponent_a, rank, d_in, core.to_a, rows, a_out) ||
        !hlc_core_rows(bt, d_out, core.exponent_b, rank, d_out, core.to_b, rows, bt_out)) {
        status = HLC_DECOMPOSE_NO_MEMORY;
    } else if (!weigh_rows(core.weight, 1, lift, rows, d_in, a_out) ||
               !weigh_rows(core.weight, copysign(1, scale), lift, rows, d_out, bt_out) || !isfinite(hlc_largest(sv, rank))) {
        status = HLC_DECOMPOSE_NON_FINITE_GAUGE;
    }
    hlc_core_free(&core);
    return status;
}

/* Scaled by a power of two: no square leaves float64, and none is rounded more than it must be. */
static double energy_of(double sv, int exponent) {
    const double scaled = ldexp(sv, -exponent);
    return scaled * scaled;
}

size_t hlc_squeezed_rank(const double *sv, size_t rank, double energy, size_t max_rank) {
    const size_t most = max_rank > 0 && max_rank < rank ? max_rank : rank;
    int exponent = 0;
    (void)frexp(hlc_largest(sv, rank), &exponent);
    double total = 0, sum = 0;
    for (size_t j = 0; j < rank; j++) {
        total += energy_of(sv[j], exponent);
    }
    for (size_t j = 0; j < most; j++) {
        if (j > 0 && (energy < 1 ? sum >= energy * total : sv[j] == 0)) {
            return j;
        }
        sum += energy_of(sv[j], exponent);
    }
    return most > 0 ? most : 1;
}
