/* Sessions: decoding what routes need and applying it, per thread. See hilora/hilora.h for the conventions.
 *
 * For a route of adapters i with o_i ROCs of weight c_i, and a module that they adapt, a session computes for every
 * token x
 *
 *     y += s_l c_i n_i sum_{j active} b_j (a_j . x)
 *
 * with the active ROCs chosen by the route's gate, n_i = sqrt(r_l / o_l) under variance_norm, else 1 (docs/ROUTING.md,
 * "Token level"; HiLoRA, arXiv 2510.12266). An engine with kernels of its own takes the decoded rows (hl_session_rows)
 * and the selection rule (hl_gate_select). */
#ifndef HILORA_SESSION_H
#define HILORA_SESSION_H

#include <stddef.h>
#include <stdint.h>

#include <hilora/pool.h>
#include <hilora/route.h>
#include <hilora/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Scratch, decoding state and the cache of decoded rows. One thread at a time. */
typedef struct hl_session hl_session;

typedef struct hl_session_options {
    size_t struct_size;
    uint64_t cache_bytes; /* for decoded rows [2^30] */
    /* Threads that decode, and that share the tokens of a call where there are many; the caller's is one of them [1].
     * Their number, at most 1,024, never changes a result. Signals to the process are left to the caller's threads. */
    uint32_t threads;
    uint32_t max_tokens; /* of one hl_session_apply [4096] */
    hl_isa isa;          /* of the kernels; HL_ISA_AVX2 needs FMA and F16C, too. One that this processor lacks:
                          * HL_ERR_UNSUPPORTED. Sums differ in rounding between them, and so may the choice between
                          * components whose magnitudes are that close. */
    uint32_t reserved;   /* 0 */
} hl_session_options;

/* Creates a session of a pool, which must outlive it. *out is NULL on failure. HL_ERR_MEMORY, HL_ERR_UNSUPPORTED,
 * HL_ERR_ARGUMENT. */
HL_API HL_NODISCARD hl_status hl_session_create(const hl_pool *pool, const hl_session_options *options,
                                                hl_session **out, hl_diag *diag);

/* NULL is allowed. */
HL_API void hl_session_destroy(hl_session *session);

/* Makes `count` routes ready: prefetches, verifies, decodes and pins the rows that they need in all of their modules,
 * and lets go of the routes prepared before (their rows stay cached while there is room; the least recently prepared go
 * first). Copies what it needs: the routes may be freed afterwards. After it has succeeded hl_session_apply allocates
 * nothing and reads no file. 0 routes let go of everything.
 *
 * Rows are those of docs/FORMAT.md, A' and B' where there is a gauge, in the precision that the route's `rows` asks
 * for: as float32 they give s B A to about 1e-7 |s| |B| |A|, as float16 with a power of two per row to 3e-4 of its
 * norm. Several routes share what they have in common.
 *
 * HL_ERR_CACHE: the rows do not fit cache_bytes; hl_session_info then says the bytes they need, and the routes
 * prepared before are still ready, as they are after HL_ERR_ARGUMENT (a route of another pool). HL_ERR_CORRUPT,
 * HL_ERR_LIMIT, HL_ERR_MEMORY: no route is ready, and the session can be used on. Cost: decoding of what is not yet
 * cached, docs/BENCHMARKS.md has figures. */
HL_API HL_NODISCARD hl_status hl_session_prepare(hl_session *session, const hl_route *const *routes, size_t count,
                                                 hl_diag *diag);

typedef struct hl_session_view {
    size_t struct_size;
    uint64_t cache_bytes;  /* the limit */
    uint64_t cached_bytes; /* in use */
    uint64_t pinned_bytes; /* of them, by the prepared routes */
    uint64_t needed_bytes; /* by the routes of the latest hl_session_prepare, also when they did not fit */
    uint64_t cached_rocs, pinned_rocs, needed_rocs; /* the same, in rank-one components */
    uint64_t hits, misses; /* (adapter, module) pairs found in the cache or decoded, since the session was made */
    uint32_t routes;       /* prepared */
    uint32_t threads;      /* in use; fewer than asked for when the system had no more */
    hl_isa isa;            /* in use */
} hl_session_view;

/* Fills *view (struct_size set by the caller). HL_ERR_ARGUMENT. */
HL_API HL_NODISCARD hl_status hl_session_info(const hl_session *session, hl_session_view *view);

/* y += the routed update of one module, for n_tokens rows. Hot.
 *
 * module: a position in the pool. x: n_tokens rows of d_in elements, x_stride elements apart; y: n_tokens rows of
 * d_out, y_stride apart; both of `dtype` (float32, bfloat16 or float16), aligned to their elements, not overlapping.
 * route_of_token: for each token a position in the array given to hl_session_prepare, or HL_NONE for the base model;
 * NULL: all use route 0. Tokens whose route does not adapt the module keep their y, bit for bit.
 *
 * The update is summed in float32, adapters in ascending position and components ascending, and is then added to y in
 * float32 and rounded once. A token's result is the same, bit for bit, whatever other tokens, routes and threads are
 * there. NaN and infinity propagate as arithmetic has them; a NaN score counts as the largest.
 *
 * HL_ERR_ARGUMENT, with y unchanged: no such module, no such route, more tokens than max_tokens, a stride below the
 * width. */
HL_API HL_NODISCARD hl_status hl_session_apply(hl_session *session, uint32_t module, size_t n_tokens, const void *x,
                                               size_t x_stride, const uint32_t *route_of_token, void *y,
                                               size_t y_stride, hl_dtype dtype, hl_diag *diag);

/* The decoded components of one adapter in one module: row j of A and row j of B transposed make ROC j. Any factor of
 * a row's power of two and the entry's scale are separate, so that delta = scale * sum_j 2^(a_exponent[j] +
 * b_exponent[j]) b_j a_j^T. */
typedef struct hl_rows_view {
    size_t struct_size;
    const void *a, *b;         /* rows x d_in, rows x d_out; 64-byte aligned */
    size_t a_stride, b_stride; /* elements between rows */
    hl_dtype dtype;            /* HL_DTYPE_F32 or HL_DTYPE_F16 */
    uint32_t rows;
    uint32_t rocs; /* o_l: how many of them a token uses on this route */
    uint64_t d_in, d_out;
    double scale;
    const int16_t *a_exponent, *b_exponent; /* rows each; NULL: all 0 */
    const float *b_norm;                    /* |b_j| with its power of two, for HL_GATE_CONTRIBUTION */
} hl_rows_view;

/* Fills *view with rows of a prepared route (its position in the array given to hl_session_prepare). Pointers live
 * until the next hl_session_prepare or hl_session_destroy. HL_ERR_NOT_FOUND: the route has no such adapter, or the
 * adapter does not change the module. HL_ERR_ARGUMENT. */
HL_API HL_NODISCARD hl_status hl_session_rows(const hl_session *session, uint32_t route, uint32_t adapter,
                                              uint32_t module, hl_rows_view *view, hl_diag *diag);

/* The selection rule of the token level: writes the `count` chosen positions of u[0..rank), ascending, to active.
 * gate: HL_GATE_ACTIVATION takes the largest |u_j|, HL_GATE_CONTRIBUTION the largest |u_j| b_norm[j], HL_GATE_STATIC
 * the first; ties to the lower j. A larger count is taken as rank. b_norm is read for HL_GATE_CONTRIBUTION only, and
 * NULL then means 1. NaN counts as larger than all numbers. Pure; O(rank), no memory. Any thread. */
HL_API void hl_gate_select(hl_gate gate, const float *u, const float *b_norm, uint32_t rank, uint32_t count,
                           uint32_t *active);

/* A route frozen to one LoRA: per module the first o_l components of each adapter, weights and scales folded in. */
typedef struct hl_lora hl_lora;

/* Blends a route. The first components are taken whatever the route's gate, from float32 rows whatever its `rows`;
 * weight, scale and variance_norm go into B. Adapters follow each other in ascending position. Nothing that is
 * prepared changes. The LoRA is independent of the session once made, and lives until hl_lora_free, which must come
 * before hl_pool_close; *out is NULL on failure. HL_ERR_MEMORY, HL_ERR_CORRUPT, HL_ERR_LIMIT, HL_ERR_ARGUMENT (an empty
 * route). */
HL_API HL_NODISCARD hl_status hl_blend(hl_session *session, const hl_route *route, hl_lora **out, hl_diag *diag);

/* NULL is allowed. */
HL_API void hl_lora_free(hl_lora *lora);

/* One module of a blended LoRA: update = B A. */
typedef struct hl_lora_view {
    size_t struct_size;
    uint32_t module; /* position in the pool */
    uint32_t rank;
    uint64_t d_in, d_out;
    const float *a; /* rank x d_in */
    const float *b; /* rank x d_out: B transposed */
} hl_lora_view;

/* The i-th module, in the pool's order; HL_ERR_NOT_FOUND beyond the last. Pointers live until hl_lora_free. Any
 * thread. */
HL_API HL_NODISCARD hl_status hl_lora_at(const hl_lora *lora, uint32_t i, hl_lora_view *view);

#ifdef __cplusplus
}
#endif
#endif
