/* One prompt on its way from scores to a route, step by step (docs/ROUTING.md). Internal to the route files.
 *
 * All arithmetic that decides something is float64 or integer in the order written; "lower" means the lower adapter
 * position. */
#ifndef HILORA_RUNTIME_ROUTE_ROW_H
#define HILORA_RUNTIME_ROUTE_ROW_H

#include "runtime/route_plan.h"

/* An adapter with what it is ranked by. */
typedef struct hlr_ranked {
    double key; /* never NaN */
    uint32_t adapter;
    uint32_t place; /* free for the caller */
} hlr_ranked;

/* Brings the k best of n to the front, best first: the higher key, ties to the lower adapter. The rest is left in any
 * order. */
void hlr_rank(hlr_ranked *list, size_t n, size_t k);

typedef struct hlr_candidate {
    uint32_t adapter;
    uint32_t rank;  /* r_i */
    double density; /* L_i; NaN when not computed */
    double share;   /* weight before rounding */
    uint32_t parts; /* weight in 256ths; under `sum` that of the allocation until the end */
    uint64_t rocs;  /* o_i; may exceed the rank while ROCs are dealt */
    bool capped;
} hlr_candidate;

/* All the scratch and results of a row. Arrays are the caller's. */
typedef struct hlr_row {
    const hlr_plan *plan;
    const double *density; /* by adapter; NaN when not computed */
    const double *cosine;  /* likewise; NULL unless ranked by it */
    uint8_t *fates;        /* by adapter, an hl_fate; HL_FATE_CHOSEN for those in `ranked` */
    uint32_t *places;      /* by adapter, the place among the allowed, HL_NONE without one; NULL when nobody asks */
    hlr_ranked *ranked;    /* the allowed adapters with the key of the selection; one element per adapter of the pool */
    uint32_t allowed;
    hlr_candidate *candidates; /* room for min(max_adapters, adapters of the pool) */
    size_t count;
    bool familiar, tested, fell_back;
    bool wide; /* the wide fallback decides the default weights */
    double best;
    uint32_t wanted;
    hl_weights weights; /* as applied; HL_WEIGHTS_DEFAULT for the caller's or softmax(score) */
    uint64_t budget;
} hlr_row;

/* Familiarity and candidates: fills candidates (adapter, rank), count, the flags, best, wanted; marks the fates of the
 * others. */
void hlr_row_select(hlr_row *row);
/* Weights in 256ths; a candidate whose weight rounds to 0 leaves. Needs candidates' densities where the rule does. */
void hlr_row_weigh(hlr_row *row);
/* Budget, ROCs, candidates without a ROC leave, final weights. The sum of the parts is at most 256. */
void hlr_row_allocate(hlr_row *row);

/* Candidates of an explicit selection by share, ties to the lower. scratch: n elements. */
void hlr_order_named(hlr_candidate *list, size_t n, hlr_ranked *scratch);
/* Divides every share by the sum of all, which is positive. */
void hlr_scale_shares(hlr_candidate *list, size_t n);
/* parts = share * 256 by largest remainder, ties to the lower; their sum is 256. scratch: n elements. */
void hlr_round_shares(hlr_candidate *list, size_t n, hlr_ranked *scratch);
/* parts = parts * 256 / sum of parts, in the same way but in integers. */
void hlr_rescale_parts(hlr_candidate *list, size_t n, hlr_ranked *scratch);

/* Where a value lies among an adapter's quantiles, in [0, 0.5] (hl_fate_view.position). */
double hlr_quantile_position(const double quantiles[HL_QUANTILES], double value);

/* SHA-256 over what the route does to a model, truncated (docs/ROUTING.md, "The route's digest"). */
HL_NODISCARD hl_status hlr_row_digest(const hlr_row *row, uint8_t out[16]);

#endif
