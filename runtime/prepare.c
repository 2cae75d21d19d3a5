/* hl_session_prepare: from routes to decoded rows that hl_session_apply finds by module. */
#include <string.h>

#include "format/diag.h"
#include "runtime/memory.h"
#include "runtime/route.h"
#include "runtime/session.h"
#include "runtime/sort.h"

/* Rows that the routes need: an entry in one precision. Several groups of an adapter may want the same. */
typedef struct want {
    uint32_t entry, module, group;
    bool half, repeated; /* an earlier group wants the same */
    hlr_cached *cached;
} want;

typedef struct preparation {
    hl_session *session;
    hlr_prepared *prepared;
    want *wants; /* by group, then by entry */
    size_t want_count;
    want **missing; /* wants that are not cached */
    size_t missing_count;
    hl_status *outcomes; /* of decoding each */
    hl_diag *diag;
} preparation;

static hl_status out_of_memory(hl_diag *diag, const char *what) {
    return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for %s", what);
}

void hlr_prepared_release(const hl_pool *pool, hlr_prepared *prepared) {
    const hl_allocator *allocator = &pool->allocator;
    hlr_release(allocator, prepared->groups);
    hlr_release(allocator, prepared->items);
    hlr_release(allocator, prepared->routes);
    hlr_release(allocator, prepared->module_first);
    hlr_release(allocator, prepared->uses);
    *prepared = (hlr_prepared){.groups = NULL};
}

/* ---- routes ---- */

static hl_rows mode_of(const hl_route *route) {
    return route->view.rows == HL_ROWS_DEFAULT ? HL_ROWS_SOURCE : route->view.rows;
}

static uint64_t group_key(const hl_route *route, size_t item) {
    return (uint64_t)route->items[item].adapter << 32 | (uint32_t)mode_of(route);
}

/* Groups from the keys of all items; keys are sorted in place. */
static bool make_groups(const preparation *p, uint64_t *keys, size_t n) {
    hlr_sort(keys, n);
    n = hlr_unique(keys, n);
    hlr_group *groups = hlr_allocate(&p->session->pool->allocator, n, sizeof *groups);
    if (!groups) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        groups[i] = (hlr_group){(uint32_t)(keys[i] >> 32), (hl_rows)(keys[i] & UINT32_MAX)};
    }
    p->prepared->groups = groups;
    p->prepared->group_count = (uint32_t)n;
    return true;
}

static uint32_t find_group(const hlr_prepared *prepared, uint32_t adapter, hl_rows mode) {
    uint32_t low = 0, high = prepared->group_count;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        const hlr_group *g = &prepared->groups[middle];
        if (g->adapter < adapter || (g->adapter == adapter && g->mode <= mode)) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Copies a route's items in the order of adapters. keys: room for as many. */
static void copy_route(hlr_prepared *prepared, const hl_route *from, uint32_t first, uint64_t *keys,
                       hlr_prepared_route *to) {
    const uint32_t n = from->view.count;
    *to = (hlr_prepared_route){first, n, from->view.gate, from->view.variance_norm != 0};
    for (uint32_t i = 0; i < n; i++) {
        keys[i] = (uint64_t)from->items[i].adapter << 32 | i;
    }
    hlr_sort(keys, n);
    uint64_t rank_sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const hlr_candidate *item = &from->items[keys[i] & UINT32_MAX];
        prepared->items[first + i] = (hlr_item){
            .group = find_group(prepared, item->adapter, mode_of(from)),
            .rocs = (uint32_t)item->rocs,
            .rank = item->rank,
            .weight = item->parts / 256.0,
        };
        rank_sum += hlf_align_up(item->rank, HLR_ROW_UNIT);
    }
    prepared->max_items = n > prepared->max_items ? n : prepared->max_items;
    prepared->max_rank_sum = rank_sum > prepared->max_rank_sum ? rank_sum : prepared->max_rank_sum;
}

static hl_status copy_routes(preparation *p, const hl_route *const *routes, uint32_t count) {
    const hl_allocator *allocator = &p->session->pool->allocator;
    hlr_prepared *prepared = p->prepared;
    size_t items = 0, at = 0;
    for (uint32_t r = 0; r < count; r++) {
        items += routes[r]->view.count;
    }
    uint64_t *keys = hlr_allocate(allocator, items, sizeof *keys);
    prepared->items = hlr_allocate(allocator, items, sizeof *prepared->items);
    prepared->routes = hlr_allocate(allocator, count, sizeof *prepared->routes);
    bool ok = items <= UINT32_MAX && keys && prepared->items && prepared->routes;
    if (ok) {
        for (uint32_t r = 0; r < count; r++) {
            for (uint32_t i = 0; i < routes[r]->view.count; i++) {
                keys[at++] = group_key(routes[r], i);
            }
        }
        ok = make_groups(p, keys, items);
    }
    for (uint32_t r = 0, first = 0; ok && r < count; r++) {
        copy_route(prepared, routes[r], first, keys, &prepared->routes[r]);
        first += prepared->routes[r].items;
    }
    prepared->route_count = ok ? count : 0;
    hlr_release(allocator, keys);
    if (prepared->max_rank_sum > INT32_MAX) {
        return hlf_fail(p->diag, HL_ERR_LIMIT, HL_NO_OFFSET, "a route with %llu components in a module",
                        (unsigned long long)prepared->max_rank_sum);
    }
    return ok ? HL_OK : out_of_memory(p->diag, "the routes of a session");
}

/* ---- what they need ---- */

/* True when an earlier group of the same adapter has these rows, too. */
static bool is_repeated(const hlr_prepared *prepared, uint32_t group, const hlf_entry_record *entry, bool half) {
    for (uint32_t g = group; g > 0 && prepared->groups[g - 1].adapter == prepared->groups[group].adapter; g--) {
        if (hlr_rows_are_half(entry, prepared->groups[g - 1].mode) == half) {
            return true;
        }
    }
    return false;
}

static hl_status list_wants(preparation *p) {
    const hlf_index *index = &p->session->pool->index;
    const hlr_prepared *prepared = p->prepared;
    hlf_adapter_record adapter;
    size_t total = 0;
    for (uint32_t g = 0; g < prepared->group_count; g++) {
        hlf_index_adapter(index, prepared->groups[g].adapter, &adapter);
        total += (size_t)adapter.entries;
    }
    p->wants = hlr_allocate(&p->session->pool->allocator, total, sizeof *p->wants);
    if (!p->wants || total > UINT32_MAX) {
        return out_of_memory(p->diag, "the list of decoded rows");
    }
    for (uint32_t g = 0; g < prepared->group_count; g++) {
        hlf_index_adapter(index, prepared->groups[g].adapter, &adapter);
        for (uint64_t i = 0; i < adapter.entries; i++) {
            const uint32_t at = (uint32_t)(adapter.first_entry + i);
            hlf_entry_record entry;
            hlf_index_entry(index, at, &entry);
            const bool half = hlr_rows_are_half(&entry, prepared->groups[g].mode);
            p->wants[p->want_count++] = (want){at, entry.module, g, half, is_repeated(prepared, g, &entry, half), NULL};
        }
    }
    return HL_OK;
}

/* Sums what the wants take; HL_ERR_CACHE when that is more than the cache may hold. */
static hl_status measure(preparation *p) {
    hl_session *session = p->session;
    uint64_t bytes = 0, rocs = 0;
    for (size_t i = 0; i < p->want_count; i++) {
        hlf_entry_record entry;
        if (!p->wants[i].repeated) {
            hlf_index_entry(&session->pool->index, p->wants[i].entry, &entry);
            const uint64_t own = hlr_rows_bytes(&session->pool->index, &entry, p->wants[i].half);
            bytes = own > UINT64_MAX - bytes ? UINT64_MAX : bytes + own;
            rocs += entry.rank;
        }
    }
    session->needed_bytes = bytes;
    session->needed_rocs = rocs;
    if (bytes > session->cache.limit) {
        return hlf_fail(p->diag, HL_ERR_CACHE, HL_NO_OFFSET,
                        "the routes need %llu bytes of decoded rows, the cache may hold %llu: raise cache_bytes or "
                        "prepare fewer routes",
                        (unsigned long long)bytes, (unsigned long long)session->cache.limit);
    }
    return HL_OK;
}

/* ---- decoding ---- */

/* Pins what is cached and lists what is not. */
static hl_status look_up(preparation *p) {
    hl_session *session = p->session;
    p->missing = hlr_allocate(&session->pool->allocator, p->want_count, sizeof *p->missing);
    if (!p->missing) {
        return out_of_memory(p->diag, "the list of decoded rows");
    }
    for (size_t i = 0; i < p->want_count; i++) {
        want *w = &p->wants[i];
        if (w->repeated) {
            continue;
        }
        w->cached = hlr_cache_find(&session->cache, w->entry, w->half);
        if (w->cached) {
            hlr_cache_pin(&session->cache, w->cached);
            session->hits++;
        } else {
            p->missing[p->missing_count++] = w;
        }
    }
    session->misses += p->missing_count;
    return HL_OK;
}

static hl_status allocate_missing(preparation *p) {
    hl_session *session = p->session;
    const hl_pool *pool = session->pool;
    uint64_t bytes = 0;
    for (size_t i = 0; i < p->missing_count; i++) {
        hlf_entry_record entry;
        hlf_index_entry(&pool->index, p->missing[i]->entry, &entry);
        bytes += hlr_rows_bytes(&pool->index, &entry, p->missing[i]->half);
    }
    hlr_cache_make_room(&session->cache, bytes);
    p->outcomes = hlr_allocate(&pool->allocator, p->missing_count, sizeof *p->outcomes);
    bool ok = p->outcomes && hlr_cache_reserve(&session->cache, p->missing_count);
    for (size_t i = 0; ok && i < p->missing_count; i++) {
        p->missing[i]->cached = hlr_cache_create(&session->cache, p->missing[i]->entry, p->missing[i]->half);
        ok = p->missing[i]->cached != NULL;
    }
    hlr_cache_release_spares(&session->cache);
    return ok ? HL_OK : out_of_memory(p->diag, "decoded rows");
}

/* Tells the system which parts of the file come next, in pieces as large as the chunks allow. */
static void prefetch(const preparation *p) {
    enum { GAP = 65536 };
    const hl_pool *pool = p->session->pool;
    uint64_t begin = 0, end = 0;
    for (size_t i = 0; i < p->missing_count; i++) {
        hlf_entry_record entry;
        hlf_index_entry(&pool->index, p->missing[i]->entry, &entry);
        for (hlf_side side = HLF_SIDE_A; side <= HLF_SIDE_GAUGE; side++) {
            hlf_chunk_shape shape;
            hlf_chunk_record chunk;
            if (!hlf_index_chunk_shape(&pool->index, &entry, side, &shape)) {
                continue;
            }
            hlf_index_chunk(&pool->index, shape.chunk, &chunk);
            if (chunk.offset < end || chunk.offset - end > GAP) {
                hlr_map_prefetch(&pool->mapping, begin, end - begin);
                begin = chunk.offset;
            }
            end = chunk.offset + chunk.stored;
        }
    }
    hlr_map_prefetch(&pool->mapping, begin, end - begin);
}

static hl_status decode_with(hlr_rows_builder *builder, const preparation *p, size_t i, hl_diag *diag) {
    hlf_entry_record entry;
    hlf_index_entry(&p->session->pool->index, p->missing[i]->entry, &entry);
    return hlr_rows_build(builder, &entry, p->missing[i]->cached->rows, diag);
}

static void decode_one(void *context, uint32_t thread, size_t i) {
    const preparation *p = context;
    p->outcomes[i] = decode_with(&p->session->builders[thread], p, i, NULL);
}

/* The first failure in order, whichever thread met one first; it is met again to have its diagnostic. */
static hl_status first_failure(const preparation *p) {
    for (size_t i = 0; i < p->missing_count; i++) {
        if (p->outcomes[i] != HL_OK) {
            hl_status status = decode_with(&p->session->builders[0], p, i, p->diag);
            return status != HL_OK ? status : out_of_memory(p->diag, "decoding");
        }
    }
    return HL_OK;
}

/* Decodes all that is missing. On failure nothing of it is kept. */
static hl_status decode_missing(preparation *p) {
    hl_session *session = p->session;
    hl_status status = allocate_missing(p);
    if (status == HL_OK) {
        prefetch(p);
        hlr_workers_run(session->workers, decode_one, p, p->missing_count);
        status = first_failure(p);
    }
    for (size_t i = 0; i < p->missing_count; i++) {
        if (status == HL_OK) {
            hlr_cache_insert(&session->cache, p->missing[i]->cached);
        } else {
            hlr_cache_destroy(&session->cache, p->missing[i]->cached);
        }
    }
    return status;
}

/* ---- by module ---- */

static hl_status list_uses(preparation *p) {
    const hl_pool *pool = p->session->pool;
    hlr_prepared *prepared = p->prepared;
    const uint32_t modules = pool->index.modules;
    uint32_t *first = prepared->module_first = hlr_allocate(&pool->allocator, (size_t)modules + 1, sizeof *first);
    prepared->uses = hlr_allocate(&pool->allocator, p->want_count, sizeof *prepared->uses);
    if (!first || !prepared->uses) {
        return out_of_memory(p->diag, "the modules of the routes");
    }
    memset(first, 0, ((size_t)modules + 1) * sizeof *first);
    for (size_t i = 0; i < p->want_count; i++) {
        first[p->wants[i].module + 1]++;
    }
    for (uint32_t m = 0; m < modules; m++) {
        first[m + 1] += first[m];
    }
    /* Each place is counted up while it is filled; afterwards module m's is where m + 1 begins. */
    for (size_t i = 0; i < p->want_count; i++) {
        const want *w = &p->wants[i];
        const hlr_cached *cached = w->repeated ? hlr_cache_find(&p->session->cache, w->entry, w->half) : w->cached;
        prepared->uses[first[w->module]++] = (hlr_use){w->group, cached->rows};
    }
    for (uint32_t m = modules; m > 0; m--) {
        first[m] = first[m - 1];
    }
    first[0] = 0;
    return HL_OK;
}

/* ---- the call ---- */

static hl_status check_routes(const hl_session *session, const hl_route *const *routes, size_t count, hl_diag *diag) {
    if ((!routes && count) || count >= HL_NONE) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no routes, or too many");
    }
    for (size_t i = 0; i < count; i++) {
        if (!routes[i] || routes[i]->pool != session->pool) {
            return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "route %zu is NULL or of another pool", i);
        }
    }
    return HL_OK;
}

/* Lets go of what was prepared before, and readies p->prepared in its place. */
static hl_status replace(preparation *p) {
    hl_session *session = p->session;
    hlr_cache_unpin(&session->cache);
    hlr_prepared_release(session->pool, &session->prepared);
    hl_status status = look_up(p);
    if (status == HL_OK) {
        status = decode_missing(p);
    }
    if (status == HL_OK) {
        status = list_uses(p);
    }
    if (status == HL_OK) {
        session->prepared = *p->prepared;
        *p->prepared = (hlr_prepared){.groups = NULL};
        status = hlr_apply_reserve(session) ? HL_OK : out_of_memory(p->diag, "the scratch of a session");
    }
    return status;
}

hl_status hl_session_prepare(hl_session *session, const hl_route *const *routes, size_t count, hl_diag *diag) {
    if (!session) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no session");
    }
    hl_status status = check_routes(session, routes, count, diag);
    if (status != HL_OK) {
        return status;
    }
    hlr_prepared prepared = {.groups = NULL};
    preparation p = {.session = session, .prepared = &prepared, .diag = diag};
    status = copy_routes(&p, routes, (uint32_t)count);
    if (status == HL_OK) {
        status = list_wants(&p);
    }
    if (status == HL_OK) {
        status = measure(&p);
    }
    if (status == HL_OK) {
        status = replace(&p);
    }
    if (status != HL_OK && status != HL_ERR_CACHE) {
        hlr_cache_unpin(&session->cache);
        hlr_prepared_release(session->pool, &session->prepared);
    }
    hlr_prepared_release(session->pool, &prepared);
    const hl_allocator *allocator = &session->pool->allocator;
    hlr_release(allocator, p.wants);
    hlr_release(allocator, p.missing);
    hlr_release(allocator, p.outcomes);
    return status;
}
