#include "compiler/emit/transpose.h"

#include <string.h>

enum { TILE = 64 }; /* keeps both the reads and the writes within a few cache lines */

/* For a constant `element` the compiler turns the copies into loads and stores. */
static inline void transpose(void *restrict dst, const void *restrict src, size_t src_rows, size_t src_cols,
                             size_t element) {
    for (size_t r0 = 0; r0 < src_rows; r0 += TILE) {
        size_t r1 = r0 + TILE < src_rows ? r0 + TILE : src_rows;
        for (size_t c = 0; c < src_cols; c++) {
            char *out = (char *)dst + (c * src_rows + r0) * element;
            const char *in = (const char *)src + (r0 * src_cols + c) * element;
            for (size_t r = r0; r < r1; r++, out += element, in += src_cols * element) {
                memcpy(out, in, element);
            }
        }
    }
}

void hlc_transpose(void *restrict dst, const void *restrict src, size_t src_rows, size_t src_cols, size_t element) {
    switch (element) {
    case 2:
        transpose(dst, src, src_rows, src_cols, 2);
        break;
    case 4:
        transpose(dst, src, src_rows, src_cols, 4);
        break;
    case 8:
        transpose(dst, src, src_rows, src_cols, 8);
        break;
    default:
        transpose(dst, src, src_rows, src_cols, element);
    }
}
