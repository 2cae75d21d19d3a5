#include <stdlib.h>
#include <string.h>

#include "format/bytes.h"
#include "format/sha256.h"
#include "runtime/memory.h"
#include "runtime/route_row.h"

enum { ITEM = HLF_SHA256_SIZE + 12, HEAD = 24 };

static int compare_items(const void *a, const void *b) {
    return memcmp(a, b, ITEM);
}

/* What the components of an adapter are: 0 as trained, 1 of the whole SVD, 2 of a truncated one. */
static uint32_t decomposition_of(const hlf_adapter_record *adapter) {
    return adapter->flags & HLF_ADAPTER_SQUEEZED ? 2 : adapter->decomposition;
}

static void encode_item(const hlr_row *row, const hlr_candidate *candidate, uint8_t *out) {
    hlf_adapter_record adapter;
    hlf_index_adapter(&row->plan->pool->index, candidate->adapter, &adapter);
    memcpy(out, adapter.content_sha256, HLF_SHA256_SIZE);
    hlf_store_u32(out + HLF_SHA256_SIZE, decomposition_of(&adapter));
    hlf_store_u32(out + HLF_SHA256_SIZE + 4, (uint32_t)candidate->rocs);
    hlf_store_u32(out + HLF_SHA256_SIZE + 8, candidate->parts);
}

hl_status hlr_row_digest(const hlr_row *row, uint8_t out[16]) {
    const hl_allocator *allocator = &row->plan->pool->allocator;
    uint8_t *items = hlr_allocate(allocator, row->count, ITEM);
    if (!items) {
        return HL_ERR_MEMORY;
    }
    for (size_t i = 0; i < row->count; i++) {
        encode_item(row, &row->candidates[i], items + i * ITEM);
    }
    qsort(items, row->count, ITEM, compare_items);
    uint8_t head[HEAD] = "hilora-route-v1", whole[HLF_SHA256_SIZE];
    head[16] = (uint8_t)row->plan->gate;
    head[17] = row->plan->variance_norm;
    head[18] = (uint8_t)row->plan->rows;
    hlf_store_u32(head + 20, (uint32_t)row->count);
    hlf_sha256 sha;
    hlf_sha256_init(&sha);
    hlf_sha256_update(&sha, head, sizeof head);
    hlf_sha256_update(&sha, items, row->count * ITEM);
    hlf_sha256_final(&sha, whole);
    memcpy(out, whole, 16);
    hlr_release(allocator, items);
    return HL_OK;
}
