#include "compiler/export/tensor_plan.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/ingest/order.h"
#include "compiler/ingest/peft_keys.h"
#include "format/bytes.h"

typedef struct planning {
    const hlc_pool_file *pool;
    hlf_adapter_record adapter;
    uint32_t number; /* of the adapter */
    hlc_tensor_plan *plan;
    hlc_faults *faults;
} planning;

static bool key_fault(const planning *p, const hlc_string *key, const char *reason) {
    char place[HLC_PLACE_SIZE];
    hlc_bad_input(p->faults, p->pool->path, hlc_place(place, "tensor", key->bytes, key->length), "%s", reason);
    return false;
}

/* ---- The source again ---- */

/* Faults of a text that a pool keeps are faults of the pool. */
static bool read_source(const planning *p, const hlc_string *header, const hlc_string *config) {
    hlc_faults *own = hlc_faults_create();
    const hlc_ingest_options options = {.drop_extras = true, .expert_layout = (hlc_expert_layout)p->adapter.expert_layout};
    if (!own) {
        hlc_out_of_memory(p->faults, p->pool->path, 0);
        return false;
    }
    p->plan->adapter = hlc_adapter_of_texts(p->pool->path, header, config, p->adapter.source_size, &options, own);
    p->plan->table = p->plan->adapter ? hlc_safetensors_of_header(p->pool->path, header, p->adapter.source_size, own) : NULL;
    if (p->plan->table) {
        hlc_faults_destroy(own); /* warnings that the compiler gave already */
        return true;
    }
    hlc_faults_take(p->faults, own);
    return false;
}

static bool read_diagonals(const planning *p) {
    const hlf_blob_ref *blob = &p->adapter.diagonals;
    hlc_string bytes;
    hl_diag diag;
    uint64_t count = 0;
    hl_diag_clear(&diag);
    for (uint64_t i = 0; i < p->adapter.entries; i++) {
        hlf_entry_record entry;
        hlf_index_entry(&p->pool->index, (uint32_t)(p->adapter.first_entry + i), &entry);
        count += entry.rank;
    }
    if (!blob->stored) {
        return true;
    }
    if (!hlc_decode_blob(&p->pool->index, blob, &bytes, &diag)) {
        hlc_fault_from_diag(p->faults, p->pool->path, &diag);
        return false;
    }
    p->plan->diagonals = bytes.length == 8 * count ? malloc(8 * count) : NULL;
    for (uint64_t i = 0; p->plan->diagonals && i < count; i++) {
        p->plan->diagonals[i] = hlf_load_f64((const uint8_t *)bytes.bytes + 8 * i);
    }
    if (!p->plan->diagonals) {
        hlc_bad_input(p->faults, p->pool->path, NULL, "the diagonals of an adapter are not as many as its ranks, or memory is out");
    }
    hlc_string_free(&bytes);
    return p->plan->diagonals != NULL;
}

/* ---- Parts ---- */

static bool target_fits(const planning *p, const hlc_target *target, const hlf_entry_record *entry) {
    hlf_module_record module;
    hlf_index_module(&p->pool->index, entry->module, &module);
    const bool diagonal = target->e.key.bytes != NULL;
    return entry->rank == target->rank && module.d_in == target->d_in && module.d_out == target->d_out &&
           entry->source_dtype_a == (uint8_t)target->a.dtype && entry->source_dtype_b == (uint8_t)target->b.dtype &&
           diagonal == (p->plan->diagonals != NULL);
}

static bool add_part(const planning *p, uint32_t entry, hlc_part_side side, const hlc_matrix_source *source) {
    const hlc_tensor *tensor = hlc_safetensors_find(p->plan->table, source->key.bytes, source->key.length);
    if (!tensor) {
        return key_fault(p, &source->key, "the source's header does not have it");
    }
    p->plan->parts[p->plan->part_count++] =
        (hlc_tensor_part){(uint32_t)(tensor - p->plan->table->tensors), entry, side, source};
    return true;
}

static bool add_target(const planning *p, const hlc_target *target, bool *seen) {
    const hlf_index *index = &p->pool->index;
    hlf_entry_record entry;
    const uint32_t module = hlf_index_find_module(index, target->module.bytes, target->module.length);
    const uint32_t number = module == HLF_NONE ? HLF_NONE : hlf_index_find_entry(index, p->number, module);
    if (number == HLF_NONE) {
        return key_fault(p, &target->a.key, "the source's header has it, the pool does not");
    }
    hlf_index_entry(index, number, &entry);
    if (!target_fits(p, target, &entry)) {
        return key_fault(p, &target->a.key, "shape or type in the source's header differs from the pool's");
    }
    seen[number - p->adapter.first_entry] = true;
    return add_part(p, number, HLC_PART_SIDE_A, &target->a) && add_part(p, number, HLC_PART_SIDE_B, &target->b) &&
           (!target->e.key.bytes || add_part(p, number, HLC_PART_SIDE_E, &target->e));
}

static bool all_seen(const planning *p, const bool *seen) {
    bool good = true;
    for (uint64_t i = 0; i < p->adapter.entries; i++) {
        hlf_entry_record entry;
        hlf_module_record module;
        char place[HLC_PLACE_SIZE];
        if (!seen[i]) {
            hlf_index_entry(&p->pool->index, (uint32_t)(p->adapter.first_entry + i), &entry);
            hlf_index_module(&p->pool->index, entry.module, &module);
            hlc_bad_input(p->faults, p->pool->path,
                          hlc_place(place, "module", hlf_index_string(&p->pool->index, module.name), module.name.length),
                          "the source's header has no tensors for it");
            good = false;
        }
    }
    return good;
}

static bool list_parts(const planning *p) {
    const hlc_adapter *adapter = p->plan->adapter;
    bool *seen = calloc(p->adapter.entries, sizeof *seen);
    p->plan->parts = calloc(3 * adapter->target_count + 1, sizeof *p->plan->parts);
    bool good = seen && p->plan->parts;
    if (!good) {
        hlc_out_of_memory(p->faults, p->pool->path, 3 * adapter->target_count * sizeof *p->plan->parts);
    } else {
        for (size_t i = 0; i < adapter->target_count; i++) {
            good = add_target(p, &adapter->targets[i], seen) && good;
        }
        good = all_seen(p, seen) && good;
    }
    free(seen);
    return good;
}

/* ---- Tensors ---- */

static int compare_parts(uint32_t a, uint32_t b, const void *context) {
    const hlc_tensor_part *x = (const hlc_tensor_part *)context + a, *y = (const hlc_tensor_part *)context + b;
    return (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

static bool sort_parts(hlc_tensor_plan *plan) {
    uint32_t *order = hlc_sorted_numbers(plan->part_count, compare_parts, plan->parts);
    hlc_tensor_part *sorted = malloc((plan->part_count + 1) * sizeof *sorted);
    const bool good = order && sorted;
    for (size_t i = 0; good && i < plan->part_count; i++) {
        sorted[i] = plan->parts[order[i]];
    }
    free(order);
    free(good ? plan->parts : sorted);
    plan->parts = good ? sorted : plan->parts;
    return good;
}

static int compare_places(uint32_t a, uint32_t b, const void *context) {
    const hlc_tensor *tensors = context, *x = &tensors[a], *y = &tensors[b];
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    return (x->end > y->end) - (x->end < y->end);
}

/* The parts of a tensor, which are sorted by its number. */
static void find_parts(const hlc_tensor_plan *plan, uint32_t number, hlc_planned_tensor *out) {
    size_t low = 0, high = plan->part_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (plan->parts[middle].tensor < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    out->parts = plan->parts + low;
    while (low + out->part_count < plan->part_count && out->parts[out->part_count].tensor == number) {
        out->part_count++;
    }
}

/* A tensor without bytes is complete as it is: AdaLoRA's of rank 0. */
static bool list_tensors(const planning *p) {
    hlc_tensor_plan *plan = p->plan;
    const size_t count = plan->table->count;
    uint32_t *order = hlc_sorted_numbers(count, compare_places, plan->table->tensors);
    plan->tensors = calloc(count + 1, sizeof *plan->tensors);
    const bool good = order && plan->tensors && sort_parts(plan);
    for (size_t i = 0; good && i < count; i++) {
        hlc_planned_tensor *planned = &plan->tensors[i];
        planned->tensor = &plan->table->tensors[order[i]];
        find_parts(plan, order[i], planned);
        planned->dropped = planned->part_count == 0 && !hlc_part_is_update(hlc_peft_key(planned->tensor->name, planned->tensor->name_length).part);
        plan->dropped += planned->dropped;
    }
    if (!good) {
        hlc_out_of_memory(p->faults, p->pool->path, count * sizeof *plan->tensors);
    }
    free(order);
    return good;
}

bool hlc_plan_tensors(const hlc_pool_file *pool, uint32_t adapter, const hlc_string *header, const hlc_string *config,
                      hlc_tensor_plan *plan, hlc_faults *faults) {
    *plan = (hlc_tensor_plan){.table = NULL};
    planning p = {.pool = pool, .number = adapter, .plan = plan, .faults = faults};
    hlf_index_adapter(&pool->index, adapter, &p.adapter);
    return read_source(&p, header, config) && read_diagonals(&p) && list_parts(&p) && list_tensors(&p);
}

void hlc_tensor_plan_free(hlc_tensor_plan *plan) {
    free(plan->tensors);
    free(plan->parts);
    free(plan->diagonals);
    hlc_adapter_close(plan->adapter);
    hlc_safetensors_close(plan->table);
    *plan = (hlc_tensor_plan){0};
}
