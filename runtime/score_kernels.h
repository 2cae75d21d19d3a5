/* The inner loops of scoring: float32 rows, float64 arithmetic, in one order on every processor.
 *
 * A sum over a row of `stride` elements (a multiple of 16) keeps eight partial sums, element i going to sum i mod 8 in
 * ascending order of i, and adds them up as ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)). Each product is rounded
 * before it is added. */
#ifndef HILORA_RUNTIME_SCORE_KERNELS_H
#define HILORA_RUNTIME_SCORE_KERNELS_H

#include <stddef.h>

typedef struct hlr_score_kernels {
    /* v = z - mu (mu NULL: v = z) in float64; answers the sum of v_i^2. */
    double (*center)(double *v, const float *z, const float *mu, size_t stride);
    /* p[j] = sum over i of rows[j stride + i] v[i], j < n. */
    void (*project)(double *p, const double *v, const float *rows, size_t stride, size_t n);
} hlr_score_kernels;

/* Portable C: the reference. */
extern const hlr_score_kernels hlr_score_scalar;
/* The same numbers with AVX2; NULL where the flags (HLF_CPU_) or the build do not allow it. */
const hlr_score_kernels *hlr_score_x86(unsigned cpu_features);

#endif
