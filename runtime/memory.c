#include "runtime/memory.h"

#include <stdint.h>
#include <stdlib.h>

static void *allocate_default(void *user, size_t size, size_t alignment) {
    (void)user;
    void *memory = NULL;
    return posix_memalign(&memory, alignment, size) == 0 ? memory : NULL;
}

static void release_default(void *user, void *memory) {
    (void)user;
    free(memory);
}

const hl_allocator hlr_default_allocator = {allocate_default, release_default, NULL};

void *hlr_allocate(const hl_allocator *allocator, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX) {
        return NULL;
    }
    return allocator->allocate(allocator->user, bytes ? bytes : 1, HLR_ALIGNMENT);
}

void hlr_release(const hl_allocator *allocator, void *memory) {
    if (memory) {
        allocator->release(allocator->user, memory);
    }
}
