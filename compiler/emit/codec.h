/* The chunk encoder and the only caller of zstd's compressor: byte planes (format/planes.h) in one standard zstd frame
 * with the content size, entropy coding only: no block spans two planes and none holds a match. Any zstd decodes it, to
 * the planes. */
#ifndef HILORA_COMPILER_CODEC_H
#define HILORA_COMPILER_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One per thread. */
typedef struct hlc_encoder hlc_encoder;
hlc_encoder *hlc_encoder_create(void);
void hlc_encoder_destroy(hlc_encoder *encoder);

/* Enough room for any chunk of n elements of `width` bytes; 0 when there is no such chunk (no element, another width,
 * overflow). */
size_t hlc_encode_bound(size_t width, size_t n);
/* Encodes n elements (any values, width 2, 4 or 8) into dst, which has room for hlc_encode_bound(); returns the bytes
 * written, 0 on failure (memory, capacity, no such chunk). The frame is decoded again and compared before it is handed
 * out. Same bytes for the same input and libzstd version, always. */
size_t hlc_encode_chunk(hlc_encoder *encoder, const void *src, size_t width, size_t n, void *dst, size_t capacity);
/* Decodes a frame into n elements. False when memory is out, or the frame is damaged, of another size, not alone in its
 * frame_size bytes, or needs a window beyond its content; dst is then undefined, and errno is ENOMEM in the first case,
 * 0 else. Never more memory than the planes take. */
bool hlc_decode_chunk(hlc_encoder *encoder, const void *frame, size_t frame_size, size_t width, size_t n, void *dst);

/* Compresses text (headers, configurations): an ordinary zstd -19 frame; returns a malloc'd buffer, NULL on failure. */
void *hlc_compress_text(const void *src, size_t size, size_t *out_size);
/* Decodes one such frame of exactly `size` bytes of content into dst. False when memory is out, or it is damaged or of another size;
 * errno as above. */
bool hlc_decompress_text(const void *frame, size_t frame_size, void *dst, size_t size);

/* ZSTD_versionNumber(): recorded in the pool. */
uint32_t hlc_zstd_version(void);

#endif
