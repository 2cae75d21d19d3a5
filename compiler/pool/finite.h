/* Looking for NaN and infinity in stored elements. Pure. */
#ifndef HILORA_COMPILER_FINITE_H
#define HILORA_COMPILER_FINITE_H

#include <stdint.h>

#include "format/dtype.h"

/* How many of n little-endian elements (any alignment) are NaN or infinite; *first is the position of the first one, n
 * without any. */
uint64_t hlc_count_non_finite(const void *bytes, hlf_dtype dtype, uint64_t n, uint64_t *first);

#endif
