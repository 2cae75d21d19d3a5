/* The records of the .hlp tables in memory, and their encoding. Field meanings: docs/FORMAT.md. Pure. */
#ifndef HILORA_FORMAT_RECORDS_H
#define HILORA_FORMAT_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "format/bytes.h"
#include "format/layout.h"

/* A byte range of the string section. */
typedef struct hlf_string_ref {
    uint32_t offset, length;
} hlf_string_ref;

/* A zstd frame in the blob section. */
typedef struct hlf_blob_ref {
    uint64_t offset, stored, size, checksum;
} hlf_blob_ref;

typedef struct hlf_pool_record {
    hlf_string_ref base_model, base_revision, encoder, encoder_revision, prefix, tool;
    uint32_t dim;        /* d; 0 in a pool without statistics */
    uint32_t stride;     /* floats per row of mean and basis */
    uint32_t normalized; /* 0 no, 1 yes, 2 unknown */
    uint32_t shrinkage;  /* 0 pool, 1 oas, 2 ledoit-wolf, 3 number */
    uint32_t whitening;  /* 0 none, 1 pool */
    uint32_t decompose;  /* the compiler's option: 0 raw, 1 svd, 2 mixed */
    uint32_t calibrated; /* adapters */
    uint32_t max_rank;   /* the compiler's option; 0 none */
    double rho, floor, temperature, whiten_log_det;
    double quantiles[HLF_QUANTILES];
    double miss_first, miss_third;
    uint64_t miss_samples;
    double energy; /* the compiler's option; 0 none */
    double gamma, nucleus_p, familiar;
    uint32_t top_k, wide_k, max_adapters, gate, variance_norm, rivals;
} hlf_pool_record;

typedef struct hlf_adapter_record {
    hlf_string_ref name, base_model, base_revision, source_name;
    uint64_t first_entry, entries, rocs, parameters, source_size, stored_size;
    uint32_t rank, flags, decomposition, dialect;
    uint8_t content_sha256[HLF_SHA256_SIZE], source_sha256[HLF_SHA256_SIZE];
    hlf_blob_ref config, header;
    double threshold, squeeze_error;
    hlf_blob_ref diagonals; /* AdaLoRA's: float64, source_rank of each entry in order */
    uint32_t expert_layout; /* of fused experts in the source: 0 none, 1 rank-major, 2 grouped by expert */
} hlf_adapter_record;

typedef struct hlf_module_record {
    hlf_string_ref name;
    uint32_t kind, adapters;
    uint64_t d_in, d_out;
    uint32_t geometry[HLF_GEOMETRY];
} hlf_module_record;

typedef struct hlf_entry_record {
    uint32_t module, rank, source_rank, flags;
    uint8_t source_dtype_a, source_dtype_b, stored_dtype_a, stored_dtype_b;
    uint32_t chunk_a, chunk_b, chunk_gauge;
    double scale, squeeze_error;
    uint64_t first_roc;
} hlf_entry_record;

typedef struct hlf_chunk_record {
    uint64_t offset, checksum;
    uint32_t stored, row, filter_mask;
} hlf_chunk_record;

typedef struct hlf_stats_record {
    uint32_t m, q;
    uint64_t first_row;      /* of the basis and of singular */
    uint64_t first_leverage; /* of W */
    double tau, rho, lambda, log_norm, deviation;
    double quantiles[HLF_QUANTILES];
    double confusion; /* sum of exp(-B_ij); NaN when not computed */
    uint64_t mean_checksum, basis_checksum, factor_checksum;
} hlf_stats_record;

typedef struct hlf_rival_record {
    uint32_t adapter; /* HLF_NONE in an empty place */
    double distance;
} hlf_rival_record;

void hlf_pool_encode(const hlf_pool_record *record, uint8_t out[HLF_POOL_RECORD]);
void hlf_adapter_encode(const hlf_adapter_record *record, uint8_t out[HLF_ADAPTER_RECORD]);
void hlf_module_encode(const hlf_module_record *record, uint8_t out[HLF_MODULE_RECORD]);
void hlf_entry_encode(const hlf_entry_record *record, uint8_t out[HLF_ENTRY_RECORD]);
void hlf_chunk_encode(const hlf_chunk_record *record, uint8_t out[HLF_CHUNK_RECORD]);
void hlf_stats_encode(const hlf_stats_record *record, uint8_t out[HLF_STATS_RECORD]);
void hlf_rival_encode(const hlf_rival_record *record, uint8_t out[HLF_RIVAL_RECORD]);

void hlf_pool_decode(hlf_pool_record *record, const uint8_t *in);
void hlf_adapter_decode(hlf_adapter_record *record, const uint8_t *in);
void hlf_stats_decode(hlf_stats_record *record, const uint8_t *in);
void hlf_rival_decode(hlf_rival_record *record, const uint8_t *in);

/* These three are decoded by the hundred thousand when a pool opens, so they are written out, and inline: a caller pays
 * for the fields it reads. */
static inline void hlf_module_decode(hlf_module_record *record, const uint8_t *in) {
    record->name.offset = hlf_load_u32(in);
    record->name.length = hlf_load_u32(in + 4);
    record->kind = hlf_load_u32(in + 8);
    record->adapters = hlf_load_u32(in + 12);
    record->d_in = hlf_load_u64(in + 16);
    record->d_out = hlf_load_u64(in + 24);
    memcpy(record->geometry, in + 32, sizeof record->geometry);
}

static inline void hlf_entry_decode(hlf_entry_record *record, const uint8_t *in) {
    record->module = hlf_load_u32(in);
    record->rank = hlf_load_u32(in + 4);
    record->source_rank = hlf_load_u32(in + 8);
    record->flags = hlf_load_u32(in + 12);
    record->source_dtype_a = in[16];
    record->source_dtype_b = in[17];
    record->stored_dtype_a = in[18];
    record->stored_dtype_b = in[19];
    record->chunk_a = hlf_load_u32(in + 20);
    record->chunk_b = hlf_load_u32(in + 24);
    record->chunk_gauge = hlf_load_u32(in + 28);
    record->scale = hlf_load_f64(in + 32);
    record->squeeze_error = hlf_load_f64(in + 40);
    record->first_roc = hlf_load_u64(in + 48);
}

static inline void hlf_chunk_decode(hlf_chunk_record *record, const uint8_t *in) {
    record->offset = hlf_load_u64(in);
    record->checksum = hlf_load_u64(in + 8);
    record->stored = hlf_load_u32(in + 16);
    record->row = hlf_load_u32(in + 20);
    record->filter_mask = hlf_load_u32(in + 24);
}

/* The fields of a record in the file: name, type and byte position, for the HDF5 view and for documentation. */
typedef enum hlf_field_type { HLF_FIELD_U8, HLF_FIELD_U32, HLF_FIELD_U64, HLF_FIELD_F64 } hlf_field_type;

typedef struct hlf_field {
    const char *name;
    hlf_field_type type;
    uint32_t count; /* 1, or the length of an array */
    uint32_t position;
    uint32_t memory; /* offsetof in the struct above */
} hlf_field;

typedef struct hlf_record_type {
    uint32_t size;
    const hlf_field *fields;
    uint32_t field_count;
} hlf_record_type;

/* True when every byte of the record that belongs to no field is zero. */
bool hlf_record_reserved_is_zero(const hlf_record_type *type, const uint8_t *in);
/* NULL for a section that holds no records. */
const hlf_record_type *hlf_record_type_of(hlf_section_id section);
/* The name of a section's dataset in the HDF5 view ("/index/adapters"); NULL for an unknown id. */
const char *hlf_section_path(hlf_section_id section);
hlf_element hlf_section_element(hlf_section_id section);
/* Bytes per element (record size for records). */
uint32_t hlf_section_element_size(hlf_section_id section);

#endif
