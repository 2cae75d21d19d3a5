/* Checksums made right again after a test has changed bytes on purpose. Follows offsets only where they lie inside the
 * file. */
#include <string.h>

#include "format/bytes.h"
#include "format/checksum.h"
#include "format/header.h"
#include "format/index.h"
#include "format/records.h"
#include "tests/support/pool_builder.h"

typedef struct span {
    uint64_t at, size;
} span;

static span section_span(const uint8_t *bytes, uint64_t size, uint32_t id) {
    uint32_t count = hlf_load_u32(bytes + HLF_AT_SECTION_COUNT);
    for (uint32_t i = 0; i < count && i < HLF_SECTION_SLOTS; i++) {
        const uint8_t *at = bytes + HLF_AT_SECTIONS + i * HLF_SECTION_SIZE;
        uint64_t offset = hlf_load_u64(at + 8), length = hlf_load_u64(at + 16);
        if (hlf_load_u32(at) == id && hlf_inside(offset, length, size)) {
            return (span){offset, length};
        }
    }
    return (span){0, 0};
}

static void seal_chunks(uint8_t *bytes, uint64_t size) {
    span table = section_span(bytes, size, HLF_SECTION_CHUNKS);
    for (uint64_t i = 0; i < table.size / HLF_CHUNK_RECORD; i++) {
        uint8_t *record = bytes + table.at + i * HLF_CHUNK_RECORD;
        uint64_t offset = hlf_load_u64(record), stored = hlf_load_u32(record + 16);
        if (hlf_inside(offset, stored, size)) {
            hlf_store_u64(record + 8, hlf_checksum(bytes + offset, stored));
        }
    }
}

static void seal_blobs(uint8_t *bytes, uint64_t size) {
    span table = section_span(bytes, size, HLF_SECTION_ADAPTERS), blobs = section_span(bytes, size, HLF_SECTION_BLOBS);
    for (uint64_t i = 0; i < table.size / HLF_ADAPTER_RECORD; i++) {
        uint8_t *at = bytes + table.at + i * HLF_ADAPTER_RECORD;
        hlf_adapter_record adapter;
        hlf_adapter_decode(&adapter, at);
        hlf_blob_ref *refs[] = {&adapter.config, &adapter.header};
        for (int k = 0; k < 2; k++) {
            if (hlf_inside(refs[k]->offset, refs[k]->stored, blobs.size)) {
                refs[k]->checksum = hlf_checksum(bytes + blobs.at + refs[k]->offset, refs[k]->stored);
            }
        }
        hlf_store_u64(at + 184, adapter.config.checksum); /* positions of the record: format/records.c */
        hlf_store_u64(at + 216, adapter.header.checksum);
    }
}

static void seal_stats(uint8_t *bytes, uint64_t size) {
    span table = section_span(bytes, size, HLF_SECTION_STATS), pool = section_span(bytes, size, HLF_SECTION_POOL);
    span mean = section_span(bytes, size, HLF_SECTION_MEAN), basis = section_span(bytes, size, HLF_SECTION_BASIS);
    span singular = section_span(bytes, size, HLF_SECTION_SINGULAR),
         leverage = section_span(bytes, size, HLF_SECTION_LEVERAGE);
    if (pool.size < HLF_POOL_RECORD) {
        return;
    }
    const uint64_t row = 4 * (uint64_t)hlf_load_u32(bytes + pool.at + 52);
    for (uint64_t i = 0; i < table.size / HLF_STATS_RECORD; i++) {
        uint8_t *at = bytes + table.at + i * HLF_STATS_RECORD;
        hlf_stats_record stats;
        hlf_stats_decode(&stats, at);
        const uint64_t q = stats.q, w = (uint64_t)stats.m * stats.q;
        if (stats.m == 0 || stats.first_row > size || stats.first_leverage > size ||
            !hlf_inside(i * row, row, mean.size) || !hlf_inside(stats.first_row * row, q * row, basis.size) ||
            !hlf_inside(stats.first_row * 8, q * 8, singular.size) || w > size ||
            !hlf_inside(stats.first_leverage * 8, w * 8, leverage.size)) {
            continue;
        }
        hlf_store_u64(at + 128, hlf_checksum(bytes + mean.at + i * row, row));
        hlf_store_u64(at + 136, hlf_checksum(bytes + basis.at + stats.first_row * row, q * row));
        hlf_store_u64(at + 144, hlf_checksum2(bytes + singular.at + stats.first_row * 8, q * 8,
                                              bytes + leverage.at + stats.first_leverage * 8, w * 8));
    }
}

void hlt_pool_seal(uint8_t *bytes, size_t size) {
    seal_chunks(bytes, size);
    seal_blobs(bytes, size);
    seal_stats(bytes, size);
    hlf_header header = {0};
    for (uint32_t i = 0; i < hlf_load_u32(bytes + HLF_AT_SECTION_COUNT) && i < HLF_SECTION_SLOTS; i++) {
        uint8_t *at = bytes + HLF_AT_SECTIONS + i * HLF_SECTION_SIZE;
        uint32_t id = hlf_load_u32(at);
        span section = section_span(bytes, size, id);
        hlf_store_u64(at + 24, hlf_checksum(bytes + section.at, section.size));
        if (id <= HLF_SECTION_LAST) {
            header.sections[id] = (hlf_section){section.at, section.size, 0};
        }
    }
    memcpy(bytes + HLF_AT_SUPERBLOCK, bytes + HLF_HEADER_SIZE, HLF_SUPERBLOCK_SIZE);
    hlf_index_digest(bytes, &header, bytes + HLF_AT_DIGEST);
    hlf_store_u64(bytes + HLF_AT_CHECKSUM, hlf_checksum(bytes, HLF_AT_CHECKSUM));
}
