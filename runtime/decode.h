/* Decoding chunks and blobs: the only caller of zstd's decompressor in the runtime. */
#ifndef HILORA_RUNTIME_DECODE_H
#define HILORA_RUNTIME_DECODE_H

#include "runtime/pool.h"

/* Decoding state; one thread at a time. */
typedef struct hlr_decoder {
    const hl_pool *pool;
    void *zstd;
    uint8_t *planes; /* scratch from the pool's allocator */
    size_t capacity;
} hlr_decoder;

/* False when memory is out; the decoder may be destroyed in any case. */
bool hlr_decoder_create(hlr_decoder *decoder, const hl_pool *pool);
void hlr_decoder_destroy(hlr_decoder *decoder);

/* Verifies a chunk's checksum and decodes it to shape->bytes bytes at dst (any alignment), in the stored element type.
 * HL_ERR_CORRUPT, HL_ERR_LIMIT (more than the pool's max_chunk_bytes), HL_ERR_MEMORY. */
HL_NODISCARD hl_status hlr_decode_chunk(hlr_decoder *decoder, const hlf_chunk_shape *shape, void *dst, hl_diag *diag);
/* The same for a blob: blob->size bytes. */
HL_NODISCARD hl_status hlr_decode_blob(hlr_decoder *decoder, const hlf_blob_ref *blob, void *dst, hl_diag *diag);

/* HL_ERR_LIMIT when so many decoded bytes are too many for this pool. */
HL_NODISCARD hl_status hlr_check_decoded_size(const hl_pool *pool, uint64_t bytes, uint64_t offset, hl_diag *diag);

#endif
