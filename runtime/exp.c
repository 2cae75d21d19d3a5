#include "runtime/exp.h"

#include <stdint.h>
#include <string.h>

/* x = n ln 2 + r, |r| <= ln 2 / 2; e^x = 2^n e^r. ln 2 is split so that n times the high part is exact; r's rounding
 * error is kept as `tail`. */
static const double log2_e = 0x1.71547652b82fep+0;
static const double ln2_high = 0x1.62e42feep-1;      /* the 32 leading bits */
static const double ln2_low = 0x1.a39ef35793c76p-33; /* the rest, rounded */
static const double to_integer = 0x1.8p+52;          /* adding and subtracting it rounds to the nearest integer */
static const double underflow = -746.0;              /* e^x rounds to 0 below */

enum { TERMS = 12 };

/* 1/k! for k = 13 down to 2. */
static const double coefficients[TERMS] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0,
                                           1.0 / 362880.0,     1.0 / 40320.0,     1.0 / 5040.0,     1.0 / 720.0,
                                           1.0 / 120.0,        1.0 / 24.0,        1.0 / 6.0,        0.5};

/* 2^n for a normal result. */
static double power_of_two(int n) {
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

double hlr_exp(double x) {
    if (!(x >= underflow)) {
        return 0;
    }
    double n = (x * log2_e + to_integer) - to_integer;
    double high = x - n * ln2_high, low = n * ln2_low;
    double r = high - low, tail = (high - r) - low;
    double q = coefficients[0];
    for (int k = 1; k < TERMS; k++) {
        q = q * r + coefficients[k];
    }
    double y = 1.0 + (r + (r * r * q + tail));
    int exponent = (int)n;
    return exponent >= -1000 ? y * power_of_two(exponent) : (y * power_of_two(exponent + 100)) * 0x1p-100;
}
