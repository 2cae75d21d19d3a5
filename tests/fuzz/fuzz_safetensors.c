/* Fuzzing the safetensors reader: the table, names, shapes and metadata of one file. */
#include <stdlib.h>
#include <string.h>

#include "compiler/ingest/safetensors.h"
#include "tests/fuzz/container.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/scratch.h"

static void must(bool holds) {
    if (!holds) {
        abort();
    }
}

static void look_at_tensors(const hlc_safetensors *table) {
    uint64_t end = 0;
    for (size_t i = 0; i < table->count; i++) {
        const hlc_tensor *tensor = &table->tensors[i];
        uint64_t shape[4];
        char text[HLC_SHAPE_SIZE];
        must(hlc_safetensors_find(table, tensor->name, tensor->name_length) == tensor);
        must(hlc_tensor_shape(table, tensor, shape, 4) == tensor->dims);
        must(strlen(hlc_tensor_shape_text(table, tensor, text)) < sizeof text);
        must(tensor->begin <= tensor->end);
        end = tensor->end > end ? tensor->end : end;
    }
    must(table->file.size - table->data_at == end);
}

static void look_at_metadata(const hlc_safetensors *table, hlc_faults *faults) {
    hlc_metadata metadata;
    hlc_metadata_start(table, &metadata);
    while (hlc_metadata_next(&metadata)) {
        hlc_string key = {0}, value = {0};
        must(hlc_metadata_copy_key(&metadata, &key) && hlc_metadata_copy_value(&metadata, &value));
        must(hlc_utf8_prefix(value.bytes, value.length) == value.length);
        hlc_string_free(&key);
        hlc_string_free(&value);
    }
    hlc_string format = {0};
    hlc_metadata_find(table, "format", &format, faults);
    hlc_string_free(&format);
}

/* The header alone gives the same table. */
static void compare_with_header(const hlc_safetensors *table, hlc_faults *faults) {
    hlc_safetensors *again = hlc_safetensors_of_header("header", &table->header, table->file.size, faults);
    must(again && again->count == table->count);
    for (size_t i = 0; i < table->count; i++) {
        must(again->tensors[i].begin == table->tensors[i].begin && again->by_name[i] == table->by_name[i]);
    }
    hlc_safetensors_close(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = hlt_scratch_file("input.safetensors", data, size);
    hlc_faults *faults = hlc_faults_create();
    hlc_safetensors *table = hlc_safetensors_open(path, faults);
    must((table != NULL) == (hlc_faults_errors(faults) == 0));
    if (table) {
        look_at_tensors(table);
        compare_with_header(table, faults);
        look_at_metadata(table, faults);
    }
    hlc_safetensors_close(table);
    hlc_faults_destroy(faults);
    return 0;
}

#if HILORA_LIBFUZZER
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
    size_t mutated = LLVMFuzzerMutate(data, size, max_size);
    if (seed % 4) {
        hlt_fit_header_length(data, mutated);
    }
    return mutated;
}
#endif
