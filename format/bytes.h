/* Little-endian loads and stores at any alignment, and arithmetic that notices overflow. */
#ifndef HILORA_FORMAT_BYTES_H
#define HILORA_FORMAT_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "hilora's readers and writers are written for little-endian machines"
#endif

static inline uint16_t hlf_load_u16(const void *at) {
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static inline uint32_t hlf_load_u32(const void *at) {
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static inline uint64_t hlf_load_u64(const void *at) {
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static inline double hlf_load_f64(const void *at) {
    double v;
    memcpy(&v, at, sizeof v);
    return v;
}

static inline void hlf_store_u16(void *at, uint16_t v) {
    memcpy(at, &v, sizeof v);
}

static inline void hlf_store_u32(void *at, uint32_t v) {
    memcpy(at, &v, sizeof v);
}

static inline void hlf_store_u64(void *at, uint64_t v) {
    memcpy(at, &v, sizeof v);
}

static inline void hlf_store_f64(void *at, double v) {
    memcpy(at, &v, sizeof v);
}

/* *out = a * b; false on overflow. */
static inline bool hlf_mul(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

/* True when the n bytes from offset on lie inside `size` bytes. */
static inline bool hlf_inside(uint64_t offset, uint64_t n, uint64_t size) {
    return offset <= size && n <= size - offset;
}

static inline uint64_t hlf_align_up(uint64_t n, uint64_t alignment) {
    return (n + alignment - 1) / alignment * alignment;
}

#endif
