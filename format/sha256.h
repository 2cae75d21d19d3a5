/* SHA-256 (FIPS 180-4). Pure; no allocation. One hlf_sha256 belongs to one thread at a time. */
#ifndef HILORA_FORMAT_SHA256_H
#define HILORA_FORMAT_SHA256_H

#include <stddef.h>
#include <stdint.h>

/* Folds `count` blocks of 64 bytes into the state. */
typedef void hlf_sha256_compress(uint32_t state[8], const uint8_t *blocks, size_t count);

/* A hash under way. Copying it forks the computation. */
typedef struct hlf_sha256 {
    hlf_sha256_compress *compress;
    uint64_t size; /* bytes so far */
    uint32_t state[8];
    uint8_t pending[64]; /* the first size % 64 bytes are in use */
} hlf_sha256;

void hlf_sha256_init(hlf_sha256 *hash);
void hlf_sha256_update(hlf_sha256 *hash, const void *bytes, size_t size);
/* Writes the digest; the hash must be initialised again before further use. */
void hlf_sha256_final(hlf_sha256 *hash, uint8_t out[32]);

/* init, update, final. */
void hlf_sha256_bytes(const void *bytes, size_t size, uint8_t out[32]);

/* As hlf_sha256_init, restricted to a set of HLF_CPU_ flags (0: portable C). The digest never depends on it. */
void hlf_sha256_init_for(hlf_sha256 *hash, unsigned cpu_features);

/* The x86 version, or NULL where the flags or the build do not allow one (format/sha256_x86.c). */
hlf_sha256_compress *hlf_sha256_compress_x86(unsigned cpu_features);

/* The 64 round constants, 16-byte aligned. */
extern const uint32_t hlf_sha256_round_constants[64];

#endif
