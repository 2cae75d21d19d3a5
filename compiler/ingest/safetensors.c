#include "compiler/ingest/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compiler/ingest/foreign.h"
#include "compiler/ingest/order.h"
#include "compiler/ingest/safetensors_header.h"

enum { LENGTH_FIELD = 8, MOST_HEADER = 100000000 };

static const struct {
    const char *name;
    unsigned bits;
    hlf_dtype weight;
} dtypes[HLC_TENSOR_DTYPES] = {
    [HLC_TENSOR_BOOL] = {"BOOL", 8, HLF_DTYPE_NONE},
    [HLC_TENSOR_F4] = {"F4", 4, HLF_DTYPE_NONE},
    [HLC_TENSOR_F6_E2M3] = {"F6_E2M3", 6, HLF_DTYPE_NONE},
    [HLC_TENSOR_F6_E3M2] = {"F6_E3M2", 6, HLF_DTYPE_NONE},
    [HLC_TENSOR_U8] = {"U8", 8, HLF_DTYPE_NONE},
    [HLC_TENSOR_I8] = {"I8", 8, HLF_DTYPE_NONE},
    [HLC_TENSOR_F8_E5M2] = {"F8_E5M2", 8, HLF_DTYPE_NONE},
    [HLC_TENSOR_F8_E4M3] = {"F8_E4M3", 8, HLF_DTYPE_NONE},
    [HLC_TENSOR_F8_E8M0] = {"F8_E8M0", 8, HLF_DTYPE_NONE},
    [HLC_TENSOR_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8, HLF_DTYPE_NONE},
    [HLC_TENSOR_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8, HLF_DTYPE_NONE},
    [HLC_TENSOR_I16] = {"I16", 16, HLF_DTYPE_NONE},
    [HLC_TENSOR_U16] = {"U16", 16, HLF_DTYPE_NONE},
    [HLC_TENSOR_F16] = {"F16", 16, HLF_DTYPE_F16},
    [HLC_TENSOR_BF16] = {"BF16", 16, HLF_DTYPE_BF16},
    [HLC_TENSOR_I32] = {"I32", 32, HLF_DTYPE_NONE},
    [HLC_TENSOR_U32] = {"U32", 32, HLF_DTYPE_NONE},
    [HLC_TENSOR_F32] = {"F32", 32, HLF_DTYPE_F32},
    [HLC_TENSOR_C64] = {"C64", 64, HLF_DTYPE_NONE},
    [HLC_TENSOR_F64] = {"F64", 64, HLF_DTYPE_F64},
    [HLC_TENSOR_I64] = {"I64", 64, HLF_DTYPE_NONE},
    [HLC_TENSOR_U64] = {"U64", 64, HLF_DTYPE_NONE},
};

const char *hlc_tensor_dtype_name(hlc_tensor_dtype dtype) {
    return dtypes[dtype].name;
}

hlf_dtype hlc_tensor_dtype_weight(hlc_tensor_dtype dtype) {
    return dtypes[dtype].weight;
}

unsigned hlc_tensor_dtype_bits(hlc_tensor_dtype dtype) {
    return dtypes[dtype].bits;
}

hlc_tensor_dtype hlc_tensor_dtype_find(const char *name, size_t length) {
    unsigned i = 0;
    while (i < HLC_TENSOR_DTYPES && !hlc_bytes_equal(name, length, dtypes[i].name))
        i++;
    return i;
}

uint64_t hlc_tensor_next_dimension(const hlc_safetensors *table, size_t *at) {
    const char *text = table->header.bytes;
    while (text[*at] < '0' || text[*at] > '9')
        (*at)++;
    uint64_t value = 0;
    while (text[*at] >= '0' && text[*at] <= '9')
        value = value * 10 + (uint64_t)(text[(*at)++] - '0');
    return value;
}

size_t hlc_tensor_shape(const hlc_safetensors *table, const hlc_tensor *tensor, uint64_t *shape, size_t room) {
    size_t at = tensor->shape_at;
    for (size_t i = 0; i < tensor->dims && i < room; i++)
        shape[i] = hlc_tensor_next_dimension(table, &at);
    return tensor->dims;
}

const char *hlc_tensor_shape_text(const hlc_safetensors *table, const hlc_tensor *tensor, char buffer[HLC_SHAPE_SIZE]) {
    size_t at = tensor->shape_at, used = 1;
    buffer[0] = '[';
    for (uint32_t i = 0; i < tensor->dims; i++) {
        char number[32];
        int length =
            snprintf(number, sizeof number, "%s%" PRIu64, i > 0 ? ", " : "", hlc_tensor_next_dimension(table, &at));
        if ((size_t)length > HLC_SHAPE_SIZE - used - sizeof ", ...]") {
            memcpy(buffer + used, ", ...", 5);
            used += 5;
            break;
        }
        memcpy(buffer + used, number, (size_t)length);
        used += (size_t)length;
    }
    memcpy(buffer + used, "]", 2);
    return buffer;
}

static int compare_by_name(uint32_t a, uint32_t b, const void *context) {
    const hlc_tensor *x = (const hlc_tensor *)context + a, *y = (const hlc_tensor *)context + b;
    return hlc_bytes_compare(x->name, x->name_length, y->name, y->name_length);
}

static bool sort_names(hlc_safetensors *table, hlc_table_faults *report) {
    table->by_name = hlc_sorted_numbers(table->count, compare_by_name, table->tensors);
    if (!table->by_name) {
        hlc_out_of_memory(report->faults, report->path, 2 * sizeof *table->by_name * table->count);
        return false;
    }
    bool repeats = false;
    for (size_t i = 1; i < table->count; i++) {
        bool same = compare_by_name(table->by_name[i - 1], table->by_name[i], table->tensors) == 0;
        const hlc_tensor *tensor = &table->tensors[table->by_name[i]];
        if (same && !repeats)
            hlc_table_fault(report, tensor->name, tensor->name_length, "the header holds this name more than once");
        repeats = same;
    }
    return true;
}

static void report_foreign(const hlc_safetensors *table, const hlc_foreign *foreign, hlc_faults *faults) {
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_FOREIGN_FILE, table->path, NULL, foreign->remedy,
              "this is no safetensors file but %s", foreign->what);
}

static void name_foreign_content(const hlc_safetensors *table, hlc_faults *faults, const char *otherwise) {
    char head[HLC_FOREIGN_HEAD];
    size_t length = table->file.size < sizeof head ? (size_t)table->file.size : sizeof head;
    hlc_foreign foreign;
    if (!hlc_file_read(table->file.fd, table->path, 0, head, length, faults))
        return;
    if (hlc_foreign_content(head, length, &foreign))
        report_foreign(table, &foreign, faults);
    else
        hlc_error(faults, HLC_FAULT_HEADER, table->path, "byte 0", "%s", otherwise);
}

/* Reads the length of the header and the header. */
static bool read_header(hlc_safetensors *table, hlc_faults *faults) {
    char reason[160] = "";
    unsigned char field[LENGTH_FIELD];
    uint64_t size = table->file.size, length = 0;
    if (size == 0) {
        hlc_error(faults, HLC_FAULT_HEADER, table->path, NULL, "the file is empty");
        return false;
    }
    if (size >= LENGTH_FIELD) {
        if (!hlc_file_read(table->file.fd, table->path, 0, field, sizeof field, faults))
            return false;
        for (size_t i = LENGTH_FIELD; i-- > 0;)
            length = length << 8 | field[i];
    }
    if (size < LENGTH_FIELD)
        snprintf(reason, sizeof reason, "the file has %" PRIu64 " bytes, fewer than the 8 of its header's length",
                 size);
    else if (length == 0)
        snprintf(reason, sizeof reason, "the header's length is 0");
    else if (length > MOST_HEADER)
        snprintf(reason, sizeof reason, "the header's length is %" PRIu64 " bytes; at most %d are allowed", length,
                 MOST_HEADER);
    else if (length > size - LENGTH_FIELD)
        snprintf(reason, sizeof reason,
                 "the header's length is %" PRIu64 " bytes, but only %" PRIu64 " follow in the file", length,
                 size - LENGTH_FIELD);
    if (reason[0] != '\0') {
        name_foreign_content(table, faults, reason);
        return false;
    }
    table->header.bytes = malloc((size_t)length + 1);
    if (!table->header.bytes) {
        hlc_out_of_memory(faults, table->path, length + 1);
        return false;
    }
    table->header.length = (size_t)length;
    table->header.bytes[length] = '\0';
    table->data_at = LENGTH_FIELD + length;
    return hlc_file_read(table->file.fd, table->path, LENGTH_FIELD, table->header.bytes, (size_t)length, faults);
}

/* A foreign file whose first bytes happen to give a length that fits. */
static bool header_is_foreign(const hlc_safetensors *table, hlc_faults *faults) {
    char first = table->header.bytes[0];
    if (first != '\0' && strchr("{ \t\r\n", first))
        return false;
    char head[HLC_FOREIGN_HEAD];
    hlc_foreign foreign;
    size_t length = table->file.size < sizeof head ? (size_t)table->file.size : sizeof head;
    if (!hlc_file_read(table->file.fd, table->path, 0, head, length, faults))
        return true;
    if (!hlc_foreign_content(head, length, &foreign))
        return false;
    report_foreign(table, &foreign, faults);
    return true;
}

/* From the header that is in table->header. */
static bool check_table(hlc_safetensors *table, hlc_faults *faults) {
    hlc_table_faults report = {.path = table->path, .faults = faults};
    bool complete = hlc_safetensors_parse(table, &report) && report.count == 0;
    bool ok = complete && sort_names(table, &report) && hlc_safetensors_check_layout(table, &report);
    hlc_table_faults_finish(&report);
    return ok && report.count == 0 && !report.broken;
}

static bool read_table(hlc_safetensors *table, hlc_faults *faults) {
    return read_header(table, faults) && !header_is_foreign(table, faults) && check_table(table, faults);
}

/* Without a file. NULL when memory is out. */
static hlc_safetensors *create_table(const char *path, hlc_faults *faults) {
    hlc_safetensors *table = calloc(1, sizeof *table);
    char *copy = strdup(path);
    if (!table || !copy) {
        free(table);
        free(copy);
        hlc_out_of_memory(faults, path, sizeof *table + strlen(path) + 1);
        return NULL;
    }
    table->file.fd = -1;
    table->path = copy;
    return table;
}

hlc_safetensors *hlc_safetensors_open(const char *path, hlc_faults *faults) {
    hlc_safetensors *table = create_table(path, faults);
    if (!table)
        return NULL;
    if (!hlc_file_open(path, &table->file, faults) || !read_table(table, faults)) {
        hlc_safetensors_close(table);
        return NULL;
    }
    return table;
}

hlc_safetensors *hlc_safetensors_of_header(const char *path, const hlc_string *header, uint64_t file_size,
                                           hlc_faults *faults) {
    if (header->length == 0 || header->length > MOST_HEADER || file_size < LENGTH_FIELD + header->length) {
        hlc_error(faults, HLC_FAULT_HEADER, path, NULL,
                  "a safetensors header of %zu bytes cannot be that of a file of %" PRIu64,
                      header->length, file_size);
        return NULL;
    }
    hlc_safetensors *table = create_table(path, faults);
    if (!table)
        return NULL;
    table->file.size = file_size;
    table->data_at = LENGTH_FIELD + header->length;
    if (!hlc_string_copy(&table->header, header->bytes, header->length))
        hlc_out_of_memory(faults, path, header->length + 1);
    else if (check_table(table, faults))
        return table;
    hlc_safetensors_close(table);
    return NULL;
}

void hlc_safetensors_close(hlc_safetensors *table) {
    if (!table)
        return;
    if (table->file.fd >= 0)
        close(table->file.fd);
    free(table->path);
    hlc_string_free(&table->header);
    free(table->tensors);
    free(table->by_name);
    free(table->decoded_names);
    free(table);
}

const hlc_tensor *hlc_safetensors_find(const hlc_safetensors *table, const char *name, size_t length) {
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const hlc_tensor *tensor = &table->tensors[table->by_name[middle]];
        int order = hlc_bytes_compare(tensor->name, tensor->name_length, name, length);
        if (order == 0)
            return tensor;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

void hlc_metadata_start(const hlc_safetensors *table, hlc_metadata *metadata) {
    *metadata = (hlc_metadata){0};
    if (table->metadata_end == 0)
        hlc_json_start(&metadata->scan, "{}", 2);
    else
        hlc_json_start(&metadata->scan, table->header.bytes + table->metadata_at,
                       table->metadata_end - table->metadata_at);
    hlc_json_next(&metadata->scan);
}

bool hlc_metadata_next(hlc_metadata *metadata) {
    hlc_json_scan *scan = &metadata->scan;
    if (hlc_json_next(scan) != HLC_JSON_KEY)
        return false;
    metadata->key = scan->text + scan->begin;
    metadata->key_length = scan->end - scan->begin;
    metadata->key_escaped = scan->escaped;
    hlc_json_next(scan);
    metadata->value = scan->text + scan->begin;
    metadata->value_length = scan->end - scan->begin;
    metadata->value_escaped = scan->escaped;
    return true;
}

static bool copy_characters(const char *text, size_t length, bool escaped, hlc_string *out) {
    if (!hlc_string_copy(out, text, length))
        return false;
    if (escaped) {
        out->length = hlc_json_unescape(text, length, out->bytes);
        out->bytes[out->length] = '\0';
    }
    return true;
}

bool hlc_metadata_copy_key(const hlc_metadata *metadata, hlc_string *out) {
    return copy_characters(metadata->key, metadata->key_length, metadata->key_escaped, out);
}

bool hlc_metadata_copy_value(const hlc_metadata *metadata, hlc_string *out) {
    return copy_characters(metadata->value, metadata->value_length, metadata->value_escaped, out);
}

static bool key_is(const hlc_metadata *metadata, const char *key) {
    char decoded[512];
    if (!metadata->key_escaped)
        return hlc_bytes_equal(metadata->key, metadata->key_length, key);
    if (metadata->key_length > sizeof decoded)
        return false;
    size_t length = hlc_json_unescape(metadata->key, metadata->key_length, decoded);
    return hlc_bytes_equal(decoded, length, key);
}

bool hlc_metadata_find(const hlc_safetensors *table, const char *key, hlc_string *out, hlc_faults *faults) {
    *out = (hlc_string){0};
    hlc_metadata metadata;
    hlc_metadata_start(table, &metadata);
    while (hlc_metadata_next(&metadata)) {
        if (!key_is(&metadata, key))
            continue;
        if (out->bytes) {
            char place[HLC_PLACE_SIZE];
            hlc_error(faults, HLC_FAULT_HEADER, table->path, hlc_place(place, "metadata key", key, strlen(key)),
                      "it stands twice");
            hlc_string_free(out);
            return false;
        }
        if (!hlc_metadata_copy_value(&metadata, out)) {
            hlc_out_of_memory(faults, table->path, metadata.value_length + 1);
            return false;
        }
    }
    return true;
}
