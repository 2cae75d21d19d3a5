/* The checksum of .hlp files: XXH3-64 with seed 0 (xxHash specification 0.1.1). It finds damage; it is no defence against forgery. */
#ifndef HILORA_FORMAT_CHECKSUM_H
#define HILORA_FORMAT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t hlf_checksum(const void *bytes, size_t size);
/* The checksum of a followed by b. */
uint64_t hlf_checksum2(const void *a, size_t a_size, const void *b, size_t b_size);

#endif
