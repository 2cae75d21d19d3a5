#include "runtime/decode.h"

#include <string.h>
#include <zstd.h>

#include "format/diag.h"
#include "format/planes.h"
#include "runtime/memory.h"

bool hlr_decoder_create(hlr_decoder *decoder, const hl_pool *pool) {
    *decoder = (hlr_decoder){.pool = pool, .zstd = ZSTD_createDCtx()};
    return decoder->zstd != NULL;
}

void hlr_decoder_destroy(hlr_decoder *decoder) {
    ZSTD_freeDCtx(decoder->zstd);
    if (decoder->pool) {
        hlr_release(&decoder->pool->allocator, decoder->planes);
    }
    *decoder = (hlr_decoder){.pool = NULL};
}

hl_status hlr_check_decoded_size(const hl_pool *pool, uint64_t bytes, uint64_t offset, hl_diag *diag) {
    if (bytes > pool->max_chunk_bytes) {
        return hlf_fail(diag, HL_ERR_LIMIT, offset, "%llu bytes decoded, over the limit of %llu",
                        (unsigned long long)bytes, (unsigned long long)pool->max_chunk_bytes);
    }
    return HL_OK;
}

/* One frame of exactly `size` bytes of content. */
static hl_status decode_frame(hlr_decoder *decoder, const uint8_t *frame, size_t stored, void *dst, size_t size,
                              uint64_t offset, hl_diag *diag) {
    unsigned long long content = ZSTD_getFrameContentSize(frame, stored);
    if (content != size || ZSTD_findFrameCompressedSize(frame, stored) != stored) {
        return hlf_fail(diag, HL_ERR_CORRUPT, offset, "not one zstd frame of %zu bytes", size);
    }
    size_t decoded = ZSTD_decompressDCtx(decoder->zstd, dst, size, frame, stored);
    if (decoded != size) {
        return hlf_fail(diag, HL_ERR_CORRUPT, offset, "a zstd frame does not decode: %s",
                        ZSTD_isError(decoded) ? ZSTD_getErrorName(decoded) : "wrong size");
    }
    return HL_OK;
}

static bool reserve(hlr_decoder *decoder, size_t bytes) {
    if (decoder->capacity < bytes) {
        hlr_release(&decoder->pool->allocator, decoder->planes);
        decoder->planes = hlr_allocate(&decoder->pool->allocator, bytes, 1);
        decoder->capacity = decoder->planes ? bytes : 0;
    }
    return decoder->planes != NULL;
}

hl_status hlr_decode_chunk(hlr_decoder *decoder, const hlf_chunk_shape *shape, void *dst, hl_diag *diag) {
    const hlf_index *index = &decoder->pool->index;
    hlf_chunk_record chunk;
    hlf_index_chunk(index, shape->chunk, &chunk);
    hl_status status = hlr_check_decoded_size(decoder->pool, shape->bytes, chunk.offset, diag);
    if (status == HL_OK) {
        status = hlf_index_verify_chunk(index, shape->chunk, diag);
    }
    if (status != HL_OK) {
        return status;
    }
    const uint8_t *stored = index->bytes + chunk.offset;
    if (chunk.filter_mask == HLF_CHUNK_RAW) {
        memcpy(dst, stored, (size_t)shape->bytes);
        return HL_OK;
    }
    if (!reserve(decoder, (size_t)shape->bytes)) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for a tensor of %llu bytes",
                        (unsigned long long)shape->bytes);
    }
    status = decode_frame(decoder, stored, chunk.stored, decoder->planes, (size_t)shape->bytes, chunk.offset, diag);
    if (status == HL_OK) {
        size_t width = hlf_dtype_size(shape->dtype);
        hlf_planes_join(dst, decoder->planes, width, (size_t)shape->bytes / width);
    }
    return status;
}

hl_status hlr_decode_blob(hlr_decoder *decoder, const hlf_blob_ref *blob, void *dst, hl_diag *diag) {
    const hlf_index *index = &decoder->pool->index;
    const uint64_t offset = index->header.sections[HLF_SECTION_BLOBS].offset + blob->offset;
    hl_status status = hlr_check_decoded_size(decoder->pool, blob->size, offset, diag);
    if (status == HL_OK) {
        status = hlf_index_verify_blob(index, blob, diag);
    }
    if (status != HL_OK || (blob->stored == 0 && blob->size == 0)) {
        return status;
    }
    return decode_frame(decoder, hlf_index_blob(index, blob), (size_t)blob->stored, dst, (size_t)blob->size, offset,
                        diag);
}
