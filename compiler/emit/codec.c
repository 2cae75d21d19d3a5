/* Weights hold no repeated strings, only unevenly spread bytes. A match finder still finds matches in the exponents'
 * plane, and they cost more than the literals they replace: 0.3 to 1.5 % of a bfloat16 chunk (docs/BENCHMARKS.md). So
 * each frame is described to zstd as blocks of literals alone (ZSTD_compressSequences), and zstd does the entropy
 * coding. A plane has blocks of its own, because the planes' byte distributions differ. */
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_compressSequences, ZSTD_getFrameHeader, ZSTD_c_literalCompressionMode */
#include "compiler/emit/codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "format/planes.h"

enum {
    TEXT_LEVEL = 19,
    CHUNK_LEVEL = 1,       /* of no consequence without a match finder, but for the window: 512 KiB */
    BLOCK_HEADER_SIZE = 3, /* RFC 8878, 3.1.1.2 */
    FRAME_OVERHEAD = 64    /* above the largest frame header (18) and what zstd wants to spare */
};

/* A buffer that grows and keeps nothing. */
typedef struct scratch {
    void *bytes;
    size_t size;
} scratch;

struct hlc_encoder {
    ZSTD_CCtx *compressor;
    ZSTD_DCtx *decompressor;
    scratch planes, decoded, blocks;
};

static bool reserve(scratch *buffer, size_t size) {
    if (size <= buffer->size) {
        return true;
    }
    free(buffer->bytes);
    buffer->bytes = malloc(size);
    buffer->size = buffer->bytes != NULL ? size : 0;
    return buffer->bytes != NULL;
}

static bool configure(ZSTD_CCtx *compressor) {
    const struct {
        ZSTD_cParameter parameter;
        int value;
    } settings[] = {{ZSTD_c_compressionLevel, CHUNK_LEVEL},
                    {ZSTD_c_literalCompressionMode, ZSTD_ps_enable},
                    {ZSTD_c_blockDelimiters, ZSTD_sf_explicitBlockDelimiters},
                    {ZSTD_c_contentSizeFlag, 1},
                    {ZSTD_c_checksumFlag, 0}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        if (ZSTD_isError(ZSTD_CCtx_setParameter(compressor, settings[i].parameter, settings[i].value))) {
            return false;
        }
    }
    return true;
}

hlc_encoder *hlc_encoder_create(void) {
    hlc_encoder *encoder = calloc(1, sizeof *encoder);
    if (encoder == NULL) {
        return NULL;
    }
    encoder->compressor = ZSTD_createCCtx();
    encoder->decompressor = ZSTD_createDCtx();
    if (encoder->compressor == NULL || encoder->decompressor == NULL || !configure(encoder->compressor)) {
        hlc_encoder_destroy(encoder);
        return NULL;
    }
    return encoder;
}

void hlc_encoder_destroy(hlc_encoder *encoder) {
    if (encoder == NULL) {
        return;
    }
    ZSTD_freeCCtx(encoder->compressor);
    ZSTD_freeDCtx(encoder->decompressor);
    free(encoder->planes.bytes);
    free(encoder->decoded.bytes);
    free(encoder->blocks.bytes);
    free(encoder);
}

/* width * n bytes of content; 0 when there is no such chunk. */
static size_t content_size(size_t width, size_t n) {
    bool known_width = width == 2 || width == 4 || width == 8;
    return known_width && n <= SIZE_MAX / 2 / width ? width * n : 0;
}

static size_t blocks_per_plane(size_t n) {
    return n / ZSTD_BLOCKSIZE_MAX + (n % ZSTD_BLOCKSIZE_MAX != 0);
}

size_t hlc_encode_bound(size_t width, size_t n) {
    size_t size = content_size(width, n);
    return size == 0 ? 0 : size + width * blocks_per_plane(n) * BLOCK_HEADER_SIZE + FRAME_OVERHEAD;
}

/* Blocks of equal size, to within a byte, in each plane: no short last block with a Huffman table of its own. */
static size_t plan_blocks(ZSTD_Sequence *blocks, size_t width, size_t n) {
    size_t per_plane = blocks_per_plane(n), count = 0;
    for (size_t plane = 0; plane < width; plane++) {
        for (size_t i = 0; i < per_plane; i++) {
            size_t size = n / per_plane + (i < n % per_plane);
            blocks[count++] = (ZSTD_Sequence){.offset = 0, .litLength = (unsigned)size, .matchLength = 0};
        }
    }
    return count;
}

static size_t compress_planes(hlc_encoder *encoder, size_t width, size_t n, void *dst, size_t capacity) {
    if (!reserve(&encoder->blocks, width * blocks_per_plane(n) * sizeof(ZSTD_Sequence))) {
        return 0;
    }
    ZSTD_Sequence *blocks = encoder->blocks.bytes;
    size_t count = plan_blocks(blocks, width, n);
    ZSTD_CCtx_reset(encoder->compressor, ZSTD_reset_session_only);
    size_t size =
        ZSTD_compressSequences(encoder->compressor, dst, capacity, blocks, count, encoder->planes.bytes, width * n);
    return ZSTD_isError(size) ? 0 : size;
}

size_t hlc_encode_chunk(hlc_encoder *encoder, const void *src, size_t width, size_t n, void *dst, size_t capacity) {
    size_t content = content_size(width, n);
    /* The bound is demanded because zstd may choose other blocks where room is short. */
    if (content == 0 || capacity < hlc_encode_bound(width, n) || !reserve(&encoder->planes, content)) {
        return 0;
    }
    hlf_planes_split(encoder->planes.bytes, src, width, n);
    size_t size = compress_planes(encoder, width, n, dst, capacity);
    void *back = encoder->planes.bytes; /* no longer needed */
    if (size == 0 || !hlc_decode_chunk(encoder, dst, size, width, n, back)) {
        return 0;
    }
    return memcmp(back, src, content) == 0 ? size : 0;
}

/* True for one zstd frame, and nothing after it, that declares `content` bytes and needs no window beyond them. */
static bool is_frame_of(const void *frame, size_t frame_size, size_t content) {
    ZSTD_frameHeader header;
    return ZSTD_getFrameHeader(&header, frame, frame_size) == 0 && header.frameType == ZSTD_frame &&
           header.frameContentSize == content && header.windowSize <= content && header.dictID == 0 &&
           ZSTD_findFrameCompressedSize(frame, frame_size) == frame_size;
}

/* False; errno tells a lack of memory from damage. */
static bool decoding_failed(size_t result) {
    errno = ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation ? ENOMEM : 0;
    return false;
}

bool hlc_decode_chunk(hlc_encoder *encoder, const void *frame, size_t frame_size, size_t width, size_t n, void *dst) {
    size_t content = content_size(width, n);
    if (content == 0 || !is_frame_of(frame, frame_size, content)) {
        errno = 0;
        return false;
    }
    if (!reserve(&encoder->decoded, content)) {
        errno = ENOMEM;
        return false;
    }
    ZSTD_DCtx_reset(encoder->decompressor, ZSTD_reset_session_only);
    size_t size = ZSTD_decompressDCtx(encoder->decompressor, encoder->decoded.bytes, content, frame, frame_size);
    if (ZSTD_isError(size) || size != content) {
        return decoding_failed(size);
    }
    hlf_planes_join(dst, encoder->decoded.bytes, width, n);
    return true;
}

void *hlc_compress_text(const void *src, size_t size, size_t *out_size) {
    size_t bound = ZSTD_compressBound(size);
    void *frame = ZSTD_isError(bound) ? NULL : malloc(bound);
    if (frame == NULL) {
        return NULL;
    }
    size_t written = ZSTD_compress(frame, bound, src, size, TEXT_LEVEL);
    if (ZSTD_isError(written)) {
        free(frame);
        return NULL;
    }
    void *fitted = realloc(frame, written);
    *out_size = written;
    return fitted != NULL ? fitted : frame;
}

bool hlc_decompress_text(const void *frame, size_t frame_size, void *dst, size_t size) {
    if (!is_frame_of(frame, frame_size, size)) {
        errno = 0;
        return false;
    }
    size_t written = ZSTD_decompress(dst, size, frame, frame_size);
    return (!ZSTD_isError(written) && written == size) || decoding_failed(written);
}

uint32_t hlc_zstd_version(void) {
    return ZSTD_versionNumber();
}
