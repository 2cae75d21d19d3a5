/* Turning matrices of components: B is a file's columns and a pool's rows. Pure. */
#ifndef HILORA_COMPILER_TRANSPOSE_H
#define HILORA_COMPILER_TRANSPOSE_H

#include <stddef.h>

/* dst (src_cols x src_rows) = the transpose of src (src_rows x src_cols), row-major, elements of `element` bytes; no
 * overlap. */
void hlc_transpose(void *restrict dst, const void *restrict src, size_t src_rows, size_t src_cols, size_t element);

#endif
