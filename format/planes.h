/* Byte planes: the order in which a chunk's bytes go through the entropy coder (docs/FORMAT.md, "Chunks").
 *
 * Each element w of `width` bytes (2, 4 or 8), little-endian, has its sign bit rotated away from the exponent,
 * w' = w << 1 | w >> (8 width - 1), and plane k then holds byte k of every w', k = 0 the least significant.
 * This is HDF5's shuffle filter applied to the rotated words. Pure; any alignment; no overlap of src and dst. */
#ifndef HILORA_FORMAT_PLANES_H
#define HILORA_FORMAT_PLANES_H

#include <stddef.h>
#include <stdint.h>

/* dst gets `width` planes of n bytes each from the n elements at src. */
void hlf_planes_split(void *dst, const void *src, size_t width, size_t n);
/* The inverse: n elements of `width` bytes at dst from the planes at src. */
void hlf_planes_join(void *dst, const void *src, size_t width, size_t n);

/* The same, restricted to a set of HLF_CPU_ flags (format/cpu.h; 0: portable C). The bytes never depend on it. */
void hlf_planes_split_for(unsigned cpu_features, void *dst, const void *src, size_t width, size_t n);
void hlf_planes_join_for(unsigned cpu_features, void *dst, const void *src, size_t width, size_t n);

/* The x86 part (format/planes_x86.c): these handle a leading part of the elements and return how many; 0 where the
 * flags, the build or the width allow none. */
size_t hlf_planes_split_x86(unsigned cpu_features, uint8_t *dst, const uint8_t *src, size_t width, size_t n);
size_t hlf_planes_join_x86(unsigned cpu_features, uint8_t *dst, const uint8_t *src, size_t width, size_t n);

#endif
