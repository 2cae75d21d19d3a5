#include "runtime/row_kernels.h"

#include <float.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "sums are defined by float32 arithmetic without extra precision"
#endif

enum { LANES = 8 };

static void widen(float *dst, const void *src, hlf_dtype dtype, size_t n) {
    hlf_to_f32(dst, src, dtype, n);
}

static void narrow(uint16_t *dst, const float *src, float factor, size_t n) {
    float scaled[HLR_SPAN];
    while (n > 0) {
        size_t count = n < HLR_SPAN ? n : HLR_SPAN;
        for (size_t i = 0; i < count; i++) {
            scaled[i] = src[i] * factor;
        }
        hlf_convert(dst, HLF_DTYPE_F16, scaled, HLF_DTYPE_F32, count);
        dst += count;
        src += count;
        n -= count;
    }
}

static void add(void *y, hlf_dtype dtype, const float *update, size_t n) {
    float sum[HLR_SPAN];
    uint8_t *to = y;
    while (n > 0) {
        size_t count = n < HLR_SPAN ? n : HLR_SPAN;
        hlf_to_f32(sum, to, dtype, count);
        for (size_t i = 0; i < count; i++) {
            sum[i] += update[i];
        }
        hlf_convert(to, dtype, sum, HLF_DTYPE_F32, count);
        to += count * hlf_dtype_size(dtype);
        update += count;
        n -= count;
    }
}

/* n <= HLR_SPAN elements from column `at` of a row as float32: in place, or widened into `room`. */
static const float *row_of(const hlr_span *span, size_t row, size_t at, size_t n, float room[HLR_SPAN]) {
    const size_t first = (row - span->first) * span->stride + at;
    if (!span->half) {
        return (const float *)span->at + first;
    }
    hlf_to_f32(room, (const uint16_t *)span->at + first, HLF_DTYPE_F16, n);
    return room;
}

static float dot_one(const float *restrict x, const float *restrict row, size_t n) {
    float s[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            s[l] += x[i + l] * row[i + l];
        }
    }
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

static void dot(float *const *u, const float *const *x, size_t tokens, const hlr_span *span, size_t rows, size_t n) {
    float room[HLR_SPAN];
    for (size_t j = 0; j < rows; j++) {
        for (size_t at = 0; at < n; at += HLR_SPAN) {
            const size_t now = n - at < HLR_SPAN ? n - at : HLR_SPAN;
            const float *row = row_of(span, span->first + j, at, now, room);
            for (size_t t = 0; t < tokens; t++) {
                u[t][j] += dot_one(x[t] + at, row, now);
            }
        }
    }
}

static void add_scaled(float *restrict sum, const float *restrict row, float weight, size_t n) {
    for (size_t i = 0; i < n; i++) {
        sum[i] += weight * row[i];
    }
}

static void accumulate(float *sum, size_t n, const hlr_span *span, const uint32_t *active, const float *weights,
                       size_t count) {
    float room[HLR_SPAN];
    for (size_t k = 0; k < count; k++) {
        for (size_t at = 0; at < n; at += HLR_SPAN) {
            const size_t now = n - at < HLR_SPAN ? n - at : HLR_SPAN;
            add_scaled(sum + at, row_of(span, active[k], at, now, room), weights[k], now);
        }
    }
}

static void multiply(float *out, size_t out_stride, size_t rows, const float *weights, const float *in,
                     size_t in_stride, size_t count, size_t n) {
    for (size_t j = 0; j < rows; j++) {
        memset(out + j * out_stride, 0, n * sizeof *out);
        for (size_t k = 0; k < count; k++) {
            add_scaled(out + j * out_stride, in + k * in_stride, weights[j * count + k], n);
        }
    }
}

static void update(void *y, hlf_dtype dtype, size_t n, const float *rows, size_t stride, const uint32_t *active,
                   const float *weights, size_t count) {
    float sum[HLR_SPAN] = {0};
    const hlr_span span = {rows, stride, 0, false};
    accumulate(sum, (n + HLR_ROW_UNIT - 1) / HLR_ROW_UNIT * HLR_ROW_UNIT, &span, active, weights, count);
    add(y, dtype, sum, n);
}

const hlr_row_kernels hlr_rows_portable = {widen, narrow, multiply, add, dot, accumulate, update};
