/* The token level with AVX2, fused multiply-add and the float16 conversions.
 *
 * The eight partial sums of a dot product are one vector. A tile of tokens and rows keeps a vector for each pair, so
 * that a vector of x serves several rows, one of a row several tokens, and the latency of the additions is hidden. */
#include "format/cpu.h"
#include "runtime/row_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define FMA __attribute__((target("avx2,fma,f16c")))
#define FMA_INLINE __attribute__((target("avx2,fma,f16c"), always_inline)) static inline

enum { LANES = 8, TILE_TOKENS = 6, TILE_ROWS = 8, TILE_PAIRS = 12, BLOCK = 8 * LANES };

FMA_INLINE __m256 from_half(const uint16_t *at) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at));
}

FMA_INLINE __m256 from_bf16(const uint16_t *at) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

FMA_INLINE void to_half(uint16_t *at, __m256 value) {
    _mm_storeu_si128((__m128i *)(void *)at, _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}

/* To nearest, ties to even; a NaN becomes quiet. */
FMA_INLINE void to_bf16(uint16_t *at, __m256 value) {
    __m256i bits = _mm256_castps_si256(value), top = _mm256_srli_epi32(bits, 16);
    __m256i half_less = _mm256_add_epi32(_mm256_set1_epi32(0x7FFF), _mm256_and_si256(top, _mm256_set1_epi32(1)));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half_less), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_or_si256(top, _mm256_set1_epi32(0x0040)), nan);
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
    _mm_storeu_si128((__m128i *)(void *)at, _mm256_castsi256_si128(packed));
}

/* ---- conversions: whole vectors here, the rest by the portable loops ---- */

FMA static void widen(float *dst, const void *src, hlf_dtype dtype, size_t n) {
    const uint16_t *from = src;
    size_t i = 0;
    if (dtype == HLF_DTYPE_F16) {
        for (; n - i >= LANES; i += LANES) {
            _mm256_storeu_ps(dst + i, from_half(from + i));
        }
    } else if (dtype == HLF_DTYPE_BF16) {
        for (; n - i >= LANES; i += LANES) {
            _mm256_storeu_ps(dst + i, from_bf16(from + i));
        }
    }
    hlr_rows_portable.widen(dst + i, (const char *)src + i * hlf_dtype_size(dtype), dtype, n - i);
}

FMA static void narrow(uint16_t *dst, const float *src, float factor, size_t n) {
    const __m256 scale = _mm256_set1_ps(factor);
    size_t i = 0;
    for (; n - i >= LANES; i += LANES) {
        to_half(dst + i, _mm256_mul_ps(_mm256_loadu_ps(src + i), scale));
    }
    hlr_rows_portable.narrow(dst + i, src + i, factor, n - i);
}

/* Eight elements of y += update. */
FMA_INLINE void add_vector(void *y, hlf_dtype dtype, size_t i, __m256 update) {
    if (dtype == HLF_DTYPE_F16) {
        uint16_t *to = (uint16_t *)y + i;
        to_half(to, _mm256_add_ps(from_half(to), update));
    } else if (dtype == HLF_DTYPE_BF16) {
        uint16_t *to = (uint16_t *)y + i;
        to_bf16(to, _mm256_add_ps(from_bf16(to), update));
    } else {
        float *to = (float *)y + i;
        _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), update));
    }
}

FMA static void add(void *y, hlf_dtype dtype, const float *update, size_t n) {
    size_t i = 0;
    for (; n - i >= LANES; i += LANES) {
        add_vector(y, dtype, i, _mm256_loadu_ps(update + i));
    }
    hlr_rows_portable.add((char *)y + i * hlf_dtype_size(dtype), dtype, update + i, n - i);
}

/* ---- dot products ---- */

FMA_INLINE __m256 load_row(const void *row, size_t i, bool half) {
    return half ? from_half((const uint16_t *)row + i) : _mm256_loadu_ps((const float *)row + i);
}

FMA_INLINE float total(__m256 s) {
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)); /* 04 15 26 37 */
    __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));                                 /* 0426 1537 */
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* Sums of one span. tokens, rows and half are constants where this is inlined, at most TILE_PAIRS pairs. */
FMA_INLINE void tile_span(float *const *u, const float *const *x, const size_t tokens, const char *const *row,
                          const size_t rows, size_t first, size_t at, size_t n, const bool half) {
    __m256 s[TILE_PAIRS];
    for (size_t k = 0; k < tokens * rows; k++) {
        s[k] = _mm256_setzero_ps();
    }
    for (size_t i = at; i < at + n; i += LANES) {
        __m256 r[TILE_ROWS];
        for (size_t j = 0; j < rows; j++) {
            r[j] = load_row(row[j], i, half);
        }
        for (size_t t = 0; t < tokens; t++) {
            __m256 v = _mm256_loadu_ps(x[t] + i);
            __asm__("" : "+x"(v)); /* one load for all rows; compilers would fold one into each addition */
            for (size_t j = 0; j < rows; j++) {
                s[t * rows + j] = _mm256_fmadd_ps(v, r[j], s[t * rows + j]);
            }
        }
    }
    for (size_t t = 0; t < tokens; t++) {
        for (size_t j = 0; j < rows; j++) {
            u[t][first + j] += total(s[t * rows + j]);
        }
    }
}

FMA_INLINE void tile(float *const *u, const float *const *x, const size_t tokens, const void *at, size_t row_bytes,
                     const size_t rows, size_t first, size_t n, const bool half) {
    const char *row[TILE_ROWS];
    for (size_t j = 0; j < rows; j++) {
        row[j] = (const char *)at + (first + j) * row_bytes;
    }
    for (size_t i = 0; i < n; i += HLR_SPAN) {
        tile_span(u, x, tokens, row, rows, first, i, n - i < HLR_SPAN ? n - i : HLR_SPAN, half);
    }
}

/* All rows for a constant number of tokens, `step` rows at a time. */
FMA_INLINE void strip(float *const *u, const float *const *x, const size_t tokens, const hlr_span *span,
                      const size_t step, size_t rows, size_t n, const bool half) {
    const size_t row_bytes = span->stride * (half ? 2 : 4);
    size_t j = 0;
    for (; rows - j >= step; j += step) {
        tile(u, x, tokens, span->at, row_bytes, step, j, n, half);
    }
    for (; j < rows; j++) {
        tile(u, x, tokens, span->at, row_bytes, 1, j, n, half);
    }
}

FMA_INLINE void strips(float *const *u, const float *const *x, size_t tokens, const hlr_span *span, size_t rows,
                       size_t n, const bool half) {
    switch (tokens) {
    case 1:
        strip(u, x, 1, span, 8, rows, n, half);
        break;
    case 2:
        strip(u, x, 2, span, 4, rows, n, half);
        break;
    case 3:
        strip(u, x, 3, span, 3, rows, n, half);
        break;
    case 4:
        strip(u, x, 4, span, 2, rows, n, half);
        break;
    case 5:
        strip(u, x, 5, span, 2, rows, n, half);
        break;
    default:
        strip(u, x, TILE_TOKENS, span, 2, rows, n, half);
    }
}

FMA static void dot(float *const *u, const float *const *x, size_t tokens, const hlr_span *span, size_t rows,
                    size_t n) {
    while (tokens > 0) {
        size_t now = tokens < TILE_TOKENS ? tokens : TILE_TOKENS;
        if (span->half) {
            strips(u, x, now, span, rows, n, true);
        } else {
            strips(u, x, now, span, rows, n, false);
        }
        u += now;
        x += now;
        tokens -= now;
    }
}

/* ---- products of matrices ---- */

/* HLR_ROW_UNIT columns of `rows` rows, a constant, at most TILE_TOKENS. */
FMA_INLINE void multiply_tile(float *out, size_t out_stride, const size_t rows, const float *weights, const float *in,
                              size_t in_stride, size_t count) {
    __m256 s[2 * TILE_TOKENS];
    for (size_t j = 0; j < 2 * rows; j++) {
        s[j] = _mm256_setzero_ps();
    }
    for (size_t k = 0; k < count; k++, in += in_stride) {
        const __m256 low = _mm256_loadu_ps(in), high = _mm256_loadu_ps(in + LANES);
        for (size_t j = 0; j < rows; j++) {
            const __m256 weight = _mm256_broadcast_ss(weights + j * count + k);
            s[2 * j] = _mm256_fmadd_ps(weight, low, s[2 * j]);
            s[2 * j + 1] = _mm256_fmadd_ps(weight, high, s[2 * j + 1]);
        }
    }
    for (size_t j = 0; j < rows; j++) {
        _mm256_storeu_ps(out + j * out_stride, s[2 * j]);
        _mm256_storeu_ps(out + j * out_stride + LANES, s[2 * j + 1]);
    }
}

FMA static void multiply(float *out, size_t out_stride, size_t rows, const float *weights, const float *in,
                         size_t in_stride, size_t count, size_t n) {
    for (size_t i = 0; i < n; i += HLR_ROW_UNIT) {
        size_t j = 0;
        for (; rows - j >= 6; j += 6) {
            multiply_tile(out + j * out_stride + i, out_stride, 6, weights + j * count, in + i, in_stride, count);
        }
        for (; rows - j >= 4; j += 4) {
            multiply_tile(out + j * out_stride + i, out_stride, 4, weights + j * count, in + i, in_stride, count);
        }
        for (; j < rows; j++) {
            multiply_tile(out + j * out_stride + i, out_stride, 1, weights + j * count, in + i, in_stride, count);
        }
    }
}

/* ---- weighted sums of rows ---- */

/* sum += the rows, `rows` of them, a constant, in their order. */
FMA_INLINE void accumulate_rows(float *sum, size_t n, const hlr_span *span, const uint32_t *active,
                                const float *weights, const size_t rows, const bool half) {
    const size_t row_bytes = span->stride * (half ? 2 : 4);
    const char *row[4];
    __m256 weight[4];
    for (size_t k = 0; k < rows; k++) {
        row[k] = (const char *)span->at + (active[k] - span->first) * row_bytes;
        weight[k] = _mm256_broadcast_ss(weights + k);
    }
    for (size_t i = 0; i < n; i += LANES) {
        __m256 s = _mm256_loadu_ps(sum + i);
        for (size_t k = 0; k < rows; k++) {
            s = _mm256_fmadd_ps(weight[k], load_row(row[k], i, half), s);
        }
        _mm256_storeu_ps(sum + i, s);
    }
}

FMA_INLINE void accumulate_all(float *sum, size_t n, const hlr_span *span, const uint32_t *active, const float *weights,
                               size_t count, const bool half) {
    size_t k = 0;
    for (; count - k >= 4; k += 4) {
        accumulate_rows(sum, n, span, active + k, weights + k, 4, half);
    }
    for (; k < count; k++) {
        accumulate_rows(sum, n, span, active + k, weights + k, 1, half);
    }
}

FMA static void accumulate(float *sum, size_t n, const hlr_span *span, const uint32_t *active, const float *weights,
                           size_t count) {
    if (span->half) {
        accumulate_all(sum, n, span, active, weights, count, true);
    } else {
        accumulate_all(sum, n, span, active, weights, count, false);
    }
}

/* BLOCK columns of float32 rows, `row_bytes` apart, in registers. */
FMA_INLINE void update_block(void *y, hlf_dtype dtype, const char *at, size_t row_bytes, const uint32_t *active,
                             const float *weights, size_t count) {
    enum { VECTORS = BLOCK / LANES };
    __m256 s[VECTORS];
    for (size_t v = 0; v < VECTORS; v++) {
        s[v] = _mm256_setzero_ps();
    }
    for (size_t k = 0; k < count; k++) {
        const float *row = (const float *)(const void *)(at + active[k] * row_bytes);
        const __m256 weight = _mm256_broadcast_ss(weights + k);
        for (size_t v = 0; v < VECTORS; v++) {
            s[v] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(row + v * LANES), s[v]);
        }
    }
    for (size_t v = 0; v < VECTORS; v++) {
        add_vector(y, dtype, v * LANES, s[v]);
    }
}

FMA static void update(void *y, hlf_dtype dtype, size_t n, const float *rows, size_t stride, const uint32_t *active,
                       const float *weights, size_t count) {
    char *to = y;
    for (; n >= BLOCK; n -= BLOCK, rows += BLOCK, to += BLOCK * hlf_dtype_size(dtype)) {
        update_block(to, dtype, (const char *)rows, stride * sizeof *rows, active, weights, count);
    }
    if (n > 0) {
        float sum[BLOCK] = {0};
        const hlr_span rest = {rows, stride, 0, false};
        accumulate(sum, (n + HLR_ROW_UNIT - 1) / HLR_ROW_UNIT * HLR_ROW_UNIT, &rest, active, weights, count);
        add(to, dtype, sum, n);
    }
}

static const hlr_row_kernels fma_kernels = {widen, narrow, multiply, add, dot, accumulate, update};

const hlr_row_kernels *hlr_rows_x86(unsigned cpu_features) {
    return cpu_features & HLF_CPU_FMA ? &fma_kernels : NULL;
}
#else
const hlr_row_kernels *hlr_rows_x86(unsigned cpu_features) {
    (void)cpu_features;
    return NULL;
}
#endif
