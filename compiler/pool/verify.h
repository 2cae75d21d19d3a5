/* Checking a whole pool: every fault is reported, with the adapter, module and byte it belongs to. */
#ifndef HILORA_COMPILER_VERIFY_H
#define HILORA_COMPILER_VERIFY_H

#include "compiler/base/faults.h"
#include "compiler/base/mapped_file.h"
#include "format/index.h"

typedef enum hlc_verify_level {
    HLC_VERIFY_CHECKSUMS = 0, /* structure, every checksum, finite statistics, the digest */
    HLC_VERIFY_DECODE = 1     /* also: every chunk decodes, holds finite numbers, and the content hashes hold */
} hlc_verify_level;

/* What weights may come to when they are decoded, unless a caller says otherwise: zeros, as a B that was not trained holds,
 * compress ten thousandfold, and a hostile pool may be full of them. */
static inline uint64_t hlc_decode_limit(uint64_t pool_bytes) {
    const uint64_t times = 1000, more = UINT64_C(1) << 30;
    return pool_bytes < (UINT64_MAX - more) / times ? pool_bytes * times + more : UINT64_MAX;
}

/* label: the name for faults. decode_limit: weights that decode to more bytes are not decoded, which is a fault; 0: as above.
 * True without faults. Memory: chunks are forgotten once they were read. */
bool hlc_verify_pool(const hlc_mapped_file *file, hlc_verify_level level, uint64_t decode_limit, const char *label, size_t threads,
                     hlc_faults *faults);

#endif
