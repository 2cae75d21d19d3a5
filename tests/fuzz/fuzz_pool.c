/* Fuzzing a pool's whole life: open, route, prepare, apply, blend, read (tests/support/exercise.h).
 *
 * The mutator makes checksums right again half of the time, or nothing behind them would ever be reached. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/support/exercise.h"
#include "tests/support/pool_builder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    void *aligned = NULL;
    if (posix_memalign(&aligned, 64, size ? size : 1) != 0) {
        return 0;
    }
    memcpy(aligned, data, size);
    if (hlt_exercise(aligned, size).status == HL_ERR_INTERNAL) {
        abort();
    }
    free(aligned);
    return 0;
}

#if HILORA_LIBFUZZER
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
    size_t mutated = LLVMFuzzerMutate(data, size, max_size);
    if (seed % 2) {
        hlt_pool_seal(data, mutated);
    }
    return mutated;
}
#endif
