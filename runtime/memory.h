/* Memory through the pool's allocator. */
#ifndef HILORA_RUNTIME_MEMORY_H
#define HILORA_RUNTIME_MEMORY_H

#include <stddef.h>

#include <hilora/pool.h>

enum { HLR_ALIGNMENT = 64 }; /* of everything that kernels read: a cache line, the widest vector */

/* malloc and free, with alignment. */
extern const hl_allocator hlr_default_allocator;

/* count elements of `size` bytes, aligned to HLR_ALIGNMENT, uninitialised; never NULL for an empty array. NULL on
 * overflow or when memory is out. */
void *hlr_allocate(const hl_allocator *allocator, size_t count, size_t size);
/* NULL is allowed. */
void hlr_release(const hl_allocator *allocator, void *memory);

#endif
