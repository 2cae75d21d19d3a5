/* Making a finished route and reading it. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "format/diag.h"
#include "runtime/memory.h"
#include "runtime/route.h"
#include "runtime/structs.h"

static void fill_view(const hlr_row *row, hl_route_view *view) {
    const hlr_plan *plan = row->plan;
    *view = (hl_route_view){
        .struct_size = sizeof *view,
        .count = (uint32_t)row->count,
        .familiar = row->familiar,
        .tested = row->tested,
        .fell_back = row->fell_back,
        .threshold = row->tested ? plan->threshold : (double)NAN,
        .best = row->best,
        .allowed = row->allowed,
        .wanted = row->wanted,
        .budget = row->budget,
        .select = plan->select,
        .fallback = plan->fallback,
        .weights = row->weights,
        .allocate = plan->allocate,
        .gate = plan->gate,
        .rows = plan->rows,
        .variance_norm = plan->variance_norm,
        .k = plan->k,
        .wide_k = plan->wide_k,
        .max_adapters = plan->max_adapters,
        .p = plan->p,
        .gamma = plan->gamma,
        .temperature = plan->temperature,
        .familiar_quantile = plan->familiar,
        .seed = plan->seed,
        .best_position = NAN,
    };
    if (isfinite(row->best) && plan->pool->index.pool.calibrated) {
        view->best_position = hlr_quantile_position(plan->pool->index.pool.quantiles, row->best);
    }
}

static size_t route_bytes(const hlr_row *row) {
    const size_t all = row->places ? row->plan->pool->index.adapters : 0, numbers = row->cosine ? 3 : 2;
    return sizeof(hl_route) + row->count * sizeof(hlr_candidate) +
           all * (numbers * sizeof(double) + sizeof(uint32_t) + sizeof(uint8_t));
}

/* What is known of every adapter, behind the items. */
static void keep_all(const hlr_row *row, hl_route *route) {
    const size_t all = row->plan->pool->index.adapters;
    route->density = (double *)(route->items + row->count);
    route->thresholds = route->density + all;
    double *end = route->thresholds + all;
    if (row->cosine) {
        route->cosine = end;
        memcpy(route->cosine, row->cosine, all * sizeof *route->cosine);
        end += all;
    }
    route->places = (uint32_t *)end;
    route->fates = (uint8_t *)(route->places + all);
    memcpy(route->density, row->density, all * sizeof *route->density);
    memcpy(route->thresholds, row->plan->thresholds, all * sizeof *route->thresholds);
    memcpy(route->places, row->places, all * sizeof *route->places);
    memcpy(route->fates, row->fates, all * sizeof *route->fates);
}

hl_status hlr_route_create(const hlr_row *row, hl_route **out, hl_diag *diag) {
    const hl_pool *pool = row->plan->pool;
    hl_route *route = hlr_allocate(&pool->allocator, route_bytes(row), 1);
    if (!route) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for a route");
    }
    memset(route, 0, sizeof *route);
    route->pool = pool;
    fill_view(row, &route->view);
    route->items = (hlr_candidate *)(route + 1);
    memcpy(route->items, row->candidates, row->count * sizeof *route->items);
    if (row->places) {
        keep_all(row, route);
    }
    if (hlr_row_digest(row, route->view.digest) != HL_OK) {
        hl_route_free(route);
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for the digest of a route");
    }
    *out = route;
    return HL_OK;
}

void hl_route_free(hl_route *route) {
    if (route) {
        hlr_release(&route->pool->allocator, route);
    }
}

hl_status hl_route_info(const hl_route *route, hl_route_view *view) {
    if (!route || !hlr_view_ok(view, offsetof(hl_route_view, best_position))) {
        return HL_ERR_ARGUMENT;
    }
    hlr_view_write(view, &route->view, sizeof route->view);
    return HL_OK;
}

static double score_of(const hl_route *route, double density) {
    return density / (double)route->pool->index.pool.dim;
}

hl_status hl_route_item_at(const hl_route *route, uint32_t i, hl_route_item *item) {
    if (!route || !hlr_view_ok(item, sizeof *item)) {
        return HL_ERR_ARGUMENT;
    }
    if (i >= route->view.count) {
        return HL_ERR_NOT_FOUND;
    }
    const hlr_candidate *candidate = &route->items[i];
    const hl_route_item own = {
        .adapter = candidate->adapter,
        .rank = candidate->rank,
        .rocs = (uint32_t)candidate->rocs,
        .weight_256 = candidate->parts,
        .weight = candidate->parts / 256.0,
        .log_likelihood = candidate->density,
        .score = score_of(route, candidate->density),
    };
    hlr_view_write(item, &own, sizeof own);
    return HL_OK;
}

uint32_t hl_route_module_rocs(uint32_t rocs, uint32_t rank, uint32_t module_rank) {
    return rank ? (uint32_t)(((uint64_t)rocs * module_rank + rank - 1) / rank) : 0;
}

void hl_route_digest(const hl_route *route, uint8_t out[16]) {
    memcpy(out, route->view.digest, 16);
}

hl_status hl_route_fate_at(const hl_route *route, uint32_t adapter, hl_fate_view *view) {
    if (!route || !route->fates || !hlr_view_ok(view, offsetof(hl_fate_view, threshold))) {
        return HL_ERR_ARGUMENT;
    }
    if (adapter >= route->pool->index.adapters) {
        return HL_ERR_NOT_FOUND;
    }
    const double density = route->density[adapter];
    hl_fate_view own = {
        .fate = (hl_fate)route->fates[adapter],
        .rank = route->places[adapter],
        .log_likelihood = density,
        .score = score_of(route, density),
        .position = NAN,
        .threshold = route->thresholds[adapter],
        .cosine = route->cosine ? route->cosine[adapter] : (double)NAN,
    };
    if (!isnan(density) && hlf_index_adapter_flags(&route->pool->index, adapter) & HLF_ADAPTER_CALIBRATED) {
        hlf_stats_record stats;
        hlf_index_stats(&route->pool->index, adapter, &stats);
        own.position = hlr_quantile_position(stats.quantiles, density);
    }
    hlr_view_write(view, &own, sizeof own);
    return HL_OK;
}
