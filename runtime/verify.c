/* hl_pool_verify: everything that opening leaves for later, at once. */
#include <math.h>
#include <string.h>

#include "format/diag.h"
#include "runtime/decode.h"
#include "runtime/memory.h"
#include "runtime/structs.h"

typedef struct verification {
    const hl_pool *pool;
    hl_verify_options options;
    hl_diag *diag; /* the first fault */
    hl_status first;
    hlr_decoder decoder;
    void *plain; /* one decoded chunk */
    size_t capacity;
} verification;

/* Notes the outcome of one check; answers whether to go on. */
static bool go_on(verification *v, hl_status status, const hl_diag *fault) {
    if (status == HL_OK) {
        return true;
    }
    if (v->first == HL_OK) {
        v->first = status;
        hlf_fail(v->diag, status, fault->offset, "%s", fault->message);
    }
    if (v->options.report) {
        v->options.report(v->options.user, fault);
    }
    return v->options.report && status != HL_ERR_MEMORY;
}

static bool verify_sections(verification *v) {
    const hlf_index *index = &v->pool->index;
    for (int id = 1; id <= HLF_SECTION_LAST; id++) {
        hl_diag fault;
        hl_diag_clear(&fault);
        if (index->header.sections[id].length &&
            !go_on(v, hlf_index_verify_section(index, (hlf_section_id)id, &fault), &fault)) {
            return false;
        }
    }
    return true;
}

static hl_status check_digest(const hlf_index *index, hl_diag *fault) {
    uint8_t digest[HLF_SHA256_SIZE];
    hlf_index_digest(index->bytes, &index->header, digest);
    if (memcmp(digest, index->header.digest, sizeof digest) != 0) {
        return hlf_fail(fault, HL_ERR_CORRUPT, HLF_AT_DIGEST, "the pool's digest is not that of its sections");
    }
    return HL_OK;
}

static hl_status check_importance(const hlf_index *index, hl_diag *fault) {
    const hlf_section *section = &index->header.sections[HLF_SECTION_IMPORTANCE];
    for (uint64_t at = section->offset; at < section->offset + section->length; at += sizeof(float)) {
        float value;
        memcpy(&value, index->bytes + at, sizeof value);
        if (!(value >= 0) || !isfinite(value)) {
            return hlf_fail(fault, HL_ERR_INPUT, at, "the importance of a component is negative or not finite");
        }
    }
    return HL_OK;
}

/* What belongs to no adapter. */
static bool verify_shared(verification *v) {
    const hlf_index *index = &v->pool->index;
    hl_diag fault[4];
    for (int i = 0; i < 4; i++) {
        hl_diag_clear(&fault[i]);
    }
    return go_on(v, check_digest(index, &fault[0]), &fault[0]) &&
           go_on(v, check_importance(index, &fault[1]), &fault[1]) &&
           go_on(v, hlr_pool_check_whiten(v->pool, &fault[2]), &fault[2]) &&
           go_on(v, hlr_pool_check_rivals(v->pool, &fault[3]), &fault[3]);
}

/* Room for `bytes` decoded bytes at v->plain. */
static hl_status reserve(verification *v, uint64_t bytes, hl_diag *fault) {
    hl_status status = hlr_check_decoded_size(v->pool, bytes, HL_NO_OFFSET, fault);
    if (status == HL_OK && v->capacity < bytes) {
        hlr_release(&v->pool->allocator, v->plain);
        v->plain = hlr_allocate(&v->pool->allocator, (size_t)bytes, 1);
        v->capacity = v->plain ? (size_t)bytes : 0;
        status = v->plain ? HL_OK : hlf_fail(fault, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for a decoded tensor");
    }
    return status;
}

static bool verify_chunk(verification *v, const hlf_entry_record *entry, hlf_side side) {
    hlf_chunk_shape shape;
    hl_diag fault;
    hl_diag_clear(&fault);
    if (!hlf_index_chunk_shape(&v->pool->index, entry, side, &shape)) {
        return true;
    }
    hl_status status = reserve(v, shape.bytes, &fault);
    if (status == HL_OK) {
        status = hlr_decode_chunk(&v->decoder, &shape, v->plain, &fault);
    }
    return go_on(v, status, &fault);
}

static bool verify_blob(verification *v, const hlf_blob_ref *blob) {
    hl_diag fault;
    hl_diag_clear(&fault);
    hl_status status = reserve(v, blob->size, &fault);
    if (status == HL_OK) {
        status = hlr_decode_blob(&v->decoder, blob, v->plain, &fault);
    }
    return go_on(v, status, &fault);
}

static bool verify_adapter(verification *v, uint32_t i) {
    const hlf_index *index = &v->pool->index;
    hlf_adapter_record adapter;
    hl_diag fault;
    hl_diag_clear(&fault);
    hlf_index_adapter(index, i, &adapter);
    if (!go_on(v, hlf_index_verify_stats(index, i, &fault), &fault) || !verify_blob(v, &adapter.config) ||
        !verify_blob(v, &adapter.header)) {
        return false;
    }
    for (uint64_t e = adapter.first_entry; e < adapter.first_entry + adapter.entries; e++) {
        hlf_entry_record entry;
        hlf_index_entry(index, (uint32_t)e, &entry);
        if (!verify_chunk(v, &entry, HLF_SIDE_A) || !verify_chunk(v, &entry, HLF_SIDE_B) ||
            !verify_chunk(v, &entry, HLF_SIDE_GAUGE)) {
            return false;
        }
    }
    return true;
}

hl_status hl_pool_verify(const hl_pool *pool, const hl_verify_options *options, hl_diag *diag) {
    verification v = {.pool = pool, .diag = diag};
    if (!pool) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no pool");
    }
    hl_status status = hlr_options_read(&v.options, sizeof v.options, sizeof v.options, options, diag);
    if (status != HL_OK) {
        return status;
    }
    if (!hlr_decoder_create(&v.decoder, pool)) {
        v.first = hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for a decoder");
    }
    bool whole = v.first == HL_OK && verify_sections(&v) && verify_shared(&v);
    for (uint32_t i = 0; whole && i < pool->index.adapters; i++) {
        whole = verify_adapter(&v, i);
    }
    hlr_decoder_destroy(&v.decoder);
    hlr_release(&pool->allocator, v.plain);
    return v.first;
}
