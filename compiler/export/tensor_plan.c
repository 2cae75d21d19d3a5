#include "compiler/export/tensor_plan.h"

#include <stdlib.h>

#include "compiler/ingest/order.h"
#include "compiler/ingest/peft_keys.h"

typedef struct planning {
    const hlc_pool_file *pool;
    const hlf_adapter_record *adapter;
    uint32_t number; /* of the adapter */
    hlc_tensor_plan *plan;
    bool (*seen)[2]; /* per entry of the adapter: its A and its B have a tensor */
    hlc_faults *faults;
} planning;

static bool tensor_fault(const planning *p, const hlc_tensor *tensor, const char *reason) {
    char place[HLC_PLACE_SIZE];
    hlc_bad_input(p->faults, p->pool->path, hlc_place(place, "tensor", tensor->name, tensor->name_length), "%s",
                  reason);
    return false;
}

/* A is kept as it is; B, a column per component in the file, a row per component in the pool. */
static bool shape_fits(const planning *p, const hlc_tensor *tensor, const hlf_entry_record *entry, hlf_side side) {
    hlf_module_record module;
    uint64_t shape[2] = {0, 0};
    hlf_index_module(&p->pool->index, entry->module, &module);
    const uint64_t rows = side == HLF_SIDE_A ? entry->rank : module.d_out,
                   cols = side == HLF_SIDE_A ? module.d_in : entry->rank;
    const uint8_t dtype = side == HLF_SIDE_A ? entry->source_dtype_a : entry->source_dtype_b;
    return hlc_tensor_shape(p->plan->table, tensor, shape, 2) == 2 && shape[0] == rows && shape[1] == cols &&
           hlc_tensor_dtype_weight((hlc_tensor_dtype)tensor->dtype) == (hlf_dtype)dtype;
}

static bool plan_half(const planning *p, const hlc_key *key, hlc_planned_tensor *planned) {
    const hlf_index *index = &p->pool->index;
    hlf_entry_record entry;
    const uint32_t module = hlf_index_find_module(index, key->module, key->module_length);
    planned->entry = module == HLF_NONE ? HLF_NONE : hlf_index_find_entry(index, p->number, module);
    planned->side = key->part == HLC_PART_A ? HLF_SIDE_A : HLF_SIDE_B;
    if (planned->entry == HLF_NONE) {
        return tensor_fault(p, planned->tensor, "the source's header has it, the pool does not");
    }
    hlf_index_entry(index, planned->entry, &entry);
    if (!shape_fits(p, planned->tensor, &entry, planned->side)) {
        return tensor_fault(p, planned->tensor, "shape or type in the source's header differs from the pool's");
    }
    bool *seen = &p->seen[planned->entry - p->adapter->first_entry][planned->side];
    if (*seen) {
        return tensor_fault(p, planned->tensor, "the source's header has another tensor of the same module and side");
    }
    *seen = true;
    return true;
}

static bool plan_tensor(const planning *p, hlc_planned_tensor *planned) {
    const hlc_key key = hlc_peft_key(planned->tensor->name, planned->tensor->name_length);
    if (key.part == HLC_PART_A || key.part == HLC_PART_B) {
        return plan_half(p, &key, planned);
    }
    if (!hlc_part_is_extra(key.part)) {
        return tensor_fault(p, planned->tensor, hlc_part_reason(key.part));
    }
    planned->entry = HLF_NONE;
    p->plan->dropped++;
    return true;
}

static bool all_seen(const planning *p) {
    bool good = true;
    for (uint64_t i = 0; i < p->adapter->entries; i++) {
        hlf_entry_record entry;
        hlf_module_record module;
        char place[HLC_PLACE_SIZE];
        hlf_index_entry(&p->pool->index, (uint32_t)(p->adapter->first_entry + i), &entry);
        hlf_index_module(&p->pool->index, entry.module, &module);
        for (int side = HLF_SIDE_A; side <= HLF_SIDE_B; side++) {
            if (!p->seen[i][side]) {
                hlc_bad_input(
                    p->faults, p->pool->path,
                    hlc_place(place, "module", hlf_index_string(&p->pool->index, module.name), module.name.length),
                    "the source's header has no tensor for its %s", side == HLF_SIDE_A ? "A" : "B");
                good = false;
            }
        }
    }
    return good;
}

static int compare_places(uint32_t a, uint32_t b, const void *context) {
    const hlc_tensor *tensors = context, *x = &tensors[a], *y = &tensors[b];
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    return (x->end > y->end) - (x->end < y->end);
}

static bool fill_plan(planning *p) {
    hlc_tensor_plan *plan = p->plan;
    const size_t count = plan->table->count;
    uint32_t *order = hlc_sorted_numbers(count, compare_places, plan->table->tensors);
    plan->tensors = calloc(count + 1, sizeof *plan->tensors);
    p->seen = calloc(p->adapter->entries, sizeof *p->seen);
    bool good = order && plan->tensors && p->seen;
    if (!good) {
        hlc_out_of_memory(p->faults, p->pool->path, count * sizeof *plan->tensors);
    } else {
        for (size_t i = 0; i < count; i++) {
            plan->tensors[i].tensor = &plan->table->tensors[order[i]];
            good = plan_tensor(p, &plan->tensors[i]) && good;
        }
        good = all_seen(p) && good;
    }
    free(p->seen);
    free(order);
    return good;
}

bool hlc_plan_tensors(const hlc_pool_file *pool, const hlf_adapter_record *adapter, const hlc_string *header,
                      hlc_tensor_plan *plan, hlc_faults *faults) {
    *plan = (hlc_tensor_plan){.table = hlc_safetensors_of_header(pool->path, header, adapter->source_size, faults)};
    const char *name = hlf_index_string(&pool->index, adapter->name);
    planning p = {.pool = pool,
                  .adapter = adapter,
                  .number = hlf_index_find_adapter(&pool->index, name, adapter->name.length),
                  .plan = plan,
                  .faults = faults};
    return plan->table && fill_plan(&p);
}

void hlc_tensor_plan_free(hlc_tensor_plan *plan) {
    free(plan->tensors);
    hlc_safetensors_close(plan->table);
    *plan = (hlc_tensor_plan){0};
}
