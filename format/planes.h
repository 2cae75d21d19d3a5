/* Byte planes: the order in which a chunk's bytes go through the entropy coder (docs/FORMAT.md, "Chunks").
 *
 * Each element w of `width` bytes (2, 4 or 8), little-endian, has its sign bit rotated away from the exponent,
 * w' = w << 1 | w >> (8 width - 1), and plane k then holds byte k of every w', k = 0 the least significant.
 * This is HDF5's shuffle filter applied to the rotated words. Pure; any alignment; no overlap of src and dst. */
#ifndef HILORA_FORMAT_PLANES_H
#define HILORA_FORMAT_PLANES_H

#include <stddef.h>

/* dst gets `width` planes of n bytes each from the n elements at src. */
void hlf_planes_split(void *dst, const void *src, size_t width, size_t n);
/* The inverse: n elements of `width` bytes at dst from the planes at src. */
void hlf_planes_join(void *dst, const void *src, size_t width, size_t n);

#endif
