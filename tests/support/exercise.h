/* A pool's whole life, from bytes that nobody vouches for: what fuzzing and the tests of damage run. */
#ifndef HILORA_TESTS_EXERCISE_H
#define HILORA_TESTS_EXERCISE_H

#include <stddef.h>
#include <stdint.h>

#include <hilora/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hlt_outcome {
    hl_status status; /* of the first step that failed; HL_OK when none did */
    uint64_t result;  /* a checksum of the routes, the updates and the weights, as far as it went */
} hlt_outcome;

/* Opens `size` bytes (aligned to 64) with limits that keep a hostile pool small, routes two made-up prompts and the
 * first adapters by name, prepares, applies to every module, blends, and reads weights and texts. */
hlt_outcome hlt_exercise(const void *bytes, size_t size);

#ifdef __cplusplus
}
#endif
#endif
