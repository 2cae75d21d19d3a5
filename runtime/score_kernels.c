#include "runtime/score_kernels.h"

#include <float.h>

#if FLT_EVAL_METHOD != 0
#error "scores are defined by float64 arithmetic without extra precision"
#endif

enum { LANES = 8 };

static inline double tree(const double s[LANES]) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

static double center(double *v, const float *z, const float *mu, size_t stride) {
    double s[LANES] = {0};
    for (size_t i = 0; i < stride; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            double value = mu ? (double)z[i + l] - (double)mu[i + l] : (double)z[i + l];
            v[i + l] = value;
            s[l] += value * value;
        }
    }
    return tree(s);
}

static void project(double *p, const double *v, const float *rows, size_t stride, size_t n) {
    for (size_t j = 0; j < n; j++) {
        const float *row = rows + j * stride;
        double s[LANES] = {0};
        for (size_t i = 0; i < stride; i += LANES) {
            for (size_t l = 0; l < LANES; l++) {
                s[l] += (double)row[i + l] * v[i + l];
            }
        }
        p[j] = tree(s);
    }
}

const hlr_score_kernels hlr_score_scalar = {center, project};
