/* The sections of a pool in memory, from the first strings to the last checksum. */
#ifndef HILORA_COMPILER_TABLES_H
#define HILORA_COMPILER_TABLES_H

#include "compiler/base/text.h"
#include "compiler/emit/entry.h"
#include "compiler/emit/plan.h"
#include "compiler/stats/rivals.h"
#include "format/header.h"
#include "format/records.h"

typedef struct hlc_section_bytes {
    uint8_t *bytes; /* malloc'd; NULL when empty */
    uint64_t size;
    uint64_t rows, columns; /* shape of the dataset; columns 0: one-dimensional */
} hlc_section_bytes;

typedef struct hlc_tables {
    hlc_section_bytes sections[HLF_SECTION_LAST + 1];
    hlf_adapter_record *adapters;
    hlf_entry_record *entries;
    hlf_chunk_record *chunks; /* in the order of writing until hlc_tables_finish */
    uint32_t chunk_count;
    hlf_pool_record pool;
} hlc_tables;

/* Fills all that is known before the weights are written, and reserves the rest. False when memory is out. */
bool hlc_tables_begin(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_plan *plan, const hlc_pool_stats *stats,
                      const hlc_rivals *rivals, hlc_tables *tables);
/* Notes a written chunk; answers its provisional number, to be put into the entry. */
uint32_t hlc_tables_add_chunk(hlc_tables *tables, uint64_t offset, const hlc_coded_chunk *chunk, uint32_t row, bool coded);
/* Sorts the chunks by offset, renumbers them in the entries and encodes the records that were still open. */
bool hlc_tables_finish(hlc_tables *tables, size_t adapter_count, size_t entry_count);
void hlc_tables_free(hlc_tables *tables);

#endif
