#include "compiler/emit/tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/version.h"
#include "format/bytes.h"
#include "format/checksum.h"

/* ---- Strings ---- */

typedef struct interner {
    hlc_text text;
    bool failed;
} interner;

static hlf_string_ref intern(interner *strings, const char *bytes, size_t length) {
    if (!length) {
        return (hlf_string_ref){0, 0};
    }
    if (length > UINT32_MAX - strings->text.length || !hlc_text_append(&strings->text, bytes, length)) {
        strings->failed = true;
        return (hlf_string_ref){0, 0};
    }
    return (hlf_string_ref){(uint32_t)(strings->text.length - length), (uint32_t)length};
}

/* The same reference again where a text repeats from one record to the next, as base models do. */
static hlf_string_ref intern_again(interner *strings, hlf_string_ref previous, const char *bytes, size_t length) {
    if (length && previous.length == length && memcmp(strings->text.bytes + previous.offset, bytes, length) == 0) {
        return previous;
    }
    return intern(strings, bytes, length);
}

static hlf_string_ref intern_text(interner *strings, const char *text) {
    return intern(strings, text, strlen(text));
}

/* ---- Sections ---- */

static bool reserve(hlc_tables *tables, hlf_section_id id, uint64_t rows, uint64_t columns) {
    hlc_section_bytes *section = &tables->sections[id];
    section->rows = rows;
    section->columns = columns;
    if (!hlf_mul(rows, columns ? columns : 1, &section->size) ||
        !hlf_mul(section->size, hlf_section_element_size(id), &section->size)) {
        return false;
    }
    section->bytes = section->size ? calloc(1, section->size) : NULL;
    return !section->size || section->bytes;
}

static bool fill_modules(const hlc_inputs *inputs, interner *strings, hlc_tables *tables) {
    if (!reserve(tables, HLF_SECTION_MODULES, inputs->module_count, 0)) {
        return false;
    }
    for (size_t i = 0; i < inputs->module_count; i++) {
        const hlc_module *module = &inputs->modules[i];
        hlf_module_record record = {.name = intern(strings, module->name.bytes, module->name.length),
                                    .kind = (uint32_t)module->kind,
                                    .adapters = module->adapters,
                                    .d_in = module->d_in,
                                    .d_out = module->d_out};
        memcpy(record.geometry, module->geometry, sizeof record.geometry);
        hlf_module_encode(&record, tables->sections[HLF_SECTION_MODULES].bytes + i * HLF_MODULE_RECORD);
    }
    return true;
}

static hlf_blob_ref add_blob(hlc_section_bytes *blobs, uint64_t *at, const void *stored, size_t stored_size, size_t size) {
    if (!stored_size) {
        return (hlf_blob_ref){0};
    }
    hlf_blob_ref ref = {*at, stored_size, size, hlf_checksum(stored, stored_size)};
    memcpy(blobs->bytes + *at, stored, stored_size);
    *at += stored_size;
    return ref;
}

static bool fill_adapters(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_plan *plan,
                          const hlc_pool_stats *stats, interner *strings, hlc_tables *tables) {
    uint64_t blob_bytes = 0, at = 0;
    for (size_t i = 0; i < inputs->count; i++) {
        blob_bytes += plan->adapters[i].config_size + plan->adapters[i].header_size + plan->adapters[i].diagonals_size;
    }
    tables->adapters = calloc(inputs->count, sizeof *tables->adapters);
    if (!tables->adapters || !reserve(tables, HLF_SECTION_BLOBS, blob_bytes, 0) || !reserve(tables, HLF_SECTION_ADAPTERS, inputs->count, 0)) {
        return false;
    }
    hlf_string_ref base = {0, 0}, revision = {0, 0};
    for (size_t i = 0; i < inputs->count; i++) {
        const hlc_adapter *adapter = inputs->adapters[i];
        const hlc_plan_adapter *planned = &plan->adapters[i];
        hlc_section_bytes *blobs = &tables->sections[HLF_SECTION_BLOBS];
        hlf_adapter_record *record = &tables->adapters[i];
        const char *slash = strrchr(adapter->path, '/');
        base = intern_again(strings, base, adapter->base_model.bytes, adapter->base_model.length);
        revision = intern_again(strings, revision, adapter->base_revision.bytes, adapter->base_revision.length);
        record->name = intern(strings, adapter->name.bytes, adapter->name.length);
        record->base_model = base;
        record->base_revision = revision;
        record->source_name = intern_text(strings, slash ? slash + 1 : adapter->path);
        record->first_entry = planned->first_entry;
        record->entries = adapter->target_count;
        record->source_size = adapter->file_size;
        record->decomposition = options->decomposition == HLC_DECOMPOSE_SVD;
        record->dialect = (uint32_t)adapter->dialect;
        record->expert_layout = (uint32_t)adapter->expert_layout;
        record->flags = (stats->scatter[i].m ? HLF_ADAPTER_ROUTABLE : 0u) | (stats->calibration[i].calibrated ? HLF_ADAPTER_CALIBRATED : 0u) |
                        (adapter->extras_dropped ? HLF_ADAPTER_EXTRAS_DROPPED : 0u);
        if (!isnan(planned->threshold)) {
            record->flags |= HLF_ADAPTER_CONDITIONAL;
            record->threshold = planned->threshold;
        }
        record->config = add_blob(blobs, &at, planned->config, planned->config_size, adapter->config_text.length);
        const bool squeezed = plan->entries[planned->first_entry].squeezed; /* its new rows hold the diagonals */
        record->diagonals = add_blob(blobs, &at, planned->diagonals, squeezed ? 0 : planned->diagonals_size, planned->diagonals_plain);
        record->header = add_blob(blobs, &at, planned->header, planned->header_size, adapter->header_text.length);
        memcpy(record->source_sha256, planned->source_sha256, HLF_SHA256_SIZE);
        for (size_t k = 0; k < adapter->target_count; k++) {
            const hlc_plan_entry *entry = &plan->entries[planned->first_entry + k];
            const hlc_target *target = entry->target;
            record->rank = entry->rank > record->rank ? entry->rank : record->rank;
            record->rocs += entry->rank;
            record->parameters += target->rank * (target->d_in + target->d_out);
            record->flags |= entry->squeezed ? HLF_ADAPTER_SQUEEZED : 0u;
        }
    }
    return true;
}

static bool fill_entries(const hlc_plan *plan, hlc_tables *tables) {
    size_t chunks = 2 * plan->entry_count;
    for (size_t i = 0; i < plan->entry_count; i++) {
        chunks += plan->entries[i].dataset_gauge != HLF_NONE;
    }
    tables->entries = calloc(plan->entry_count, sizeof *tables->entries);
    tables->chunks = calloc(chunks, sizeof *tables->chunks);
    if (!tables->entries || !tables->chunks || !reserve(tables, HLF_SECTION_ENTRIES, plan->entry_count, 0) ||
        !reserve(tables, HLF_SECTION_CHUNKS, chunks, 0) || !reserve(tables, HLF_SECTION_IMPORTANCE, plan->rocs, 0)) {
        return false;
    }
    for (size_t i = 0; i < plan->entry_count; i++) {
        const hlc_plan_entry *entry = &plan->entries[i];
        const hlc_target *target = entry->target;
        tables->entries[i] = (hlf_entry_record){.module = entry->module,
                                                .rank = entry->rank,
                                                .source_rank = target->rank,
                                                .flags = entry->squeezed                    ? HLF_ENTRY_SQUEEZED
                                                         : entry->dataset_gauge != HLF_NONE ? HLF_ENTRY_GAUGE
                                                                                            : 0,
                                                .source_dtype_a = (uint8_t)target->a.dtype,
                                                .source_dtype_b = (uint8_t)target->b.dtype,
                                                .stored_dtype_a = (uint8_t)entry->stored_a,
                                                .stored_dtype_b = (uint8_t)entry->stored_b,
                                                .chunk_gauge = HLF_NONE,
                                                .scale = entry->squeezed ? 1 : target->scale,
                                                .first_roc = entry->first_roc};
    }
    return true;
}

/* ---- Statistics ---- */

static void fill_stats_record(const hlc_pool_stats *stats, const hlc_rivals *rivals, size_t i, size_t stride,
                              uint64_t *row, uint64_t *leverage, hlc_tables *tables) {
    const hlc_scatter *scatter = &stats->scatter[i];
    uint8_t *mean = tables->sections[HLF_SECTION_MEAN].bytes + i * stride * sizeof(float);
    uint8_t *basis = tables->sections[HLF_SECTION_BASIS].bytes + *row * stride * sizeof(float);
    uint8_t *singular = tables->sections[HLF_SECTION_SINGULAR].bytes + *row * sizeof(double);
    uint8_t *weights = tables->sections[HLF_SECTION_LEVERAGE].bytes + *leverage * sizeof(double);
    hlf_stats_record record = {.m = (uint32_t)scatter->m, .q = (uint32_t)scatter->q, .first_row = *row, .first_leverage = *leverage};
    record.confusion = scatter->m ? rivals->sum[i] : NAN;
    record.deviation = NAN;
    for (int k = 0; k < HLF_QUANTILES; k++) {
        record.quantiles[k] = NAN;
    }
    if (scatter->m) {
        memcpy(mean, scatter->mean, stats->d * sizeof(float));
        for (size_t j = 0; j < scatter->q; j++) {
            memcpy(basis + j * stride * sizeof(float), scatter->basis + j * stats->d, stats->d * sizeof(float));
        }
        const size_t factors = scatter->m * scatter->q * sizeof(double);
        if (scatter->q) {
            memcpy(singular, scatter->sv, scatter->q * sizeof(double));
            memcpy(weights, scatter->w, factors);
        }
        record.tau = scatter->tau;
        record.rho = stats->gaussian[i].rho;
        record.lambda = stats->gaussian[i].lambda;
        record.log_norm = stats->gaussian[i].log_norm;
        record.mean_checksum = hlf_checksum(mean, stride * sizeof(float));
        record.basis_checksum = hlf_checksum(basis, scatter->q * stride * sizeof(float));
        record.factor_checksum = hlf_checksum2(singular, scatter->q * sizeof(double), weights, factors);
        if (stats->calibration[i].calibrated) {
            record.deviation = stats->calibration[i].deviation;
            memcpy(record.quantiles, stats->calibration[i].quantiles, sizeof record.quantiles);
        }
        *row += scatter->q;
        *leverage += (uint64_t)scatter->m * scatter->q;
    }
    hlf_stats_encode(&record, tables->sections[HLF_SECTION_STATS].bytes + i * HLF_STATS_RECORD);
}

static bool fill_stats(const hlc_pool_stats *stats, const hlc_rivals *rivals, hlc_tables *tables) {
    const uint64_t stride = hlf_align_up(stats->d, HLF_FLOATS_ALIGN);
    uint64_t rows = 0, leverages = 0;
    for (size_t i = 0; i < stats->count; i++) {
        rows += stats->scatter[i].q;
        leverages += (uint64_t)stats->scatter[i].m * stats->scatter[i].q;
    }
    if (!reserve(tables, HLF_SECTION_STATS, stats->count, 0) || !reserve(tables, HLF_SECTION_MEAN, stats->d ? stats->count : 0, stride) ||
        !reserve(tables, HLF_SECTION_BASIS, rows, stride) || !reserve(tables, HLF_SECTION_SINGULAR, rows, 0) ||
        !reserve(tables, HLF_SECTION_LEVERAGE, leverages, 0) ||
        !reserve(tables, HLF_SECTION_WHITEN, stats->whitened ? stats->d : 0, stats->d)) {
        return false;
    }
    if (stats->whitened) {
        memcpy(tables->sections[HLF_SECTION_WHITEN].bytes, stats->whiten, stats->d * stats->d * sizeof(double));
    }
    uint64_t row = 0, leverage = 0;
    for (size_t i = 0; i < stats->count; i++) {
        fill_stats_record(stats, rivals, i, stride, &row, &leverage, tables);
    }
    return true;
}

static bool fill_rivals(const hlc_rivals *rivals, hlc_tables *tables) {
    if (!reserve(tables, HLF_SECTION_RIVALS, rivals->kept ? rivals->count : 0, rivals->kept)) {
        return false;
    }
    for (size_t i = 0; i < rivals->count * rivals->kept; i++) {
        const bool used = rivals->nearest[i] != HLC_NO_RIVAL;
        const hlf_rival_record record = {used ? rivals->nearest[i] : HLF_NONE, used ? rivals->distance[i] : 0};
        hlf_rival_encode(&record, tables->sections[HLF_SECTION_RIVALS].bytes + i * HLF_RIVAL_RECORD);
    }
    tables->pool.rivals = (uint32_t)rivals->kept;
    return true;
}

/* The defaults that the method's measurements settled (docs/ROUTING.md). */
static void fill_routing_defaults(hlf_pool_record *pool) {
    pool->gamma = 0.4;
    pool->nucleus_p = 0.9;
    pool->familiar = 0.05;
    pool->top_k = 3;
    pool->wide_k = 8;
    pool->max_adapters = 16;
}

static bool fill_pool(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_pool_stats *stats, interner *strings,
                      hlc_tables *tables) {
    hlf_pool_record *pool = &tables->pool;
    pool->base_model = intern_text(strings, inputs->base);
    pool->base_revision = intern_text(strings, inputs->base_revision);
    pool->encoder = intern_text(strings, inputs->encoder);
    pool->encoder_revision = intern_text(strings, inputs->revision);
    pool->prefix = intern_text(strings, inputs->prefix);
    pool->tool = intern_text(strings, "hilora-compile " HLC_VERSION);
    pool->dim = (uint32_t)stats->d;
    pool->stride = (uint32_t)hlf_align_up(stats->d, HLF_FLOATS_ALIGN);
    pool->normalized = (uint32_t)inputs->normalized;
    pool->shrinkage = (uint32_t)stats->shrinkage;
    pool->whitening = stats->whitened;
    pool->decompose = options->decomposition == HLC_DECOMPOSE_SVD;
    pool->energy = options->energy;
    pool->max_rank = options->max_rank;
    pool->calibrated = (uint32_t)stats->calibrated;
    pool->rho = stats->rho;
    pool->floor = stats->floor;
    pool->temperature = stats->temperature;
    pool->whiten_log_det = stats->whiten_log_det;
    memcpy(pool->quantiles, stats->quantiles, sizeof pool->quantiles);
    pool->miss_first = stats->miss_first;
    pool->miss_third = stats->miss_third;
    pool->miss_samples = stats->miss_samples;
    fill_routing_defaults(pool);
    if (!reserve(tables, HLF_SECTION_POOL, 1, 0)) {
        return false;
    }
    hlf_pool_encode(pool, tables->sections[HLF_SECTION_POOL].bytes);
    return true;
}

bool hlc_tables_begin(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_plan *plan, const hlc_pool_stats *stats,
                      const hlc_rivals *rivals, hlc_tables *tables) {
    interner strings = {0};
    *tables = (hlc_tables){0};
    bool good = fill_modules(inputs, &strings, tables) && fill_adapters(options, inputs, plan, stats, &strings, tables) &&
                fill_entries(plan, tables) && fill_stats(stats, rivals, tables) && fill_rivals(rivals, tables) &&
                fill_pool(options, inputs, stats, &strings, tables) && !strings.failed;
    if (good) {
        hlc_section_bytes *section = &tables->sections[HLF_SECTION_STRINGS];
        section->bytes = (uint8_t *)strings.text.bytes;
        section->size = section->rows = strings.text.length;
    } else {
        hlc_text_free(&strings.text);
    }
    return good;
}

uint32_t hlc_tables_add_chunk(hlc_tables *tables, uint64_t offset, const hlc_coded_chunk *chunk, uint32_t row, bool coded) {
    tables->chunks[tables->chunk_count] = (hlf_chunk_record){.offset = offset,
                                                             .checksum = chunk->checksum,
                                                             .stored = (uint32_t)chunk->size,
                                                             .row = row,
                                                             .filter_mask = coded ? HLF_CHUNK_CODED : HLF_CHUNK_RAW};
    return tables->chunk_count++;
}

typedef struct numbered_chunk {
    hlf_chunk_record record;
    uint32_t number;
} numbered_chunk;

static int compare_offsets(const void *a, const void *b) {
    const numbered_chunk *x = a, *y = b;
    return (x->record.offset > y->record.offset) - (x->record.offset < y->record.offset);
}

static bool sort_chunks(hlc_tables *tables, size_t entry_count) {
    const uint32_t count = tables->chunk_count;
    numbered_chunk *chunks = malloc(count * sizeof *chunks);
    uint32_t *moved = malloc(count * sizeof *moved);
    bool good = chunks && moved;
    for (uint32_t i = 0; good && i < count; i++) {
        chunks[i] = (numbered_chunk){tables->chunks[i], i};
    }
    if (good) {
        qsort(chunks, count, sizeof *chunks, compare_offsets);
        for (uint32_t i = 0; i < count; i++) {
            moved[chunks[i].number] = i;
            hlf_chunk_encode(&chunks[i].record, tables->sections[HLF_SECTION_CHUNKS].bytes + (size_t)i * HLF_CHUNK_RECORD);
        }
        for (size_t i = 0; i < entry_count; i++) {
            hlf_entry_record *entry = &tables->entries[i];
            entry->chunk_a = moved[entry->chunk_a];
            entry->chunk_b = moved[entry->chunk_b];
            entry->chunk_gauge = entry->chunk_gauge == HLF_NONE ? HLF_NONE : moved[entry->chunk_gauge];
        }
    }
    free(moved);
    free(chunks);
    return good;
}

bool hlc_tables_finish(hlc_tables *tables, size_t adapter_count, size_t entry_count) {
    if (!sort_chunks(tables, entry_count)) {
        return false;
    }
    for (size_t i = 0; i < entry_count; i++) {
        hlf_entry_encode(&tables->entries[i], tables->sections[HLF_SECTION_ENTRIES].bytes + i * HLF_ENTRY_RECORD);
    }
    for (size_t i = 0; i < adapter_count; i++) {
        hlf_adapter_encode(&tables->adapters[i], tables->sections[HLF_SECTION_ADAPTERS].bytes + i * HLF_ADAPTER_RECORD);
    }
    return true;
}

void hlc_tables_free(hlc_tables *tables) {
    for (int id = 1; id <= HLF_SECTION_LAST; id++) {
        free(tables->sections[id].bytes);
    }
    free(tables->adapters);
    free(tables->entries);
    free(tables->chunks);
    *tables = (hlc_tables){0};
}
