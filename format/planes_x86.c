/* Byte planes with AVX2, 32 elements at a time. Width 8 is rare and stays with the portable loop.
 *
 * AVX2 packs and unpacks inside halves of 128 bits, so a plane's vector has its halves merged last (split) or taken
 * apart first (join): exchanging the two middle quarters does both. */
#include "format/cpu.h"
#include "format/planes.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

enum { STEP = 32, SWAP_MIDDLE = 0xD8 }; /* elements per step; the order 0, 2, 1, 3 */

AVX2 static inline __m256i load(const uint8_t *at) {
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

AVX2 static inline void store(uint8_t *at, __m256i v) {
    _mm256_storeu_si256((__m256i *)(void *)at, v);
}

/* The even bytes of a, then those of b, within each half. */
AVX2 static inline __m256i even_bytes(__m256i a, __m256i b) {
    const __m256i mask = _mm256_set1_epi16(0x00FF);
    return _mm256_packus_epi16(_mm256_and_si256(a, mask), _mm256_and_si256(b, mask));
}

AVX2 static inline __m256i odd_bytes(__m256i a, __m256i b) {
    return _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
}

AVX2 static inline __m256i load_rotated2(const uint8_t *at) {
    __m256i w = load(at);
    return _mm256_or_si256(_mm256_slli_epi16(w, 1), _mm256_srli_epi16(w, 15));
}

AVX2 static inline void store_unrotated2(uint8_t *at, __m256i w) {
    store(at, _mm256_or_si256(_mm256_srli_epi16(w, 1), _mm256_slli_epi16(w, 15)));
}

AVX2 static inline __m256i load_rotated4(const uint8_t *at) {
    __m256i w = load(at);
    return _mm256_or_si256(_mm256_slli_epi32(w, 1), _mm256_srli_epi32(w, 31));
}

AVX2 static inline void store_unrotated4(uint8_t *at, __m256i w) {
    store(at, _mm256_or_si256(_mm256_srli_epi32(w, 1), _mm256_slli_epi32(w, 31)));
}

AVX2 static size_t split2(uint8_t *dst, const uint8_t *src, size_t n) {
    size_t i = 0;
    for (; n - i >= STEP; i += STEP) {
        __m256i a = load_rotated2(src + 2 * i), b = load_rotated2(src + 2 * i + 32);
        store(dst + i, _mm256_permute4x64_epi64(even_bytes(a, b), SWAP_MIDDLE));
        store(dst + n + i, _mm256_permute4x64_epi64(odd_bytes(a, b), SWAP_MIDDLE));
    }
    return i;
}

AVX2 static size_t join2(uint8_t *dst, const uint8_t *src, size_t n) {
    size_t i = 0;
    for (; n - i >= STEP; i += STEP) {
        __m256i p0 = _mm256_permute4x64_epi64(load(src + i), SWAP_MIDDLE);
        __m256i p1 = _mm256_permute4x64_epi64(load(src + n + i), SWAP_MIDDLE);
        store_unrotated2(dst + 2 * i, _mm256_unpacklo_epi8(p0, p1));
        store_unrotated2(dst + 2 * i + 32, _mm256_unpackhi_epi8(p0, p1));
    }
    return i;
}

/* A plane packed from four vectors holds 4 bytes of each in either half. */
AVX2 static inline void store_plane4(uint8_t *at, __m256i plane) {
    store(at, _mm256_permutevar8x32_epi32(plane, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

AVX2 static inline __m256i load_plane4(const uint8_t *at) {
    return _mm256_permutevar8x32_epi32(load(at), _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
}

AVX2 static size_t split4(uint8_t *dst, const uint8_t *src, size_t n) {
    size_t i = 0;
    for (; n - i >= STEP; i += STEP) {
        const uint8_t *from = src + 4 * i;
        __m256i a = load_rotated4(from), b = load_rotated4(from + 32);
        __m256i c = load_rotated4(from + 64), d = load_rotated4(from + 96);
        __m256i even_ab = even_bytes(a, b), even_cd = even_bytes(c, d);
        __m256i odd_ab = odd_bytes(a, b), odd_cd = odd_bytes(c, d);
        store_plane4(dst + i, even_bytes(even_ab, even_cd));
        store_plane4(dst + n + i, even_bytes(odd_ab, odd_cd));
        store_plane4(dst + 2 * n + i, odd_bytes(even_ab, even_cd));
        store_plane4(dst + 3 * n + i, odd_bytes(odd_ab, odd_cd));
    }
    return i;
}

AVX2 static size_t join4(uint8_t *dst, const uint8_t *src, size_t n) {
    size_t i = 0;
    for (; n - i >= STEP; i += STEP) {
        __m256i p0 = load_plane4(src + i), p1 = load_plane4(src + n + i);
        __m256i p2 = load_plane4(src + 2 * n + i), p3 = load_plane4(src + 3 * n + i);
        __m256i low_ab = _mm256_unpacklo_epi8(p0, p1), low_cd = _mm256_unpackhi_epi8(p0, p1);
        __m256i high_ab = _mm256_unpacklo_epi8(p2, p3), high_cd = _mm256_unpackhi_epi8(p2, p3);
        uint8_t *to = dst + 4 * i;
        store_unrotated4(to, _mm256_unpacklo_epi16(low_ab, high_ab));
        store_unrotated4(to + 32, _mm256_unpackhi_epi16(low_ab, high_ab));
        store_unrotated4(to + 64, _mm256_unpacklo_epi16(low_cd, high_cd));
        store_unrotated4(to + 96, _mm256_unpackhi_epi16(low_cd, high_cd));
    }
    return i;
}

size_t hlf_planes_split_x86(unsigned cpu_features, uint8_t *dst, const uint8_t *src, size_t width, size_t n) {
    if ((cpu_features & HLF_CPU_AVX2) == 0) {
        return 0;
    }
    return width == 2 ? split2(dst, src, n) : width == 4 ? split4(dst, src, n) : 0;
}

size_t hlf_planes_join_x86(unsigned cpu_features, uint8_t *dst, const uint8_t *src, size_t width, size_t n) {
    if ((cpu_features & HLF_CPU_AVX2) == 0) {
        return 0;
    }
    return width == 2 ? join2(dst, src, n) : width == 4 ? join4(dst, src, n) : 0;
}
#else
size_t hlf_planes_split_x86(unsigned cpu_features, uint8_t *dst, const uint8_t *src, size_t width, size_t n) {
    (void)cpu_features, (void)dst, (void)src, (void)width, (void)n;
    return 0;
}

size_t hlf_planes_join_x86(unsigned cpu_features, uint8_t *dst, const uint8_t *src, size_t width, size_t n) {
    (void)cpu_features, (void)dst, (void)src, (void)width, (void)n;
    return 0;
}
#endif
