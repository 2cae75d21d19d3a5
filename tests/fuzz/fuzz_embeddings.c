/* Fuzzing an embeddings file of one kind; EMBEDDINGS_FILE is its name, which decides the kind. */
#include <math.h>
#include <stdlib.h>

#include "compiler/ingest/embeddings.h"
#include "tests/fuzz/container.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = hlt_scratch_file(EMBEDDINGS_FILE, data, size);
    hlc_faults *faults = hlc_faults_create();
    hlc_embeddings *embeddings = hlc_embeddings_read(path, "embeddings", faults);
    if ((embeddings != NULL) != (hlc_faults_errors(faults) == 0)) {
        abort();
    }
    for (size_t i = 0; embeddings && i < embeddings->samples * embeddings->dim; i++) {
        if (!isfinite(embeddings->values[i])) {
            abort();
        }
    }
    hlc_embeddings_free(embeddings);
    hlc_faults_destroy(faults);
    return 0;
}

#if HILORA_LIBFUZZER
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
    size_t mutated = LLVMFuzzerMutate(data, size, max_size);
    if (EMBEDDINGS_SAFETENSORS && seed % 4) {
        hlt_fit_header_length(data, mutated);
    }
    return mutated;
}
#endif
