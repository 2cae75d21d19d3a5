/* Reading matrices: whole tensors, parts of them that are gathered, and blocks that are spread out. */
#include <stdlib.h>
#include <string.h>

#include "compiler/ingest/adapter.h"

static uint64_t groups_of(const hlc_matrix_source *source) {
    return source->groups > 1 ? source->groups : 1;
}

static bool is_part(const hlc_matrix_source *source) {
    return source->row_step || source->column_step;
}

uint64_t hlc_source_bytes(const hlc_matrix_source *source) {
    return source->rows * (source->cols / groups_of(source)) * hlf_dtype_size(source->dtype);
}

void hlc_tensor_cache_free(hlc_tensor_cache *cache) {
    free(cache->bytes);
    *cache = (hlc_tensor_cache){0};
}

static bool load_tensor(const hlc_adapter *adapter, const hlc_matrix_source *source, hlc_tensor_cache *cache,
                        hlc_faults *faults) {
    const bool there = cache->bytes && cache->adapter == adapter && cache->offset == source->tensor_offset &&
                       cache->size == source->tensor_bytes;
    if (there) {
        return true;
    }
    hlc_tensor_cache_free(cache);
    cache->bytes = malloc(source->tensor_bytes);
    if (!cache->bytes) {
        hlc_out_of_memory(faults, adapter->path, source->tensor_bytes);
        return false;
    }
    if (!hlc_adapter_read_bytes(adapter, source->tensor_offset, cache->bytes, source->tensor_bytes, faults)) {
        hlc_tensor_cache_free(cache);
        return false;
    }
    cache->adapter = adapter;
    cache->offset = source->tensor_offset;
    cache->size = source->tensor_bytes;
    return true;
}

/* For a constant `width` the compiler turns the copies into loads and stores. */
static inline void gather(char *out, const char *in, const hlc_matrix_source *source, size_t width) {
    const size_t row = (size_t)(source->row_step ? source->row_step : source->cols) * width;
    const size_t column = (size_t)(source->column_step ? source->column_step : 1) * width;
    for (uint64_t i = 0; i < source->rows; i++, in += row) {
        const char *at = in;
        for (uint64_t j = 0; j < source->cols; j++, at += column, out += width) {
            memcpy(out, at, width);
        }
    }
}

static bool read_part(const hlc_adapter *adapter, const hlc_matrix_source *source, hlc_tensor_cache *cache,
                      void *buffer, hlc_faults *faults) {
    if (!load_tensor(adapter, source, cache, faults)) {
        return false;
    }
    const char *first = (const char *)cache->bytes + (source->offset - source->tensor_offset);
    switch (hlf_dtype_size(source->dtype)) {
    case 2:
        gather(buffer, first, source, 2);
        break;
    case 4:
        gather(buffer, first, source, 4);
        break;
    default:
        gather(buffer, first, source, 8);
    }
    return true;
}

/* Moves the rows of blocks, which lie at the front of the buffer, to their places, from the last one on. */
static void spread(char *buffer, const hlc_matrix_source *source) {
    const size_t width = hlf_dtype_size(source->dtype), full = (size_t)source->cols * width;
    const size_t part = full / source->groups;
    const uint64_t rows_of_block = source->rows / source->groups;
    for (uint64_t i = source->rows; i-- > 0;) {
        char *row = buffer + i * full;
        const size_t at = (size_t)(i / rows_of_block) * part;
        memmove(row + at, buffer + i * part, part);
        memset(row, 0, at);
        memset(row + at + part, 0, full - at - part);
    }
}

static void scatter(char *out, const char *in, const hlc_matrix_source *source, size_t width) {
    const size_t row = (size_t)(source->row_step ? source->row_step : source->cols) * width;
    const size_t column = (size_t)(source->column_step ? source->column_step : 1) * width;
    for (uint64_t i = 0; i < source->rows; i++, out += row) {
        char *at = out;
        for (uint64_t j = 0; j < source->cols; j++, at += column, in += width) {
            memcpy(at, in, width);
        }
    }
}

/* The reverse of spread. */
static void collect(char *out, const char *in, const hlc_matrix_source *source) {
    const size_t width = hlf_dtype_size(source->dtype), full = (size_t)source->cols * width;
    const size_t part = full / source->groups;
    const uint64_t rows_of_block = source->rows / source->groups;
    for (uint64_t i = 0; i < source->rows; i++) {
        memcpy(out + i * part, in + i * full + (size_t)(i / rows_of_block) * part, part);
    }
}

void hlc_source_scatter(const hlc_matrix_source *source, const void *elements, uint64_t tensor, void *bytes) {
    char *out = (char *)bytes + (source->offset - tensor);
    if (source->groups > 1) {
        collect(out, elements, source);
    } else if (is_part(source)) {
        scatter(out, elements, source, hlf_dtype_size(source->dtype));
    } else {
        memcpy(out, elements, hlc_source_bytes(source));
    }
}

bool hlc_adapter_read(const hlc_adapter *adapter, const hlc_matrix_source *source, hlc_tensor_cache *cache, void *buffer,
                      hlc_faults *faults) {
    if (is_part(source)) {
        return read_part(adapter, source, cache, buffer, faults);
    }
    if (!hlc_adapter_read_bytes(adapter, source->offset, buffer, hlc_source_bytes(source), faults)) {
        return false;
    }
    if (source->groups > 1) {
        spread(buffer, source);
    }
    return true;
}
