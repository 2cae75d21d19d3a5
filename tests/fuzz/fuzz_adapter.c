/* Fuzzing the opening of an adapter: names, shapes and types of its tensors beside its configuration.
 *
 * The input is no safetensors file (fuzz_safetensors mutates those) but text from which a sound one is made, so that
 * mutations reach what comes behind:
 *
 *     file | metadata | none          where the configuration goes
 *     {"peft_type": "LORA", ...}      up to a NUL
 *     NAME|DTYPE|2,3                  tensors, a line each, up to a NUL
 *     bytes                           that fill the data, repeated */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"
#include "compiler/ingest/adapter.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/scratch.h"

enum { MOST_DATA = 1 << 20, LENGTH_FIELD = 8 };

typedef struct piece {
    const char *text;
    size_t length;
} piece;

/* Takes what stands before the next `end` off the input. */
static piece take(piece *input, char end) {
    const char *at = input->length > 0 ? memchr(input->text, end, input->length) : NULL;
    piece taken = {input->text, at ? (size_t)(at - input->text) : input->length};
    size_t used = at ? taken.length + 1 : taken.length;
    input->text += used;
    input->length -= used;
    return taken;
}

static void append_string(hlc_text *out, piece characters) {
    hlc_text_append(out, "\"", 1);
    for (size_t i = 0; i < characters.length; i++) {
        unsigned char c = (unsigned char)characters.text[i];
        if (c < 0x20 || c == '"' || c == '\\') {
            hlc_text_printf(out, "\\u%04x", (unsigned)c);
        } else {
            hlc_text_append(out, characters.text + i, 1);
        }
    }
    hlc_text_append(out, "\"", 1);
}

static uint64_t width_of(piece dtype) {
    static const struct {
        const char *name;
        uint64_t width;
    } widths[] = {{"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I64", 8}, {"U8", 1}, {"I8", 1}};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        if (hlc_bytes_equal(dtype.text, dtype.length, widths[i].name)) {
            return widths[i].width;
        }
    }
    return 4;
}

/* Bytes of a shape "2,3"; MOST_DATA + 1 or more when they are too many. */
static uint64_t bytes_of(piece shape, uint64_t width) {
    uint64_t bytes = width;
    while (shape.length > 0) {
        piece dimension = take(&shape, ',');
        uint64_t size = 0;
        for (size_t i = 0; i < dimension.length && size <= MOST_DATA; i++) {
            size = size * 10 + (uint64_t)(dimension.text[i] - '0');
        }
        if (size > MOST_DATA || (bytes *= size) > MOST_DATA) {
            return MOST_DATA + 1;
        }
    }
    return bytes;
}

static bool is_shape(piece text) {
    for (size_t i = 0; i < text.length; i++) {
        if (text.text[i] != ',' && (text.text[i] < '0' || text.text[i] > '9')) {
            return false;
        }
    }
    return true;
}

/* The header of the tensors listed; returns the bytes of their data. */
static uint64_t write_header(hlc_text *out, piece tensors, piece metadata) {
    uint64_t end = 0;
    const char *comma = "";
    hlc_text_printf(out, "{");
    if (metadata.length > 0) {
        hlc_text_printf(out, "\"__metadata__\":{\"lora_adapter_metadata\":");
        append_string(out, metadata);
        hlc_text_printf(out, "}");
        comma = ",";
    }
    while (tensors.length > 0) {
        piece shape = take(&tensors, '\n'), name = take(&shape, '|'), dtype = take(&shape, '|');
        uint64_t bytes = is_shape(shape) ? bytes_of(shape, width_of(dtype)) : MOST_DATA + 1;
        if (bytes > MOST_DATA - end) {
            continue;
        }
        hlc_text_printf(out, "%s", comma);
        append_string(out, name);
        hlc_text_printf(out, ":{\"dtype\":");
        append_string(out, dtype);
        hlc_text_printf(out, ",\"shape\":[%.*s],\"data_offsets\":[%llu,%llu]}", (int)shape.length, shape.text,
                        (unsigned long long)end, (unsigned long long)(end + bytes));
        end += bytes;
        comma = ",";
    }
    hlc_text_printf(out, "}");
    return end;
}

static const char *write_weights(piece tensors, piece metadata, piece fill) {
    hlc_text file = {0};
    hlc_text_append(&file, "\0\0\0\0\0\0\0", LENGTH_FIELD);
    uint64_t data = write_header(&file, tensors, metadata);
    uint64_t header = file.length - LENGTH_FIELD;
    for (uint64_t i = 0; i < data; i++) {
        hlc_text_append(&file, fill.length > 0 ? &fill.text[i % fill.length] : "\x3c", 1);
    }
    if (file.failed) {
        abort();
    }
    memcpy(file.bytes, &header, LENGTH_FIELD);
    const char *path = hlt_scratch_file("adapter_model.safetensors", file.bytes, file.length);
    hlc_text_free(&file);
    return path;
}

static void read_matrix(const hlc_adapter *adapter, const hlc_matrix_source *source, hlc_faults *faults) {
    size_t size = (size_t)source->rows * (size_t)source->cols * hlf_dtype_size(source->dtype);
    void *buffer = malloc(size > 0 ? size : 1);
    hlc_tensor_cache cache = {0};
    if (size > MOST_DATA || !hlc_adapter_read(adapter, source, &cache, buffer, faults)) {
        abort();
    }
    hlc_tensor_cache_free(&cache);
    free(buffer);
}

static void open_adapter(const hlc_adapter_files *files, const hlc_ingest_options *options) {
    hlc_faults *faults = hlc_faults_create();
    hlc_adapter *adapter = hlc_adapter_open(files, options, faults);
    if ((adapter != NULL) != (hlc_faults_errors(faults) == 0)) {
        abort();
    }
    for (size_t i = 0; adapter && i < adapter->target_count; i++) {
        read_matrix(adapter, &adapter->targets[i].a, faults);
        read_matrix(adapter, &adapter->targets[i].b, faults);
    }
    hlc_adapter_close(adapter);
    hlc_faults_destroy(faults);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    piece input = {(const char *)data, size};
    piece where = take(&input, '\n'), config = take(&input, '\0'), tensors = take(&input, '\0');
    bool in_metadata = hlc_bytes_equal(where.text, where.length, "metadata");
    bool in_file = hlc_bytes_equal(where.text, where.length, "file");
    char *weights = strdup(write_weights(tensors, in_metadata ? config : (piece){0}, input));
    char *config_path = in_file ? strdup(hlt_scratch_file("adapter_config.json", config.text, config.length)) : NULL;
    char name[] = "fuzzed";
    hlc_adapter_files files = {.name = {name, sizeof name - 1}, .weights = weights, .config = config_path};
    open_adapter(&files, &(hlc_ingest_options){0});
    open_adapter(&files, &(hlc_ingest_options){.drop_extras = true,
                                               .expert_layout = HLC_EXPERTS_RANK_MAJOR,
                                               .mlx_alpha = HLC_MLX_ALPHA_APPLY});
    free(weights);
    free(config_path);
    return 0;
}
