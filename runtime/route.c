/* hl_route_compute and its kin: scores a few embeddings at a time, then takes each through the steps of a route. */
#include "runtime/route.h"

#include <math.h>
#include <string.h>

#include "format/diag.h"
#include "format/dtype.h"
#include "runtime/memory.h"
#include "runtime/score.h"

enum { TILE = 8 }; /* embeddings that share one pass over the statistics */

/* What a call works with. Arrays by tile row, then by adapter. */
typedef struct work {
    const hlr_plan *plan;
    const hl_embeddings *embeddings; /* NULL: one row without an embedding */
    size_t adapters, tile;
    float *z;        /* tile x stride */
    double *scratch; /* stride */
    double *density; /* tile x adapters; NaN where not computed */
    double *cosine;  /* likewise; NULL unless asked for */
    uint8_t *fates;
    uint32_t *places;
    hlr_ranked *ranked;
    hlr_candidate *candidates;
} work;

static bool work_create(work *w, const hlr_plan *plan, const hl_embeddings *embeddings) {
    const hl_allocator *allocator = &plan->pool->allocator;
    const size_t stride = plan->pool->index.pool.stride, rows = embeddings ? embeddings->count : 1;
    *w = (work){.plan = plan, .embeddings = embeddings, .adapters = plan->pool->index.adapters};
    w->tile = rows < TILE ? rows : TILE;
    const size_t capacity = w->adapters < plan->max_adapters ? w->adapters : plan->max_adapters;
    w->z = hlr_allocate(allocator, w->tile * stride, sizeof *w->z);
    w->scratch = hlr_allocate(allocator, stride, sizeof *w->scratch);
    w->density = hlr_allocate(allocator, w->tile * w->adapters, sizeof *w->density);
    w->fates = hlr_allocate(allocator, w->adapters, sizeof *w->fates);
    w->ranked = hlr_allocate(allocator, w->adapters, sizeof *w->ranked);
    w->candidates = hlr_allocate(allocator, capacity, sizeof *w->candidates);
    bool complete = w->z && w->scratch && w->density && w->fates && w->ranked && w->candidates;
    if (plan->select == HL_SELECT_COSINE) {
        w->cosine = hlr_allocate(allocator, w->tile * w->adapters, sizeof *w->cosine);
        complete = complete && w->cosine;
    }
    if (plan->keep_all) {
        w->places = hlr_allocate(allocator, w->adapters, sizeof *w->places);
        complete = complete && w->places;
    }
    return complete;
}

static void work_destroy(work *w) {
    const hl_allocator *allocator = &w->plan->pool->allocator;
    hlr_release(allocator, w->z);
    hlr_release(allocator, w->scratch);
    hlr_release(allocator, w->density);
    hlr_release(allocator, w->cosine);
    hlr_release(allocator, w->fates);
    hlr_release(allocator, w->places);
    hlr_release(allocator, w->ranked);
    hlr_release(allocator, w->candidates);
}

static const void *embedding_at(const hl_embeddings *embeddings, size_t row) {
    const size_t stride = embeddings->stride ? embeddings->stride : embeddings->dim;
    return (const char *)embeddings->data + row * stride * hlf_dtype_size((hlf_dtype)embeddings->dtype);
}

/* ---- scores ---- */

/* Whether every prompt needs the density of an adapter, before any selection. */
static bool needs_density(const hlr_plan *plan, uint32_t adapter) {
    const uint32_t flags = hlf_index_adapter_flags(&plan->pool->index, adapter);
    if (plan->fates[adapter] != HL_FATE_CHOSEN || !(flags & HLF_ADAPTER_ROUTABLE)) {
        return false;
    }
    return plan->select != HL_SELECT_COSINE || plan->keep_all || hlr_plan_conditional(plan, adapter);
}

/* Densities and cosines of `rows` embeddings under one adapter. */
static hl_status score_adapter(work *w, uint32_t adapter, size_t rows, hl_diag *diag) {
    const hl_pool *pool = w->plan->pool;
    const bool density = needs_density(w->plan, adapter),
               cosine = w->cosine && w->plan->fates[adapter] == HL_FATE_CHOSEN;
    hlr_gaussian gaussian;
    if (!density && !cosine) {
        return HL_OK;
    }
    hl_status status = hlr_gaussian_of(pool, adapter, &gaussian, diag);
    for (size_t row = 0; status == HL_OK && row < rows; row++) {
        const float *z = w->z + row * pool->index.pool.stride;
        const size_t at = row * w->adapters + adapter;
        if (density) {
            w->density[at] = hlr_log_density(pool, &gaussian, z, w->scratch);
        }
        if (cosine) {
            w->cosine[at] = hlr_cosine(pool, &gaussian, z, w->scratch);
        }
    }
    return status;
}

static hl_status score_tile(work *w, size_t first, size_t rows, hl_diag *diag) {
    const hl_pool *pool = w->plan->pool;
    for (size_t i = 0; i < rows * w->adapters; i++) {
        w->density[i] = NAN;
        if (w->cosine) {
            w->cosine[i] = NAN;
        }
    }
    if (!w->embeddings) {
        return HL_OK;
    }
    for (size_t row = 0; row < rows; row++) {
        hl_status status = hlr_embedding_prepare(pool, embedding_at(w->embeddings, first + row), w->embeddings->dtype,
                                                 w->embeddings->dim, first + row, w->z + row * pool->index.pool.stride,
                                                 w->scratch, diag);
        if (status != HL_OK) {
            return status;
        }
    }
    for (uint32_t adapter = 0; adapter < w->adapters; adapter++) {
        hl_status status = score_adapter(w, adapter, rows, diag);
        if (status != HL_OK) {
            return status;
        }
    }
    return HL_OK;
}

/* The densities of candidates that were ranked by something else. */
static hl_status score_candidates(work *w, size_t tile_row, hlr_row *row, hl_diag *diag) {
    const hl_pool *pool = w->plan->pool;
    for (size_t i = 0; i < row->count; i++) {
        hlr_candidate *candidate = &row->candidates[i];
        hlr_gaussian gaussian;
        if (!isnan(candidate->density)) {
            continue;
        }
        hl_status status = hlr_gaussian_of(pool, candidate->adapter, &gaussian, diag);
        if (status != HL_OK) {
            return status;
        }
        candidate->density = hlr_log_density(pool, &gaussian, w->z + tile_row * pool->index.pool.stride, w->scratch);
    }
    return HL_OK;
}

/* ---- rows ---- */

/* True when the adapter is conditional and its score falls short, or is not known. */
static bool condition_fails(const hlr_plan *plan, uint32_t adapter, double density) {
    return hlr_plan_conditional(plan, adapter) &&
           !(density / (double)plan->pool->index.pool.dim >= plan->thresholds[adapter]);
}

/* Lists the adapters that may become candidates, with their keys. */
static void list_allowed(const work *w, size_t tile_row, hlr_row *row) {
    const hlr_plan *plan = w->plan;
    for (uint32_t i = 0; i < w->adapters; i++) {
        const size_t at = tile_row * w->adapters + i;
        if (row->places) {
            row->places[i] = HL_NONE;
        }
        if (row->fates[i] != HL_FATE_CHOSEN) {
            continue;
        }
        if (condition_fails(plan, i, w->density[at])) {
            row->fates[i] = HL_FATE_CONDITION;
            continue;
        }
        const double key = plan->select == HL_SELECT_COSINE     ? w->cosine[at]
                           : plan->select == HL_SELECT_EXPLICIT ? plan->named_weights[i]
                                                                : w->density[at];
        row->ranked[row->allowed++] = (hlr_ranked){key, i, 0};
    }
}

static hl_status route_row(work *w, size_t tile_row, hl_route **out, hl_diag *diag) {
    hlr_row row = {
        .plan = w->plan,
        .density = w->density + tile_row * w->adapters,
        .cosine = w->cosine ? w->cosine + tile_row * w->adapters : NULL,
        .fates = w->fates,
        .places = w->places,
        .ranked = w->ranked,
        .candidates = w->candidates,
    };
    memcpy(row.fates, w->plan->fates, w->adapters);
    list_allowed(w, tile_row, &row);
    hlr_row_select(&row);
    if (w->cosine) {
        hl_status status = score_candidates(w, tile_row, &row, diag);
        if (status != HL_OK) {
            return status;
        }
    }
    hlr_row_weigh(&row);
    hlr_row_allocate(&row);
    return hlr_route_create(&row, out, diag);
}

static hl_status route_all(const hl_pool *pool, const hl_embeddings *embeddings, const hl_route_options *options,
                           hl_route **routes, hl_diag *diag) {
    const size_t count = embeddings ? embeddings->count : 1;
    hlr_plan plan;
    work w = {.plan = &plan};
    hl_status status = hlr_plan_create(pool, options, embeddings != NULL, &plan, diag);
    if (status == HL_OK && !work_create(&w, &plan, embeddings)) {
        status = hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for the scores of %u adapters",
                          pool->index.adapters);
    }
    size_t made = 0;
    while (status == HL_OK && made < count) {
        const size_t rows = count - made < w.tile ? count - made : w.tile;
        status = score_tile(&w, made, rows, diag);
        for (size_t i = 0; status == HL_OK && i < rows; i++) {
            status = route_row(&w, i, &routes[made], diag);
            made += status == HL_OK;
        }
    }
    while (status != HL_OK && made > 0) {
        hl_route_free(routes[--made]);
        routes[made] = NULL;
    }
    work_destroy(&w);
    hlr_plan_destroy(&plan);
    return status;
}

/* ---- the calls ---- */

hl_status hl_route_compute(const hl_pool *pool, const float *z, size_t dim, const hl_route_options *options,
                           hl_route **out, hl_diag *diag) {
    if (!out) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no place for the route");
    }
    *out = NULL;
    if (!pool || (!z && dim)) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no pool, or no embedding");
    }
    const hl_embeddings one = {.data = z, .dtype = HL_DTYPE_F32, .count = 1, .dim = dim};
    return route_all(pool, z ? &one : NULL, options, out, diag);
}

hl_status hl_route_compute_batch(const hl_pool *pool, const hl_embeddings *embeddings, const hl_route_options *options,
                                 hl_route **routes, hl_diag *diag) {
    if (!pool || !embeddings || (embeddings->count && (!routes || !embeddings->data))) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no pool, no embeddings, or no place for the routes");
    }
    for (size_t i = 0; i < embeddings->count; i++) {
        routes[i] = NULL;
    }
    if (hlf_dtype_size((hlf_dtype)embeddings->dtype) == 0 ||
        (embeddings->stride && embeddings->stride < embeddings->dim)) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET,
                        "embeddings of an unknown element type, or rows that overlap");
    }
    return embeddings->count ? route_all(pool, embeddings, options, routes, diag) : HL_OK;
}

hl_status hl_score_compute(const hl_pool *pool, const float *z, size_t dim, double *out, size_t count, hl_diag *diag) {
    if (!pool || !z || !out || count != pool->index.adapters) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no pool or embedding, or not one place per adapter");
    }
    const hl_allocator *allocator = &pool->allocator;
    const size_t stride = pool->index.pool.stride;
    float *prepared = hlr_allocate(allocator, stride, sizeof *prepared);
    double *scratch = hlr_allocate(allocator, stride, sizeof *scratch);
    hl_status status =
        prepared && scratch ? HL_OK : hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for an embedding");
    if (status == HL_OK) {
        status = hlr_embedding_prepare(pool, z, HL_DTYPE_F32, dim, 0, prepared, scratch, diag);
    }
    for (uint32_t i = 0; status == HL_OK && i < count; i++) {
        hlr_gaussian gaussian;
        out[i] = NAN;
        if (hlf_index_adapter_flags(&pool->index, i) & HLF_ADAPTER_ROUTABLE) {
            status = hlr_gaussian_of(pool, i, &gaussian, diag);
            out[i] = status == HL_OK ? hlr_log_density(pool, &gaussian, prepared, scratch) : (double)NAN;
        }
    }
    hlr_release(allocator, prepared);
    hlr_release(allocator, scratch);
    return status;
}
