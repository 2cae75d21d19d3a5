#include "compiler/pool/pool_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/diag.h"

void hlc_fault_from_diag(hlc_faults *faults, const char *file, const hl_diag *diag) {
    char place[40];
    snprintf(place, sizeof place, "byte %llu", (unsigned long long)diag->offset);
    hlc_fault(faults, HLC_ERROR, diag->status == HL_ERR_MEMORY || diag->status == HL_ERR_IO ? HLC_FAULT_RESOURCE : HLC_FAULT_INPUT, file,
              diag->offset == HL_NO_OFFSET ? NULL : place, NULL, "%s", diag->message);
}

bool hlc_pool_file_open(hlc_pool_file *pool, const char *path, hlc_faults *faults) {
    *pool = (hlc_pool_file){.path = strdup(path)};
    if (!pool->path) {
        hlc_out_of_memory(faults, path, 0);
        return false;
    }
    hl_diag diag;
    hl_diag_clear(&diag);
    if (!hlc_map_file(&pool->file, path, faults)) {
        hlc_pool_file_close(pool);
        return false;
    }
    if (hlf_index_open(pool->file.bytes, pool->file.size, NULL, &pool->index, &diag) != HL_OK) {
        hlc_fault_from_diag(faults, path, &diag);
        hlc_pool_file_close(pool);
        return false;
    }
    return true;
}

void hlc_pool_file_close(hlc_pool_file *pool) {
    hlc_unmap_file(&pool->file);
    free(pool->path);
    *pool = (hlc_pool_file){0};
}

/* After a decoder of codec.h has failed. */
static bool decoding_failed(uint64_t offset, const char *what, uint64_t size, hl_diag *diag) {
    if (errno == ENOMEM) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory: decoding %llu bytes", (unsigned long long)size) == HL_OK;
    }
    return hlf_fail(diag, HL_ERR_CORRUPT, offset, "%s does not decode to %llu bytes", what, (unsigned long long)size) == HL_OK;
}

bool hlc_decode_side(const hlf_index *index, const hlf_entry_record *entry, hlf_side side, hlc_encoder *coder, void *out, hl_diag *diag) {
    hlf_chunk_shape shape;
    hlf_chunk_record chunk;
    if (!hlf_index_chunk_shape(index, entry, side, &shape)) {
        return hlf_fail(diag, HL_ERR_NOT_FOUND, HL_NO_OFFSET, "the entry has no gauge") == HL_OK;
    }
    if (hlf_index_verify_chunk(index, shape.chunk, diag) != HL_OK) {
        return false;
    }
    hlf_index_chunk(index, shape.chunk, &chunk);
    const uint8_t *bytes = index->bytes + chunk.offset;
    const size_t width = hlf_dtype_size(shape.dtype);
    if (chunk.filter_mask == HLF_CHUNK_RAW) {
        memcpy(out, bytes, shape.bytes);
        return true;
    }
    if (!hlc_decode_chunk(coder, bytes, chunk.stored, width, shape.bytes / width, out)) {
        return decoding_failed(chunk.offset, "a chunk", shape.bytes, diag);
    }
    return true;
}

bool hlc_decode_source(const hlf_index *index, const hlf_entry_record *entry, hlf_side side, hlc_encoder *coder, void *out, hl_diag *diag) {
    hlf_chunk_shape shape;
    hlf_index_chunk_shape(index, entry, side, &shape);
    const hlf_dtype source = (hlf_dtype)(side == HLF_SIDE_A ? entry->source_dtype_a : entry->source_dtype_b);
    if (source == shape.dtype) {
        return hlc_decode_side(index, entry, side, coder, out, diag);
    }
    void *stored = malloc(shape.bytes);
    if (!stored) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory: %llu bytes", (unsigned long long)shape.bytes) == HL_OK;
    }
    bool good = hlc_decode_side(index, entry, side, coder, stored, diag);
    if (good) {
        hlf_convert(out, source, stored, shape.dtype, shape.rows * shape.width);
    }
    free(stored);
    return good;
}

bool hlc_decode_blob(const hlf_index *index, const hlf_blob_ref *blob, hlc_string *out, hl_diag *diag) {
    enum { LONGEST = 128 << 20 }; /* a safetensors header has at most 100,000,000 bytes */
    *out = (hlc_string){0};
    if (!blob->stored) {
        return true;
    }
    if (hlf_index_verify_blob(index, blob, diag) != HL_OK) {
        return false;
    }
    if (blob->size > LONGEST) {
        return hlf_fail(diag, HL_ERR_LIMIT, HL_NO_OFFSET, "a text of %llu bytes: over the limit", (unsigned long long)blob->size) == HL_OK;
    }
    out->bytes = calloc(1, blob->size + 1);
    if (!out->bytes) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory: %llu bytes", (unsigned long long)blob->size) == HL_OK;
    }
    if (!hlc_decompress_text(hlf_index_blob(index, blob), blob->stored, out->bytes, blob->size)) {
        const int error_number = errno;
        hlc_string_free(out);
        errno = error_number;
        return decoding_failed(index->header.sections[HLF_SECTION_BLOBS].offset + blob->offset, "a text", blob->size, diag);
    }
    out->length = blob->size;
    return true;
}
