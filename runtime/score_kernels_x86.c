/* Scoring with AVX2: the eight partial sums are two vectors of four, and four rows are summed at a time to hide the
 * latency of addition. */
#include "format/cpu.h"
#include "runtime/score_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

enum { LANES = 8, ROWS = 4 };

/* low holds sums 0 to 3, high 4 to 7. */
AVX2 static inline double tree(__m256d low, __m256d high) {
    __m256d a = _mm256_add_pd(low, high);                                           /* 04 15 26 37 */
    __m128d b = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1)); /* 0426 1537 */
    return _mm_cvtsd_f64(_mm_add_sd(b, _mm_unpackhi_pd(b, b)));
}

AVX2 static inline __m256d widen(const float *at) {
    return _mm256_cvtps_pd(_mm_loadu_ps(at));
}

AVX2 static double center(double *v, const float *z, const float *mu, size_t stride) {
    __m256d low = _mm256_setzero_pd(), high = low;
    for (size_t i = 0; i < stride; i += LANES) {
        __m256d a = widen(z + i), b = widen(z + i + 4);
        if (mu) {
            a = _mm256_sub_pd(a, widen(mu + i));
            b = _mm256_sub_pd(b, widen(mu + i + 4));
        }
        _mm256_storeu_pd(v + i, a);
        _mm256_storeu_pd(v + i + 4, b);
        low = _mm256_add_pd(low, _mm256_mul_pd(a, a));
        high = _mm256_add_pd(high, _mm256_mul_pd(b, b));
    }
    return tree(low, high);
}

AVX2 static inline void project_rows(double *p, const double *v, const float *rows, size_t stride, size_t n) {
    __m256d low[ROWS], high[ROWS];
    for (size_t j = 0; j < n; j++) {
        low[j] = high[j] = _mm256_setzero_pd();
    }
    for (size_t i = 0; i < stride; i += LANES) {
        __m256d a = _mm256_loadu_pd(v + i), b = _mm256_loadu_pd(v + i + 4);
        for (size_t j = 0; j < n; j++) {
            low[j] = _mm256_add_pd(low[j], _mm256_mul_pd(widen(rows + j * stride + i), a));
            high[j] = _mm256_add_pd(high[j], _mm256_mul_pd(widen(rows + j * stride + i + 4), b));
        }
    }
    for (size_t j = 0; j < n; j++) {
        p[j] = tree(low[j], high[j]);
    }
}

AVX2 static void project(double *p, const double *v, const float *rows, size_t stride, size_t n) {
    size_t j = 0;
    for (; n - j >= ROWS; j += ROWS) {
        project_rows(p + j, v, rows + j * stride, stride, ROWS);
    }
    for (; j < n; j++) {
        project_rows(p + j, v, rows + j * stride, stride, 1);
    }
}

static const hlr_score_kernels avx2 = {center, project};

const hlr_score_kernels *hlr_score_x86(unsigned cpu_features) {
    return cpu_features & HLF_CPU_AVX2 ? &avx2 : NULL;
}
#else
const hlr_score_kernels *hlr_score_x86(unsigned cpu_features) {
    (void)cpu_features;
    return NULL;
}
#endif
