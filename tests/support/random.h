/* Repeatable random numbers for tests: SplitMix64, so a failing case is named by its seed. */
#ifndef HILORA_TESTS_RANDOM_H
#define HILORA_TESTS_RANDOM_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct hlt_rng {
    uint64_t state;
} hlt_rng;

static inline uint64_t hlt_next(hlt_rng *rng) {
    uint64_t z = (rng->state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* Uniform in [low, high], both included. */
static inline uint32_t hlt_between(hlt_rng *rng, uint32_t low, uint32_t high) {
    return low + (uint32_t)(hlt_next(rng) % ((uint64_t)high - low + 1));
}

/* Uniform in [0, 1). */
static inline double hlt_uniform(hlt_rng *rng) {
    return (double)(hlt_next(rng) >> 11) * 0x1p-53;
}

static inline bool hlt_chance(hlt_rng *rng, double probability) {
    return hlt_uniform(rng) < probability;
}

/* Standard normal (Box and Muller). */
static inline double hlt_normal(hlt_rng *rng) {
    double radius = sqrt(-2 * log(1 - hlt_uniform(rng)));
    return radius * cos(6.283185307179586 * hlt_uniform(rng));
}

/* A generator of its own for each (seed, a, b, c). */
static inline hlt_rng hlt_rng_for(uint64_t seed, uint64_t a, uint64_t b, uint64_t c) {
    hlt_rng rng = {seed};
    rng.state = hlt_next(&rng) ^ a;
    rng.state = hlt_next(&rng) ^ b;
    rng.state = hlt_next(&rng) ^ c;
    return rng;
}

#endif
