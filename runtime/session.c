#include "runtime/session.h"

#include <string.h>

#include "format/cpu.h"
#include "format/diag.h"
#include "runtime/memory.h"
#include "runtime/structs.h"

static const uint64_t default_cache_bytes = UINT64_C(1) << 30;

enum { DEFAULT_MAX_TOKENS = 4096, MOST_THREADS = 1024 };

static hl_status choose_kernels(hl_session *session, hl_isa wanted, hl_diag *diag) {
    const hlr_row_kernels *x86 = hlr_rows_x86(hlf_cpu_features());
    if (wanted < HL_ISA_AUTO || wanted > HL_ISA_AVX2) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "there is no instruction set of number %d", (int)wanted);
    }
    if (wanted == HL_ISA_AVX2 && !x86) {
        return hlf_fail(diag, HL_ERR_UNSUPPORTED, HL_NO_OFFSET,
                        "this processor or build has no AVX2 with FMA and F16C");
    }
    const bool fast = wanted != HL_ISA_SCALAR && x86;
    session->isa = fast ? HL_ISA_AVX2 : HL_ISA_SCALAR;
    session->kernels = fast ? x86 : &hlr_rows_portable;
    return HL_OK;
}

static bool create_builders(hl_session *session) {
    const uint32_t threads = hlr_workers_count(session->workers);
    session->builders = hlr_allocate(&session->pool->allocator, threads, sizeof *session->builders);
    if (!session->builders) {
        return false;
    }
    memset(session->builders, 0, threads * sizeof *session->builders);
    for (uint32_t i = 0; i < threads; i++) {
        if (!hlr_rows_builder_create(&session->builders[i], session->pool, session->kernels)) {
            return false;
        }
    }
    return true;
}

static hl_status fill(hl_session *session, const hl_session_options *options, hl_diag *diag) {
    const hl_pool *pool = session->pool;
    const uint32_t wanted = options->threads ? options->threads : 1;
    if (wanted > MOST_THREADS) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "%u threads: at most %d", wanted, MOST_THREADS);
    }
    hl_status status = choose_kernels(session, options->isa, diag);
    if (status != HL_OK) {
        return status;
    }
    session->max_tokens = options->max_tokens ? options->max_tokens : DEFAULT_MAX_TOKENS;
    hlr_cache_init(&session->cache, pool, options->cache_bytes ? options->cache_bytes : default_cache_bytes);
    session->workers = hlr_workers_create(&pool->allocator, wanted);
    if (!session->workers || !create_builders(session) || !hlr_apply_reserve(session)) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for a session");
    }
    if (hlr_workers_count(session->workers) < wanted) {
        hlr_log(pool, HL_LOG_WARNING, "the system gave %u threads of %u", hlr_workers_count(session->workers), wanted);
    }
    return HL_OK;
}

hl_status hl_session_create(const hl_pool *pool, const hl_session_options *options, hl_session **out, hl_diag *diag) {
    if (!pool || !out) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no pool, or no place for the session");
    }
    *out = NULL;
    hl_session_options own;
    hl_status status = hlr_options_read(&own, offsetof(hl_session_options, reserved), sizeof own, options, diag);
    if (status != HL_OK) {
        return status;
    }
    hl_session *session = hlr_allocate(&pool->allocator, 1, sizeof *session);
    if (!session) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for a session");
    }
    *session = (hl_session){.pool = pool};
    status = fill(session, &own, diag);
    if (status != HL_OK) {
        hl_session_destroy(session);
        return status;
    }
    *out = session;
    return HL_OK;
}

void hl_session_destroy(hl_session *session) {
    if (!session) {
        return;
    }
    const hl_pool *pool = session->pool;
    for (uint32_t i = 0; session->builders && i < hlr_workers_count(session->workers); i++) {
        hlr_rows_builder_destroy(&session->builders[i]);
    }
    hlr_release(&pool->allocator, session->builders);
    hlr_apply_release(session);
    hlr_prepared_release(pool, &session->prepared);
    if (session->cache.pool) {
        hlr_cache_clear(&session->cache);
    }
    hlr_workers_destroy(session->workers);
    hlr_release(&pool->allocator, session);
}

hl_status hl_session_info(const hl_session *session, hl_session_view *view) {
    const hl_session_view own = {
        .struct_size = sizeof own,
        .cache_bytes = session ? session->cache.limit : 0,
        .cached_bytes = session ? session->cache.bytes : 0,
        .pinned_bytes = session ? session->cache.pinned_bytes : 0,
        .needed_bytes = session ? session->needed_bytes : 0,
        .cached_rocs = session ? session->cache.rocs : 0,
        .pinned_rocs = session ? session->cache.pinned_rocs : 0,
        .needed_rocs = session ? session->needed_rocs : 0,
        .hits = session ? session->hits : 0,
        .misses = session ? session->misses : 0,
        .routes = session ? session->prepared.route_count : 0,
        .threads = session ? hlr_workers_count(session->workers) : 0,
        .isa = session ? session->isa : HL_ISA_AUTO,
    };
    if (!session || !hlr_view_ok(view, sizeof own)) {
        return HL_ERR_ARGUMENT;
    }
    hlr_view_write(view, &own, sizeof own);
    return HL_OK;
}

/* ---- what is prepared ---- */

const hlr_item *hlr_prepared_item(const hlr_prepared *prepared, uint32_t route, uint32_t adapter) {
    const hlr_prepared_route *r = &prepared->routes[route];
    for (uint32_t i = r->first_item; i < r->first_item + r->items; i++) {
        if (prepared->groups[prepared->items[i].group].adapter == adapter) {
            return &prepared->items[i];
        }
    }
    return NULL;
}

const hlr_use *hlr_prepared_use(const hlr_prepared *prepared, uint32_t module, uint32_t group) {
    uint32_t low = prepared->module_first[module], high = prepared->module_first[module + 1];
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (prepared->uses[middle].group < group) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const bool found = low < prepared->module_first[module + 1] && prepared->uses[low].group == group;
    return found ? &prepared->uses[low] : NULL;
}

hl_status hl_session_rows(const hl_session *session, uint32_t route, uint32_t adapter, uint32_t module,
                          hl_rows_view *view, hl_diag *diag) {
    if (!session || !hlr_view_ok(view, sizeof *view) || route >= session->prepared.route_count) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no session or view, or no such prepared route");
    }
    const hlr_prepared *prepared = &session->prepared;
    const hlr_item *item = hlr_prepared_item(prepared, route, adapter);
    const hlr_use *use =
        item && module < session->pool->index.modules ? hlr_prepared_use(prepared, module, item->group) : NULL;
    if (!use) {
        return hlf_fail(diag, HL_ERR_NOT_FOUND, HL_NO_OFFSET, "route %u has no rows of adapter %u in module %u", route,
                        adapter, module);
    }
    const hlr_rows *rows = use->rows;
    const hl_rows_view own = {
        .struct_size = sizeof own,
        .a = rows->a.rows,
        .b = rows->b.rows,
        .a_stride = rows->a.stride,
        .b_stride = rows->b.stride,
        .dtype = rows->half ? HL_DTYPE_F16 : HL_DTYPE_F32,
        .rows = rows->rank,
        .rocs = hl_route_module_rocs(item->rocs, item->rank, rows->rank),
        .d_in = rows->a.width,
        .d_out = rows->b.width,
        .scale = rows->scale,
        .a_exponent = rows->a.exponent,
        .b_exponent = rows->b.exponent,
        .b_norm = rows->b_norm,
    };
    hlr_view_write(view, &own, sizeof own);
    return HL_OK;
}
