/* The ways to store a chunk of weights that the benchmark compares. */
#ifndef HILORA_BENCH_CODEC_METHODS_H
#define HILORA_BENCH_CODEC_METHODS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one thread needs to run any method: contexts and scratch for the largest chunk. */
typedef struct workbench workbench;
workbench *workbench_create(size_t largest_chunk);
void workbench_destroy(workbench *bench);

typedef struct method {
    const char *name;
    bool slow; /* one pass over the distinct chunks has to do */
    /* Codes n elements of `width` bytes; the bytes written, 0 on failure. */
    size_t (*compress)(workbench *bench, const uint8_t *src, size_t width, size_t n, uint8_t *dst, size_t capacity);
    bool (*decompress)(workbench *bench, const uint8_t *src, size_t size, size_t width, size_t n, uint8_t *dst);
} method;

extern const method METHODS[];
extern const size_t METHOD_COUNT;

/* Room for one chunk by any method. */
size_t method_bound(size_t width, size_t n);

#endif
