#include "compiler/pool/verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"
#include "compiler/base/workers.h"
#include "compiler/pool/content.h"
#include "compiler/pool/finite.h"
#include "compiler/pool/pool_file.h"
#include "format/bytes.h"
#include "format/diag.h"

typedef struct verify_job {
    const hlc_mapped_file *file;
    const hlf_index *index;
    hlc_verify_level level;
    const char *label;
    hlc_faults *faults;
    hlc_encoder **coders; /* one per worker; NULL below HLC_VERIFY_DECODE */
} verify_job;

static const char *const side_names[] = {[HLF_SIDE_A] = "A", [HLF_SIDE_B] = "B", [HLF_SIDE_GAUGE] = "gauge"};

/* otherwise: the kind of what is wrong with the pool. */
static void report_as(const verify_job *job, hlc_fault_kind otherwise, const char *place, const hl_diag *diag) {
    hlc_fault_kind kind = diag->status == HL_ERR_MEMORY ? HLC_FAULT_RESOURCE : otherwise;
    if (diag->offset == HL_NO_OFFSET) {
        hlc_fault(job->faults, HLC_ERROR, kind, job->label, place, NULL, "%s", diag->message);
    } else {
        hlc_fault(job->faults, HLC_ERROR, kind, job->label, place, NULL, "byte %llu: %s", (unsigned long long)diag->offset, diag->message);
    }
}

static void report(const verify_job *job, const char *place, const hl_diag *diag) {
    report_as(job, HLC_FAULT_INPUT, place, diag);
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
    report_as(job, diag->status == HL_ERR_INPUT ? HLC_FAULT_NOT_FINITE : HLC_FAULT_CHUNK, place, diag);
}

/* False, after a fault, when a matrix of shape->rows rows holds NaN or infinity. */
static bool check_finite(const verify_job *job, const hlf_adapter_record *adapter, const hlf_entry_record *entry, hlf_side side,
                         const hlf_chunk_shape *shape, const void *values, hlf_dtype dtype) {
    const uint64_t n = shape->rows * shape->width;
    uint64_t first;
    const uint64_t bad = hlc_count_non_finite(values, dtype, n, &first);
    if (bad) {
        hl_diag diag;
        hl_diag_clear(&diag);
        hlf_fail(&diag, HL_ERR_INPUT, HL_NO_OFFSET, "NaN or infinity in %llu of %llu elements, the first in component %llu, element %llu",
                 (unsigned long long)bad, (unsigned long long)n, (unsigned long long)(first / shape->width),
                 (unsigned long long)(first % shape->width));
        report_entry(job, adapter, entry, side, &diag);
    }
    return bad == 0;
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
        } else {
            check_finite(job, adapter, entry, side, &shape, values, dtype);
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

/* AdaLoRA's diagonals; empty without. False after a fault. */
static bool read_diagonals(const verify_job *job, const hlf_adapter_record *adapter, hlc_string *out) {
    char place[HLC_PLACE_SIZE];
    hl_diag diag;
    hl_diag_clear(&diag);
    name_adapter(job->index, adapter, place);
    if (!hlc_decode_blob(job->index, &adapter->diagonals, out, &diag)) {
        report(job, place, &diag);
        return false;
    }
    if (!adapter->diagonals.stored || out->length == 8 * adapter->rocs) {
        return true;
    }
    hlc_bad_input(job->faults, job->label, place, "its diagonals are not as many as its components");
    hlc_string_free(out);
    return false;
}

static void decode_adapter(const verify_job *job, const hlf_adapter_record *adapter, hlc_encoder *coder) {
    const hlf_index *index = job->index;
    uint8_t sha256_a[HLF_SHA256_SIZE], sha256_b[HLF_SHA256_SIZE], sha256_e[HLF_SHA256_SIZE], content[HLF_SHA256_SIZE];
    const char *diagonal;
    hlc_string diagonals;
    bool whole = read_diagonals(job, adapter, &diagonals);
    hlf_sha256 hash;
    hlc_content_begin(&hash);
    diagonal = whole ? diagonals.bytes : NULL;
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
        if (diagonal) {
            hlf_sha256_bytes(diagonal, 8 * (size_t)entry.rank, sha256_e);
            diagonal += 8 * (size_t)entry.rank;
        }
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
                                                    .sha256_b = sha256_b,
                                                    .sha256_e = diagonal ? sha256_e : NULL});
    }
    hlc_string_free(&diagonals);
    hlf_sha256_final(&hash, content);
    if (whole && memcmp(content, adapter->content_sha256, sizeof content) != 0) {
        char place[HLC_PLACE_SIZE];
        name_adapter(index, adapter, place);
        hlc_error(job->faults, HLC_FAULT_CONTENT_HASH, job->label, place, "its content hash is not that of its weights");
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
    const hlf_blob_ref *blobs[] = {&adapter->config, &adapter->header, &adapter->diagonals};
    for (size_t i = 0; i < sizeof blobs / sizeof blobs[0]; i++) {
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

/* The numbers of the record that follow from the adapter's entries. */
static void check_totals(const verify_job *job, const hlf_adapter_record *adapter) {
    const bool squeezed = adapter->flags & HLF_ADAPTER_SQUEEZED;
    uint64_t parameters = 0, stored = 0;
    double error = 0;
    bool alike = true;
    for (uint64_t e = adapter->first_entry; e < adapter->first_entry + adapter->entries; e++) {
        hlf_entry_record entry;
        hlf_module_record module;
        hlf_index_entry(job->index, (uint32_t)e, &entry);
        hlf_index_module(job->index, entry.module, &module);
        parameters += entry.source_rank * (module.d_in + module.d_out);
        error = entry.squeeze_error > error ? entry.squeeze_error : error;
        alike = alike && squeezed == ((entry.flags & HLF_ENTRY_SQUEEZED) != 0) && entry.squeeze_error >= 0;
        for (int side = HLF_SIDE_A; side <= HLF_SIDE_GAUGE; side++) {
            hlf_chunk_shape shape;
            hlf_chunk_record chunk;
            if (hlf_index_chunk_shape(job->index, &entry, (hlf_side)side, &shape)) {
                hlf_index_chunk(job->index, shape.chunk, &chunk);
                stored += chunk.stored;
            }
        }
    }
    if (parameters != adapter->parameters || stored != adapter->stored_size) {
        char place[HLC_PLACE_SIZE];
        name_adapter(job->index, adapter, place);
        hlc_bad_input(job->faults, job->label, place, "its parameters or stored bytes are not those of its entries");
    }
    if (!alike || error != adapter->squeeze_error || (error > 0 && !squeezed)) {
        char place[HLC_PLACE_SIZE];
        name_adapter(job->index, adapter, place);
        hlc_bad_input(job->faults, job->label, place,
                      "its squeeze error, or that it is squeezed, is not that of its entries");
    }
}

/* Singular values of an entry: finite, not negative, descending. Raw components come in any order, and may be NaN where weights are. */
static void check_importance(const verify_job *job, const hlf_adapter_record *adapter) {
    if (adapter->decomposition != 1) {
        return;
    }
    const uint8_t *importance = hlf_index_section(job->index, HLF_SECTION_IMPORTANCE);
    for (uint64_t e = adapter->first_entry; e < adapter->first_entry + adapter->entries; e++) {
        hlf_entry_record entry;
        float before = INFINITY;
        hlf_index_entry(job->index, (uint32_t)e, &entry);
        for (uint64_t j = 0; j < entry.rank; j++) {
            float value;
            memcpy(&value, importance + (entry.first_roc + j) * sizeof value, sizeof value);
            if (!(value >= 0 && value <= before && value < INFINITY)) {
                char place[HLC_PLACE_SIZE];
                name_adapter(job->index, adapter, place);
                hlc_bad_input(job->faults, job->label, place, "importance %llu is negative, not finite, or out of order",
                              (unsigned long long)(entry.first_roc + j));
                return;
            }
            before = value;
        }
    }
}

/* They are checked to be finite with the other statistics. */
static void check_singular(const verify_job *job, const hlf_adapter_record *adapter, uint32_t number) {
    hlf_stats_record stats;
    hlf_index_stats(job->index, number, &stats);
    double before = INFINITY;
    for (uint32_t j = 0; j < stats.q; j++) {
        const double value = hlf_load_f64(hlf_index_section(job->index, HLF_SECTION_SINGULAR) + (stats.first_row + j) * sizeof value);
        if (!(value > 0 && value <= before)) {
            char place[HLC_PLACE_SIZE];
            name_adapter(job->index, adapter, place);
            hlc_bad_input(job->faults, job->label, place, "singular value %u of its samples is not positive, or out of order", j);
            return;
        }
        before = value;
    }
}

/* An adapter's chunks lie together, nearly always: what is not its own is read again when its turn comes. */
static void forget_chunks(const verify_job *job, const hlf_adapter_record *adapter) {
    uint64_t first = UINT64_MAX, end = 0;
    for (uint64_t e = adapter->first_entry; e < adapter->first_entry + adapter->entries; e++) {
        hlf_entry_record entry;
        hlf_index_entry(job->index, (uint32_t)e, &entry);
        for (int side = HLF_SIDE_A; side <= HLF_SIDE_GAUGE; side++) {
            hlf_chunk_shape shape;
            hlf_chunk_record chunk;
            if (hlf_index_chunk_shape(job->index, &entry, (hlf_side)side, &shape)) {
                hlf_index_chunk(job->index, shape.chunk, &chunk);
                first = chunk.offset < first ? chunk.offset : first;
                end = chunk.offset + chunk.stored > end ? chunk.offset + chunk.stored : end;
            }
        }
    }
    if (first < end) {
        hlc_mapped_forget(job->file, first, end - first);
    }
}

static void verify_adapter(const verify_job *job, uint32_t i, size_t worker) {
    hlf_adapter_record adapter;
    hl_diag diag;
    hl_diag_clear(&diag);
    hlf_index_adapter(job->index, i, &adapter);
    if (hlf_index_verify_stats(job->index, i, &diag) != HL_OK) {
        char place[HLC_PLACE_SIZE];
        name_adapter(job->index, &adapter, place);
        report(job, place, &diag);
    }
    check_singular(job, &adapter, i);
    check_texts(job, &adapter);
    check_totals(job, &adapter);
    check_importance(job, &adapter);
    if (job->level >= HLC_VERIFY_DECODE) {
        decode_adapter(job, &adapter, job->coders[worker]);
    } else {
        check_chunks(job, &adapter);
    }
    forget_chunks(job, &adapter);
}

/* ---- Adapters in parallel, their faults in order ---- */

/* The adapter's own list of faults; NULL when memory is out. */
static void *make_adapter(void *context, size_t i, size_t worker) {
    verify_job own = *(const verify_job *)context;
    own.faults = hlc_faults_create();
    if (own.faults) {
        verify_adapter(&own, (uint32_t)i, worker);
    }
    return own.faults;
}

static bool take_adapter(void *context, size_t i, void *made) {
    (void)i;
    hlc_faults_take(((const verify_job *)context)->faults, made);
    return true;
}

static void drop_adapter(void *context, void *made) {
    (void)context;
    hlc_faults_destroy(made);
}

/* ---- The pool ---- */

/* Every chunk of the table belongs to exactly one entry; modules count their adapters. */
static void check_references(const verify_job *job) {
    const hlf_index *index = job->index;
    bool *chunk_used = calloc(index->chunks, sizeof *chunk_used);
    uint32_t *module_uses = calloc(index->modules, sizeof *module_uses);
    if (!chunk_used || !module_uses) {
        hlc_out_of_memory(job->faults, job->label, index->chunks);
    }
    for (uint32_t e = 0; chunk_used && module_uses && e < index->entries; e++) {
        hlf_entry_record entry;
        hlf_index_entry(index, e, &entry);
        const uint32_t chunks[] = {entry.chunk_a, entry.chunk_b, entry.chunk_gauge};
        module_uses[entry.module]++;
        for (int side = 0; side < 3; side++) {
            if (chunks[side] == HLF_NONE) {
                continue;
            }
            if (chunk_used[chunks[side]]) {
                hlc_bad_input(job->faults, job->label, "/index/entries", "entry %u shares chunk %u with another", e, chunks[side]);
            }
            chunk_used[chunks[side]] = true;
        }
    }
    for (uint32_t i = 0; chunk_used && module_uses && i < index->chunks; i++) {
        if (!chunk_used[i]) {
            hlc_bad_input(job->faults, job->label, "/index/chunks", "chunk %u belongs to no entry", i);
        }
    }
    for (uint32_t i = 0; chunk_used && module_uses && i < index->modules; i++) {
        hlf_module_record module;
        hlf_index_module(index, i, &module);
        if (module.adapters != module_uses[i]) {
            hlc_bad_input(job->faults, job->label, "/index/modules", "module %u counts %u adapters and has %u", i, module.adapters,
                          module_uses[i]);
        }
    }
    free(module_uses);
    free(chunk_used);
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

static void check_whitening(const verify_job *job) {
    const uint64_t n = job->index->header.sections[HLF_SECTION_WHITEN].length / sizeof(double);
    uint64_t first;
    if (n && hlc_count_non_finite(hlf_index_section(job->index, HLF_SECTION_WHITEN), HLF_DTYPE_F64, n, &first)) {
        hlc_bad_input(job->faults, job->label, hlf_section_path(HLF_SECTION_WHITEN), "number %llu is NaN or infinite",
                      (unsigned long long)first);
    }
}

/* Nearest first, ties to the lower index, unused places last; an adapter without statistics has no rivals and is none. */
static bool rival_fits(const hlf_index *index, bool own_statistics, uint32_t adapter, const hlf_rival_record *rival,
                       const hlf_rival_record *before) {
    if (rival->adapter == HLF_NONE) {
        return rival->distance == 0;
    }
    hlf_stats_record stats;
    if (!own_statistics || rival->adapter >= index->adapters || rival->adapter == adapter ||
        !(rival->distance >= 0 && rival->distance < INFINITY)) {
        return false;
    }
    hlf_index_stats(index, rival->adapter, &stats);
    return stats.m > 0 && (!before || (before->adapter != HLF_NONE &&
                                       (rival->distance > before->distance ||
                                        (rival->distance == before->distance && rival->adapter > before->adapter))));
}

static void check_rivals(const verify_job *job) {
    const hlf_index *index = job->index;
    const uint32_t kept = index->pool.rivals;
    for (uint32_t i = 0; i < index->adapters; i++) {
        hlf_stats_record stats;
        hlf_rival_record before;
        hlf_index_stats(index, i, &stats);
        if (stats.m > 0 && stats.confusion < 0) {
            hlc_bad_input(job->faults, job->label, "/index/stats", "the confusion of adapter %u is negative", i);
        }
        for (uint32_t k = 0; k < kept; k++) {
            hlf_rival_record rival;
            const uint64_t at = (uint64_t)i * kept + k;
            hlf_rival_decode(&rival, hlf_index_section(index, HLF_SECTION_RIVALS) + at * HLF_RIVAL_RECORD);
            if (!rival_fits(index, stats.m > 0, i, &rival, k ? &before : NULL)) {
                hlc_bad_input(job->faults, job->label, hlf_section_path(HLF_SECTION_RIVALS),
                              "place %u of adapter %u holds no rival of it, or is out of order", k, i);
                break;
            }
            before = rival;
        }
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

/* What the chunks of all entries come to. At most 10^8 entries of three chunks below 4 GiB: no overflow. */
static uint64_t decoded_bytes(const hlf_index *index) {
    uint64_t bytes = 0;
    for (uint32_t e = 0; e < index->entries; e++) {
        hlf_entry_record entry;
        hlf_index_entry(index, e, &entry);
        for (int side = HLF_SIDE_A; side <= HLF_SIDE_GAUGE; side++) {
            hlf_chunk_shape shape;
            if (hlf_index_chunk_shape(index, &entry, (hlf_side)side, &shape)) {
                bytes += shape.bytes;
            }
        }
    }
    return bytes;
}

/* The level at which the pool can be verified. */
static hlc_verify_level bounded_level(const verify_job *job, hlc_verify_level level, uint64_t limit) {
    if (level < HLC_VERIFY_DECODE) {
        return level;
    }
    const uint64_t bytes = decoded_bytes(job->index), most = limit ? limit : hlc_decode_limit(job->file->size);
    if (bytes <= most) {
        return level;
    }
    hlc_fault(job->faults, HLC_ERROR, HLC_FAULT_CHUNK, job->label, NULL, "--decode-limit raises the limit, if you trust the pool",
              "its weights are not decoded: they come to %llu bytes, and at most %llu are decoded from a pool of this size",
              (unsigned long long)bytes, (unsigned long long)most);
    return HLC_VERIFY_CHECKSUMS;
}

bool hlc_verify_pool(const hlc_mapped_file *file, hlc_verify_level level, uint64_t decode_limit, const char *label, size_t threads,
                     hlc_faults *faults) {
    hlf_index index;
    hl_diag diag;
    hl_diag_clear(&diag);
    const size_t errors = hlc_faults_errors(faults);
    if (hlf_index_open(file->bytes, file->size, NULL, &index, &diag) != HL_OK) {
        hlc_fault_from_diag(faults, label, &diag);
        return false;
    }
    bool in_memory = false;
    verify_job job = {.file = file, .index = &index, .level = level, .label = label, .faults = faults};
    job.level = bounded_level(&job, level, decode_limit);
    if (make_coders(&job, threads)) {
        check_sections(&job);
        check_references(&job);
        check_whitening(&job);
        check_rivals(&job);
        const hlc_pipeline adapters = {make_adapter, take_adapter, drop_adapter, &job};
        in_memory = hlc_ordered(threads, index.adapters, &adapters);
    }
    if (!in_memory) {
        hlc_out_of_memory(faults, label, 0);
    }
    for (size_t i = 0; job.coders && i < threads; i++) {
        hlc_encoder_destroy(job.coders[i]);
    }
    free(job.coders);
    return hlc_faults_errors(faults) == errors;
}
