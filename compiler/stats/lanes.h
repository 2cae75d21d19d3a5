/* Float64 sums in one fixed order that compilers can still vectorise: element i goes to partial sum i mod 8, and the eight
 * are added as ((0+4)+(2+6)) + ((1+5)+(3+7)). Nothing is contracted (-ffp-contract=off), so the bits are the same on
 * every machine. */
#ifndef HILORA_COMPILER_LANES_H
#define HILORA_COMPILER_LANES_H

#include <stddef.h>

enum { HLC_LANES = 8 };

static inline double hlc_lanes_sum(const double lanes[HLC_LANES]) {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/* |z - mean|^2 */
static inline double hlc_distance2(const float *z, const float *mean, size_t d) {
    double lanes[HLC_LANES] = {0};
    size_t i = 0;
    for (; i + HLC_LANES <= d; i += HLC_LANES) {
        for (size_t lane = 0; lane < HLC_LANES; lane++) {
            const double v = (double)z[i + lane] - (double)mean[i + lane];
            lanes[lane] += v * v;
        }
    }
    for (size_t lane = 0; i + lane < d; lane++) {
        const double v = (double)z[i + lane] - (double)mean[i + lane];
        lanes[lane] += v * v;
    }
    return hlc_lanes_sum(lanes);
}

/* row^T (z - mean) */
static inline double hlc_projection(const float *row, const float *z, const float *mean, size_t d) {
    double lanes[HLC_LANES] = {0};
    size_t i = 0;
    for (; i + HLC_LANES <= d; i += HLC_LANES) {
        for (size_t lane = 0; lane < HLC_LANES; lane++) {
            lanes[lane] += (double)row[i + lane] * ((double)z[i + lane] - (double)mean[i + lane]);
        }
    }
    for (size_t lane = 0; i + lane < d; lane++) {
        lanes[lane] += (double)row[i + lane] * ((double)z[i + lane] - (double)mean[i + lane]);
    }
    return hlc_lanes_sum(lanes);
}

/* a^T b */
static inline double hlc_dot_rows(const float *a, const float *b, size_t n) {
    double lanes[HLC_LANES] = {0};
    size_t i = 0;
    for (; i + HLC_LANES <= n; i += HLC_LANES) {
        for (size_t lane = 0; lane < HLC_LANES; lane++) {
            lanes[lane] += (double)a[i + lane] * (double)b[i + lane];
        }
    }
    for (size_t lane = 0; i + lane < n; lane++) {
        lanes[lane] += (double)a[i + lane] * (double)b[i + lane];
    }
    return hlc_lanes_sum(lanes);
}

/* |x|^2 */
static inline double hlc_norm2(const double *x, size_t n) {
    double lanes[HLC_LANES] = {0};
    size_t i = 0;
    for (; i + HLC_LANES <= n; i += HLC_LANES) {
        for (size_t lane = 0; lane < HLC_LANES; lane++) {
            lanes[lane] += x[i + lane] * x[i + lane];
        }
    }
    for (size_t lane = 0; i + lane < n; lane++) {
        lanes[lane] += x[i + lane] * x[i + lane];
    }
    return hlc_lanes_sum(lanes);
}

#endif
