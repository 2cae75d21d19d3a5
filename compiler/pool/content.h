/* The content hash of an adapter (docs/FORMAT.md, "Content hash"): SHA-256 over what it is, whatever file it came in. */
#ifndef HILORA_COMPILER_CONTENT_H
#define HILORA_COMPILER_CONTENT_H

#include "format/dtype.h"
#include "format/sha256.h"

typedef struct hlc_content_entry {
    const char *module;
    uint64_t module_length;
    uint32_t kind, rank;
    uint64_t d_in, d_out;
    double scale;
    hlf_dtype dtype_a, dtype_b;
    const uint8_t *sha256_a, *sha256_b; /* of the rows of A and of B transposed, in these types */
    const uint8_t *sha256_e; /* of AdaLoRA's diagonal as float64; NULL without */
} hlc_content_entry;

void hlc_content_begin(hlf_sha256 *hash);
/* In the order of module names. */
void hlc_content_add(hlf_sha256 *hash, const hlc_content_entry *entry);

#endif
