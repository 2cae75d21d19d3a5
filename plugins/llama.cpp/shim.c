/* Making the shim and preparing routes. */
#include "plugins/llama.cpp/shim.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MAX_TOKENS = 4096 }; /* of a session */

static hl_status make(hl_llama *shim, const char *model_path, const hl_llama_options *options, hl_diag *diag) {
    hl_pool_view view = {.struct_size = sizeof view};
    hl_session_options session = {.struct_size = sizeof session};
    hl_status status = hl_pool_info(shim->pool, &view);
    if (options && options->session.struct_size) {
        session = options->session;
    }
    if (status == HL_OK) {
        shim->modules = view.modules;
        shim->max_tokens = session.max_tokens ? session.max_tokens : DEFAULT_MAX_TOKENS;
        shim->all_first = calloc(shim->max_tokens, sizeof *shim->all_first);
        shim->output_routes = calloc(shim->max_tokens, sizeof *shim->output_routes);
        status = shim->all_first && shim->output_routes ? HL_OK : hlp_fail(diag, HL_ERR_MEMORY, "out of memory");
    }
    if (status == HL_OK) {
        status = hlp_match(shim, model_path, options, diag);
    }
    return status == HL_OK ? hl_session_create(shim->pool, &session, &shim->session, diag) : status;
}

hl_status hl_llama_create(const hl_pool *pool, const char *model_path, const hl_llama_options *options, hl_llama **out,
                          hl_diag *diag) {
    *out = NULL;
    if (!pool || !model_path || (options && options->struct_size < sizeof *options)) {
        return hlp_fail(diag, HL_ERR_ARGUMENT, "a pool, a model file and whole options are wanted");
    }
    hl_llama *shim = calloc(1, sizeof *shim);
    if (!shim) {
        return hlp_fail(diag, HL_ERR_MEMORY, "out of memory");
    }
    shim->pool = pool;
    const hl_status status = make(shim, model_path, options, diag);
    if (status != HL_OK) {
        hl_llama_destroy(shim);
        return status;
    }
    *out = shim;
    return HL_OK;
}

void hl_llama_destroy(hl_llama *shim) {
    if (shim) {
        hl_session_destroy(shim->session);
        free(shim->targets);
        free(shim->target_of_module);
        free(shim->adapts);
        free(shim->all_first);
        free(shim->output_routes);
        free(shim->x);
        free(shim->y);
        free(shim);
    }
}

/* Marks the modules that a route's adapters change. */
static void mark_modules(const hl_llama *shim, const hl_route *route, uint8_t *adapts) {
    hl_route_item item = {.struct_size = sizeof item};
    hl_entry_view entry = {.struct_size = sizeof entry};
    for (uint32_t i = 0; hl_route_item_at(route, i, &item) == HL_OK; i++) {
        for (uint32_t e = 0; hl_entry_at(shim->pool, item.adapter, e, &entry) == HL_OK; e++) {
            adapts[entry.module] = 1;
        }
    }
}

hl_status hl_llama_prepare(hl_llama *shim, const hl_route *const *routes, size_t count, hl_diag *diag) {
    uint8_t *adapts = calloc(count * shim->modules + 1, 1);
    if (!adapts) {
        return hlp_fail(diag, HL_ERR_MEMORY, "out of memory");
    }
    const hl_status status = hl_session_prepare(shim->session, routes, count, diag);
    if (status != HL_OK) {
        /* A cache that is too small leaves the routes of before; damage leaves none. */
        if (status != HL_ERR_CACHE && status != HL_ERR_ARGUMENT) {
            shim->route_count = 0;
        }
        free(adapts);
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        mark_modules(shim, routes[i], adapts + i * shim->modules);
    }
    free(shim->adapts);
    shim->adapts = adapts;
    shim->route_count = (uint32_t)count;
    return HL_OK;
}
