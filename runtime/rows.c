#include "runtime/rows.h"

#include <math.h>
#include <string.h>

#include "format/bytes.h"
#include "format/diag.h"
#include "runtime/memory.h"

enum {
    HALF_TOP_EXPONENT = 15,      /* of the largest finite float16, 65504 */
    LEAST_FACTOR_EXPONENT = -126 /* 2^that is the least normal float32 */
};

/* Sections of the allocation begin at multiples of HLR_ALIGNMENT; the widest entry that a pool can hold stays far below
 * 2^63. */
static uint64_t aligned(uint64_t bytes) {
    return hlf_align_up(bytes, HLR_ALIGNMENT);
}

/* An odd number of cache lines: the same columns of many rows then lie in different sets of the caches. */
static uint64_t row_stride(uint64_t width, bool half) {
    const uint64_t line = HLR_ALIGNMENT / (half ? 2 : 4), lines = (width + line - 1) / line;
    return (lines | 1) * line;
}

static uint64_t matrix_bytes(uint32_t rank, uint64_t width, bool half) {
    return aligned(rank * row_stride(width, half) * (half ? 2 : 4)) +
           (half ? aligned(rank * sizeof(int16_t)) + aligned(rank * sizeof(float)) : 0);
}

bool hlr_rows_are_half(const hlf_entry_record *entry, hl_rows mode) {
    const bool wide =
        hlf_dtype_size((hlf_dtype)entry->source_dtype_a) > 2 || hlf_dtype_size((hlf_dtype)entry->source_dtype_b) > 2;
    return mode == HL_ROWS_F16 || (mode != HL_ROWS_F32 && !wide);
}

static uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

hl_status hlr_rows_check_size(const hl_pool *pool, const hlf_entry_record *entry, hl_diag *diag) {
    static const hlf_side sides[] = {HLF_SIDE_A, HLF_SIDE_B, HLF_SIDE_GAUGE};
    uint64_t bytes = 0;
    for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
        hlf_chunk_shape shape;
        if (hlf_index_chunk_shape(&pool->index, entry, sides[i], &shape)) {
            bytes = larger(bytes, shape.bytes);
        }
    }
    return hlr_check_decoded_size(pool, bytes, HL_NO_OFFSET, diag);
}

uint64_t hlr_rows_bytes(const hlf_index *index, const hlf_entry_record *entry, bool half) {
    hlf_module_record module;
    hlf_index_module(index, entry->module, &module);
    return aligned(sizeof(hlr_rows)) + matrix_bytes(entry->rank, module.d_in, half) +
           matrix_bytes(entry->rank, module.d_out, half) + aligned(entry->rank * sizeof(float));
}

static uint8_t *take(uint8_t **at, uint64_t bytes) {
    uint8_t *taken = *at;
    *at += aligned(bytes);
    return taken;
}

static void place_matrix(hlr_matrix *matrix, uint32_t rank, uint64_t width, bool half, uint8_t **at) {
    *matrix = (hlr_matrix){.stride = (size_t)row_stride(width, half), .width = width};
    matrix->rows = take(at, rank * row_stride(width, half) * (half ? 2 : 4));
    if (half) {
        matrix->exponent = (int16_t *)(void *)take(at, rank * sizeof(int16_t));
        matrix->factor = (float *)(void *)take(at, rank * sizeof(float));
    }
}

void hlr_rows_recycle(const hl_pool *pool, const hlf_entry_record *entry, bool half, hlr_rows *rows) {
    hlf_module_record module;
    hlf_index_module(&pool->index, entry->module, &module);
    *rows = (hlr_rows){.bytes = rows->bytes, .rank = entry->rank, .half = half, .scale = entry->scale};
    if (entry->flags & HLF_ENTRY_GAUGE) {
        rows->scale = 1;
    }
    uint8_t *at = (uint8_t *)rows;
    take(&at, sizeof *rows);
    place_matrix(&rows->a, rows->rank, module.d_in, half, &at);
    place_matrix(&rows->b, rows->rank, module.d_out, half, &at);
    rows->b_norm = (float *)(void *)take(&at, rows->rank * sizeof(float));
}

hlr_rows *hlr_rows_create(const hl_pool *pool, const hlf_entry_record *entry, bool half) {
    const uint64_t bytes = hlr_rows_bytes(&pool->index, entry, half);
    hlr_rows *rows = bytes <= SIZE_MAX ? hlr_allocate(&pool->allocator, (size_t)bytes, 1) : NULL;
    if (rows) {
        rows->bytes = (size_t)bytes;
        hlr_rows_recycle(pool, entry, half, rows);
    }
    return rows;
}

void hlr_rows_destroy(const hl_pool *pool, hlr_rows *rows) {
    hlr_release(&pool->allocator, rows);
}

bool hlr_rows_builder_create(hlr_rows_builder *builder, const hl_pool *pool, const hlr_row_kernels *kernels) {
    *builder = (hlr_rows_builder){.kernels = kernels};
    return hlr_decoder_create(&builder->decoder, pool);
}

void hlr_rows_builder_destroy(hlr_rows_builder *builder) {
    if (builder->decoder.pool) {
        hlr_release(&builder->decoder.pool->allocator, builder->memory);
    }
    hlr_decoder_destroy(&builder->decoder);
    *builder = (hlr_rows_builder){.kernels = NULL};
}

/* ---- decoding ---- */

/* An entry under way: its chunks, and the builder's memory cut into pieces. */
typedef struct job {
    const hlr_rows_builder *builder;
    hlf_chunk_shape a, b, gauge;
    bool gauged;
    uint8_t *elements; /* a decoded chunk */
    float *plain;      /* its elements as float32 rows, before the gauge */
    float *components; /* float32 components, before they are narrowed */
    float *gauge_rows; /* G_A above the transpose of G_B */
} job;

/* Finds the chunks of the entry and makes room for them. */
static hl_status begin(hlr_rows_builder *builder, const hlf_entry_record *entry, bool half, job *j, hl_diag *diag) {
    const hl_pool *pool = builder->decoder.pool;
    *j = (job){.builder = builder};
    j->gauged = hlf_index_chunk_shape(&pool->index, entry, HLF_SIDE_GAUGE, &j->gauge);
    hlf_index_chunk_shape(&pool->index, entry, HLF_SIDE_A, &j->a);
    hlf_index_chunk_shape(&pool->index, entry, HLF_SIDE_B, &j->b);
    const uint64_t gauge = j->gauged ? j->gauge.bytes : 0, chunk = larger(j->a.bytes, j->b.bytes);
    hl_status status = hlr_rows_check_size(pool, entry, diag);
    if (status != HL_OK) {
        return status;
    }
    const uint64_t rows = entry->rank * row_stride(larger(j->a.width, j->b.width), false) * sizeof(float);
    const uint64_t plain = j->gauged ? rows : 0, components = half ? rows : 0;
    const uint64_t bytes = aligned(chunk) + aligned(plain) + aligned(components) + aligned(gauge);
    if (builder->capacity < bytes) {
        hlr_release(&pool->allocator, builder->memory);
        builder->memory = bytes <= SIZE_MAX ? hlr_allocate(&pool->allocator, (size_t)bytes, 1) : NULL;
        builder->capacity = builder->memory ? (size_t)bytes : 0;
    }
    if (!builder->memory) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for %llu bytes to decode in",
                        (unsigned long long)bytes);
    }
    uint8_t *at = builder->memory;
    j->elements = take(&at, chunk);
    j->plain = (float *)(void *)take(&at, plain);
    j->components = (float *)(void *)take(&at, components);
    j->gauge_rows = (float *)(void *)take(&at, gauge);
    return HL_OK;
}

/* The decoded elements as float32 rows; columns up to the stride become zero. */
static void widen_rows(const job *j, const hlf_chunk_shape *shape, float *rows, size_t stride) {
    const size_t width = (size_t)shape->width, element = hlf_dtype_size(shape->dtype);
    for (size_t k = 0; k < shape->rows; k++) {
        j->builder->kernels->widen(rows + k * stride, j->elements + k * width * element, shape->dtype, width);
        memset(rows + k * stride + width, 0, (stride - width) * sizeof(float));
    }
}

/* components = gauge plain, all with `stride`. Strips of columns are sized to stay in the first-level cache. */
static void apply_gauge(const job *j, const float *gauge, float *components, size_t stride, uint32_t rank) {
    enum { CACHED = 4096, LEAST = 64 }; /* float32 elements */
    const size_t fitting = CACHED / rank / LEAST * LEAST, step = fitting < LEAST ? LEAST : fitting;
    for (size_t at = 0; at < stride; at += step) {
        const size_t n = stride - at < step ? stride - at : step;
        j->builder->kernels->multiply(components + at, stride, rank, gauge, j->plain + at, stride, rank, n);
    }
}

/* The largest finite magnitude of a row. */
static float largest_of(const float *row, size_t n) {
    const int32_t infinity = INT32_C(0x7F800000);
    int32_t top = 0;
    for (size_t i = 0; i < n; i++) { /* magnitudes have the order of their bits */
        int32_t bits;
        memcpy(&bits, &row[i], sizeof bits);
        bits &= INT32_MAX;
        bits = bits < infinity ? bits : 0;
        top = bits > top ? bits : top;
    }
    float largest;
    memcpy(&largest, &top, sizeof largest);
    return largest;
}

/* The power of two that brings the largest finite magnitude of a row as high as float16 can hold it. */
static int row_exponent(float largest) {
    const float overflow = 65520; /* rounds to infinity, as does all above */
    if (largest == 0) {
        return 0;
    }
    int exponent = ilogbf(largest) - HALF_TOP_EXPONENT;
    exponent += ldexpf(largest, -exponent) >= overflow;
    return exponent > LEAST_FACTOR_EXPONENT ? exponent : LEAST_FACTOR_EXPONENT;
}

/* matrix = components, each row scaled by a power of two. */
static void narrow_rows(const job *j, const float *components, size_t stride, uint32_t rank, hlr_matrix *matrix) {
    const size_t width = (size_t)matrix->width;
    for (size_t k = 0; k < rank; k++) {
        const float *from = components + k * stride;
        uint16_t *to = (uint16_t *)matrix->rows + k * matrix->stride;
        const int exponent = row_exponent(largest_of(from, width));
        matrix->exponent[k] = (int16_t)exponent;
        matrix->factor[k] = ldexpf(1, exponent);
        j->builder->kernels->narrow(to, from, ldexpf(1, -exponent), width);
        memset(to + width, 0, (matrix->stride - width) * sizeof *to);
    }
}

/* |row|, in float32 where that neither overflows nor loses digits. */
static float row_norm(const hlr_row_kernels *kernels, const float *row, size_t width) {
    float square = 0, *const sum = &square;
    const hlr_span span = {row, 0, 0, false};
    kernels->dot(&sum, &row, 1, &span, 1, (size_t)hlf_align_up(width, HLR_ROW_UNIT));
    if (square > 0x1p-60f && square < 0x1p120f) {
        return sqrtf(square);
    }
    double exact = 0;
    for (size_t i = 0; i < width; i++) {
        exact += (double)row[i] * row[i];
    }
    return (float)sqrt(exact);
}

/* One side from its chunk to finished rows. gauge: NULL, or the rank x rank half that applies to it. */
static hl_status build_matrix(const job *j, hlr_decoder *decoder, const hlf_chunk_shape *shape, const float *gauge,
                              hlr_rows *rows, hlr_matrix *matrix, hl_diag *diag) {
    hl_status status = hlr_decode_chunk(decoder, shape, j->elements, diag);
    if (status != HL_OK) {
        return status;
    }
    const size_t stride = (size_t)row_stride(shape->width, false);
    float *components = rows->half ? j->components : matrix->rows;
    widen_rows(j, shape, gauge ? j->plain : components, stride);
    if (gauge) {
        apply_gauge(j, gauge, components, stride, rows->rank);
    }
    for (size_t k = 0; matrix == &rows->b && k < rows->rank; k++) {
        rows->b_norm[k] = row_norm(j->builder->kernels, components + k * stride, (size_t)shape->width);
    }
    if (rows->half) {
        narrow_rows(j, components, stride, rows->rank, matrix);
    }
    return HL_OK;
}

hl_status hlr_rows_build(hlr_rows_builder *builder, const hlf_entry_record *entry, hlr_rows *rows, hl_diag *diag) {
    job j;
    const float *gauge_a = NULL, *gauge_b = NULL;
    hl_status status = begin(builder, entry, rows->half, &j, diag);
    if (status == HL_OK && j.gauged) {
        status = hlr_decode_chunk(&builder->decoder, &j.gauge, j.gauge_rows, diag);
        gauge_a = j.gauge_rows;
        gauge_b = j.gauge_rows + (size_t)rows->rank * rows->rank;
    }
    if (status == HL_OK) {
        status = build_matrix(&j, &builder->decoder, &j.a, gauge_a, rows, &rows->a, diag);
    }
    if (status == HL_OK) {
        status = build_matrix(&j, &builder->decoder, &j.b, gauge_b, rows, &rows->b, diag);
    }
    return status;
}
