/* Decoded components: the rows that applying works on (docs/FORMAT.md, "Weights"). */
#ifndef HILORA_RUNTIME_ROWS_H
#define HILORA_RUNTIME_ROWS_H

#include <hilora/route.h>

#include "runtime/decode.h"
#include "runtime/row_kernels.h"

/* One factor: `rank` rows of `width` elements. */
typedef struct hlr_matrix {
    void *rows;
    size_t stride; /* elements */
    uint64_t width;
    int16_t *exponent; /* a row times 2^exponent is the component; NULL: all 0 */
    float *factor;     /* 2^exponent; NULL: all 1 */
} hlr_matrix;

/* The components of one entry. One allocation; everything behind the pointers lies in it. */
typedef struct hlr_rows {
    size_t bytes; /* of the allocation */
    uint32_t rank;
    bool half;       /* rows are float16; else float32 */
    double scale;    /* s of the components: the entry's, or 1 when the gauge holds it */
    hlr_matrix a, b; /* b: the transpose, so that a component is a row of each */
    float *b_norm;   /* |b_j| */
} hlr_rows;

/* True when an entry is to be decoded to float16 rows. */
bool hlr_rows_are_half(const hlf_entry_record *entry, hl_rows mode);

/* The bytes that the decoded rows of an entry take: below 2^36, since a decoded chunk is below 4 GiB and padding adds
 * at most two cache lines a row. A sum over the entries of a forged pool can exceed 64 bits all the same. */
uint64_t hlr_rows_bytes(const hlf_index *index, const hlf_entry_record *entry, bool half);

/* HL_ERR_LIMIT when a chunk of the entry decodes to more than the pool's max_chunk_bytes: to be asked before memory for
 * it is. */
HL_NODISCARD hl_status hlr_rows_check_size(const hl_pool *pool, const hlf_entry_record *entry, hl_diag *diag);

/* Rows without content; NULL when memory is out. */
hlr_rows *hlr_rows_create(const hl_pool *pool, const hlf_entry_record *entry, bool half);
/* Makes rows of the entry out of others that take the same bytes. */
void hlr_rows_recycle(const hl_pool *pool, const hlf_entry_record *entry, bool half, hlr_rows *rows);
/* NULL is allowed. */
void hlr_rows_destroy(const hl_pool *pool, hlr_rows *rows);

/* Scratch for decoding entries; one thread at a time. */
typedef struct hlr_rows_builder {
    hlr_decoder decoder;
    const hlr_row_kernels *kernels;
    void *memory; /* scratch from the pool's allocator */
    size_t capacity;
} hlr_rows_builder;

/* False when memory is out; the builder may be destroyed in any case. */
bool hlr_rows_builder_create(hlr_rows_builder *builder, const hl_pool *pool, const hlr_row_kernels *kernels);
void hlr_rows_builder_destroy(hlr_rows_builder *builder);

/* Verifies and decodes the chunks of the entry, applies its gauge, and fills `rows`, which was created for it. The
 * result is the same for every builder with these kernels. HL_ERR_CORRUPT, HL_ERR_LIMIT, HL_ERR_MEMORY. */
HL_NODISCARD hl_status hlr_rows_build(hlr_rows_builder *builder, const hlf_entry_record *entry, hlr_rows *rows,
                                      hl_diag *diag);

#endif
