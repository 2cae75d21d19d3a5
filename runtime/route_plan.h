/* One call's options, checked and with defaults filled in: what all rows of a batch share. Internal to the route files.
 */
#ifndef HILORA_RUNTIME_ROUTE_PLAN_H
#define HILORA_RUNTIME_ROUTE_PLAN_H

#include <math.h>

#include <hilora/route.h>

#include "runtime/pool.h"

typedef struct hlr_plan {
    const hl_pool *pool;
    hl_select select;
    hl_fallback fallback;
    hl_weights weights; /* HL_WEIGHTS_DEFAULT: whatever the selection implies */
    hl_allocate allocate;
    hl_gate gate;
    hl_rows rows;
    bool variance_norm, keep_all;
    uint32_t k, wide_k, max_adapters;
    double p, gamma, temperature, familiar;
    double threshold; /* the pool's quantile `familiar` in nats; NaN without calibration */
    uint64_t seed;
    uint8_t *fates;        /* per adapter an hl_fate: HL_FATE_CHOSEN where nothing yet stands against it */
    double *thresholds;    /* per adapter the least score; -INFINITY: none */
    uint32_t named;        /* explicit: how many; the rest of the fates is then HL_FATE_NOT_SELECTED */
    double *named_weights; /* explicit: per adapter of the pool, as given */
} hlr_plan;

/* Fills *plan from the caller's options; has_embedding: rows will be scored. The plan is to be destroyed also after a
 * failure. */
HL_NODISCARD hl_status hlr_plan_create(const hl_pool *pool, const hl_route_options *options, bool has_embedding,
                                       hlr_plan *plan, hl_diag *diag);
void hlr_plan_destroy(hlr_plan *plan);

static inline bool hlr_plan_conditional(const hlr_plan *plan, uint32_t adapter) {
    return plan->thresholds[adapter] > -INFINITY;
}

#endif
