/* The inner loops of the token level, over decoded rows.
 *
 * Rows are float32 or float16, `stride` elements apart, and padded with zeros to a multiple of HLR_ROW_UNIT elements.
 * All arithmetic is float32. A result depends on its own token and rows alone, never on how many are handled in one
 * call. Versions differ in rounding only: the portable one rounds products, the others fuse them. */
#ifndef HILORA_RUNTIME_ROW_KERNELS_H
#define HILORA_RUNTIME_ROW_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/dtype.h"

enum {
    HLR_ROW_UNIT = 16, /* elements */
    HLR_SPAN = 512     /* elements of a row that are summed before they join the rest */
};

/* A rectangle: from `at` on, the same columns of successive rows. */
typedef struct hlr_span {
    const void *at;
    size_t stride;  /* elements */
    uint32_t first; /* the number that the row at `at` goes by */
    bool half;      /* float16; else float32 */
} hlr_span;

typedef struct hlr_row_kernels {
    /* n elements to float32, of one of the four types; and n float32 times `factor` to float16, to nearest, ties to
     * even. */
    void (*widen)(float *dst, const void *src, hlf_dtype dtype, size_t n);
    void (*narrow)(uint16_t *dst, const float *src, float factor, size_t n);

    /* out = weights in: rows x n from rows x count and count x n, row-major with strides in elements; n is a multiple
     * of HLR_ROW_UNIT. Sums run over k = 0, 1, ... count - 1 in this order. */
    void (*multiply)(float *out, size_t out_stride, size_t rows, const float *weights, const float *in,
                     size_t in_stride, size_t count, size_t n);

    /* y[i] += update[i], i < n: one float32 addition, rounded to y's dtype (float32, bfloat16 or float16). */
    void (*add)(void *y, hlf_dtype dtype, const float *update, size_t n);

    /* u[t][j] += sum over i < n of x[t][i] row_j[i], for t < tokens and j < rows, span by span; n is a multiple of
     * HLR_ROW_UNIT. Within a span there are eight partial sums, element i going to sum i mod 8 in ascending order of i,
     * added up as ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)). */
    void (*dot)(float *const *u, const float *const *x, size_t tokens, const hlr_span *span, size_t rows, size_t n);

    /* sum[i] += weights[k] row_{active[k]}[i] for k = 0, 1, ... count - 1 in this order, i < n, a multiple of
     * HLR_ROW_UNIT. Row after row: for rows that are read once, from memory. */
    void (*accumulate)(float *sum, size_t n, const hlr_span *span, const uint32_t *active, const float *weights,
                       size_t count);

    /* y[i] += the same sum over float32 rows, row k at rows + k stride, from 0, i < n <= HLR_SPAN; the rows are padded
     * to HLR_ROW_UNIT, y is not. Column after column: for rows that stay in the first-level cache from call to call. */
    void (*update)(void *y, hlf_dtype dtype, size_t n, const float *rows, size_t stride, const uint32_t *active,
                   const float *weights, size_t count);
} hlr_row_kernels;

/* Portable C: the reference. */
extern const hlr_row_kernels hlr_rows_portable;
/* AVX2, FMA and F16C; NULL where the flags (HLF_CPU_) or the build do not allow it. */
const hlr_row_kernels *hlr_rows_x86(unsigned cpu_features);

#endif
