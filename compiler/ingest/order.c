#include "compiler/ingest/order.h"

#include <stdlib.h>
#include <string.h>

typedef struct merge {
    hlc_compare *compare;
    const void *context;
} merge;

static void merge_runs(const merge *by, const uint32_t *left, size_t left_count, const uint32_t *right,
                       size_t right_count, uint32_t *out) {
    size_t l = 0, r = 0, n = 0;
    while (l < left_count && r < right_count)
        out[n++] = by->compare(left[l], right[r], by->context) <= 0 ? left[l++] : right[r++];
    memcpy(out + n, left + l, (left_count - l) * sizeof *out);
    n += left_count - l;
    memcpy(out + n, right + r, (right_count - r) * sizeof *out);
}

bool hlc_sort_items(uint32_t *items, size_t count, hlc_compare *compare, const void *context) {
    if (count < 2)
        return true;
    uint32_t *scratch = calloc(count, sizeof *scratch);
    if (!scratch)
        return false;
    const merge by = {compare, context};
    uint32_t *from = items, *to = scratch;
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t at = 0; at < count; at += 2 * width) {
            size_t left = count - at < width ? count - at : width;
            size_t right = count - at - left < width ? count - at - left : width;
            merge_runs(&by, from + at, left, from + at + left, right, to + at);
        }
        uint32_t *merged = to;
        to = from;
        from = merged;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
    free(scratch);
    return true;
}

uint32_t *hlc_sorted_numbers(size_t count, hlc_compare *compare, const void *context) {
    uint32_t *numbers = calloc(count > 0 ? count : 1, sizeof *numbers);
    if (!numbers)
        return NULL;
    for (size_t i = 0; i < count; i++)
        numbers[i] = (uint32_t)i;
    if (!hlc_sort_items(numbers, count, compare, context)) {
        free(numbers);
        return NULL;
    }
    return numbers;
}
