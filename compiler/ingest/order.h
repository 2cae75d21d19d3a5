/* Sorting in O(n log n) comparisons whatever the input, which the C library's qsort does not promise. */
#ifndef HILORA_COMPILER_ORDER_H
#define HILORA_COMPILER_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* < 0, 0 or > 0 for the items numbered a and b. */
typedef int hlc_compare(uint32_t a, uint32_t b, const void *context);

/* Stable merge sort of item numbers; allocates count more of them. False when memory is out. */
bool hlc_sort_items(uint32_t *items, size_t count, hlc_compare *compare, const void *context);
/* The numbers 0 to count - 1, sorted; the caller frees them. NULL when memory is out (never for count 0). */
uint32_t *hlc_sorted_numbers(size_t count, hlc_compare *compare, const void *context);

#endif
