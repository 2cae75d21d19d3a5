/* The portable loops are the reference. Each starts at element `first`, where a vector version left off. */
#include "format/planes.h"

#include "format/bytes.h"
#include "format/cpu.h"

static void split2(uint8_t *restrict dst, const uint8_t *restrict src, size_t n, size_t first) {
    uint8_t *restrict p0 = dst, *restrict p1 = dst + n;
    for (size_t i = first; i < n; i++) {
        uint32_t w = hlf_load_u16(src + 2 * i);
        w = w << 1 | w >> 15;
        p0[i] = (uint8_t)w;
        p1[i] = (uint8_t)(w >> 8);
    }
}

static void join2(uint8_t *restrict dst, const uint8_t *restrict src, size_t n, size_t first) {
    const uint8_t *p0 = src, *p1 = src + n;
    for (size_t i = first; i < n; i++) {
        uint32_t w = p0[i] | (uint32_t)p1[i] << 8;
        hlf_store_u16(dst + 2 * i, (uint16_t)(w >> 1 | w << 15));
    }
}

static void split4(uint8_t *restrict dst, const uint8_t *restrict src, size_t n, size_t first) {
    uint8_t *restrict p0 = dst, *restrict p1 = p0 + n, *restrict p2 = p1 + n, *restrict p3 = p2 + n;
    for (size_t i = first; i < n; i++) {
        uint32_t w = hlf_load_u32(src + 4 * i);
        w = w << 1 | w >> 31;
        p0[i] = (uint8_t)w;
        p1[i] = (uint8_t)(w >> 8);
        p2[i] = (uint8_t)(w >> 16);
        p3[i] = (uint8_t)(w >> 24);
    }
}

static void join4(uint8_t *restrict dst, const uint8_t *restrict src, size_t n, size_t first) {
    const uint8_t *p0 = src, *p1 = p0 + n, *p2 = p1 + n, *p3 = p2 + n;
    for (size_t i = first; i < n; i++) {
        uint32_t w = p0[i] | (uint32_t)p1[i] << 8 | (uint32_t)p2[i] << 16 | (uint32_t)p3[i] << 24;
        hlf_store_u32(dst + 4 * i, w >> 1 | w << 31);
    }
}

static void split8(uint8_t *restrict dst, const uint8_t *restrict src, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t w = hlf_load_u64(src + 8 * i);
        w = w << 1 | w >> 63;
        for (size_t k = 0; k < 8; k++) {
            dst[k * n + i] = (uint8_t)(w >> (8 * k));
        }
    }
}

static void join8(uint8_t *restrict dst, const uint8_t *restrict src, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t w = 0;
        for (size_t k = 0; k < 8; k++) {
            w |= (uint64_t)src[k * n + i] << (8 * k);
        }
        hlf_store_u64(dst + 8 * i, w >> 1 | w << 63);
    }
}

void hlf_planes_split_for(unsigned cpu_features, void *dst, const void *src, size_t width, size_t n) {
    size_t done = hlf_planes_split_x86(cpu_features, dst, src, width, n);
    switch (width) {
    case 2:
        split2(dst, src, n, done);
        break;
    case 4:
        split4(dst, src, n, done);
        break;
    case 8:
        split8(dst, src, n);
        break;
    }
}

void hlf_planes_join_for(unsigned cpu_features, void *dst, const void *src, size_t width, size_t n) {
    size_t done = hlf_planes_join_x86(cpu_features, dst, src, width, n);
    switch (width) {
    case 2:
        join2(dst, src, n, done);
        break;
    case 4:
        join4(dst, src, n, done);
        break;
    case 8:
        join8(dst, src, n);
        break;
    }
}

void hlf_planes_split(void *dst, const void *src, size_t width, size_t n) {
    hlf_planes_split_for(hlf_cpu_features(), dst, src, width, n);
}

void hlf_planes_join(void *dst, const void *src, size_t width, size_t n) {
    hlf_planes_join_for(hlf_cpu_features(), dst, src, width, n);
}
