#include "format/dtype_x86.h"

#include "format/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>

enum { LANES = 8 };

__attribute__((target("avx2,f16c"))) static size_t widen(uint32_t *dst, const uint8_t *src, size_t n) {
    size_t i = 0;
    for (; n - i >= LANES; i += LANES) {
        __m256 values = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(src + 2 * i)));
        if (_mm256_movemask_ps(_mm256_cmp_ps(values, values, _CMP_UNORD_Q)) != 0) {
            break;
        }
        _mm256_storeu_ps((float *)(void *)(dst + i), values);
    }
    return i;
}

__attribute__((target("avx2,f16c"))) static size_t narrow(uint8_t *dst, const uint32_t *src, size_t n) {
    size_t i = 0;
    for (; n - i >= LANES; i += LANES) {
        __m256 values = _mm256_loadu_ps((const float *)(const void *)(src + i));
        if (_mm256_movemask_ps(_mm256_cmp_ps(values, values, _CMP_UNORD_Q)) != 0) {
            break;
        }
        __m128i halves = _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(dst + 2 * i), halves);
    }
    return i;
}

size_t hlf_widen_f16_x86(unsigned cpu_features, uint32_t *dst, const uint8_t *src, size_t n) {
    return (cpu_features & HLF_CPU_FMA) != 0 ? widen(dst, src, n) : 0;
}

size_t hlf_narrow_f16_x86(unsigned cpu_features, uint8_t *dst, const uint32_t *src, size_t n) {
    return (cpu_features & HLF_CPU_FMA) != 0 ? narrow(dst, src, n) : 0;
}
#else
size_t hlf_widen_f16_x86(unsigned cpu_features, uint32_t *dst, const uint8_t *src, size_t n) {
    (void)cpu_features, (void)dst, (void)src, (void)n;
    return 0;
}

size_t hlf_narrow_f16_x86(unsigned cpu_features, uint8_t *dst, const uint32_t *src, size_t n) {
    (void)cpu_features, (void)dst, (void)src, (void)n;
    return 0;
}
#endif
