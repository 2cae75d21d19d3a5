/* SHA-256 after FIPS 180-4, in portable C. */
#include "format/sha256.h"

#include <string.h>

#include "format/cpu.h"

enum { BLOCK_SIZE = 64, LENGTH_SIZE = 8 };

/* FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
_Alignas(16) const uint32_t hlf_sha256_round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* FIPS 180-4, 5.3.3: likewise of the square roots of the first 8 primes. */
static const uint32_t INITIAL_STATE[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static inline uint32_t load_big_endian(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void store_big_endian(uint8_t *at, uint32_t v) {
    at[0] = (uint8_t)(v >> 24);
    at[1] = (uint8_t)(v >> 16);
    at[2] = (uint8_t)(v >> 8);
    at[3] = (uint8_t)v;
}

static inline uint32_t rotate_right(uint32_t v, int n) {
    return v >> n | v << (32 - n);
}

/* The message schedule, 6.2.2 step 1. */
static void expand(uint32_t w[64], const uint8_t block[BLOCK_SIZE]) {
    for (int t = 0; t < 16; t++) {
        w[t] = load_big_endian(block + 4 * t);
    }
    for (int t = 16; t < 64; t++) {
        uint32_t s0 = rotate_right(w[t - 15], 7) ^ rotate_right(w[t - 15], 18) ^ w[t - 15] >> 3;
        uint32_t s1 = rotate_right(w[t - 2], 17) ^ rotate_right(w[t - 2], 19) ^ w[t - 2] >> 10;
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
}

static void compress_portable(uint32_t state[8], const uint8_t *blocks, size_t count) {
    for (; count > 0; count--, blocks += BLOCK_SIZE) {
        uint32_t w[64];
        expand(w, blocks);
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
/* Eight rounds bring the eight variables back to their places: unrolled, none is ever moved. */
#pragma GCC unroll 8
        for (int t = 0; t < 64; t++) {
            uint32_t sum1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
            uint32_t choice = (e & f) ^ (~e & g);
            uint32_t t1 = h + sum1 + choice + hlf_sha256_round_constants[t] + w[t];
            uint32_t sum0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
            uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
            h = g, g = f, f = e, e = d + t1;
            d = c, c = b, b = a, a = t1 + sum0 + majority;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

void hlf_sha256_init_for(hlf_sha256 *hash, unsigned cpu_features) {
    hlf_sha256_compress *x86 = hlf_sha256_compress_x86(cpu_features);
    hash->compress = x86 != NULL ? x86 : compress_portable;
    hash->size = 0;
    memcpy(hash->state, INITIAL_STATE, sizeof hash->state);
}

void hlf_sha256_init(hlf_sha256 *hash) {
    hlf_sha256_init_for(hash, hlf_cpu_features());
}

void hlf_sha256_update(hlf_sha256 *hash, const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    size_t used = (size_t)(hash->size % BLOCK_SIZE);
    if (size == 0) {
        return;
    }
    hash->size += size;
    if (used > 0) {
        size_t room = BLOCK_SIZE - used;
        size_t taken = size < room ? size : room;
        memcpy(hash->pending + used, at, taken);
        if (taken < room) {
            return;
        }
        hash->compress(hash->state, hash->pending, 1);
        at += taken;
        size -= taken;
    }
    hash->compress(hash->state, at, size / BLOCK_SIZE);
    memcpy(hash->pending, at + size / BLOCK_SIZE * BLOCK_SIZE, size % BLOCK_SIZE);
}

void hlf_sha256_final(hlf_sha256 *hash, uint8_t out[32]) {
    uint64_t size_in_bits = hash->size * 8;
    size_t used = (size_t)(hash->size % BLOCK_SIZE);
    hash->pending[used++] = 0x80;
    if (used > BLOCK_SIZE - LENGTH_SIZE) {
        memset(hash->pending + used, 0, BLOCK_SIZE - used);
        hash->compress(hash->state, hash->pending, 1);
        used = 0;
    }
    memset(hash->pending + used, 0, BLOCK_SIZE - LENGTH_SIZE - used);
    store_big_endian(hash->pending + BLOCK_SIZE - 8, (uint32_t)(size_in_bits >> 32));
    store_big_endian(hash->pending + BLOCK_SIZE - 4, (uint32_t)size_in_bits);
    hash->compress(hash->state, hash->pending, 1);
    for (int i = 0; i < 8; i++) {
        store_big_endian(out + 4 * i, hash->state[i]);
    }
}

void hlf_sha256_bytes(const void *bytes, size_t size, uint8_t out[32]) {
    hlf_sha256 hash;
    hlf_sha256_init(&hash);
    hlf_sha256_update(&hash, bytes, size);
    hlf_sha256_final(&hash, out);
}
