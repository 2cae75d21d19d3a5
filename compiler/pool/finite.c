#include "compiler/pool/finite.h"

#include <stdbool.h>

#include "format/bytes.h"

/* Sign and exponent are in the top two bytes of every type; a number is finite unless its exponent is all ones. */
static unsigned exponent_mask(hlf_dtype dtype) {
    switch (dtype) {
    case HLF_DTYPE_F16:
        return 0x7C00;
    case HLF_DTYPE_F64:
        return 0x7FF0;
    case HLF_DTYPE_BF16:
    case HLF_DTYPE_F32:
    case HLF_DTYPE_NONE:
        break;
    }
    return 0x7F80;
}

uint64_t hlc_count_non_finite(const void *bytes, hlf_dtype dtype, uint64_t n, uint64_t *first) {
    const unsigned mask = exponent_mask(dtype);
    const size_t size = hlf_dtype_size(dtype);
    const uint8_t *top = (const uint8_t *)bytes + size - 2;
    uint64_t count = 0;
    for (uint64_t i = 0; i < n; i++) {
        count += (hlf_load_u16(top + i * size) & mask) == mask;
    }
    *first = count ? 0 : n;
    while (count && (hlf_load_u16(top + *first * size) & mask) != mask) {
        ++*first;
    }
    return count;
}
