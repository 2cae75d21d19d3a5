#include <string.h>

#include "format/bytes.h"
#include "format/sha256.h"
#include "runtime/memory.h"
#include "runtime/route_row.h"

enum { ITEM = HLF_SHA256_SIZE + 12, HEAD = 24 };

static int compare_items(const uint8_t *a, const uint8_t *b) {
    return memcmp(a, b, ITEM);
}

static void swap_items(uint8_t *a, uint8_t *b) {
    uint8_t kept[ITEM];
    memcpy(kept, a, ITEM);
    memcpy(a, b, ITEM);
    memcpy(b, kept, ITEM);
}

/* Lets the item at `at` sink until neither child of it, among the first n, is larger. */
static void sink(uint8_t *items, size_t at, size_t n) {
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && compare_items(items + child * ITEM, items + (child + 1) * ITEM) < 0;
        if (compare_items(items + at * ITEM, items + child * ITEM) >= 0) {
            return;
        }
        swap_items(items + at * ITEM, items + child * ITEM);
    }
}

/* Ascending, in place: the C library's qsort may allocate. */
static void sort_items(uint8_t *items, size_t n) {
    for (size_t i = n / 2; i-- > 0;) {
        sink(items, i, n);
    }
    for (size_t last = n; last-- > 1;) {
        swap_items(items, items + last * ITEM);
        sink(items, 0, last);
    }
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
    sort_items(items, row->count);
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
