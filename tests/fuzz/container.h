/* What mutators do so that mutated safetensors files get past their first check. */
#ifndef HILORA_TESTS_FUZZ_CONTAINER_H
#define HILORA_TESTS_FUZZ_CONTAINER_H

#include <stddef.h>
#include <stdint.h>

/* Makes the first 8 bytes the length of the JSON object that follows them, as far as its braces balance. */
void hlt_fit_header_length(uint8_t *file, size_t size);

#endif
