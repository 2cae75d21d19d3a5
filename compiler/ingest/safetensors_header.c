/* From the header's JSON to the table of tensors. */
#include "compiler/ingest/safetensors_header.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FAULTS_SHOWN = 100, /* of one file */
    LENGTH_FIELD = 8    /* bytes before the header: positions are told from the file's start */
};

void hlc_table_fault(hlc_table_faults *report, const char *name, size_t length, const char *reason, ...) {
    if (report->count++ >= FAULTS_SHOWN)
        return;
    char text[512], place[HLC_PLACE_SIZE];
    va_list arguments;
    va_start(arguments, reason);
    if (vsnprintf(text, sizeof text, reason, arguments) < 0)
        text[0] = '\0';
    va_end(arguments);
    hlc_error(report->faults, report->kind, report->path, hlc_place(place, "tensor", name, length), "%s", text);
}

void hlc_file_fault(hlc_table_faults *report, const char *place, const char *reason, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, reason);
    if (vsnprintf(text, sizeof text, reason, arguments) < 0)
        text[0] = '\0';
    va_end(arguments);
    report->broken = true;
    hlc_error(report->faults, report->kind, report->path, place, "%s", text);
}

void hlc_table_faults_finish(const hlc_table_faults *report) {
    if (report->count > FAULTS_SHOWN)
        hlc_error(report->faults, report->kind, report->path, NULL, "and %zu more faults of its tensors",
                      report->count - FAULTS_SHOWN);
}

/* What parse functions share. */
typedef struct header_reader {
    hlc_safetensors *table;
    hlc_table_faults *report;
    hlc_json_scan scan;
    size_t capacity; /* of table->tensors */
    bool has_metadata;
} header_reader;

/* An entry while it is read. */
typedef struct entry {
    hlc_tensor tensor;
    bool has_dtype, has_shape, has_offsets;
    bool bad; /* a fault was reported */
} entry;

static bool json_fault(const header_reader *reader) {
    char place[32];
    snprintf(place, sizeof place, "byte %zu", reader->scan.error_at + LENGTH_FIELD);
    hlc_file_fault(reader->report, place, "the header is not a JSON object: %s", reader->scan.error);
    return false;
}

static void entry_fault(const header_reader *reader, entry *e, const char *reason) {
    e->bad = true;
    hlc_table_fault(reader->report, e->tensor.name, e->tensor.name_length, "%s (byte %zu)", reason,
                    reader->scan.begin + LENGTH_FIELD);
}

static bool is_member(const hlc_json_scan *scan, const char *name) {
    char decoded[128];
    size_t length = scan->end - scan->begin;
    if (!scan->escaped)
        return hlc_bytes_equal(scan->text + scan->begin, length, name);
    if (length > sizeof decoded)
        return false;
    length = hlc_json_unescape(scan->text + scan->begin, length, decoded);
    return hlc_bytes_equal(decoded, length, name);
}

static bool parse_dtype(header_reader *reader, hlc_json_token token, entry *e) {
    hlc_json_scan *scan = &reader->scan;
    if (e->has_dtype)
        entry_fault(reader, e, "dtype stands twice");
    e->has_dtype = true;
    if (token != HLC_JSON_STRING) {
        entry_fault(reader, e, "dtype is not a string");
        return hlc_json_skip(scan, token);
    }
    hlc_tensor_dtype dtype = HLC_TENSOR_DTYPES;
    char decoded[128];
    size_t length = scan->end - scan->begin;
    if (length <= sizeof decoded) {
        length = hlc_json_unescape(scan->text + scan->begin, length, decoded);
        dtype = hlc_tensor_dtype_find(decoded, length);
    }
    if (dtype == HLC_TENSOR_DTYPES)
        entry_fault(reader, e, "dtype is none that safetensors knows");
    e->tensor.dtype = (uint8_t)dtype;
    return true;
}

/* An array of non-negative integers: keeps the first `room` of them. False when the JSON is broken. */
static bool parse_integers(header_reader *reader, hlc_json_token token, entry *e, const char *not_integers,
                           uint64_t *values, size_t room, uint32_t *count) {
    hlc_json_scan *scan = &reader->scan;
    *count = 0;
    if (token != HLC_JSON_ARRAY_BEGIN) {
        entry_fault(reader, e, not_integers);
        return hlc_json_skip(scan, token);
    }
    bool reported = false;
    while ((token = hlc_json_next(scan)) != HLC_JSON_ARRAY_END) {
        if (token == HLC_JSON_ERROR)
            return false;
        uint64_t value = 0;
        if (token != HLC_JSON_NUMBER || !hlc_json_u64(scan->text + scan->begin, scan->end - scan->begin, &value)) {
            if (!reported)
                entry_fault(reader, e, not_integers);
            reported = true;
            if (!hlc_json_skip(scan, token))
                return false;
        }
        if (*count < room)
            values[*count] = value;
        (*count)++;
    }
    return true;
}

static bool parse_shape(header_reader *reader, hlc_json_token token, entry *e) {
    if (e->has_shape)
        entry_fault(reader, e, "shape stands twice");
    e->has_shape = true;
    e->tensor.shape_at = (uint32_t)reader->scan.begin;
    return parse_integers(reader, token, e, "shape is not an array of non-negative integers below 2^64", NULL, 0,
                          &e->tensor.dims);
}

static bool parse_offsets(header_reader *reader, hlc_json_token token, entry *e) {
    if (e->has_offsets)
        entry_fault(reader, e, "data_offsets stands twice");
    e->has_offsets = true;
    bool was_bad = e->bad;
    uint64_t offsets[2] = {0, 0};
    uint32_t count;
    if (!parse_integers(reader, token, e, "data_offsets is not an array of two non-negative integers below 2^64",
                        offsets, 2, &count))
        return false;
    if (count != 2 && e->bad == was_bad)
        entry_fault(reader, e, "data_offsets does not hold two integers");
    e->tensor.begin = offsets[0];
    e->tensor.end = offsets[1];
    return true;
}

static bool parse_member(header_reader *reader, entry *e) {
    hlc_json_scan *scan = &reader->scan;
    bool is_dtype = is_member(scan, "dtype"), is_shape = is_member(scan, "shape"),
         is_offsets = is_member(scan, "data_offsets");
    hlc_json_token token = hlc_json_next(scan);
    if (token == HLC_JSON_ERROR)
        return false;
    if (is_dtype)
        return parse_dtype(reader, token, e);
    if (is_shape)
        return parse_shape(reader, token, e);
    if (is_offsets)
        return parse_offsets(reader, token, e);
    return hlc_json_skip(scan, token);
}

static bool add_tensor(header_reader *reader, const hlc_tensor *tensor) {
    hlc_safetensors *table = reader->table;
    if (table->count == reader->capacity) {
        size_t capacity = reader->capacity > 0 ? 2 * reader->capacity : 64;
        hlc_tensor *larger = realloc(table->tensors, capacity * sizeof *larger);
        if (!larger) {
            hlc_out_of_memory(reader->report->faults, reader->report->path, capacity * sizeof *larger);
            return false;
        }
        table->tensors = larger;
        reader->capacity = capacity;
    }
    table->tensors[table->count++] = *tensor;
    return true;
}

/* False only when the JSON is broken or memory is out. */
static bool parse_entry(header_reader *reader, const char *name, size_t name_length) {
    entry e = {.tensor = {.name = name, .name_length = (uint32_t)name_length}};
    hlc_json_token token = hlc_json_next(&reader->scan);
    if (token != HLC_JSON_OBJECT_BEGIN) {
        if (token != HLC_JSON_ERROR)
            entry_fault(reader, &e, "the entry is not an object");
        return hlc_json_skip(&reader->scan, token) || json_fault(reader);
    }
    while ((token = hlc_json_next(&reader->scan)) == HLC_JSON_KEY)
        if (!parse_member(reader, &e))
            return json_fault(reader);
    if (token == HLC_JSON_ERROR)
        return json_fault(reader);
    if (!e.has_dtype)
        entry_fault(reader, &e, "the entry has no dtype");
    if (!e.has_shape)
        entry_fault(reader, &e, "the entry has no shape");
    if (!e.has_offsets)
        entry_fault(reader, &e, "the entry has no data_offsets");
    return e.bad || add_tensor(reader, &e.tensor);
}

static void metadata_fault(const header_reader *reader, const char *reason) {
    char place[32];
    snprintf(place, sizeof place, "byte %zu", reader->scan.begin + LENGTH_FIELD);
    hlc_file_fault(reader->report, place, "__metadata__ %s", reason);
}

static bool parse_metadata(header_reader *reader) {
    hlc_json_scan *scan = &reader->scan;
    hlc_json_token token = hlc_json_next(scan);
    if (reader->has_metadata)
        metadata_fault(reader, "stands twice");
    reader->has_metadata = true;
    if (token == HLC_JSON_NULL)
        return true;
    if (token != HLC_JSON_OBJECT_BEGIN) {
        if (token != HLC_JSON_ERROR)
            metadata_fault(reader, "is neither an object nor null");
        return hlc_json_skip(scan, token) || json_fault(reader);
    }
    size_t begin = scan->begin;
    bool reported = false;
    while ((token = hlc_json_next(scan)) == HLC_JSON_KEY) {
        token = hlc_json_next(scan);
        if (token != HLC_JSON_STRING && token != HLC_JSON_ERROR && !reported) {
            metadata_fault(reader, "holds a value that is not a string");
            reported = true;
        }
        if (!hlc_json_skip(scan, token))
            return json_fault(reader);
    }
    if (token == HLC_JSON_ERROR)
        return json_fault(reader);
    reader->table->metadata_at = begin;
    reader->table->metadata_end = scan->end;
    return true;
}

/* The characters of the key just scanned: in the header itself, or decoded into a buffer that has room for all that
 * follow. */
static bool key_characters(header_reader *reader, const char **name, size_t *length) {
    const hlc_json_scan *scan = &reader->scan;
    hlc_safetensors *table = reader->table;
    *name = scan->text + scan->begin;
    *length = scan->end - scan->begin;
    if (!scan->escaped)
        return true;
    if (!table->decoded_names) {
        table->decoded_names = malloc(scan->size - scan->begin);
        if (!table->decoded_names) {
            hlc_out_of_memory(reader->report->faults, reader->report->path, scan->size - scan->begin);
            return false;
        }
    }
    char *decoded = table->decoded_names + table->decoded_length;
    *length = hlc_json_unescape(*name, *length, decoded);
    *name = decoded;
    table->decoded_length += *length;
    return true;
}

bool hlc_safetensors_parse(hlc_safetensors *table, hlc_table_faults *report) {
    report->kind = HLC_FAULT_HEADER;
    header_reader reader = {.table = table, .report = report};
    hlc_json_scan *scan = &reader.scan;
    hlc_json_start(scan, table->header.bytes, table->header.length);
    hlc_json_token token = hlc_json_next(scan);
    if (token == HLC_JSON_ERROR)
        return json_fault(&reader);
    if (token != HLC_JSON_OBJECT_BEGIN) {
        scan->error = "it is JSON of another kind";
        scan->error_at = scan->begin;
        return json_fault(&reader);
    }
    while ((token = hlc_json_next(scan)) == HLC_JSON_KEY) {
        const char *name;
        size_t length;
        if (!key_characters(&reader, &name, &length))
            return false;
        bool metadata = hlc_bytes_equal(name, length, "__metadata__");
        if (!(metadata ? parse_metadata(&reader) : parse_entry(&reader, name, length)))
            return false;
    }
    return (token != HLC_JSON_ERROR && hlc_json_next(scan) == HLC_JSON_END) || json_fault(&reader);
}
