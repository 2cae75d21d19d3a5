#include "format/checksum.h"

/* Compiled in from the header: the runtime links no further library. */
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hlf_checksum(const void *bytes, size_t size) {
    return XXH3_64bits(bytes, size);
}

uint64_t hlf_checksum2(const void *a, size_t a_size, const void *b, size_t b_size) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, a, a_size);
    XXH3_64bits_update(&state, b, b_size);
    return XXH3_64bits_digest(&state);
}
