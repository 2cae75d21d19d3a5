/* Reading weights and texts out of a pool. */
#include <hilora/pool.h>

#include "format/diag.h"
#include "runtime/decode.h"
#include "runtime/memory.h"

/* Decodes to the stored type and rewrites to the wanted one; without a detour when they are the same. */
static hl_status read_chunk(hlr_decoder *decoder, const hlf_chunk_shape *shape, hl_dtype dtype, void *buffer,
                            hl_diag *diag) {
    if ((int)shape->dtype == (int)dtype) {
        return hlr_decode_chunk(decoder, shape, buffer, diag);
    }
    const hl_allocator *allocator = &decoder->pool->allocator;
    hl_status status = hlr_check_decoded_size(decoder->pool, shape->bytes, HL_NO_OFFSET, diag);
    void *plain = NULL;
    if (status == HL_OK && !(plain = hlr_allocate(allocator, (size_t)shape->bytes, 1))) {
        status = hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for a tensor of %llu bytes",
                          (unsigned long long)shape->bytes);
    }
    if (status == HL_OK) {
        status = hlr_decode_chunk(decoder, shape, plain, diag);
    }
    if (status == HL_OK) {
        hlf_convert(buffer, (hlf_dtype)dtype, plain, shape->dtype, (size_t)(shape->rows * shape->width));
    }
    hlr_release(allocator, plain);
    return status;
}

hl_status hl_tensor_read(const hl_pool *pool, uint32_t adapter, uint32_t module, hl_side side, hl_dtype dtype,
                         void *buffer, size_t size, hl_diag *diag) {
    if (!pool || !buffer || (side != HL_SIDE_A && side != HL_SIDE_B) || hlf_dtype_size((hlf_dtype)dtype) == 0) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no pool, no buffer, or no such side or element type");
    }
    const hlf_index *index = &pool->index;
    uint32_t at = adapter < index->adapters ? hlf_index_find_entry(index, adapter, module) : HLF_NONE;
    if (at == HLF_NONE) {
        return hlf_fail(diag, HL_ERR_NOT_FOUND, HL_NO_OFFSET, "adapter %u does not change module %u", adapter, module);
    }
    hlf_entry_record entry;
    hlf_chunk_shape shape;
    hlf_index_entry(index, at, &entry);
    hlf_index_chunk_shape(index, &entry, side == HL_SIDE_A ? HLF_SIDE_A : HLF_SIDE_B, &shape);
    const uint64_t bytes = shape.rows * shape.width * hlf_dtype_size((hlf_dtype)dtype);
    if (bytes != size) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "the tensor has %llu x %llu elements, %llu bytes, not %zu",
                        (unsigned long long)shape.rows, (unsigned long long)shape.width, (unsigned long long)bytes,
                        size);
    }
    hlr_decoder decoder;
    hl_status status = HL_OK;
    if (!hlr_decoder_create(&decoder, pool)) {
        status = hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for a decoder");
    } else {
        status = read_chunk(&decoder, &shape, dtype, buffer, diag);
    }
    hlr_decoder_destroy(&decoder);
    return status;
}

hl_status hl_text_read(const hl_pool *pool, uint32_t adapter, hl_text text, char *buffer, size_t size, hl_diag *diag) {
    if (!pool || (!buffer && size) || (text != HL_TEXT_CONFIG && text != HL_TEXT_HEADER)) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no pool, no buffer, or no such text");
    }
    if (adapter >= pool->index.adapters) {
        return hlf_fail(diag, HL_ERR_NOT_FOUND, HL_NO_OFFSET, "the pool has no adapter %u", adapter);
    }
    hlf_adapter_record record;
    hlf_index_adapter(&pool->index, adapter, &record);
    const hlf_blob_ref *blob = text == HL_TEXT_CONFIG ? &record.config : &record.header;
    if (blob->size != size) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "the text has %llu bytes, not %zu",
                        (unsigned long long)blob->size, size);
    }
    hlr_decoder decoder;
    hl_status status = HL_OK;
    if (!hlr_decoder_create(&decoder, pool)) {
        status = hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for a decoder");
    } else {
        status = hlr_decode_blob(&decoder, blob, buffer, diag);
    }
    hlr_decoder_destroy(&decoder);
    return status;
}
