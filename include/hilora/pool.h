/* Pools: opening, describing and verifying a .hlp file, and reading weights out of it. See hilora/hilora.h for the
 * conventions. */
#ifndef HILORA_POOL_H
#define HILORA_POOL_H

#include <stddef.h>
#include <stdint.h>

#include <hilora/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Types in common ---- */

/* Element types. The values never change. */
typedef enum hl_dtype {
    HL_DTYPE_NONE = 0,
    HL_DTYPE_F16 = 1,  /* IEEE 754 binary16 */
    HL_DTYPE_BF16 = 2, /* the upper half of a binary32 */
    HL_DTYPE_F32 = 3,  /* IEEE 754 binary32 */
    HL_DTYPE_F64 = 4   /* IEEE 754 binary64 */
} hl_dtype;

/* The two factors of a LoRA update B A. Both are read as rows: row j of A, and column j of B as row j of B transposed.
 */
typedef enum hl_side { HL_SIDE_A = 0, HL_SIDE_B = 1 } hl_side;

/* Instruction sets. Results that decide something (routes, digests) are the same on all of them. */
typedef enum hl_isa {
    HL_ISA_AUTO = 0,   /* the best that this processor has */
    HL_ISA_SCALAR = 1, /* portable C: the reference */
    HL_ISA_AVX2 = 2
} hl_isa;

/* Bytes with a length: UTF-8 where the source was, not terminated, possibly with NUL inside. Inside views they live
 * until hl_pool_close. */
typedef struct hl_string {
    const char *data;
    size_t size;
} hl_string;

/* Memory for everything that a pool and its routes and sessions allocate. Both functions may be called from any thread
 * that uses the pool. `alignment` is a power of two. zstd's own decoding state (a few hundred KiB per session) comes
 * from malloc. */
typedef struct hl_allocator {
    void *(*allocate)(void *user, size_t size, size_t alignment); /* NULL when memory is out; size > 0 */
    void (*release)(void *user, void *memory);                    /* memory is never NULL */
    void *user;
} hl_allocator;

typedef enum hl_log_level { HL_LOG_WARNING = 1, HL_LOG_INFO = 2 } hl_log_level;

/* One line of UTF-8 without a line break; it lives during the call. May be called from any thread that uses the pool.
 */
typedef void hl_log_function(void *user, hl_log_level level, const char *message);

/* ---- Opening ---- */

/* An open pool: immutable, safe to share among threads. */
typedef struct hl_pool hl_pool;

typedef struct hl_pool_options {
    size_t struct_size;
    const hl_allocator *allocator; /* copied; default malloc and free */
    hl_log_function *log;          /* default: silence */
    void *log_user;
    /* Limits on what a file may claim; beyond them HL_ERR_LIMIT. Defaults in brackets. No option raises them beyond
     * 2^46 bytes, 2^30 adapters, modules and entries, d of 2^18, ranks of 2^20 and widths of 2^38. */
    uint64_t max_file_bytes;  /* [2^46] */
    uint64_t max_adapters;    /* [1,000,000] */
    uint64_t max_modules;     /* [1,000,000] */
    uint64_t max_entries;     /* (adapter, module) pairs [100,000,000] */
    uint64_t max_dim;         /* of the embeddings [65,536] */
    uint64_t max_rank;        /* [65,535] */
    uint64_t max_width;       /* d_in and d_out of a module [2^31 - 1] */
    uint64_t max_chunk_bytes; /* one decoded tensor [2^30] */
    hl_isa isa;               /* for scoring; one that this processor lacks: HL_ERR_UNSUPPORTED */
    uint32_t reserved;        /* 0 */
} hl_pool_options;

/* Opens the pool at `path` by mapping it. *out is NULL on failure.
 *
 * The header and the tables are checked whole (checksums, ranges, order, overlap); statistics and weights are checked
 * when first used, each once, so opening costs about the size of the tables: 2 ms for 1,000 adapters of 64 modules.
 * hl_pool_verify checks the rest.
 *
 * The file must stay as it is while it is open. One that is cut short in place under the mapping raises SIGBUS on
 * access, as any mapped file does; replace pools by rename, or read the file into memory and use hl_pool_open_memory.
 *
 * HL_ERR_IO: the file cannot be opened or is not a regular file. HL_ERR_INPUT: not a pool. HL_ERR_UNSUPPORTED: of a
 * later version or with features that this build lacks. HL_ERR_CORRUPT: damaged; the diagnostic has the byte offset.
 * HL_ERR_LIMIT, HL_ERR_MEMORY, HL_ERR_ARGUMENT. */
HL_API HL_NODISCARD hl_status hl_pool_open(const char *path, const hl_pool_options *options, hl_pool **out,
                                           hl_diag *diag);

/* The same over bytes that the caller holds: `size` bytes at `bytes`, aligned to 64, which stay mapped and unchanged
 * until hl_pool_close has returned. They are not copied. Misaligned bytes: HL_ERR_ARGUMENT. */
HL_API HL_NODISCARD hl_status hl_pool_open_memory(const void *bytes, size_t size, const hl_pool_options *options,
                                                  hl_pool **out, hl_diag *diag);

/* Closes the pool; NULL is allowed. Routes and sessions of the pool must be gone, and every pointer into it is invalid
 * from here on. */
HL_API void hl_pool_close(hl_pool *pool);

/* ---- Describing ---- */

enum { HL_QUANTILES = 7 }; /* of leave-one-out log-likelihoods, at 0, 1, 2, 5, 10, 25 and 50 percent */

typedef enum hl_normalized { HL_NORMALIZED_NO = 0, HL_NORMALIZED_YES = 1, HL_NORMALIZED_UNKNOWN = 2 } hl_normalized;
typedef enum hl_codec { HL_CODEC_STORE = 0, HL_CODEC_ZSTD = 1 } hl_codec;
typedef enum hl_shrinkage {
    HL_SHRINKAGE_POOL = 0,
    HL_SHRINKAGE_OAS = 1,
    HL_SHRINKAGE_LEDOIT_WOLF = 2,
    HL_SHRINKAGE_NUMBER = 3
} hl_shrinkage;

/* How a token's components are chosen inside an adapter. Zero stands for the pool's default in options. */
typedef enum hl_gate {
    HL_GATE_DEFAULT = 0,
    HL_GATE_ACTIVATION = 1,   /* the largest |u_j| */
    HL_GATE_CONTRIBUTION = 2, /* the largest |u_j| |b_j| */
    HL_GATE_STATIC = 3        /* the first ones */
} hl_gate;

/* What a pool says about itself. Strings are empty where nothing was recorded. */
typedef struct hl_pool_view {
    size_t struct_size;
    uint32_t format_major, format_minor;
    uint8_t digest[32]; /* SHA-256 over the sections (docs/FORMAT.md) */
    uint64_t file_bytes;
    hl_string base_model, base_revision; /* the model that the adapters were trained on */
    hl_string encoder, encoder_revision; /* the model that makes embeddings */
    hl_string prefix;                    /* put before a text before it is embedded */
    hl_string tool;                      /* the program that wrote the pool */
    uint32_t dim;                        /* d of the embeddings; 0 in a pool without statistics */
    hl_normalized normalized;            /* whether embeddings have length 1 */
    hl_codec codec;
    hl_shrinkage shrinkage;
    uint32_t whitened;   /* 0 or 1 */
    uint32_t adapters;   /* in the pool */
    uint32_t calibrated; /* of them, with quantiles of their own */
    uint32_t modules;
    uint32_t entries;                 /* (adapter, module) pairs */
    uint64_t rocs;                    /* rank-one components of all entries */
    double rho, floor;                /* shrinkage of the pool (NaN when each adapter has its own), least lambda */
    double temperature;               /* nats */
    double quantiles[HL_QUANTILES];   /* nats, of the whole pool; meaningless when calibrated is 0 */
    double miss_first, miss_third;    /* leave-one-out: own adapter not ranked first, not among the best 3 */
    uint64_t miss_samples;            /* over so many samples */
    uint32_t k, wide_k, max_adapters; /* defaults of routing, as in hl_route_options */
    double gamma, p, familiar;
    hl_gate gate;
    uint32_t variance_norm; /* 0 or 1 */
    uint32_t rivals;        /* places per adapter in the table of nearest rivals */
} hl_pool_view;

/* Fills *view (struct_size set by the caller). Strings live until hl_pool_close. Any thread. HL_ERR_ARGUMENT. */
HL_API HL_NODISCARD hl_status hl_pool_info(const hl_pool *pool, hl_pool_view *view);

/* Where a pool's bytes go. */
typedef struct hl_pool_sizes {
    size_t struct_size;
    uint64_t tables;        /* header, index and strings */
    uint64_t statistics;    /* means, bases, factors, whitening, rivals */
    uint64_t texts;         /* configurations and headers of the sources */
    uint64_t weights;       /* stored bytes of A and B */
    uint64_t weights_plain; /* the same, decoded */
    uint64_t gauges;        /* stored bytes of the matrices that turn weights into components */
    uint64_t gauges_plain;
    uint64_t weights_source; /* A and B in the element types they came in */
} hl_pool_sizes;

/* Adds up the pool's bytes. One pass over the tables. Any thread. HL_ERR_ARGUMENT. */
HL_API HL_NODISCARD hl_status hl_pool_measure(const hl_pool *pool, hl_pool_sizes *sizes);

/* "no such adapter or module", and the place of base-only tokens in hl_session_apply. */
#define HL_NONE UINT32_MAX

typedef enum hl_decomposition { HL_DECOMPOSITION_RAW = 0, HL_DECOMPOSITION_SVD = 1 } hl_decomposition;

enum {                                /* hl_adapter_view.flags */
       HL_ADAPTER_ROUTABLE = 1,       /* it has statistics */
       HL_ADAPTER_CALIBRATED = 2,     /* and quantiles */
       HL_ADAPTER_SQUEEZED = 4,       /* its weakest components were dropped */
       HL_ADAPTER_EXTRAS_DROPPED = 8, /* tensors that are no LoRA were left out */
       HL_ADAPTER_CONDITIONAL = 16    /* out of every route whose score is below the threshold */
};

/* An adapter. Positions in a pool follow the names, bytewise. */
typedef struct hl_adapter_view {
    size_t struct_size;
    hl_string name, base_model, base_revision, source_name;
    uint32_t rank;    /* the largest of its modules */
    uint32_t modules; /* that it adapts */
    uint32_t flags;
    hl_decomposition decomposition;
    uint64_t rocs, parameters, source_bytes, stored_bytes;
    uint8_t content_sha256[32], source_sha256[32];
    double threshold;     /* least score, with HL_ADAPTER_CONDITIONAL */
    double squeeze_error; /* relative Frobenius error */
    uint32_t samples;     /* m; 0 without statistics, and the rest is then meaningless */
    uint32_t directions;  /* q, rows of its basis */
    double tau, rho, lambda, deviation;
    double quantiles[HL_QUANTILES]; /* nats, with HL_ADAPTER_CALIBRATED */
    /* Sum of exp(-B) over its rivals: by the fitted model the chance that it is not among the k best scores is at most
     * confusion / k. NaN when not computed. */
    double confusion;
    uint64_t config_bytes, header_bytes; /* of its texts (hl_text_read) */
} hl_adapter_view;

/* Fills *view for adapter i. HL_ERR_NOT_FOUND beyond the last one, HL_ERR_ARGUMENT. Any thread; strings live until
 * hl_pool_close. */
HL_API HL_NODISCARD hl_status hl_adapter_at(const hl_pool *pool, uint32_t i, hl_adapter_view *view);

/* The position of the adapter of that name (`size` bytes); HL_NONE when there is none. Binary search. Any thread. */
HL_API uint32_t hl_adapter_find(const hl_pool *pool, const char *name, size_t size);

/* What x and y are in y += s B (A x), the update that hl_session_apply adds; geometry: docs/FORMAT.md.
 *
 * A token step applies linear modules, packed attention (x is the input, y the queries, keys and values behind each
 * other) and experts (the tokens that the model sends to this expert) as they are. The others are linear in an x that an
 * engine makes: for an embedding 1 at the token and 0 elsewhere, so that y gets the token's column of s B A, which
 * hl_session_rows gives with less work; for a convolution the patch under the kernel, channel by channel, at each place
 * of the output. hl_session_apply and hl_blend treat all kinds alike. */
typedef enum hl_module_kind {
    HL_MODULE_LINEAR = 0,
    HL_MODULE_EMBEDDING = 1,
    HL_MODULE_CONV1D = 2,
    HL_MODULE_CONV2D = 3,
    HL_MODULE_CONV3D = 4,
    HL_MODULE_ATTENTION_QKV = 5, /* the packed in_proj of nn.MultiheadAttention */
    HL_MODULE_EXPERTS = 6        /* one expert of a fused parameter, named "path[e]"; geometry: experts, e */
} hl_module_kind;

/* A module of the base model, such as the q_proj of one layer. Positions follow the names, bytewise. */
typedef struct hl_module_view {
    size_t struct_size;
    hl_string name;
    hl_module_kind kind;
    uint32_t adapters; /* that adapt it */
    uint64_t d_in, d_out;
    uint32_t geometry[8]; /* convolutions and experts: docs/FORMAT.md */
} hl_module_view;

/* As hl_adapter_at and hl_adapter_find. */
HL_API HL_NODISCARD hl_status hl_module_at(const hl_pool *pool, uint32_t i, hl_module_view *view);
HL_API uint32_t hl_module_find(const hl_pool *pool, const char *name, size_t size);

/* One adapter's update of one module: y += scale * B A x before routing. */
typedef struct hl_entry_view {
    size_t struct_size;
    uint32_t module;
    uint32_t rank;                           /* rows stored */
    uint32_t source_rank;                    /* rows that the source had */
    double scale;                            /* 1 when squeezed */
    hl_dtype dtype_a, dtype_b;               /* of the source */
    hl_dtype stored_dtype_a, stored_dtype_b; /* the narrowest that hold every bit */
    /* 1: a gauge turns the stored rows into components. 2: and the gauge holds what the rows and the scale do not,
     * AdaLoRA's diagonal: the update is that of the components (hl_session_rows, hl_blend) alone. */
    uint32_t gauged;
    uint32_t squeezed;                       /* 1: the stored rows are components already */
    double squeeze_error;
} hl_entry_view;

/* The i-th module that an adapter changes, in the order of modules; the adapter's change of a module. HL_ERR_NOT_FOUND
 * when there is none, HL_ERR_ARGUMENT. The second is a binary search. Any thread. */
HL_API HL_NODISCARD hl_status hl_entry_at(const hl_pool *pool, uint32_t adapter, uint32_t i, hl_entry_view *view);
HL_API HL_NODISCARD hl_status hl_entry_find(const hl_pool *pool, uint32_t adapter, uint32_t module,
                                            hl_entry_view *view);

/* The k-th nearest rival of an adapter, k < hl_pool_view.rivals, and the Bhattacharyya distance in nats to it.
 * HL_ERR_NOT_FOUND when there are no more; HL_ERR_CORRUPT when the table, checked on first use, is damaged. Any
 * thread. */
HL_API HL_NODISCARD hl_status hl_rival_at(const hl_pool *pool, uint32_t adapter, uint32_t k, uint32_t *rival,
                                          double *distance, hl_diag *diag);

/* ---- Contents ---- */

/* Reads one factor as it is stored, converted to `dtype`: `rank` rows of d_in elements (A) or d_out elements (B
 * transposed: row j is column j of B), without padding, in the machine's byte order. `size` must be the exact number
 * of bytes. With the source's dtype the bits are those that went in (NaN payloads included), unless the entry is
 * squeezed. Narrower types round to nearest, ties to even.
 *
 * Verifies the chunk's checksum on every call. Allocates a decoded chunk. Any thread. HL_ERR_NOT_FOUND: the adapter
 * does not change the module. HL_ERR_CORRUPT, HL_ERR_LIMIT, HL_ERR_MEMORY, HL_ERR_ARGUMENT. */
HL_API HL_NODISCARD hl_status hl_tensor_read(const hl_pool *pool, uint32_t adapter, uint32_t module, hl_side side,
                                             hl_dtype dtype, void *buffer, size_t size, hl_diag *diag);

typedef enum hl_text {
    HL_TEXT_CONFIG = 0, /* adapter_config.json as it was */
    HL_TEXT_HEADER = 1  /* the JSON header of the safetensors file */
} hl_text;

/* Reads a text of an adapter's source. `size` must be config_bytes or header_bytes of its view. Any thread.
 * HL_ERR_CORRUPT, HL_ERR_LIMIT, HL_ERR_MEMORY, HL_ERR_ARGUMENT. */
HL_API HL_NODISCARD hl_status hl_text_read(const hl_pool *pool, uint32_t adapter, hl_text text, char *buffer,
                                           size_t size, hl_diag *diag);

typedef struct hl_verify_options {
    size_t struct_size;
    void (*report)(void *user, const hl_diag *fault); /* called for each fault; without it the first one ends the run */
    void *user;
} hl_verify_options;

/* Checks everything that opening left out: every section's checksum and the pool's digest, every adapter's statistics,
 * and that every chunk and text has its checksum and decodes to its size. Reads the whole file once and the sections
 * twice; memory: one decoded chunk. The status and the diagnostic are those of the first fault. Any thread.
 * HL_ERR_CORRUPT, HL_ERR_INPUT, HL_ERR_LIMIT, HL_ERR_MEMORY. */
HL_API HL_NODISCARD hl_status hl_pool_verify(const hl_pool *pool, const hl_verify_options *options, hl_diag *diag);

#ifdef __cplusplus
}
#endif
#endif
