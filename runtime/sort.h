/* Sorting numbers in place. */
#ifndef HILORA_RUNTIME_SORT_H
#define HILORA_RUNTIME_SORT_H

#include <stddef.h>
#include <stdint.h>

/* Ascending; O(n log n) for any input, no allocation (the C library's qsort may allocate). */
void hlr_sort(uint64_t *keys, size_t n);
/* Drops repeated ones from sorted keys; answers how many are left. */
size_t hlr_unique(uint64_t *keys, size_t n);

#endif
