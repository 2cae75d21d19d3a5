/* The functions that a fuzz target has for libFuzzer, or for tests/fuzz/replay.c where there is none. */
#ifndef HILORA_TESTS_FUZZ_H
#define HILORA_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libFuzzer's own mutations, and the target's, if it has any. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

#endif
