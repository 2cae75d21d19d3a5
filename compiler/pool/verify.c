#include "compiler/pool/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"
#include "compiler/base/workers.h"
#include "compiler/pool/content.h"
#include "compiler/pool/pool_file.h"

typedef struct verify_job {
    const hlf_index *index;
    hlc_verify_level level;
    const char *label;
    hlc_faults *faults;
    hlc_encoder **coders; /* one per worker; NULL below HLC_VERIFY_DECODE */
} verify_job;

static const char *const side_names[] = {[HLF_SIDE_A] = "A", [HLF_SIDE_B] = "B", [HLF_SIDE_GAUGE] = "gauge"};

static void report(const verify_job *job, const char *place, const hl_diag *diag) {
    hlc_fault_kind kind = diag->status == HL_ERR_MEMORY ? HLC_FAULT_RESOURCE : HLC_FAULT_INPUT;
    if (diag->offset == HL_NO_OFFSET) {
        hlc_fault(job->faults, HLC_ERROR, kind, job->label, place, NULL, "%s", diag->message);
    } else {
        hlc_fault(job->faults, HLC_ERROR, kind, job->label, place, NULL, "byte %llu: %s", (unsigned long long)diag->offset, diag->message);
    }
}

static void name_adapter(const hlf_index *index, const hlf_adapter_record *adapter, char place[HLC_PLACE_SIZE]) {
    hlc_place(place, "adapter", hlf_index_string(index, adapter->name), adapter->name.length);
}

static void report_entry(const verify_job *job, const hlf_adapter_record *adapter, const hlf_entry_record *entry, hlf_side side,
                         const hl_diag *diag) {
    char owner[HLC_PLACE_SIZE], part[HLC_PLACE_SIZE], place[2 * HLC_PLACE_SIZE + 16];
    hlf_module_record module;
    hlf_index_module(job->index, entry->module, &module);
    name_adapter(job->index, adapter, owner);
    hlc_place(part, "module", hlf_index_string(job->index, module.name), module.name.length);
    snprintf(place, sizeof place, "%s: %s: %s", owner, part, side_names[side]);
    report(job, place, diag);
}

static bool finite_elements(const void *bytes, hlf_dtype dtype, uint64_t n) {
    const uint8_t *at = bytes;
    const uint16_t exponent = dtype == HLF_DTYPE_F16 ? 0x7C00 : dtype == HLF_DTYPE_F64 ? 0x7FF0 : 0x7F80;
    const size_t size = hlf_dtype_size(dtype);
    unsigned bad = 0;
    for (uint64_t i = 0; i < n; i++) { /* sign and exponent are in the top two bytes of every type */
        const uint8_t *top = at + (i + 1) * size - 2;
        bad |= ((unsigned)(top[0] | top[1] << 8) & exponent) == exponent;
    }
    return !bad;
}

/* Decodes one matrix; answers its bytes in the source's type for the content hash, or NULL after a fault. */
static void *decode_side(const verify_job *job, const hlf_adapter_record *adapter, const hlf_entry_record *entry, hlf_side side,
                         hlc_encoder *coder, size_t *size) {
    hl_diag diag;
    hl_diag_clear(&diag);
    hlf_chunk_shape shape;
    hlf_index_chunk_shape(job->index, entry, side, &shape);
    hlf_dtype dtype = shape.dtype;
    if (side != HLF_SIDE_GAUGE && !(entry->flags & HLF_ENTRY_SQUEEZED)) {
        dtype = (hlf_dtype)(side == HLF_SIDE_A ? entry->source_dtype_a : entry->source_dtype_b);
    }
    *size = shape.rows * shape.width * hlf_dtype_size(dtype);
    void *values = malloc(*size);
    bool good = values != NULL;
    if (!good) {
        hlc_out_of_memory(job->faults, job->label, *size);
    } else {
        good = dtype == shape.dtype ? hlc_decode_side(job->index, entry, side, coder, values, &diag)
                                    : hlc_decode_source(job->index, entry, side, coder, values, &diag);
        if (!good) {
            report_entry(job, adapter, entry, side, &diag);
        } else if (!finite_elements(values, dtype, shape.rows * shape.width)) {
            hlf_chunk_record chunk;
            hlf_index_chunk(job->index, shape.chunk, &chunk);
            diag = (hl_diag){HL_ERR_INPUT, chunk.offset, "a weight is NaN or infinite"};
            report_entry(job, adapter, entry, side, &diag);
        }
    }
    if (!good) {
        free(values);
        values = NULL;
    }
    return values;
}

static bool hash_side(const verify_job *job, const hlf_adapter_record *adapter, const hlf_entry_record *entry, hlf_side side,
                      hlc_encoder *coder, uint8_t sha256[HLF_SHA256_SIZE]) {
    size_t size;
    void *values = decode_side(job, adapter, entry, side, coder, &size);
    if (values) {
        hlf_sha256_bytes(values, size, sha256);
    }
    free(values);
    return values != NULL;
}

static void decode_adapter(const verify_job *job, const hlf_adapter_record *adapter, hlc_encoder *coder) {
    const hlf_index *index = job->index;
    uint8_t sha256_a[HLF_SHA256_SIZE], sha256_b[HLF_SHA256_SIZE], content[HLF_SHA256_SIZE];
    bool whole = true;
    hlf_sha256 hash;
    hlc_content_begin(&hash);
    for (uint64_t e = adapter->first_entry; e < adapter->first_entry + adapter->entries; e++) {
        hlf_entry_record entry;
        hlf_module_record module;
        hlf_index_entry(index, (uint32_t)e, &entry);
        hlf_index_module(index, entry.module, &module);
        whole &= hash_side(job, adapter, &entry, HLF_SIDE_A, coder, sha256_a);
        whole &= hash_side(job, adapter, &entry, HLF_SIDE_B, coder, sha256_b);
        if (entry.flags & HLF_ENTRY_GAUGE) {
            size_t size;
            free(decode_side(job, adapter, &entry, HLF_SIDE_GAUGE, coder, &size));
        }
        const bool squeezed = entry.flags & HLF_ENTRY_SQUEEZED;
        hlc_content_add(&hash, &(hlc_content_entry){.module = hlf_index_string(index, module.name),
                                                    .module_length = module.name.length,
                                                    .kind = module.kind,
                                                    .rank = entry.rank,
                                                    .d_in = module.d_in,
                                                    .d_out = module.d_out,
                                                    .scale = entry.scale,
                                                    .dtype_a = (hlf_dtype)(squeezed ? entry.stored_dtype_a : entry.source_dtype_a),
                                                    .dtype_b = (hlf_dtype)(squeezed ? entry.stored_dtype_b : entry.source_dtype_b),
                                                    .sha256_a = sha256_a,
                                                    .sha256_b = sha256_b});
    }
    hlf_sha256_final(&hash, content);
    if (whole && memcmp(content, adapter->content_sha256, sizeof content) != 0) {
        char place[HLC_PLACE_SIZE];
        name_adapter(index, adapter, place);
        hlc_bad_input(job->faults, job->label, place, "its content hash is not that of its weights");
    }
}

static void check_chunks(const verify_job *job, const hlf_adapter_record *adapter) {
    for (uint64_t e = adapter->first_entry; e < adapter->first_entry + adapter->entries; e++) {
        hlf_entry_record entry;
        hlf_index_entry(job->index, (uint32_t)e, &entry);
        for (int side = HLF_SIDE_A; side <= HLF_SIDE_GAUGE; side++) {
            hl_diag diag;
            hl_diag_clear(&diag);
            hlf_chunk_shape shape;
            if (hlf_index_chunk_shape(job->index, &entry, (hlf_side)side, &shape) &&
                hlf_index_verify_chunk(job->index, shape.chunk, &diag) != HL_OK) {
                report_entry(job, adapter, &entry, (hlf_side)side, &diag);
            }
        }
    }
}

static void check_texts(const verify_job *job, const hlf_adapter_record *adapter) {
    const hlf_blob_ref *blobs[] = {&adapter->config, &adapter->header};
    for (size_t i = 0; i < 2; i++) {
        hl_diag diag;
        hl_diag_clear(&diag);
        hlc_string text;
        if (!hlc_decode_blob(job->index, blobs[i], &text, &diag)) {
            char place[HLC_PLACE_SIZE];
            name_adapter(job->index, adapter, place);
            report(job, place, &diag);
        }
        hlc_string_free(&text);
    }
}

static void verify_adapter(void *context, size_t i, size_t worker) {
    const verify_job *job = context;
    hlf_adapter_record adapter;
    hl_diag diag;
    hl_diag_clear(&diag);
    hlf_index_adapter(job->index, (uint32_t)i, &adapter);
    if (hlf_index_verify_stats(job->index, (uint32_t)i, &diag) != HL_OK) {
        char place[HLC_PLACE_SIZE];
        name_adapter(job->index, &adapter, place);
        report(job, place, &diag);
    }
    check_texts(job, &adapter);
    if (job->level >= HLC_VERIFY_DECODE) {
        decode_adapter(job, &adapter, job->coders[worker]);
    } else {
        check_chunks(job, &adapter);
    }
}

/* Every chunk of the table belongs to exactly one entry; modules count their adapters. */
static void check_references(const verify_job *job) {
    const hlf_index *index = job->index;
    uint8_t *chunk_uses = calloc(index->chunks, 1);
    uint32_t *module_uses = calloc(index->modules, sizeof *module_uses);
    if (!chunk_uses || !module_uses) {
        hlc_out_of_memory(job->faults, job->label, index->chunks);
    }
    for (uint32_t e = 0; chunk_uses && module_uses && e < index->entries; e++) {
        hlf_entry_record entry;
        hlf_index_entry(index, e, &entry);
        const uint32_t chunks[] = {entry.chunk_a, entry.chunk_b, entry.chunk_gauge};
        module_uses[entry.module]++;
        for (int side = 0; side < 3; side++) {
            if (chunks[side] != HLF_NONE && chunk_uses[chunks[side]]++) {
                hlc_bad_input(job->faults, job->label, "/index/entries", "entry %u shares chunk %u with another", e, chunks[side]);
            }
        }
    }
    for (uint32_t i = 0; chunk_uses && module_uses && i < index->chunks; i++) {
        if (!chunk_uses[i]) {
            hlc_bad_input(job->faults, job->label, "/index/chunks", "chunk %u belongs to no entry", i);
        }
    }
    for (uint32_t i = 0; chunk_uses && module_uses && i < index->modules; i++) {
        hlf_module_record module;
        hlf_index_module(index, i, &module);
        if (module.adapters != module_uses[i]) {
            hlc_bad_input(job->faults, job->label, "/index/modules", "module %u counts %u adapters and has %u", i, module.adapters,
                          module_uses[i]);
        }
    }
    free(module_uses);
    free(chunk_uses);
}

static void check_sections(const verify_job *job) {
    uint8_t digest[HLF_SHA256_SIZE];
    for (int id = HLF_SECTION_MEAN; id <= HLF_SECTION_LAST; id++) { /* the others were checked when the index was opened */
        hl_diag diag;
        hl_diag_clear(&diag);
        if (hlf_index_verify_section(job->index, (hlf_section_id)id, &diag) != HL_OK) {
            report(job, hlf_section_path((hlf_section_id)id), &diag);
        }
    }
    hlf_index_digest(job->index->bytes, &job->index->header, digest);
    if (memcmp(digest, job->index->header.digest, sizeof digest) != 0) {
        hlc_bad_input(job->faults, job->label, "header", "the pool's digest is not that of its sections");
    }
}

static bool make_coders(verify_job *job, size_t threads) {
    job->coders = calloc(threads, sizeof *job->coders);
    bool good = job->coders != NULL;
    for (size_t i = 0; good && i < threads; i++) {
        good = (job->coders[i] = hlc_encoder_create()) != NULL;
    }
    return good;
}

bool hlc_verify_pool(const uint8_t *bytes, uint64_t size, hlc_verify_level level, const char *label, size_t threads, hlc_faults *faults) {
    hlf_index index;
    hl_diag diag;
    hl_diag_clear(&diag);
    const size_t errors = hlc_faults_errors(faults);
    if (hlf_index_open(bytes, size, NULL, &index, &diag) != HL_OK) {
        hlc_fault_from_diag(faults, label, &diag);
        return false;
    }
    verify_job job = {.index = &index, .level = level, .label = label, .faults = faults};
    if (make_coders(&job, threads)) {
        check_sections(&job);
        check_references(&job);
        hlc_parallel(threads, index.adapters, verify_adapter, &job);
    } else {
        hlc_out_of_memory(faults, label, 0);
    }
    for (size_t i = 0; job.coders && i < threads; i++) {
        hlc_encoder_destroy(job.coders[i]);
    }
    free(job.coders);
    return hlc_faults_errors(faults) == errors;
}
