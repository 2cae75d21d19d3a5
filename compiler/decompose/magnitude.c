#include "compiler/decompose/magnitude.h"

#include <math.h>

/* Separate accumulators, for compilers to vectorise. */
enum { LANES = 8 };

bool hlc_finite_largest(const double *x, size_t n, double *largest) {
    double most[LANES] = {0}, finite[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            const double size = fabs(x[i + lane]);
            most[lane] = size > most[lane] ? size : most[lane];
            finite[lane] += size * 0; /* stays 0, or is NaN for good */
        }
    }
    for (; i < n; i++) {
        most[0] = fmax(most[0], fabs(x[i]));
        finite[0] += x[i] * 0;
    }
    for (size_t lane = 1; lane < LANES; lane++) {
        most[0] = fmax(most[0], most[lane]);
        finite[0] += finite[lane];
    }
    *largest = most[0];
    return finite[0] == 0;
}

double hlc_largest(const double *x, size_t n) {
    double largest = 0;
    (void)hlc_finite_largest(x, n, &largest);
    return largest;
}

static double sum_of_squares(const double *x, size_t n, double scale) {
    double lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            const double part = x[i + lane] * scale;
            lanes[lane] += part * part;
        }
    }
    for (; i < n; i++) {
        lanes[0] += x[i] * scale * (x[i] * scale);
    }
    for (size_t lane = 1; lane < LANES; lane++) {
        lanes[0] += lanes[lane];
    }
    return lanes[0];
}

double hlc_norm(const double *x, size_t n) {
    const double largest = hlc_largest(x, n);
    int exponent = 0;
    (void)frexp(largest, &exponent);
    if (exponent > -500 && exponent < 500) {
        return sqrt(sum_of_squares(x, n, 1));
    }
    /* 2^-exponent itself may overflow for subnormal entries. */
    const int lift = exponent < -1000 ? -1000 : exponent;
    return ldexp(sqrt(sum_of_squares(x, n, ldexp(1, -lift))), lift);
}
