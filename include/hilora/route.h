/* Routing: once per prompt, from an embedding to the adapters that serve it. See hilora/hilora.h for the conventions.
 *
 * The rules are those of docs/ROUTING.md, after HiLoRA (arXiv 2510.12266). Every decision is that of float64
 * arithmetic in a documented order, so a pool, an embedding and a set of options give the same route, bit for bit, on
 * every machine. */
#ifndef HILORA_ROUTE_H
#define HILORA_ROUTE_H

#include <stddef.h>
#include <stdint.h>

#include <hilora/pool.h>
#include <hilora/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which adapters become candidates, best first. Ties go to the lower position in the pool throughout. */
typedef enum hl_select {
    HL_SELECT_DEFAULT = 0,    /* posterior */
    HL_SELECT_POSTERIOR = 1,  /* the k of highest log-likelihood, after the familiarity test */
    HL_SELECT_PAPER = 2,      /* all with a positive score, else the max(ceil |best score|, k) best */
    HL_SELECT_CALIBRATED = 3, /* all whose log-likelihood reaches the pool's quantile `familiar` */
    HL_SELECT_NUCLEUS = 4,    /* the fewest best whose softmax(L / T) mass reaches p */
    HL_SELECT_TOP_K = 5,      /* the k of highest log-likelihood, without the test */
    HL_SELECT_COSINE = 6,     /* the k whose means have the largest cosine with z (LoraRetriever, arXiv 2402.09997) */
    HL_SELECT_EXPLICIT = 7    /* those that the caller names */
} hl_select;

/* What an unfamiliar prompt gets (posterior, calibrated). */
typedef enum hl_fallback {
    HL_FALLBACK_DEFAULT = 0, /* wide */
    HL_FALLBACK_WIDE = 1,    /* the wide_k best, weights softmax(score) unless `weights` says otherwise */
    HL_FALLBACK_BASE = 2,    /* no adapter */
    HL_FALLBACK_NONE = 3     /* as a familiar one */
} hl_fallback;

typedef enum hl_weights {
    /* sum for paper, mean for cosine, the caller's for explicit, softmax(score) in the wide fallback, else posterior */
    HL_WEIGHTS_DEFAULT = 0,
    HL_WEIGHTS_POSTERIOR = 1, /* softmax(L / T) over the candidates */
    HL_WEIGHTS_MEAN = 2,      /* 1 / number of candidates */
    HL_WEIGHTS_SUM = 3        /* 1 each */
} hl_weights;

/* How the budget of rank-one components (ROCs) is dealt. */
typedef enum hl_allocate {
    HL_ALLOCATE_DEFAULT = 0,      /* proportional */
    HL_ALLOCATE_PROPORTIONAL = 1, /* to the rounded weights, largest remainder */
    HL_ALLOCATE_MULTINOMIAL = 2   /* drawn with probabilities of the rounded weights, by SplitMix64 from `seed` */
} hl_allocate;

/* The precision of decoded rows. */
typedef enum hl_rows {
    HL_ROWS_DEFAULT = 0, /* source */
    HL_ROWS_SOURCE = 1,  /* float16 with a power of two per row for 16-bit sources, float32 for the wider ones */
    HL_ROWS_F32 = 2,
    HL_ROWS_F16 = 3
} hl_rows;

typedef enum hl_switch { HL_SWITCH_DEFAULT = 0, HL_SWITCH_OFF = 1, HL_SWITCH_ON = 2 } hl_switch;

/* As `familiar`: the 0 quantile, since 0 itself means the default. */
#define HL_FAMILIAR_LOWEST (-1.0)

/* Zero means: the default that the pool records, or the one named above. Arrays are read during the call only. */
typedef struct hl_route_options {
    size_t struct_size;
    hl_select select;
    hl_fallback fallback;
    hl_weights weights;
    hl_allocate allocate;
    hl_gate gate;            /* for the token level; part of the digest */
    hl_rows rows;            /* likewise */
    hl_switch variance_norm; /* likewise */
    uint32_t k;              /* candidates [3] */
    uint32_t wide_k;         /* of the wide fallback [8] */
    uint32_t max_adapters;   /* of any route [16] */
    uint32_t keep_all;       /* 1: keep score and fate of every adapter for hl_route_fate_at */
    double p;                /* nucleus, in (0, 1] [0.9] */
    double gamma;            /* budget as a part of the candidates' ranks, in (0, 1] [0.4] */
    double temperature;      /* T in nats, positive */
    double familiar;         /* quantile of the familiarity test, in (0, 0.5] or HL_FAMILIAR_LOWEST [0.05] */
    uint64_t seed;           /* of the multinomial draw */
    /* Positions of the only adapters that may be used; NULL: all. A list that is empty but not NULL allows none. */
    const uint32_t *allow;
    size_t allow_count;
    const uint32_t *deny; /* positions of adapters that may not be used */
    size_t deny_count;
    const uint32_t *adapters; /* explicit: positions of the adapters */
    size_t adapter_count;
    const double *adapter_weights; /* explicit: a weight each, finite and not negative, scaled to sum 1; NULL: equal */
    /* Least scores for this call, in place of those that the pool records for these adapters. */
    const uint32_t *conditional; /* positions, each at most once */
    size_t conditional_count;
    const double *thresholds; /* a score each, not NaN; -INFINITY: no condition */
} hl_route_options;

/* A route. Immutable, safe to share among threads; to be freed before its pool is closed. */
typedef struct hl_route hl_route;

/* Routes one embedding: `dim` floats at z, made by the pool's encoder with its prefix. With HL_SELECT_EXPLICIT z may
 * be NULL (dim 0); scores are then NaN. *out is NULL on failure. A route without adapters (base model only) is a
 * success.
 *
 * Any thread. Allocates about 40 bytes per adapter of the pool for the time of the call. Cost: one pass over the
 * statistics of the allowed adapters, and on their first use another to verify them.
 *
 * HL_ERR_INPUT: z has NaN or infinity, a wrong length, or is not normalised although the pool's embeddings are.
 * HL_ERR_ARGUMENT: an option is out of range; nothing is allowed; a named adapter is denied or repeated, or its weight
 * rounds to 0; too many names; posterior weights for an adapter without statistics; a threshold is NaN or repeated, or
 * that of a named adapter without an embedding. HL_ERR_NOT_FOUND: a position
 * beyond the pool. HL_ERR_UNSUPPORTED: no adapter that is allowed has statistics. HL_ERR_CORRUPT: damaged statistics.
 * HL_ERR_MEMORY. */
HL_API HL_NODISCARD hl_status hl_route_compute(const hl_pool *pool, const float *z, size_t dim,
                                               const hl_route_options *options, hl_route **out, hl_diag *diag);

/* A batch of embeddings, row-major. */
typedef struct hl_embeddings {
    const void *data;
    hl_dtype dtype; /* converted to float32; a finite value that overflows is HL_ERR_INPUT */
    size_t count;   /* rows */
    size_t dim;
    size_t stride; /* elements from one row to the next; 0: dim */
} hl_embeddings;

/* Routes `count` embeddings into routes[0..count); each is what hl_route_compute would give. On failure all are NULL
 * and the diagnostic names the row. Reads the pool's statistics once per few rows, so it is faster than single calls.
 * Otherwise as hl_route_compute. */
HL_API HL_NODISCARD hl_status hl_route_compute_batch(const hl_pool *pool, const hl_embeddings *embeddings,
                                                     const hl_route_options *options, hl_route **routes, hl_diag *diag);

/* Frees a route; NULL is allowed. */
HL_API void hl_route_free(hl_route *route);

/* The log-likelihoods in nats of one embedding under every adapter, NaN for those without statistics: out[i], i <
 * adapters. `count` must be the number of adapters. For engines and tools that decide for themselves. Statuses as
 * hl_route_compute; after a failure what `out` holds is undefined. */
HL_API HL_NODISCARD hl_status hl_score_compute(const hl_pool *pool, const float *z, size_t dim, double *out,
                                               size_t count, hl_diag *diag);

/* ---- Reading a route ---- */

/* The options as they were applied, and how it went. */
typedef struct hl_route_view {
    size_t struct_size;
    uint32_t count;     /* adapters of the route; 0: base model only */
    uint32_t familiar;  /* outcome of the familiarity test; 1 where none was made */
    uint32_t tested;    /* 1: the test was made */
    uint32_t fell_back; /* 1: the fallback wide or base decided */
    double threshold;   /* of the test in nats; NaN without one */
    double best;        /* the highest log-likelihood among the allowed adapters, -infinity when conditions left none;
                         * NaN where it was not computed */
    uint32_t allowed;   /* adapters that passed the lists and conditions and have statistics, or were named */
    uint32_t wanted;    /* candidates by the rule, before max_adapters */
    uint64_t budget;    /* O, in ROCs */
    uint8_t digest[16];
    hl_select select;
    hl_fallback fallback;
    hl_weights weights; /* HL_WEIGHTS_DEFAULT where the caller's weights or softmax(score) were used */
    hl_allocate allocate;
    hl_gate gate;
    hl_rows rows;
    uint32_t variance_norm; /* 0 or 1 */
    uint32_t k, wide_k, max_adapters;
    double p, gamma, temperature, familiar_quantile;
    uint64_t seed;
    /* Where `best` lies among the leave-one-out values of the whole pool, as hl_fate_view.position. NaN without. */
    double best_position;
} hl_route_view;

/* Fills *view (struct_size set by the caller). Any thread. HL_ERR_ARGUMENT. */
HL_API HL_NODISCARD hl_status hl_route_info(const hl_route *route, hl_route_view *view);

/* One adapter of a route. */
typedef struct hl_route_item {
    size_t struct_size;
    uint32_t adapter;      /* position in the pool */
    uint32_t rank;         /* r_i: the largest rank among its modules */
    uint32_t rocs;         /* o_i: ROCs that a token uses in a module of rank r_i, 1 <= o_i <= r_i */
    uint32_t weight_256;   /* 256 c_i */
    double weight;         /* c_i, exactly weight_256 / 256 */
    double log_likelihood; /* L_i in nats; NaN when not computed */
    double score;          /* L_i / d */
} hl_route_item;

/* Fills *item with the i-th adapter, best first. HL_ERR_NOT_FOUND beyond the last, HL_ERR_ARGUMENT. Any thread. */
HL_API HL_NODISCARD hl_status hl_route_item_at(const hl_route *route, uint32_t i, hl_route_item *item);

/* The number of ROCs for a module of rank module_rank <= rank of an adapter that has `rocs` of `rank`: ceil(rocs *
 * module_rank / rank). Pure. */
HL_API uint32_t hl_route_module_rocs(uint32_t rocs, uint32_t rank, uint32_t module_rank);

/* The 128-bit digest of what the route does to the model: SHA-256, truncated, over the adapters' contents, their ROCs
 * and weights, gate, rows and variance_norm (docs/ROUTING.md gives the bytes). Equal digests mean equal updates, in
 * any pool and under any prompt: put it into the key of a prefix cache. Not a secret and no proof of origin. Any
 * thread. */
HL_API void hl_route_digest(const hl_route *route, uint8_t out[16]);

/* Why an adapter is in the route or not. */
typedef enum hl_fate {
    HL_FATE_CHOSEN = 0,
    HL_FATE_DENIED = 1,       /* by the allow or deny list */
    HL_FATE_UNROUTABLE = 2,   /* no statistics */
    HL_FATE_CONDITION = 3,    /* its score is below its own threshold */
    HL_FATE_NOT_SELECTED = 4, /* not among the candidates: rank >= min(wanted, max_adapters), or not named */
    HL_FATE_UNFAMILIAR = 5,   /* the prompt is unfamiliar and the fallback is the base model */
    HL_FATE_NO_WEIGHT = 6,    /* a candidate whose weight rounded to 0 */
    HL_FATE_NO_ROC = 7        /* a candidate that got no ROC of the budget */
} hl_fate;

typedef struct hl_fate_view {
    size_t struct_size;
    hl_fate fate;
    uint32_t rank;         /* place among the allowed adapters, 0 the best; HL_NONE without one */
    double log_likelihood; /* NaN where it was not computed */
    double score;
    /* Where L lies among the adapter's own leave-one-out values: 0 at or below the lowest, 0.5 at or above the median,
     * linear between stored quantiles. NaN for an uncalibrated adapter. */
    double position;
    double threshold; /* the least score that held for it; -INFINITY: none */
    double cosine;    /* of the embedding and its mean; NaN where it was not computed (other selections than cosine) */
} hl_fate_view;

/* Fills *view for any adapter of the pool, in a route made with keep_all. HL_ERR_ARGUMENT, also for a route without;
 * HL_ERR_NOT_FOUND beyond the last adapter. Any thread. */
HL_API HL_NODISCARD hl_status hl_route_fate_at(const hl_route *route, uint32_t adapter, hl_fate_view *view);

#ifdef __cplusplus
}
#endif
#endif
