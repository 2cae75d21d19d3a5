/* hilora-inspect --json. Adapters and modules are written one by one, so that memory does not grow with the pool. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/cli/inspect.h"

static const double quantile_levels[HLF_QUANTILES] = {0, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5};

static json_t *string_json(const hlf_index *index, hlf_string_ref ref) {
    return hlc_cli_string_json(hlf_index_string(index, ref), ref.length);
}

/* null where nothing was recorded. */
static json_t *optional_json(const hlf_index *index, hlf_string_ref ref) {
    return ref.length ? string_json(index, ref) : json_null();
}

static json_t *count_json(uint64_t value) {
    return json_integer((json_int_t)value);
}

static json_t *reals_json(const double *values, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, hlc_cli_real_json(values[i]));
    }
    return list;
}

/* null where there are none. */
static json_t *quantiles_json(const double *values, bool calibrated) {
    return calibrated ? reals_json(values, HLF_QUANTILES) : json_null();
}

static json_t *dtypes_json(unsigned dtypes) {
    json_t *list = json_array();
    for (unsigned d = HLF_DTYPE_F16; d <= HLF_DTYPE_F64; d++) {
        if (dtypes >> d & 1) {
            json_array_append_new(list, json_string(hlf_dtype_name((hlf_dtype)d)));
        }
    }
    return list;
}

static json_t *normalized_json(uint32_t normalized) {
    return normalized == 0 ? json_false() : normalized == 1 ? json_true() : json_null();
}

/* ---- The pool ---- */

static json_t *encoder_json(const hlf_index *index) {
    const hlf_pool_record *pool = &index->pool;
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "name", optional_json(index, pool->encoder), "revision",
                     optional_json(index, pool->encoder_revision), "dim", count_json(pool->dim), "prefix",
                     string_json(index, pool->prefix), "normalized", normalized_json(pool->normalized));
}

static json_t *bytes_json(const hlc_inspection *inspection) {
    const hlc_pool_totals *totals = &inspection->totals;
    json_t *sections = json_object();
    for (int id = 1; id <= HLF_SECTION_LAST; id++) {
        json_object_set_new(sections, hlf_section_path((hlf_section_id)id),
                            count_json(inspection->index->header.sections[id].length));
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "pool", count_json(inspection->index->size),
                     "weights", count_json(totals->weights), "gauges", count_json(totals->gauges), "index",
                     count_json(totals->index), "route", count_json(totals->route), "other", count_json(totals->other),
                     "sources", count_json(totals->sources), "tensors", count_json(totals->tensors), "sections",
                     sections);
}

static json_t *counts_json(const hlc_inspection *inspection) {
    const hlf_index *index = inspection->index;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "adapters", count_json(index->adapters), "routable",
                     count_json(inspection->totals.routable), "calibrated", count_json(index->pool.calibrated),
                     "modules", count_json(index->modules), "entries", count_json(index->entries), "rocs",
                     count_json(index->rocs), "chunks", count_json(index->chunks), "parameters",
                     count_json(inspection->totals.parameters));
}

static json_t *statistics_json(const hlf_index *index) {
    const hlf_pool_record *pool = &index->pool;
    if (!pool->dim) {
        return json_null();
    }
    json_t *misses = json_pack("{s:o, s:o, s:o}", "first", hlc_cli_real_json(pool->miss_first), "among_3",
                               hlc_cli_real_json(pool->miss_third), "samples", count_json(pool->miss_samples));
    return json_pack("{s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "shrinkage", hlc_shrinkage_name(pool->shrinkage),
                     "rho", hlc_cli_real_json(pool->rho), "whiten", pool->whitening ? "pool" : "none", "whiten_log_det",
                     pool->whitening ? hlc_cli_real_json(pool->whiten_log_det) : json_null(), "floor",
                     hlc_cli_real_json(pool->floor), "temperature", hlc_cli_real_json(pool->temperature),
                     "quantile_levels", reals_json(quantile_levels, HLF_QUANTILES), "quantiles",
                     quantiles_json(pool->quantiles, pool->calibrated > 0), "miss_rates", misses);
}

static json_t *routing_json(const hlf_pool_record *pool) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:b}", "k", count_json(pool->top_k), "wide_k",
                     count_json(pool->wide_k), "max_adapters", count_json(pool->max_adapters), "gamma",
                     hlc_cli_real_json(pool->gamma), "p", hlc_cli_real_json(pool->nucleus_p), "familiar",
                     hlc_cli_real_json(pool->familiar), "gate", hlc_gate_name(pool->gate), "variance_norm",
                     pool->variance_norm != 0);
}

static json_t *pool_json(const hlc_inspection *inspection) {
    const hlf_index *index = inspection->index;
    const hlf_header *header = &index->header;
    const hlf_pool_record *pool = &index->pool;
    const bool coded = header->codec == HLF_CODEC_ZSTD;
    char format[16], codec[16];
    snprintf(format, sizeof format, "%u.%u", header->major, header->minor);
    hlc_codec_version_text(codec, header->codec_version);
    return json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:[]}", "format_version",
        format, "digest", hlc_cli_hex_json(header->digest, HLF_SHA256_SIZE), "base_model",
        optional_json(index, pool->base_model), "base_revision", optional_json(index, pool->base_revision), "tool",
        optional_json(index, pool->tool), "encoder", encoder_json(index), "codec", coded ? "zstd" : "store",
        "codec_version", coded ? json_string(codec) : json_null(), "decompose", hlc_decompose_name(pool->decompose),
        "energy", pool->energy > 0 ? hlc_cli_real_json(pool->energy) : json_null(), "max_rank",
        pool->max_rank ? count_json(pool->max_rank) : json_null(), "bytes", bytes_json(inspection), "counts",
        counts_json(inspection), "statistics", statistics_json(index), "routing", routing_json(pool), "file",
        hlc_cli_string_json(inspection->path, strlen(inspection->path)), "faults");
}

/* ---- Adapters ---- */

static json_t *sides_json(json_t *a, json_t *b) {
    return json_pack("{s:o, s:o}", "A", a, "B", b);
}

static json_t *dtype_json(uint8_t dtype) {
    return json_string(hlf_dtype_name((hlf_dtype)dtype));
}

/* The share of the energy in the first 1, 2, 4, ... ROCs, up to all: [[1, 0.5], [2, 0.8], ...]. */
static json_t *energy_json(const float *importance, size_t rank) {
    json_t *list = json_array();
    for (size_t k = 1;; k = 2 * k < rank ? 2 * k : rank) {
        json_array_append_new(
            list, json_pack("[o, o]", count_json(k), hlc_cli_real_json(hlc_energy_share(importance, rank, k))));
        if (k >= rank) {
            return list;
        }
    }
}

static json_t *entry_json(const hlc_inspection *inspection, uint32_t i) {
    hlc_entry_view entry;
    hlc_entry_view_get(inspection, i, &entry);
    const hlf_entry_record *record = &entry.record;
    const bool squeezed = record->flags & HLF_ENTRY_SQUEEZED, gauge = record->flags & HLF_ENTRY_GAUGE;
    json_t *spectrum = json_pack("{s:o, s:o, s:o, s:o, s:o}", "energy", hlc_cli_real_json(entry.spectrum.energy),
                                 "stable_rank", hlc_cli_real_json(entry.spectrum.stable_rank), "effective_rank",
                                 hlc_cli_real_json(entry.spectrum.effective_rank), "entropy",
                                 hlc_cli_real_json(entry.spectrum.entropy), "share_of_first",
                                 energy_json(inspection->importance, record->rank));
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o}", "module",
                     string_json(inspection->index, entry.module.name), "rank", count_json(record->rank), "source_rank",
                     count_json(record->source_rank), "scale", hlc_cli_real_json(record->scale), "squeeze_error",
                     squeezed ? hlc_cli_real_json(record->squeeze_error) : json_null(), "gauge", gauge, "source_dtypes",
                     sides_json(dtype_json(record->source_dtype_a), dtype_json(record->source_dtype_b)),
                     "stored_dtypes",
                     sides_json(dtype_json(record->stored_dtype_a), dtype_json(record->stored_dtype_b)), "stored_bytes",
                     json_pack("{s:o, s:o, s:o}", "A", count_json(entry.bytes[HLF_SIDE_A]), "B",
                               count_json(entry.bytes[HLF_SIDE_B]), "gauge", count_json(entry.bytes[HLF_SIDE_GAUGE])),
                     "spectrum", spectrum);
}

static json_t *adapter_statistics_json(const hlc_adapter_view *view) {
    const hlf_stats_record *stats = &view->stats;
    if (!stats->m) {
        return json_null();
    }
    const bool calibrated = view->record.flags & HLF_ADAPTER_CALIBRATED;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "directions", count_json(stats->q), "tau",
                     hlc_cli_real_json(stats->tau), "rho", hlc_cli_real_json(stats->rho), "lambda",
                     hlc_cli_real_json(stats->lambda), "deviation",
                     calibrated ? hlc_cli_real_json(stats->deviation) : json_null(), "quantiles",
                     quantiles_json(stats->quantiles, calibrated), "confusion", hlc_cli_real_json(stats->confusion));
}

static json_t *rivals_json(const hlc_inspection *inspection, uint32_t adapter) {
    const hlf_index *index = inspection->index;
    json_t *list = json_array();
    for (uint32_t place = 0; place < index->pool.rivals; place++) {
        hlf_rival_record rival;
        hlf_adapter_record record;
        hlc_inspection_rival(inspection, adapter, place, &rival);
        if (rival.adapter < index->adapters) {
            hlf_index_adapter(index, rival.adapter, &record);
            json_array_append_new(list, json_pack("{s:o, s:o}", "adapter", string_json(index, record.name), "distance",
                                                  hlc_cli_real_json(rival.distance)));
        }
    }
    return list;
}

/* By the model, the most that an adapter's inputs may miss the k best scores: {"1": ..., "3": ..., "8": ...}. */
static json_t *bounds_of(const double *bounds) {
    json_t *out = json_object();
    for (size_t i = 0; i < HLC_CERTIFIED; i++) {
        char k[16];
        snprintf(k, sizeof k, "%u", hlc_certified_k[i]);
        json_object_set_new(out, k, hlc_cli_real_json(bounds[i]));
    }
    return out;
}

static json_t *bounds_json(const hlf_stats_record *stats) {
    double bounds[HLC_CERTIFIED];
    hlc_certified_bounds(stats, bounds);
    return bounds_of(bounds);
}

static json_t *certificate_json(const hlc_inspection *inspection) {
    hlc_certificate_view view;
    hlc_certificate_view_get(inspection, &view);
    return json_pack("{s:s, s:o, s:o, s:o, s:{s:o, s:o, s:o}}", "about",
                     "the fitted Gaussians, before fallback, filters and rounding: not prompts", "adapters",
                     count_json(view.adapters), "mean", bounds_of(view.mean), "worst", bounds_of(view.worst), "seen",
                     "1", hlc_cli_real_json(view.seen[0]), "3", hlc_cli_real_json(view.seen[1]), "samples",
                     count_json(inspection->index->pool.miss_samples));
}

static json_t *adapter_json(const hlc_inspection *inspection, uint32_t i) {
    const hlf_index *index = inspection->index;
    hlc_adapter_view view;
    hlc_adapter_view_get(inspection, i, &view);
    const hlf_adapter_record *record = &view.record;
    json_t *out = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
        string_json(index, record->name), "rank", count_json(record->rank), "modules", count_json(record->entries),
        "rocs", count_json(record->rocs), "samples", count_json(view.stats.m), "routable",
        record->flags & HLF_ADAPTER_ROUTABLE, "calibrated", record->flags & HLF_ADAPTER_CALIBRATED, "decompose",
        hlc_decompose_name(record->decomposition), "parameters", count_json(record->parameters), "source_sha256",
        hlc_cli_hex_json(record->source_sha256, HLF_SHA256_SIZE), "content_sha256",
        hlc_cli_hex_json(record->content_sha256, HLF_SHA256_SIZE), "source_file",
        string_json(index, record->source_name), "source_bytes", count_json(record->source_size), "tensor_bytes",
        count_json(view.tensors), "stored_bytes", count_json(record->stored_size), "source_dtypes",
        dtypes_json(view.source_dtypes), "stored_dtypes", dtypes_json(view.stored_dtypes), "statistics",
        adapter_statistics_json(&view));
    json_object_set_new(out, "dialect", json_string(hlc_dialect_name(record->dialect)));
    json_object_set_new(out, "base_model", optional_json(index, record->base_model));
    json_object_set_new(out, "base_revision", optional_json(index, record->base_revision));
    json_object_set_new(out, "squeeze_error",
                        record->flags & HLF_ADAPTER_SQUEEZED ? hlc_cli_real_json(record->squeeze_error) : json_null());
    json_object_set_new(out, "threshold",
                        record->flags & HLF_ADAPTER_CONDITIONAL ? hlc_cli_real_json(record->threshold) : json_null());
    json_object_set_new(out, "extras_dropped", json_boolean(record->flags & HLF_ADAPTER_EXTRAS_DROPPED));
    if (inspection->rivals) {
        json_object_set_new(out, "rivals", rivals_json(inspection, i));
        json_object_set_new(out, "certificate", bounds_json(&view.stats));
    }
    if (hlc_inspection_has_entries(inspection, record)) {
        json_t *entries = json_array();
        for (uint64_t k = 0; k < record->entries; k++) {
            json_array_append_new(entries, entry_json(inspection, (uint32_t)(record->first_entry + k)));
        }
        json_object_set_new(out, "entries", entries);
    }
    return out;
}

static json_t *module_json(const hlf_index *index, uint32_t i) {
    hlf_module_record module;
    hlf_index_module(index, i, &module);
    json_t *geometry = json_array();
    for (size_t k = 0; k < HLF_GEOMETRY; k++) {
        json_array_append_new(geometry, count_json(module.geometry[k]));
    }
    return json_pack("{s:o, s:o, s:o, s:s, s:o, s:o}", "name", string_json(index, module.name), "in",
                     count_json(module.d_in), "out", count_json(module.d_out), "kind", hlc_kind_name(module.kind),
                     "geometry", geometry, "adapters", count_json(module.adapters));
}

/* ---- The document ---- */

/* Writes and frees one value; false when memory is out or the stream fails. */
static bool put(json_t *value, const char *before) {
    fputs(before, stdout);
    bool good = value && json_dumpf(value, stdout, JSON_REAL_PRECISION(17)) == 0;
    json_decref(value);
    return good;
}

static bool put_adapters(const hlc_inspection *inspection) {
    bool good = true;
    fputs(",\n  \"adapters\": [", stdout);
    for (uint32_t i = inspection->first; good && i < inspection->end; i++) {
        good = put(adapter_json(inspection, i), i > inspection->first ? ",\n    " : "\n    ");
    }
    fputs("\n  ]", stdout);
    return good;
}

/* All modules of the pool, or those of the one adapter that is shown. */
static bool put_modules(const hlc_inspection *inspection) {
    const hlf_index *index = inspection->index;
    hlf_adapter_record adapter = {.entries = index->modules};
    if (inspection->one) {
        hlf_index_adapter(index, inspection->first, &adapter);
    }
    bool good = true;
    fputs(",\n  \"modules\": [", stdout);
    for (uint32_t i = 0; good && i < adapter.entries; i++) {
        hlf_entry_record entry = {.module = i};
        if (inspection->one) {
            hlf_index_entry(index, (uint32_t)adapter.first_entry + i, &entry);
        }
        good = put(module_json(index, entry.module), i ? ",\n    " : "\n    ");
    }
    fputs("\n  ]", stdout);
    return good;
}

/* All but the closing brace, so that more members can follow. */
static bool put_pool(const hlc_inspection *inspection) {
    json_t *pool = pool_json(inspection);
    char *text = pool ? json_dumps(pool, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    if (text) {
        fwrite(text, 1, strlen(text) - strlen("\n}"), stdout);
    }
    free(text);
    json_decref(pool);
    return text != NULL;
}

int hlc_inspect_json(const hlc_program *program, const hlc_inspection *inspection) {
    bool good = put_pool(inspection) && put_adapters(inspection) && put_modules(inspection) &&
                (!inspection->rivals || put(certificate_json(inspection), ",\n  \"certificate\": "));
    fputs("\n}\n", stdout);
    if (!good && !ferror(stdout)) {
        fprintf(stderr, "%s: out of memory\n", program->name);
        return HLC_EXIT_RESOURCE;
    }
    return hlc_cli_finish(program, HLC_EXIT_DONE);
}
