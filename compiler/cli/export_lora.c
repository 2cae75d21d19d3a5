#include "compiler/cli/export_lora.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/export/export_blend.h"
#include "compiler/ingest/embeddings.h"

/* A LoRA taken from libhilora: an adapter's own weights, or a route's blend. */
typedef struct source {
    const hl_pool *pool;
    const char *file;
    uint32_t adapter;
    hl_lora *blend; /* NULL for an adapter */
    hlc_lora_module *modules;
    uint32_t *positions; /* of the modules in the pool */
} source;

static bool fail(hlc_faults *faults, const char *file, const hl_diag *diag) {
    hlc_route_fault(faults, file, diag);
    return false;
}

bool hlc_export_is_plain(const hlc_export_settings *s) {
    return s->route.adapter_count == 1 && !s->route.embedding && !s->route.routing_given;
}

/* ---- The route ---- */

static bool compute(const hlc_route_settings *s, const hl_pool *pool, hl_route **route, hlc_faults *faults) {
    hl_diag diag;
    hl_diag_clear(&diag);
    hlc_embeddings *embeddings = s->embedding ? hlc_embeddings_read(s->embedding, "embeddings", faults) : NULL;
    bool good = embeddings || !s->embedding;
    if (embeddings && s->row >= embeddings->samples) {
        hlc_bad_input(faults, s->embedding, NULL, "there is no row %llu: the file holds %zu",
                      (unsigned long long)s->row, embeddings->samples);
        good = false;
    }
    if (good) {
        const float *z = embeddings ? embeddings->values + s->row * embeddings->dim : NULL;
        good = hl_route_compute(pool, z, embeddings ? embeddings->dim : 0, &s->options, route, &diag) == HL_OK ||
               fail(faults, diag.status == HL_ERR_INPUT && s->embedding ? s->embedding : s->pool, &diag);
    }
    hlc_embeddings_free(embeddings);
    return good;
}

static void describe_route(const hl_pool *pool, const hl_route *route, hlc_lora_outcome *outcome) {
    uint8_t digest[16];
    hl_route_digest(route, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        snprintf(outcome->digest + 2 * i, 3, "%02x", digest[i]);
    }
    hl_route_item item = {.struct_size = sizeof item};
    hl_adapter_view adapter = {.struct_size = sizeof adapter};
    outcome->adapters = json_array();
    for (uint32_t i = 0; hl_route_item_at(route, i, &item) == HL_OK; i++) {
        if (hl_adapter_at(pool, item.adapter, &adapter) == HL_OK) {
            json_array_append_new(outcome->adapters,
                                  json_pack("{s:o, s:I, s:f}", "adapter",
                                            hlc_cli_string_json(adapter.name.data, adapter.name.size), "rocs",
                                            (json_int_t)item.rocs, "weight", item.weight));
        }
    }
}

static bool blend(source *from, const hl_route *route, hlc_faults *faults) {
    hl_diag diag;
    hl_session *session = NULL;
    hl_route_view view = {.struct_size = sizeof view};
    hl_diag_clear(&diag);
    if (hl_route_info(route, &view) == HL_OK && view.count == 0) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, from->file, NULL, "use the base model, or --fallback none or wide",
                  "the route has no adapter: there is nothing to export");
        return false;
    }
    bool good = (hl_session_create(from->pool, NULL, &session, &diag) == HL_OK &&
                 hl_blend(session, route, &from->blend, &diag) == HL_OK) ||
                fail(faults, from->file, &diag);
    hl_session_destroy(session);
    return good;
}

/* ---- The modules ---- */

static bool add_module(source *from, uint32_t i, hlc_faults *faults) {
    hlc_lora_module *module = &from->modules[i];
    hl_module_view view = {.struct_size = sizeof view};
    hl_entry_view entry = {.struct_size = sizeof entry};
    hl_lora_view lora = {.struct_size = sizeof lora};
    bool good;
    if (from->blend) {
        good = hl_lora_at(from->blend, i, &lora) == HL_OK;
        from->positions[i] = lora.module;
        *module = (hlc_lora_module){.rank = lora.rank, .scale = 1, .dtype = {HL_DTYPE_F32, HL_DTYPE_F32}};
    } else {
        good = hl_entry_at(from->pool, from->adapter, i, &entry) == HL_OK;
        from->positions[i] = entry.module;
        *module = (hlc_lora_module){.rank = entry.rank,
                                    .scale = entry.scale,
                                    .dtype = {entry.squeezed ? entry.stored_dtype_a : entry.dtype_a,
                                              entry.squeezed ? entry.stored_dtype_b : entry.dtype_b}};
    }
    if (!good || hl_module_at(from->pool, from->positions[i], &view) != HL_OK) {
        hlc_bad_input(faults, from->file, NULL, "module %u cannot be described", i);
        return false;
    }
    if (!from->blend && entry.gauged == 2) {
        char place[HLC_PLACE_SIZE];
        hlc_bad_input(faults, from->file, hlc_place(place, "module", view.name.data, view.name.size),
                      "AdaLoRA trained it, whose diagonal a plain LoRA does not have");
        return false;
    }
    module->name = view.name;
    module->kind = view.kind;
    module->d_in = view.d_in;
    module->d_out = view.d_out;
    return true;
}

static uint32_t count_modules(const source *from) {
    hl_adapter_view adapter = {.struct_size = sizeof adapter};
    hl_lora_view view = {.struct_size = sizeof view};
    uint32_t count = 0;
    if (!from->blend) {
        return hl_adapter_at(from->pool, from->adapter, &adapter) == HL_OK ? adapter.modules : 0;
    }
    while (hl_lora_at(from->blend, count, &view) == HL_OK) {
        count++;
    }
    return count;
}

static bool list_modules(source *from, hlc_lora *lora, hlc_faults *faults) {
    const uint32_t count = count_modules(from);
    from->modules = calloc(count ? count : 1, sizeof *from->modules);
    from->positions = calloc(count ? count : 1, sizeof *from->positions);
    if (!from->modules || !from->positions) {
        hlc_out_of_memory(faults, from->file, count * sizeof *from->modules);
        return false;
    }
    bool good = true;
    for (uint32_t i = 0; good && i < count; i++) {
        good = add_module(from, i, faults);
    }
    lora->count = count;
    lora->modules = from->modules;
    return good;
}

static bool read_rows(void *user, size_t module, hl_side side, hl_dtype dtype, void *rows, size_t size,
                      hlc_faults *faults) {
    const source *from = user;
    hl_diag diag;
    hl_diag_clear(&diag);
    if (!from->blend) {
        return hl_tensor_read(from->pool, from->adapter, from->positions[module], side, dtype, rows, size, &diag) ==
                   HL_OK ||
               fail(faults, from->file, &diag);
    }
    hl_lora_view view = {.struct_size = sizeof view};
    if (hl_lora_at(from->blend, (uint32_t)module, &view) != HL_OK) {
        return false;
    }
    memcpy(rows, side == HL_SIDE_A ? view.a : view.b, size);
    return true;
}

/* ---- The run ---- */

static void name_lora(const source *from, const hlc_lora_outcome *outcome, hlc_lora *lora) {
    hl_adapter_view adapter = {.struct_size = sizeof adapter};
    hl_pool_view pool = {.struct_size = sizeof pool};
    if (hl_pool_info(from->pool, &pool) == HL_OK) {
        lora->base_model = pool.base_model;
    }
    lora->name = (hl_string){outcome->digest, strlen(outcome->digest)};
    if (from->blend) {
        lora->digest = outcome->digest;
    } else if (hl_adapter_at(from->pool, from->adapter, &adapter) == HL_OK) {
        lora->name = adapter.name;
    }
}

static bool write_lora(const hlc_export_settings *s, source *from, hlc_lora_outcome *outcome, hlc_faults *faults) {
    hlc_lora lora = {.file = from->file, .read = read_rows, .user = from};
    bool good = list_modules(from, &lora, faults);
    name_lora(from, outcome, &lora);
    outcome->modules = (uint32_t)lora.count;
    good = good && (s->gguf ? hlc_export_gguf(&lora, &s->base, s->output, &outcome->report, faults)
                            : hlc_export_blend(&lora, s->output, &outcome->report, faults));
    free(from->modules);
    free(from->positions);
    return good;
}

static bool take_adapter(hlc_export_settings *s, source *from, hlc_lora_outcome *outcome, hlc_faults *faults) {
    const char *name = s->route.first_adapter;
    from->adapter = hl_adapter_find(from->pool, name, strlen(name));
    if (from->adapter == HL_NONE) {
        char place[HLC_PLACE_SIZE];
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, from->file, hlc_place(place, "adapter", name, strlen(name)),
                  "hilora-inspect lists them", "not in this pool");
        return false;
    }
    return write_lora(s, from, outcome, faults);
}

static bool take_route(hlc_export_settings *s, source *from, hlc_lora_outcome *outcome, hlc_faults *faults) {
    hl_route *route = NULL;
    bool good = hlc_route_resolve(&s->route, from->pool, faults) && compute(&s->route, from->pool, &route, faults) &&
                blend(from, route, faults);
    if (good) {
        describe_route(from->pool, route, outcome);
        good = write_lora(s, from, outcome, faults);
    }
    hl_lora_free(from->blend);
    hl_route_free(route);
    return good;
}

bool hlc_export_lora(hlc_export_settings *s, hlc_lora_outcome *outcome, hlc_faults *faults) {
    hl_pool *pool = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    *outcome = (hlc_lora_outcome){.adapters = NULL};
    bool good = !s->gguf || !s->base_model || hlc_gguf_base_read(s->base_model, &s->base, faults);
    if (hl_pool_open(s->route.pool, NULL, &pool, &diag) != HL_OK) {
        return fail(faults, s->route.pool, &diag);
    }
    source from = {.pool = pool, .file = s->route.pool};
    good = good && (hlc_export_is_plain(s) ? take_adapter : take_route)(s, &from, outcome, faults);
    hl_pool_close(pool);
    return good;
}
