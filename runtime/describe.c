/* What a pool says about itself: the index's records as views. */
#include <string.h>

#include "format/diag.h"
#include "runtime/pool.h"
#include "runtime/structs.h"

_Static_assert((int)HL_QUANTILES == (int)HLF_QUANTILES, "one table of quantile levels");
_Static_assert((int)HL_DTYPE_F64 == (int)HLF_DTYPE_F64 && (int)HL_DTYPE_F16 == (int)HLF_DTYPE_F16,
               "the same element types");
_Static_assert((int)HL_MODULE_EXPERTS == (int)HLF_MODULE_KIND_LAST, "the same kinds of modules");
_Static_assert((int)HL_ADAPTER_CONDITIONAL == (int)HLF_ADAPTER_CONDITIONAL, "the same flags");
_Static_assert(HL_NONE == HLF_NONE, "the same absent position");

static hl_string string_of(const hl_pool *pool, hlf_string_ref ref) {
    return (hl_string){hlf_index_string(&pool->index, ref), ref.length};
}

hl_status hl_pool_info(const hl_pool *pool, hl_pool_view *view) {
    if (!pool || !hlr_view_ok(view, sizeof *view)) {
        return HL_ERR_ARGUMENT;
    }
    const hlf_index *index = &pool->index;
    const hlf_pool_record *record = &index->pool;
    hl_pool_view own = {
        .format_major = index->header.major,
        .format_minor = index->header.minor,
        .file_bytes = index->size,
        .base_model = string_of(pool, record->base_model),
        .base_revision = string_of(pool, record->base_revision),
        .encoder = string_of(pool, record->encoder),
        .encoder_revision = string_of(pool, record->encoder_revision),
        .prefix = string_of(pool, record->prefix),
        .tool = string_of(pool, record->tool),
        .dim = record->dim,
        .normalized = (hl_normalized)record->normalized,
        .codec = (hl_codec)index->header.codec,
        .shrinkage = (hl_shrinkage)record->shrinkage,
        .whitened = record->whitening,
        .adapters = index->adapters,
        .calibrated = record->calibrated,
        .modules = index->modules,
        .entries = index->entries,
        .rocs = index->rocs,
        .rho = record->rho,
        .floor = record->floor,
        .temperature = record->temperature,
        .miss_first = record->miss_first,
        .miss_third = record->miss_third,
        .miss_samples = record->miss_samples,
        .k = record->top_k,
        .wide_k = record->wide_k,
        .max_adapters = record->max_adapters,
        .gamma = record->gamma,
        .p = record->nucleus_p,
        .familiar = record->familiar,
        .gate = (hl_gate)(record->gate + 1),
        .variance_norm = record->variance_norm,
        .rivals = record->rivals,
    };
    memcpy(own.digest, index->header.digest, sizeof own.digest);
    memcpy(own.quantiles, record->quantiles, sizeof own.quantiles);
    hlr_view_write(view, &own, sizeof own);
    return HL_OK;
}

/* Adds the stored and decoded sizes of one side of an entry. */
static void add_chunk(const hlf_index *index, const hlf_entry_record *entry, hlf_side side, uint64_t *stored,
                      uint64_t *plain) {
    hlf_chunk_shape shape;
    hlf_chunk_record chunk;
    if (hlf_index_chunk_shape(index, entry, side, &shape)) {
        hlf_index_chunk(index, shape.chunk, &chunk);
        *stored += chunk.stored;
        *plain += shape.bytes;
    }
}

hl_status hl_pool_measure(const hl_pool *pool, hl_pool_sizes *sizes) {
    if (!pool || !hlr_view_ok(sizes, sizeof *sizes)) {
        return HL_ERR_ARGUMENT;
    }
    const hlf_index *index = &pool->index;
    const hlf_section *sections = index->header.sections;
    static const hlf_section_id tables[] = {HLF_SECTION_POOL,      HLF_SECTION_STRINGS, HLF_SECTION_ADAPTERS,
                                            HLF_SECTION_MODULES,   HLF_SECTION_ENTRIES, HLF_SECTION_CHUNKS,
                                            HLF_SECTION_IMPORTANCE};
    static const hlf_section_id statistics[] = {HLF_SECTION_STATS,    HLF_SECTION_MEAN,     HLF_SECTION_BASIS,
                                                HLF_SECTION_SINGULAR, HLF_SECTION_LEVERAGE, HLF_SECTION_WHITEN,
                                                HLF_SECTION_RIVALS};
    hl_pool_sizes own = {.tables = HLF_HEADER_SIZE, .texts = sections[HLF_SECTION_BLOBS].length};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        own.tables += sections[tables[i]].length;
        own.statistics += sections[statistics[i]].length;
    }
    for (uint32_t i = 0; i < index->entries; i++) {
        hlf_entry_record entry;
        hlf_module_record module;
        hlf_index_entry(index, i, &entry);
        hlf_index_module(index, entry.module, &module);
        add_chunk(index, &entry, HLF_SIDE_A, &own.weights, &own.weights_plain);
        add_chunk(index, &entry, HLF_SIDE_B, &own.weights, &own.weights_plain);
        add_chunk(index, &entry, HLF_SIDE_GAUGE, &own.gauges, &own.gauges_plain);
        own.weights_source += entry.source_rank * (module.d_in * hlf_dtype_size((hlf_dtype)entry.source_dtype_a) +
                                                   module.d_out * hlf_dtype_size((hlf_dtype)entry.source_dtype_b));
    }
    hlr_view_write(sizes, &own, sizeof own);
    return HL_OK;
}

hl_status hl_adapter_at(const hl_pool *pool, uint32_t i, hl_adapter_view *view) {
    if (!pool || !hlr_view_ok(view, sizeof *view)) {
        return HL_ERR_ARGUMENT;
    }
    if (i >= pool->index.adapters) {
        return HL_ERR_NOT_FOUND;
    }
    hlf_adapter_record record;
    hlf_stats_record stats;
    hlf_index_adapter(&pool->index, i, &record);
    hlf_index_stats(&pool->index, i, &stats);
    hl_adapter_view own = {
        .name = string_of(pool, record.name),
        .base_model = string_of(pool, record.base_model),
        .base_revision = string_of(pool, record.base_revision),
        .source_name = string_of(pool, record.source_name),
        .rank = record.rank,
        .modules = (uint32_t)record.entries,
        .flags = record.flags,
        .decomposition = (hl_decomposition)record.decomposition,
        .rocs = record.rocs,
        .parameters = record.parameters,
        .source_bytes = record.source_size,
        .stored_bytes = record.stored_size,
        .threshold = record.threshold,
        .squeeze_error = record.squeeze_error,
        .samples = stats.m,
        .directions = stats.q,
        .tau = stats.tau,
        .rho = stats.rho,
        .lambda = stats.lambda,
        .deviation = stats.deviation,
        .confusion = stats.confusion,
        .config_bytes = record.config.size,
        .header_bytes = record.header.size,
    };
    memcpy(own.content_sha256, record.content_sha256, sizeof own.content_sha256);
    memcpy(own.source_sha256, record.source_sha256, sizeof own.source_sha256);
    memcpy(own.quantiles, stats.quantiles, sizeof own.quantiles);
    hlr_view_write(view, &own, sizeof own);
    return HL_OK;
}

hl_status hl_module_at(const hl_pool *pool, uint32_t i, hl_module_view *view) {
    if (!pool || !hlr_view_ok(view, sizeof *view)) {
        return HL_ERR_ARGUMENT;
    }
    if (i >= pool->index.modules) {
        return HL_ERR_NOT_FOUND;
    }
    hlf_module_record record;
    hlf_index_module(&pool->index, i, &record);
    hl_module_view own = {
        .name = string_of(pool, record.name),
        .kind = (hl_module_kind)record.kind,
        .adapters = record.adapters,
        .d_in = record.d_in,
        .d_out = record.d_out,
    };
    memcpy(own.geometry, record.geometry, sizeof own.geometry);
    hlr_view_write(view, &own, sizeof own);
    return HL_OK;
}

uint32_t hl_adapter_find(const hl_pool *pool, const char *name, size_t size) {
    return pool && (name || size == 0) ? hlf_index_find_adapter(&pool->index, name, size) : HL_NONE;
}

uint32_t hl_module_find(const hl_pool *pool, const char *name, size_t size) {
    return pool && (name || size == 0) ? hlf_index_find_module(&pool->index, name, size) : HL_NONE;
}

static void write_entry(const hl_pool *pool, uint32_t adapter, uint32_t i, hl_entry_view *view) {
    hlf_adapter_record owner;
    hlf_entry_record record;
    hlf_index_adapter(&pool->index, adapter, &owner);
    hlf_index_entry(&pool->index, i, &record);
    hl_entry_view own = {
        .module = record.module,
        .rank = record.rank,
        .source_rank = record.source_rank,
        .scale = record.scale,
        .dtype_a = (hl_dtype)record.source_dtype_a,
        .dtype_b = (hl_dtype)record.source_dtype_b,
        .stored_dtype_a = (hl_dtype)record.stored_dtype_a,
        .stored_dtype_b = (hl_dtype)record.stored_dtype_b,
        .gauged = (record.flags & HLF_ENTRY_GAUGE) == 0 ? 0 : owner.diagonals.stored > 0 ? 2 : 1,
        .squeezed = (record.flags & HLF_ENTRY_SQUEEZED) != 0,
        .squeeze_error = record.squeeze_error,
    };
    hlr_view_write(view, &own, sizeof own);
}

hl_status hl_entry_at(const hl_pool *pool, uint32_t adapter, uint32_t i, hl_entry_view *view) {
    if (!pool || !hlr_view_ok(view, sizeof *view)) {
        return HL_ERR_ARGUMENT;
    }
    hlf_adapter_record record = {.entries = 0};
    if (adapter < pool->index.adapters) {
        hlf_index_adapter(&pool->index, adapter, &record);
    }
    if (i >= record.entries) {
        return HL_ERR_NOT_FOUND;
    }
    write_entry(pool, adapter, (uint32_t)record.first_entry + i, view);
    return HL_OK;
}

hl_status hl_entry_find(const hl_pool *pool, uint32_t adapter, uint32_t module, hl_entry_view *view) {
    if (!pool || !hlr_view_ok(view, sizeof *view)) {
        return HL_ERR_ARGUMENT;
    }
    uint32_t entry = adapter < pool->index.adapters ? hlf_index_find_entry(&pool->index, adapter, module) : HLF_NONE;
    if (entry == HLF_NONE) {
        return HL_ERR_NOT_FOUND;
    }
    write_entry(pool, adapter, entry, view);
    return HL_OK;
}

hl_status hl_rival_at(const hl_pool *pool, uint32_t adapter, uint32_t k, uint32_t *rival, double *distance,
                      hl_diag *diag) {
    if (!pool || !rival || !distance) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no pool, or no place for the rival");
    }
    if (adapter >= pool->index.adapters || k >= pool->index.pool.rivals) {
        return hlf_fail(diag, HL_ERR_NOT_FOUND, HL_NO_OFFSET, "adapter %u has no rival %u", adapter, k);
    }
    hl_status status = hlr_pool_check_rivals(pool, diag);
    if (status != HL_OK) {
        return status;
    }
    const uint64_t at = (uint64_t)adapter * pool->index.pool.rivals + k;
    hlf_rival_record record;
    hlf_rival_decode(&record, hlf_index_section(&pool->index, HLF_SECTION_RIVALS) + at * HLF_RIVAL_RECORD);
    if (record.adapter == HLF_NONE) {
        return hlf_fail(diag, HL_ERR_NOT_FOUND, HL_NO_OFFSET, "adapter %u has no rival %u", adapter, k);
    }
    *rival = record.adapter;
    *distance = record.distance;
    return HL_OK;
}
