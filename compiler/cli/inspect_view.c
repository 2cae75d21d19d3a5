#include "compiler/cli/inspect.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_sections(const hlf_index *index, hlc_pool_totals *totals) {
    for (int id = 1; id <= HLF_SECTION_LAST; id++) {
        const uint64_t length = index->header.sections[id].length;
        const bool route = (id >= HLF_SECTION_MEAN && id <= HLF_SECTION_LEVERAGE) || id == HLF_SECTION_WHITEN ||
                           id == HLF_SECTION_RIVALS;
        *(route ? &totals->route : &totals->index) += length;
    }
}

static uint64_t chunk_bytes(const hlf_index *index, const hlf_entry_record *entry, hlf_side side) {
    hlf_chunk_shape shape;
    hlf_chunk_record chunk;
    if (!hlf_index_chunk_shape(index, entry, side, &shape)) {
        return 0;
    }
    hlf_index_chunk(index, shape.chunk, &chunk);
    return chunk.stored;
}

bool hlc_inspection_begin(hlc_inspection *inspection) {
    const hlf_index *index = inspection->index;
    hlc_pool_totals *totals = &inspection->totals;
    uint32_t rank = 1;
    *totals = (hlc_pool_totals){0};
    add_sections(index, totals);
    for (uint32_t i = 0; i < index->entries; i++) {
        hlf_entry_record entry;
        hlf_index_entry(index, i, &entry);
        totals->weights += chunk_bytes(index, &entry, HLF_SIDE_A) + chunk_bytes(index, &entry, HLF_SIDE_B);
        totals->gauges += chunk_bytes(index, &entry, HLF_SIDE_GAUGE);
        rank = entry.rank > rank ? entry.rank : rank;
    }
    for (uint32_t i = 0; i < index->adapters; i++) {
        hlc_adapter_view view;
        hlc_adapter_view_get(inspection, i, &view);
        totals->sources += view.record.source_size;
        totals->parameters += view.record.parameters;
        totals->tensors += view.tensors;
        totals->routable += (view.record.flags & HLF_ADAPTER_ROUTABLE) != 0;
    }
    const uint64_t known = totals->weights + totals->gauges + totals->index + totals->route;
    totals->other = known < index->size ? index->size - known : 0; /* entries of a hostile pool may share chunks */
    inspection->importance = malloc(rank * sizeof(float));
    return inspection->importance != NULL;
}

void hlc_inspection_end(hlc_inspection *inspection) {
    free(inspection->importance);
    inspection->importance = NULL;
}

bool hlc_inspection_has_entries(const hlc_inspection *inspection, const hlf_adapter_record *adapter) {
    return inspection->one || (inspection->rivals && adapter->flags & HLF_ADAPTER_SQUEEZED);
}

void hlc_adapter_view_get(const hlc_inspection *inspection, uint32_t adapter, hlc_adapter_view *out) {
    const hlf_index *index = inspection->index;
    *out = (hlc_adapter_view){0};
    hlf_index_adapter(index, adapter, &out->record);
    hlf_index_stats(index, adapter, &out->stats);
    for (uint64_t i = 0; i < out->record.entries; i++) {
        hlf_entry_record entry;
        hlf_module_record module;
        hlf_index_entry(index, (uint32_t)(out->record.first_entry + i), &entry);
        hlf_index_module(index, entry.module, &module);
        out->tensors += entry.source_rank * (module.d_in * hlf_dtype_size((hlf_dtype)entry.source_dtype_a) +
                                             module.d_out * hlf_dtype_size((hlf_dtype)entry.source_dtype_b));
        out->source_dtypes |= 1u << entry.source_dtype_a | 1u << entry.source_dtype_b;
        out->stored_dtypes |= 1u << entry.stored_dtype_a | 1u << entry.stored_dtype_b;
    }
}

void hlc_entry_view_get(const hlc_inspection *inspection, uint32_t entry, hlc_entry_view *out) {
    const hlf_index *index = inspection->index;
    hlf_index_entry(index, entry, &out->record);
    hlf_index_module(index, out->record.module, &out->module);
    for (int side = HLF_SIDE_A; side <= HLF_SIDE_GAUGE; side++) {
        out->bytes[side] = chunk_bytes(index, &out->record, (hlf_side)side);
    }
    memcpy(inspection->importance,
           hlf_index_section(index, HLF_SECTION_IMPORTANCE) + out->record.first_roc * sizeof(float),
           out->record.rank * sizeof(float));
    out->spectrum = hlc_spectrum_of(inspection->importance, out->record.rank);
}

void hlc_inspection_rival(const hlc_inspection *inspection, uint32_t adapter, uint32_t place, hlf_rival_record *out) {
    const hlf_index *index = inspection->index;
    const uint64_t at = (uint64_t)adapter * index->pool.rivals + place;
    hlf_rival_decode(out, hlf_index_section(index, HLF_SECTION_RIVALS) + at * HLF_RIVAL_RECORD);
}

const uint32_t hlc_certified_k[HLC_CERTIFIED] = {1, 3, 8};

void hlc_certified_bounds(const hlf_stats_record *stats, double bounds[HLC_CERTIFIED]) {
    for (size_t i = 0; i < HLC_CERTIFIED; i++) {
        bounds[i] = isnan(stats->confusion) ? NAN : fmin(1, stats->confusion / hlc_certified_k[i]);
    }
}

void hlc_certificate_view_get(const hlc_inspection *inspection, hlc_certificate_view *out) {
    const hlf_pool_record *pool = &inspection->index->pool;
    double samples = 0;
    *out = (hlc_certificate_view){.seen = {NAN, NAN, NAN}};
    for (uint32_t i = 0; i < inspection->index->adapters; i++) {
        hlf_stats_record stats;
        double bounds[HLC_CERTIFIED];
        hlf_index_stats(inspection->index, i, &stats);
        hlc_certified_bounds(&stats, bounds);
        if (isnan(bounds[0])) {
            continue;
        }
        out->adapters++;
        samples += stats.m;
        for (size_t k = 0; k < HLC_CERTIFIED; k++) {
            out->mean[k] += stats.m * bounds[k];
            out->worst[k] = fmax(out->worst[k], bounds[k]);
        }
    }
    for (size_t k = 0; k < HLC_CERTIFIED; k++) {
        out->mean[k] = samples > 0 ? out->mean[k] / samples : NAN;
        out->worst[k] = samples > 0 ? out->worst[k] : NAN;
    }
    if (pool->miss_samples) {
        out->seen[0] = pool->miss_first;
        out->seen[1] = pool->miss_third;
    }
}

#define NAME_OF(names, number) ((number) < sizeof(names) / sizeof((names)[0]) ? (names)[number] : "?")

const char *hlc_decompose_name(uint32_t decompose) {
    static const char *const names[] = {"raw", "svd", "mixed"};
    return NAME_OF(names, decompose);
}

const char *hlc_shrinkage_name(uint32_t shrinkage) {
    static const char *const names[] = {"pool", "oas", "ledoit-wolf", "number"};
    return NAME_OF(names, shrinkage);
}

const char *hlc_gate_name(uint32_t gate) {
    static const char *const names[] = {"magnitude", "contribution", "static"};
    return NAME_OF(names, gate);
}

const char *hlc_kind_name(uint32_t kind) {
    static const char *const names[] = {"linear", "embedding",     "conv1d", "conv2d",
                                        "conv3d", "attention-qkv", "experts"};
    return NAME_OF(names, kind);
}

const char *hlc_dialect_name(uint32_t dialect) {
    static const char *const names[] = {"peft", "kohya", "diffusers", "mlx"};
    return NAME_OF(names, dialect);
}

const char *hlc_codec_version_text(char buffer[16], uint32_t version) {
    snprintf(buffer, 16, "%u.%u.%u", version / 10000 % 1000, version / 100 % 100, version % 100);
    return buffer;
}
