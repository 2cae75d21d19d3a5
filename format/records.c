#include "format/records.h"

#include <stddef.h>
#include <string.h>

#include "format/bytes.h"

static const hlf_field pool_fields[] = {
    {"base_model_offset", HLF_FIELD_U32, 1, 0, offsetof(hlf_pool_record, base_model.offset)},
    {"base_model_length", HLF_FIELD_U32, 1, 4, offsetof(hlf_pool_record, base_model.length)},
    {"base_revision_offset", HLF_FIELD_U32, 1, 8, offsetof(hlf_pool_record, base_revision.offset)},
    {"base_revision_length", HLF_FIELD_U32, 1, 12, offsetof(hlf_pool_record, base_revision.length)},
    {"encoder_offset", HLF_FIELD_U32, 1, 16, offsetof(hlf_pool_record, encoder.offset)},
    {"encoder_length", HLF_FIELD_U32, 1, 20, offsetof(hlf_pool_record, encoder.length)},
    {"encoder_revision_offset", HLF_FIELD_U32, 1, 24, offsetof(hlf_pool_record, encoder_revision.offset)},
    {"encoder_revision_length", HLF_FIELD_U32, 1, 28, offsetof(hlf_pool_record, encoder_revision.length)},
    {"prefix_offset", HLF_FIELD_U32, 1, 32, offsetof(hlf_pool_record, prefix.offset)},
    {"prefix_length", HLF_FIELD_U32, 1, 36, offsetof(hlf_pool_record, prefix.length)},
    {"tool_offset", HLF_FIELD_U32, 1, 40, offsetof(hlf_pool_record, tool.offset)},
    {"tool_length", HLF_FIELD_U32, 1, 44, offsetof(hlf_pool_record, tool.length)},
    {"dim", HLF_FIELD_U32, 1, 48, offsetof(hlf_pool_record, dim)},
    {"stride", HLF_FIELD_U32, 1, 52, offsetof(hlf_pool_record, stride)},
    {"normalized", HLF_FIELD_U32, 1, 56, offsetof(hlf_pool_record, normalized)},
    {"shrinkage", HLF_FIELD_U32, 1, 60, offsetof(hlf_pool_record, shrinkage)},
    {"whitening", HLF_FIELD_U32, 1, 64, offsetof(hlf_pool_record, whitening)},
    {"decompose", HLF_FIELD_U32, 1, 68, offsetof(hlf_pool_record, decompose)},
    {"calibrated", HLF_FIELD_U32, 1, 72, offsetof(hlf_pool_record, calibrated)},
    {"max_rank", HLF_FIELD_U32, 1, 76, offsetof(hlf_pool_record, max_rank)},
    {"rho", HLF_FIELD_F64, 1, 80, offsetof(hlf_pool_record, rho)},
    {"floor", HLF_FIELD_F64, 1, 88, offsetof(hlf_pool_record, floor)},
    {"temperature", HLF_FIELD_F64, 1, 96, offsetof(hlf_pool_record, temperature)},
    {"whiten_log_det", HLF_FIELD_F64, 1, 104, offsetof(hlf_pool_record, whiten_log_det)},
    {"quantiles", HLF_FIELD_F64, 7, 112, offsetof(hlf_pool_record, quantiles)},
    {"miss_first", HLF_FIELD_F64, 1, 168, offsetof(hlf_pool_record, miss_first)},
    {"miss_third", HLF_FIELD_F64, 1, 176, offsetof(hlf_pool_record, miss_third)},
    {"miss_samples", HLF_FIELD_U64, 1, 184, offsetof(hlf_pool_record, miss_samples)},
    {"energy", HLF_FIELD_F64, 1, 192, offsetof(hlf_pool_record, energy)},
    {"gamma", HLF_FIELD_F64, 1, 200, offsetof(hlf_pool_record, gamma)},
    {"nucleus_p", HLF_FIELD_F64, 1, 208, offsetof(hlf_pool_record, nucleus_p)},
    {"familiar", HLF_FIELD_F64, 1, 216, offsetof(hlf_pool_record, familiar)},
    {"top_k", HLF_FIELD_U32, 1, 224, offsetof(hlf_pool_record, top_k)},
    {"wide_k", HLF_FIELD_U32, 1, 228, offsetof(hlf_pool_record, wide_k)},
    {"max_adapters", HLF_FIELD_U32, 1, 232, offsetof(hlf_pool_record, max_adapters)},
    {"gate", HLF_FIELD_U32, 1, 236, offsetof(hlf_pool_record, gate)},
    {"variance_norm", HLF_FIELD_U32, 1, 240, offsetof(hlf_pool_record, variance_norm)},
    {"rivals", HLF_FIELD_U32, 1, 244, offsetof(hlf_pool_record, rivals)},
};

static const hlf_field adapter_fields[] = {
    {"name_offset", HLF_FIELD_U32, 1, 0, offsetof(hlf_adapter_record, name.offset)},
    {"name_length", HLF_FIELD_U32, 1, 4, offsetof(hlf_adapter_record, name.length)},
    {"base_model_offset", HLF_FIELD_U32, 1, 8, offsetof(hlf_adapter_record, base_model.offset)},
    {"base_model_length", HLF_FIELD_U32, 1, 12, offsetof(hlf_adapter_record, base_model.length)},
    {"base_revision_offset", HLF_FIELD_U32, 1, 16, offsetof(hlf_adapter_record, base_revision.offset)},
    {"base_revision_length", HLF_FIELD_U32, 1, 20, offsetof(hlf_adapter_record, base_revision.length)},
    {"source_name_offset", HLF_FIELD_U32, 1, 24, offsetof(hlf_adapter_record, source_name.offset)},
    {"source_name_length", HLF_FIELD_U32, 1, 28, offsetof(hlf_adapter_record, source_name.length)},
    {"first_entry", HLF_FIELD_U64, 1, 32, offsetof(hlf_adapter_record, first_entry)},
    {"entries", HLF_FIELD_U64, 1, 40, offsetof(hlf_adapter_record, entries)},
    {"rocs", HLF_FIELD_U64, 1, 48, offsetof(hlf_adapter_record, rocs)},
    {"parameters", HLF_FIELD_U64, 1, 56, offsetof(hlf_adapter_record, parameters)},
    {"source_size", HLF_FIELD_U64, 1, 64, offsetof(hlf_adapter_record, source_size)},
    {"stored_size", HLF_FIELD_U64, 1, 72, offsetof(hlf_adapter_record, stored_size)},
    {"rank", HLF_FIELD_U32, 1, 80, offsetof(hlf_adapter_record, rank)},
    {"flags", HLF_FIELD_U32, 1, 84, offsetof(hlf_adapter_record, flags)},
    {"decomposition", HLF_FIELD_U32, 1, 88, offsetof(hlf_adapter_record, decomposition)},
    {"dialect", HLF_FIELD_U32, 1, 92, offsetof(hlf_adapter_record, dialect)},
    {"content_sha256", HLF_FIELD_U8, 32, 96, offsetof(hlf_adapter_record, content_sha256)},
    {"source_sha256", HLF_FIELD_U8, 32, 128, offsetof(hlf_adapter_record, source_sha256)},
    {"config_offset", HLF_FIELD_U64, 1, 160, offsetof(hlf_adapter_record, config.offset)},
    {"config_stored", HLF_FIELD_U64, 1, 168, offsetof(hlf_adapter_record, config.stored)},
    {"config_size", HLF_FIELD_U64, 1, 176, offsetof(hlf_adapter_record, config.size)},
    {"config_checksum", HLF_FIELD_U64, 1, 184, offsetof(hlf_adapter_record, config.checksum)},
    {"header_offset", HLF_FIELD_U64, 1, 192, offsetof(hlf_adapter_record, header.offset)},
    {"header_stored", HLF_FIELD_U64, 1, 200, offsetof(hlf_adapter_record, header.stored)},
    {"header_size", HLF_FIELD_U64, 1, 208, offsetof(hlf_adapter_record, header.size)},
    {"header_checksum", HLF_FIELD_U64, 1, 216, offsetof(hlf_adapter_record, header.checksum)},
    {"threshold", HLF_FIELD_F64, 1, 224, offsetof(hlf_adapter_record, threshold)},
    {"squeeze_error", HLF_FIELD_F64, 1, 232, offsetof(hlf_adapter_record, squeeze_error)},
    {"diagonals_offset", HLF_FIELD_U64, 1, 240, offsetof(hlf_adapter_record, diagonals.offset)},
    {"diagonals_stored", HLF_FIELD_U64, 1, 248, offsetof(hlf_adapter_record, diagonals.stored)},
    {"diagonals_size", HLF_FIELD_U64, 1, 256, offsetof(hlf_adapter_record, diagonals.size)},
    {"diagonals_checksum", HLF_FIELD_U64, 1, 264, offsetof(hlf_adapter_record, diagonals.checksum)},
    {"expert_layout", HLF_FIELD_U32, 1, 272, offsetof(hlf_adapter_record, expert_layout)},
};

static const hlf_field module_fields[] = {
    {"name_offset", HLF_FIELD_U32, 1, 0, offsetof(hlf_module_record, name.offset)},
    {"name_length", HLF_FIELD_U32, 1, 4, offsetof(hlf_module_record, name.length)},
    {"kind", HLF_FIELD_U32, 1, 8, offsetof(hlf_module_record, kind)},
    {"adapters", HLF_FIELD_U32, 1, 12, offsetof(hlf_module_record, adapters)},
    {"d_in", HLF_FIELD_U64, 1, 16, offsetof(hlf_module_record, d_in)},
    {"d_out", HLF_FIELD_U64, 1, 24, offsetof(hlf_module_record, d_out)},
    {"geometry", HLF_FIELD_U32, 8, 32, offsetof(hlf_module_record, geometry)},
};

static const hlf_field entry_fields[] = {
    {"module", HLF_FIELD_U32, 1, 0, offsetof(hlf_entry_record, module)},
    {"rank", HLF_FIELD_U32, 1, 4, offsetof(hlf_entry_record, rank)},
    {"source_rank", HLF_FIELD_U32, 1, 8, offsetof(hlf_entry_record, source_rank)},
    {"flags", HLF_FIELD_U32, 1, 12, offsetof(hlf_entry_record, flags)},
    {"source_dtype_a", HLF_FIELD_U8, 1, 16, offsetof(hlf_entry_record, source_dtype_a)},
    {"source_dtype_b", HLF_FIELD_U8, 1, 17, offsetof(hlf_entry_record, source_dtype_b)},
    {"stored_dtype_a", HLF_FIELD_U8, 1, 18, offsetof(hlf_entry_record, stored_dtype_a)},
    {"stored_dtype_b", HLF_FIELD_U8, 1, 19, offsetof(hlf_entry_record, stored_dtype_b)},
    {"chunk_a", HLF_FIELD_U32, 1, 20, offsetof(hlf_entry_record, chunk_a)},
    {"chunk_b", HLF_FIELD_U32, 1, 24, offsetof(hlf_entry_record, chunk_b)},
    {"chunk_gauge", HLF_FIELD_U32, 1, 28, offsetof(hlf_entry_record, chunk_gauge)},
    {"scale", HLF_FIELD_F64, 1, 32, offsetof(hlf_entry_record, scale)},
    {"squeeze_error", HLF_FIELD_F64, 1, 40, offsetof(hlf_entry_record, squeeze_error)},
    {"first_roc", HLF_FIELD_U64, 1, 48, offsetof(hlf_entry_record, first_roc)},
};

static const hlf_field chunk_fields[] = {
    {"offset", HLF_FIELD_U64, 1, 0, offsetof(hlf_chunk_record, offset)},
    {"checksum", HLF_FIELD_U64, 1, 8, offsetof(hlf_chunk_record, checksum)},
    {"stored", HLF_FIELD_U32, 1, 16, offsetof(hlf_chunk_record, stored)},
    {"row", HLF_FIELD_U32, 1, 20, offsetof(hlf_chunk_record, row)},
    {"filter_mask", HLF_FIELD_U32, 1, 24, offsetof(hlf_chunk_record, filter_mask)},
};

static const hlf_field stats_fields[] = {
    {"m", HLF_FIELD_U32, 1, 0, offsetof(hlf_stats_record, m)},
    {"q", HLF_FIELD_U32, 1, 4, offsetof(hlf_stats_record, q)},
    {"first_row", HLF_FIELD_U64, 1, 8, offsetof(hlf_stats_record, first_row)},
    {"first_leverage", HLF_FIELD_U64, 1, 16, offsetof(hlf_stats_record, first_leverage)},
    {"tau", HLF_FIELD_F64, 1, 24, offsetof(hlf_stats_record, tau)},
    {"rho", HLF_FIELD_F64, 1, 32, offsetof(hlf_stats_record, rho)},
    {"lambda", HLF_FIELD_F64, 1, 40, offsetof(hlf_stats_record, lambda)},
    {"log_norm", HLF_FIELD_F64, 1, 48, offsetof(hlf_stats_record, log_norm)},
    {"deviation", HLF_FIELD_F64, 1, 56, offsetof(hlf_stats_record, deviation)},
    {"quantiles", HLF_FIELD_F64, 7, 64, offsetof(hlf_stats_record, quantiles)},
    {"confusion", HLF_FIELD_F64, 1, 120, offsetof(hlf_stats_record, confusion)},
    {"mean_checksum", HLF_FIELD_U64, 1, 128, offsetof(hlf_stats_record, mean_checksum)},
    {"basis_checksum", HLF_FIELD_U64, 1, 136, offsetof(hlf_stats_record, basis_checksum)},
    {"factor_checksum", HLF_FIELD_U64, 1, 144, offsetof(hlf_stats_record, factor_checksum)},
};

static const hlf_field rival_fields[] = {
    {"adapter", HLF_FIELD_U32, 1, 0, offsetof(hlf_rival_record, adapter)},
    {"distance", HLF_FIELD_F64, 1, 8, offsetof(hlf_rival_record, distance)},
};

#define RECORD_TYPE(name, bytes) {bytes, name##_fields, sizeof name##_fields / sizeof name##_fields[0]}

static const hlf_record_type pool_type = RECORD_TYPE(pool, HLF_POOL_RECORD);
static const hlf_record_type adapter_type = RECORD_TYPE(adapter, HLF_ADAPTER_RECORD);
static const hlf_record_type module_type = RECORD_TYPE(module, HLF_MODULE_RECORD);
static const hlf_record_type entry_type = RECORD_TYPE(entry, HLF_ENTRY_RECORD);
static const hlf_record_type chunk_type = RECORD_TYPE(chunk, HLF_CHUNK_RECORD);
static const hlf_record_type stats_type = RECORD_TYPE(stats, HLF_STATS_RECORD);
static const hlf_record_type rival_type = RECORD_TYPE(rival, HLF_RIVAL_RECORD);

typedef struct section_description {
    const char *path;
    hlf_element element;
    const hlf_record_type *record;
} section_description;

static const section_description sections[HLF_SECTION_LAST + 1] = {
    [HLF_SECTION_POOL] = {"/index/pool", HLF_ELEMENT_RECORD, &pool_type},
    [HLF_SECTION_STRINGS] = {"/index/strings", HLF_ELEMENT_BYTES, NULL},
    [HLF_SECTION_ADAPTERS] = {"/index/adapters", HLF_ELEMENT_RECORD, &adapter_type},
    [HLF_SECTION_MODULES] = {"/index/modules", HLF_ELEMENT_RECORD, &module_type},
    [HLF_SECTION_ENTRIES] = {"/index/entries", HLF_ELEMENT_RECORD, &entry_type},
    [HLF_SECTION_CHUNKS] = {"/index/chunks", HLF_ELEMENT_RECORD, &chunk_type},
    [HLF_SECTION_STATS] = {"/index/stats", HLF_ELEMENT_RECORD, &stats_type},
    [HLF_SECTION_MEAN] = {"/route/mean", HLF_ELEMENT_F32, NULL},
    [HLF_SECTION_BASIS] = {"/route/basis", HLF_ELEMENT_F32, NULL},
    [HLF_SECTION_SINGULAR] = {"/route/singular", HLF_ELEMENT_F64, NULL},
    [HLF_SECTION_LEVERAGE] = {"/route/leverage", HLF_ELEMENT_F64, NULL},
    [HLF_SECTION_IMPORTANCE] = {"/index/importance", HLF_ELEMENT_F32, NULL},
    [HLF_SECTION_BLOBS] = {"/index/blobs", HLF_ELEMENT_BYTES, NULL},
    [HLF_SECTION_WHITEN] = {"/route/whiten", HLF_ELEMENT_F64, NULL},
    [HLF_SECTION_RIVALS] = {"/route/rivals", HLF_ELEMENT_RECORD, &rival_type},
};

static const section_description *describe(hlf_section_id section) {
    return (unsigned)section <= HLF_SECTION_LAST && sections[section].path ? &sections[section] : NULL;
}

const hlf_record_type *hlf_record_type_of(hlf_section_id section) {
    const section_description *description = describe(section);
    return description ? description->record : NULL;
}

const char *hlf_section_path(hlf_section_id section) {
    const section_description *description = describe(section);
    return description ? description->path : NULL;
}

hlf_element hlf_section_element(hlf_section_id section) {
    const section_description *description = describe(section);
    return description ? description->element : HLF_ELEMENT_BYTES;
}

uint32_t hlf_section_element_size(hlf_section_id section) {
    const section_description *description = describe(section);
    switch (hlf_section_element(section)) {
    case HLF_ELEMENT_F32:
        return 4;
    case HLF_ELEMENT_F64:
        return 8;
    case HLF_ELEMENT_RECORD:
        return description->record->size;
    case HLF_ELEMENT_BYTES:
        break;
    }
    return 1;
}

static size_t field_bytes(const hlf_field *field) {
    static const size_t size[] = {[HLF_FIELD_U8] = 1, [HLF_FIELD_U32] = 4, [HLF_FIELD_U64] = 8, [HLF_FIELD_F64] = 8};
    return size[field->type] * field->count;
}

static void encode(const hlf_record_type *type, const void *record, uint8_t *out) {
    memset(out, 0, type->size);
    for (uint32_t i = 0; i < type->field_count; i++) {
        const hlf_field *field = &type->fields[i];
        memcpy(out + field->position, (const char *)record + field->memory, field_bytes(field));
    }
}

static void decode(const hlf_record_type *type, void *record, const uint8_t *in) {
    for (uint32_t i = 0; i < type->field_count; i++) {
        const hlf_field *field = &type->fields[i];
        memcpy((char *)record + field->memory, in + field->position, field_bytes(field));
    }
}

bool hlf_record_reserved_is_zero(const hlf_record_type *type, const uint8_t *in) {
    uint32_t at = 0;
    uint8_t seen = 0;
    for (uint32_t i = 0; i < type->field_count; i++) {
        const hlf_field *field = &type->fields[i];
        for (; at < field->position; at++) {
            seen |= in[at];
        }
        at += (uint32_t)field_bytes(field);
    }
    for (; at < type->size; at++) {
        seen |= in[at];
    }
    return seen == 0;
}

void hlf_pool_encode(const hlf_pool_record *record, uint8_t out[HLF_POOL_RECORD]) {
    encode(&pool_type, record, out);
}

void hlf_adapter_encode(const hlf_adapter_record *record, uint8_t out[HLF_ADAPTER_RECORD]) {
    encode(&adapter_type, record, out);
}

void hlf_module_encode(const hlf_module_record *record, uint8_t out[HLF_MODULE_RECORD]) {
    encode(&module_type, record, out);
}

void hlf_entry_encode(const hlf_entry_record *record, uint8_t out[HLF_ENTRY_RECORD]) {
    encode(&entry_type, record, out);
}

void hlf_chunk_encode(const hlf_chunk_record *record, uint8_t out[HLF_CHUNK_RECORD]) {
    encode(&chunk_type, record, out);
}

void hlf_stats_encode(const hlf_stats_record *record, uint8_t out[HLF_STATS_RECORD]) {
    encode(&stats_type, record, out);
}

void hlf_rival_encode(const hlf_rival_record *record, uint8_t out[HLF_RIVAL_RECORD]) {
    encode(&rival_type, record, out);
}

void hlf_pool_decode(hlf_pool_record *record, const uint8_t *in) {
    decode(&pool_type, record, in);
}

void hlf_adapter_decode(hlf_adapter_record *record, const uint8_t *in) {
    decode(&adapter_type, record, in);
}

void hlf_stats_decode(hlf_stats_record *record, const uint8_t *in) {
    decode(&stats_type, record, in);
}

void hlf_rival_decode(hlf_rival_record *record, const uint8_t *in) {
    decode(&rival_type, record, in);
}
