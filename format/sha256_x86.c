/* SHA-256 with the x86 SHA extensions (Intel SDM: SHA256RNDS2, SHA256MSG1, SHA256MSG2). */
#include "format/cpu.h"
#include "format/sha256.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* The instructions keep the working variables as two vectors, high word first: (a,b,e,f) and (c,d,g,h). */
__attribute__((target("sha,sse4.1"))) static void compress_sha(uint32_t state[8], const uint8_t *blocks, size_t count) {
    const __m128i swap_words = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i *constants = (const __m128i *)(const void *)hlf_sha256_round_constants;
    __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)state), 0xB1);
    __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(state + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(badc, hgfe, 8);
    __m128i cdgh = _mm_blend_epi16(hgfe, badc, 0xF0);
    for (; count > 0; count--, blocks += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4]; /* the last 16 words of the message schedule, w[group % 4] the newest */
#pragma GCC unroll 16
        for (int group = 0; group < 16; group++) {
            const int t4 = (group + 3) % 4, t8 = (group + 2) % 4, t12 = (group + 1) % 4, t16 = group % 4;
            if (group < 4) {
                const __m128i *words = (const __m128i *)(const void *)(blocks + 16 * group);
                w[group] = _mm_shuffle_epi8(_mm_loadu_si128(words), swap_words);
            } else {
                __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[t16], w[t12]), _mm_alignr_epi8(w[t4], w[t8], 4));
                w[t16] = _mm_sha256msg2_epu32(sum, w[t4]);
            }
            __m128i wk = _mm_add_epi32(w[t16], constants[group]);
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0E));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1B);
    __m128i dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

hlf_sha256_compress *hlf_sha256_compress_x86(unsigned cpu_features) {
    return (cpu_features & HLF_CPU_SHA) != 0 ? compress_sha : NULL;
}
#else
hlf_sha256_compress *hlf_sha256_compress_x86(unsigned cpu_features) {
    (void)cpu_features;
    return NULL;
}
#endif
