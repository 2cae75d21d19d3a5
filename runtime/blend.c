/* hl_blend: a route frozen to one LoRA. */
#include <math.h>
#include <string.h>

#include "format/diag.h"
#include "runtime/memory.h"
#include "runtime/route.h"
#include "runtime/session.h"
#include "runtime/sort.h"
#include "runtime/structs.h"

/* `filled` rows of a module are there so far. */
typedef struct blended {
    uint32_t module, rank, filled;
    uint64_t d_in, d_out;
    float *a, *b; /* one allocation, at a */
} blended;

struct hl_lora {
    hl_allocator allocator;
    uint32_t count;
    blended *modules; /* ascending */
};

void hl_lora_free(hl_lora *lora) {
    if (!lora) {
        return;
    }
    hl_allocator allocator = lora->allocator;
    for (uint32_t i = 0; lora->modules && i < lora->count; i++) {
        hlr_release(&allocator, lora->modules[i].a);
    }
    hlr_release(&allocator, lora->modules);
    hlr_release(&allocator, lora);
}

hl_status hl_lora_at(const hl_lora *lora, uint32_t i, hl_lora_view *view) {
    if (!lora || !hlr_view_ok(view, sizeof *view)) {
        return HL_ERR_ARGUMENT;
    }
    if (i >= lora->count) {
        return HL_ERR_NOT_FOUND;
    }
    const blended *m = &lora->modules[i];
    const hl_lora_view own = {sizeof own, m->module, m->rank, m->d_in, m->d_out, m->a, m->b};
    hlr_view_write(view, &own, sizeof own);
    return HL_OK;
}

/* The route's items in the order of adapters. */
typedef struct blend {
    hl_session *session;
    const hl_route *route;
    uint64_t *keys;    /* adapter above, item below */
    uint64_t *modules; /* of all entries, while they are listed */
    size_t module_count;
    hl_lora *lora;
    hl_diag *diag;
} blend;

static hl_status out_of_memory(const blend *b) {
    return hlf_fail(b->diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for a blended LoRA");
}

static const hlr_candidate *item_at(const blend *b, uint32_t i) {
    return &b->route->items[b->keys[i] & UINT32_MAX];
}

static bool order_items(blend *b) {
    const uint32_t n = b->route->view.count;
    b->keys = hlr_allocate(&b->session->pool->allocator, n, sizeof *b->keys);
    if (!b->keys) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        b->keys[i] = (uint64_t)b->route->items[i].adapter << 32 | i;
    }
    hlr_sort(b->keys, n);
    return true;
}

/* Calls `visit` for each (item, entry) of the route, in order, until one fails. */
typedef hl_status visitor(blend *b, const hlr_candidate *item, const hlf_entry_record *entry);

static hl_status for_each_entry(blend *b, visitor *visit) {
    const hlf_index *index = &b->session->pool->index;
    for (uint32_t i = 0; i < b->route->view.count; i++) {
        hlf_adapter_record adapter;
        hlf_index_adapter(index, item_at(b, i)->adapter, &adapter);
        for (uint64_t e = adapter.first_entry; e < adapter.first_entry + adapter.entries; e++) {
            hlf_entry_record entry;
            hlf_index_entry(index, (uint32_t)e, &entry);
            hl_status status = visit(b, item_at(b, i), &entry);
            if (status != HL_OK) {
                return status;
            }
        }
    }
    return HL_OK;
}

static blended *find_module(const hl_lora *lora, uint32_t module) {
    uint32_t low = 0, high = lora->count;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        *(lora->modules[middle].module <= module ? &low : &high) = middle;
    }
    return &lora->modules[low];
}

static uint32_t rocs_of(const hlr_candidate *item, const hlf_entry_record *entry) {
    return hl_route_module_rocs((uint32_t)item->rocs, item->rank, entry->rank);
}

static hl_status count_rocs(blend *b, const hlr_candidate *item, const hlf_entry_record *entry) {
    find_module(b->lora, entry->module)->rank += rocs_of(item, entry);
    return HL_OK;
}

static hl_status note_module(blend *b, const hlr_candidate *item, const hlf_entry_record *entry) {
    (void)item;
    b->modules[b->module_count++] = entry->module;
    return HL_OK;
}

/* The modules that the route changes, ascending, without ranks. */
static hl_status list_modules(blend *b) {
    const hl_allocator *allocator = &b->session->pool->allocator;
    const hlf_index *index = &b->session->pool->index;
    size_t entries = 0;
    for (uint32_t i = 0; i < b->route->view.count; i++) {
        hlf_adapter_record adapter;
        hlf_index_adapter(index, item_at(b, i)->adapter, &adapter);
        entries += (size_t)adapter.entries;
    }
    b->modules = hlr_allocate(allocator, entries, sizeof *b->modules);
    if (!b->modules || for_each_entry(b, note_module) != HL_OK) {
        return out_of_memory(b);
    }
    hlr_sort(b->modules, b->module_count);
    const size_t n = hlr_unique(b->modules, b->module_count);
    b->lora->modules = hlr_allocate(allocator, n, sizeof *b->lora->modules);
    if (!b->lora->modules) {
        return out_of_memory(b);
    }
    for (size_t i = 0; i < n; i++) {
        hlf_module_record module;
        hlf_index_module(index, (uint32_t)b->modules[i], &module);
        b->lora->modules[i] = (blended){.module = (uint32_t)b->modules[i], .d_in = module.d_in, .d_out = module.d_out};
    }
    b->lora->count = (uint32_t)n;
    return HL_OK;
}

static hl_status check_size(blend *b, const hlr_candidate *item, const hlf_entry_record *entry) {
    (void)item;
    return hlr_rows_check_size(b->session->pool, entry, b->diag);
}

static hl_status allocate_modules(blend *b) {
    for (uint32_t i = 0; i < b->lora->count; i++) {
        blended *m = &b->lora->modules[i];
        const uint64_t width = m->d_in + m->d_out;
        uint64_t floats;
        if (!hlf_mul(m->rank, width, &floats) || floats > SIZE_MAX / sizeof(float) ||
            !(m->a = hlr_allocate(&b->lora->allocator, (size_t)floats, sizeof(float)))) {
            return out_of_memory(b);
        }
        m->b = m->a + (size_t)(m->rank * m->d_in);
    }
    return HL_OK;
}

/* The first components of an entry, behind those that the module has; weight and scale go into B. */
static void add_rows(blended *m, const hlr_rows *rows, uint32_t rocs, float weight) {
    const size_t d_in = (size_t)m->d_in, d_out = (size_t)m->d_out;
    for (uint32_t j = 0; j < rocs; j++, m->filled++) {
        const float *a = (const float *)rows->a.rows + j * rows->a.stride;
        const float *b = (const float *)rows->b.rows + j * rows->b.stride;
        memcpy(m->a + m->filled * d_in, a, d_in * sizeof *a);
        for (size_t i = 0; i < d_out; i++) {
            m->b[m->filled * d_out + i] = weight * b[i];
        }
    }
}

static hl_status decode_entry(blend *b, const hlr_candidate *item, const hlf_entry_record *entry) {
    const hl_pool *pool = b->session->pool;
    hlr_rows *rows = hlr_rows_create(pool, entry, false);
    if (!rows) {
        return out_of_memory(b);
    }
    hl_status status = hlr_rows_build(&b->session->builders[0], entry, rows, b->diag);
    if (status == HL_OK) {
        const uint32_t rocs = rocs_of(item, entry);
        const double norm = b->route->view.variance_norm ? sqrt((double)entry->rank / rocs) : 1;
        add_rows(find_module(b->lora, entry->module), rows, rocs, (float)(rows->scale * (item->parts / 256.0) * norm));
    }
    hlr_rows_destroy(pool, rows);
    return status;
}

hl_status hl_blend(hl_session *session, const hl_route *route, hl_lora **out, hl_diag *diag) {
    if (!out) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no place for the LoRA");
    }
    *out = NULL;
    if (!session || !route || route->pool != session->pool || route->view.count == 0) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET,
                        "no session, or a route that is NULL, empty or of another pool");
    }
    const hl_allocator *allocator = &session->pool->allocator;
    blend b = {.session = session, .route = route, .diag = diag, .lora = hlr_allocate(allocator, 1, sizeof *b.lora)};
    if (!b.lora) {
        return out_of_memory(&b);
    }
    *b.lora = (hl_lora){.allocator = *allocator};
    hl_status status = order_items(&b) ? list_modules(&b) : out_of_memory(&b);
    if (status == HL_OK) {
        status = for_each_entry(&b, check_size);
    }
    if (status == HL_OK) {
        status = for_each_entry(&b, count_rocs);
    }
    if (status == HL_OK) {
        status = allocate_modules(&b);
    }
    if (status == HL_OK) {
        status = for_each_entry(&b, decode_entry);
    }
    hlr_release(allocator, b.keys);
    hlr_release(allocator, b.modules);
    if (status != HL_OK) {
        hl_lora_free(b.lora);
        return status;
    }
    *out = b.lora;
    return HL_OK;
}
