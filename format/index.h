/* The tables of a .hlp file in memory: checked whole, then read without further checks. Pure: no allocation, no I/O.
 *
 * hlf_index_open verifies the header and the sections that every use needs (pool, strings, adapters, modules, entries,
 * chunks, statistics records): checksums, ranges, order, counts, and that nothing overlaps. The large sections (mean, basis, singular,
 * leverage, importance, blobs, whiten, rivals) and the chunks are only located; their checksums are verified on first use by the
 * functions below. The index points into `bytes`, which must stay mapped and unchanged. */
#ifndef HILORA_FORMAT_INDEX_H
#define HILORA_FORMAT_INDEX_H

#include <stdbool.h>
#include <stddef.h>

#include <hilora/status.h>

#include "format/dtype.h"
#include "format/header.h"
#include "format/records.h"

typedef struct hlf_limits {
    uint64_t max_adapters, max_modules, max_entries;
    uint32_t max_dim, max_rank;
    uint64_t max_width; /* d_in and d_out of a module */
} hlf_limits;

/* 1,000,000 adapters, 1,000,000 modules, 100,000,000 entries, d <= 65,536, rank <= 65,535, width < 2^31. */
extern const hlf_limits hlf_default_limits;

typedef struct hlf_index {
    const uint8_t *bytes;
    uint64_t size;
    hlf_header header;
    hlf_pool_record pool;
    uint32_t adapters, modules, entries, chunks;
    uint64_t rocs, basis_rows;
} hlf_index;

/* bytes: the whole file. limits may be NULL (the defaults). On failure *index is zeroed. */
HL_NODISCARD hl_status hlf_index_open(const uint8_t *bytes, uint64_t size, const hlf_limits *limits, hlf_index *index,
                                      hl_diag *diag);

/* i below the table's count, which the caller ensures. */
void hlf_index_adapter(const hlf_index *index, uint32_t i, hlf_adapter_record *out);
uint32_t hlf_index_adapter_flags(const hlf_index *index, uint32_t i); /* alone, as they are asked for often */
void hlf_index_module(const hlf_index *index, uint32_t i, hlf_module_record *out);
void hlf_index_entry(const hlf_index *index, uint32_t i, hlf_entry_record *out);
void hlf_index_chunk(const hlf_index *index, uint32_t i, hlf_chunk_record *out);
void hlf_index_stats(const hlf_index *index, uint32_t i, hlf_stats_record *out);

/* The bytes of a string; counted, not terminated; they live as long as the file's bytes. */
const char *hlf_index_string(const hlf_index *index, hlf_string_ref ref);
/* The position of a name in the sorted tables; HLF_NONE when it is not there. */
uint32_t hlf_index_find_adapter(const hlf_index *index, const char *name, size_t length);
uint32_t hlf_index_find_module(const hlf_index *index, const char *name, size_t length);
/* The entry of (adapter, module); HLF_NONE when the adapter does not adapt the module. */
uint32_t hlf_index_find_entry(const hlf_index *index, uint32_t adapter, uint32_t module);

/* A section's first byte; NULL when it is empty. Mean, basis: float32 rows of pool.stride; singular, leverage: float64. */
const uint8_t *hlf_index_section(const hlf_index *index, hlf_section_id section);

/* The three matrices that an entry's chunks hold. */
typedef enum hlf_side { HLF_SIDE_A = 0, HLF_SIDE_B = 1, HLF_SIDE_GAUGE = 2 } hlf_side;

typedef struct hlf_chunk_shape {
    uint32_t chunk;       /* position in the chunk table */
    hlf_dtype dtype;      /* of the stored elements */
    uint64_t rows, width; /* A: rank x d_in; B (transposed): rank x d_out; gauge: 2 rank x rank, G_A above G_B */
    uint64_t bytes;       /* decoded size */
} hlf_chunk_shape;

/* False when the entry has no such chunk (a gauge where there is none). */
bool hlf_index_chunk_shape(const hlf_index *index, const hlf_entry_record *entry, hlf_side side, hlf_chunk_shape *out);

/* First-use checks: HL_ERR_CORRUPT names the place. Cost: one pass over the bytes. Thread-safe (they keep no state). */
HL_NODISCARD hl_status hlf_index_verify_section(const hlf_index *index, hlf_section_id section, hl_diag *diag);
HL_NODISCARD hl_status hlf_index_verify_chunk(const hlf_index *index, uint32_t chunk, hl_diag *diag);
/* The mean, basis, singular values and leverages of one adapter; also that every float is finite and padding is zero. */
HL_NODISCARD hl_status hlf_index_verify_stats(const hlf_index *index, uint32_t adapter, hl_diag *diag);
/* A blob's stored bytes (a zstd frame of blob.size bytes of content); NULL for an empty blob. */
const uint8_t *hlf_index_blob(const hlf_index *index, const hlf_blob_ref *blob);
HL_NODISCARD hl_status hlf_index_verify_blob(const hlf_index *index, const hlf_blob_ref *blob, hl_diag *diag);

/* The digest that the header should hold: SHA-256 over the sections (docs/FORMAT.md). Cost: one pass over all sections. */
void hlf_index_digest(const uint8_t *bytes, const hlf_header *header, uint8_t out[HLF_SHA256_SIZE]);

#endif
