/* A session and what it has prepared. Internal to the session files. */
#ifndef HILORA_RUNTIME_SESSION_H
#define HILORA_RUNTIME_SESSION_H

#include <hilora/session.h>

#include "runtime/cache.h"
#include "runtime/workers.h"

/* An adapter with the precision that some routes want it in. Groups ascend by adapter, then by mode. */
typedef struct hlr_group {
    uint32_t adapter;
    hl_rows mode; /* not HL_ROWS_DEFAULT */
} hlr_group;

/* One adapter of a prepared route. */
typedef struct hlr_item {
    uint32_t group;
    uint32_t rocs, rank; /* o_i of r_i */
    double weight;       /* c_i */
} hlr_item;

typedef struct hlr_prepared_route {
    uint32_t first_item, items; /* ascending by group, which is by adapter */
    hl_gate gate;
    bool variance_norm;
} hlr_prepared_route;

/* The decoded rows of a group in one module. */
typedef struct hlr_use {
    uint32_t group;
    const hlr_rows *rows;
} hlr_use;

/* The routes of the latest hl_session_prepare; empty after it has failed. */
typedef struct hlr_prepared {
    hlr_group *groups;
    hlr_item *items;
    hlr_prepared_route *routes;
    uint32_t *module_first; /* modules + 1: the uses of module m are [m] to [m + 1] - 1, ascending by group */
    hlr_use *uses;
    uint32_t group_count, route_count;
    uint32_t max_items;    /* of a route */
    uint64_t max_rank_sum; /* of a route's adapters, each rounded up to HLR_ROW_UNIT */
} hlr_prepared;

/* What one thread works in while it applies (runtime/apply.c). */
typedef struct hlr_apply_scratch hlr_apply_scratch;

struct hl_session {
    const hl_pool *pool;
    hl_isa isa;
    const hlr_row_kernels *kernels;
    uint32_t max_tokens;
    hlr_workers *workers;
    hlr_rows_builder *builders; /* one per thread */
    hlr_cache cache;
    hlr_prepared prepared;
    uint64_t needed_bytes, needed_rocs, hits, misses;
    hlr_apply_scratch *scratch; /* one per thread */
    uint32_t *order,
        *route_start; /* of a call: tokens by route (max_tokens), and where each route's begin (routes + 1) */
    uint32_t route_capacity;
};

/* Makes the scratch large enough for what is prepared; false when memory is out. */
bool hlr_apply_reserve(hl_session *session);
void hlr_apply_release(hl_session *session);

/* The group of a route's adapter; NULL when the route has no such adapter. */
const hlr_item *hlr_prepared_item(const hlr_prepared *prepared, uint32_t route, uint32_t adapter);
/* The use of a group in a module; NULL when its adapter does not change the module. */
const hlr_use *hlr_prepared_use(const hlr_prepared *prepared, uint32_t module, uint32_t group);

void hlr_prepared_release(const hl_pool *pool, hlr_prepared *prepared);

#endif
