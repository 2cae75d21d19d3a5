#include "bench/codec/methods.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "compiler/emit/codec.h"
#include "format/planes.h"

struct workbench {
    hlc_encoder *encoder;
    ZSTD_CCtx *compressor;
    ZSTD_DCtx *decompressor;
    uint8_t *planes;
};

workbench *workbench_create(size_t largest_chunk) {
    workbench *bench = calloc(1, sizeof *bench);
    if (bench == NULL) {
        return NULL;
    }
    bench->encoder = hlc_encoder_create();
    bench->compressor = ZSTD_createCCtx();
    bench->decompressor = ZSTD_createDCtx();
    bench->planes = malloc(largest_chunk);
    if (bench->encoder == NULL || bench->compressor == NULL || bench->decompressor == NULL || bench->planes == NULL) {
        workbench_destroy(bench);
        return NULL;
    }
    return bench;
}

void workbench_destroy(workbench *bench) {
    if (bench == NULL) {
        return;
    }
    hlc_encoder_destroy(bench->encoder);
    ZSTD_freeCCtx(bench->compressor);
    ZSTD_freeDCtx(bench->decompressor);
    free(bench->planes);
    free(bench);
}

size_t method_bound(size_t width, size_t n) {
    size_t zstd = ZSTD_compressBound(width * n) + sizeof(uint64_t), hilora = hlc_encode_bound(width, n);
    return zstd > hilora ? zstd : hilora;
}

static size_t copy(workbench *bench, const uint8_t *src, size_t width, size_t n, uint8_t *dst, size_t capacity) {
    (void)bench, (void)capacity;
    memcpy(dst, src, width * n);
    return width * n;
}

static bool copy_back(workbench *bench, const uint8_t *src, size_t size, size_t width, size_t n, uint8_t *dst) {
    (void)bench, (void)width, (void)n;
    memcpy(dst, src, size);
    return true;
}

static size_t hilora(workbench *bench, const uint8_t *src, size_t width, size_t n, uint8_t *dst, size_t capacity) {
    return hlc_encode_chunk(bench->encoder, src, width, n, dst, capacity);
}

static bool hilora_back(workbench *bench, const uint8_t *src, size_t size, size_t width, size_t n, uint8_t *dst) {
    return hlc_decode_chunk(bench->encoder, src, size, width, n, dst);
}

static size_t zstd(workbench *bench, const void *src, size_t src_size, uint8_t *dst, size_t capacity, int level) {
    size_t size = ZSTD_compressCCtx(bench->compressor, dst, capacity, src, src_size, level);
    return ZSTD_isError(size) ? 0 : size;
}

static bool zstd_back(workbench *bench, const uint8_t *src, size_t size, void *dst, size_t dst_size) {
    return ZSTD_decompressDCtx(bench->decompressor, dst, dst_size, src, size) == dst_size;
}

static size_t zstd_3(workbench *bench, const uint8_t *src, size_t width, size_t n, uint8_t *dst, size_t capacity) {
    return zstd(bench, src, width * n, dst, capacity, 3);
}

static bool zstd_3_back(workbench *bench, const uint8_t *src, size_t size, size_t width, size_t n, uint8_t *dst) {
    return zstd_back(bench, src, size, dst, width * n);
}

/* HDF5's shuffle filter: byte k of every element, for each k. */
static void shuffle(uint8_t *restrict dst, const uint8_t *restrict src, size_t width, size_t n) {
    for (size_t k = 0; k < width; k++) {
        for (size_t i = 0; i < n; i++) {
            dst[k * n + i] = src[i * width + k];
        }
    }
}

static void unshuffle(uint8_t *restrict dst, const uint8_t *restrict src, size_t width, size_t n) {
    for (size_t k = 0; k < width; k++) {
        for (size_t i = 0; i < n; i++) {
            dst[i * width + k] = src[k * n + i];
        }
    }
}

static size_t shuffle_3(workbench *bench, const uint8_t *src, size_t width, size_t n, uint8_t *dst, size_t capacity) {
    shuffle(bench->planes, src, width, n);
    return zstd(bench, bench->planes, width * n, dst, capacity, 3);
}

static size_t shuffle_19(workbench *bench, const uint8_t *src, size_t width, size_t n, uint8_t *dst, size_t capacity) {
    shuffle(bench->planes, src, width, n);
    return zstd(bench, bench->planes, width * n, dst, capacity, 19);
}

static bool shuffle_back(workbench *bench, const uint8_t *src, size_t size, size_t width, size_t n, uint8_t *dst) {
    if (!zstd_back(bench, src, size, bench->planes, width * n)) {
        return false;
    }
    unshuffle(dst, bench->planes, width, n);
    return true;
}

/* The size of the top plane's frame, the lower planes as they are, the frame. */
static size_t top_plane(workbench *bench, const uint8_t *src, size_t width, size_t n, uint8_t *dst, size_t capacity) {
    size_t low = (width - 1) * n, head = sizeof(uint64_t);
    hlf_planes_split(bench->planes, src, width, n);
    memcpy(dst + head, bench->planes, low);
    uint64_t size = zstd(bench, bench->planes + low, n, dst + head + low, capacity - head - low, 1);
    memcpy(dst, &size, head);
    return size == 0 ? 0 : head + low + size;
}

static bool top_plane_back(workbench *bench, const uint8_t *src, size_t size, size_t width, size_t n, uint8_t *dst) {
    size_t low = (width - 1) * n, head = sizeof(uint64_t);
    memcpy(bench->planes, src + head, low);
    if (!zstd_back(bench, src + head + low, size - head - low, bench->planes + low, n)) {
        return false;
    }
    hlf_planes_join(dst, bench->planes, width, n);
    return true;
}

const method METHODS[] = {
    {"memcpy", false, copy, copy_back},
    {"hilora", false, hilora, hilora_back},
    {"zstd -3", false, zstd_3, zstd_3_back},
    {"shuffle + zstd -3", false, shuffle_3, shuffle_back},
    {"shuffle + zstd -19", true, shuffle_19, shuffle_back},
    {"top plane zstd -1, rest raw", false, top_plane, top_plane_back},
};
const size_t METHOD_COUNT = sizeof METHODS / sizeof *METHODS;
