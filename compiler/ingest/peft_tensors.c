#include "compiler/ingest/peft_tensors.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/ingest/order.h"
#include "compiler/ingest/peft_config.h"
#include "compiler/ingest/peft_keys.h"

enum { MOST_MODULE_BYTES = 4096 };
static const uint64_t most_dimension = INT32_MAX;

/* A tensor that is the A or B of a module. */
typedef struct half {
    const char *module;
    uint32_t module_length;
    uint32_t tensor; /* its number in the table */
    bool is_b;
} half;

typedef struct collection {
    const hlc_safetensors *table;
    hlc_faults *faults;
    bool drop_extras;
    half *halves;
    size_t half_count;
    size_t counts[HLC_PARTS];
    uint32_t firsts[HLC_PARTS]; /* a tensor of each part */
    const char *tuner;
    hlc_peft_tensors *out;
} collection;

static void tensor_fault(collection *c, hlc_fault_kind kind, const hlc_tensor *tensor, const char *remedy,
                         const char *format, ...) __attribute__((format(printf, 5, 6)));
static void tensor_fault(collection *c, hlc_fault_kind kind, const hlc_tensor *tensor, const char *remedy,
                         const char *format, ...) {
    char place[HLC_PLACE_SIZE], reason[2 * HLC_PLACE_SIZE + 256];
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(reason, sizeof reason, format, arguments) < 0)
        reason[0] = '\0';
    va_end(arguments);
    hlc_fault(c->faults, HLC_ERROR, kind, c->table->path,
              hlc_place(place, "tensor", tensor->name, tensor->name_length), remedy, "%s", reason);
    c->out->good = false;
}

/* ---- Sorting the tensors into parts ---- */

static bool sort_into_parts(collection *c) {
    const hlc_safetensors *table = c->table;
    c->halves = calloc(table->count + 1, sizeof *c->halves);
    if (!c->halves)
        return false;
    for (uint32_t i = 0; i < table->count; i++) {
        const hlc_tensor *tensor = &table->tensors[i];
        hlc_key key = hlc_peft_key(tensor->name, tensor->name_length);
        if (c->counts[key.part]++ == 0)
            c->firsts[key.part] = i;
        if (key.part == HLC_PART_OTHER_TUNER && !c->tuner)
            c->tuner = key.tuner;
        if (key.part == HLC_PART_A || key.part == HLC_PART_B)
            c->halves[c->half_count++] = (half){key.module, (uint32_t)key.module_length, i, key.part == HLC_PART_B};
    }
    return true;
}

/* One fault for all tensors of a part that cannot be compiled. */
static void refuse_part(collection *c, hlc_key_part part) {
    const hlc_tensor *first = &c->table->tensors[c->firsts[part]];
    const char *tuner = part == HLC_PART_OTHER_TUNER ? c->tuner : NULL;
    char others[64] = "";
    if (c->counts[part] > 1)
        snprintf(others, sizeof others, " (and %zu more such tensors)", c->counts[part] - 1);
    tensor_fault(c, hlc_part_kind(part), first, hlc_part_remedy(part),
                 "%s%s%s%s", hlc_part_reason(part), tuner ? " but a weight of " : "",
                 tuner ? tuner : "", others);
}

static void refuse_unsupported(collection *c) {
    for (hlc_key_part part = 0; part < HLC_PARTS; part++) {
        if (c->counts[part] == 0 || part == HLC_PART_A || part == HLC_PART_B || hlc_part_is_extra(part))
            continue;
        refuse_part(c, part);
        c->out->foreign |= hlc_part_is_foreign(part);
    }
}

/* Each extra is named, as an error or, where they are dropped, as a warning. */
static void treat_extras(collection *c) {
    char place[HLC_PLACE_SIZE];
    for (size_t i = 0; i < c->table->count; i++) {
        const hlc_tensor *tensor = &c->table->tensors[c->table->by_name[i]];
        hlc_key_part part = hlc_peft_key(tensor->name, tensor->name_length).part;
        if (!hlc_part_is_extra(part))
            continue;
        if (!c->drop_extras)
            tensor_fault(c, hlc_part_kind(part), tensor, hlc_part_remedy(part), "%s", hlc_part_reason(part));
        else
            hlc_fault(c->faults, HLC_WARNING, hlc_part_kind(part), c->table->path,
                      hlc_place(place, "tensor", tensor->name, tensor->name_length), NULL, "left out: %s",
                      hlc_part_reason(part));
    }
}

static size_t count_extras(const collection *c) {
    size_t count = 0;
    for (hlc_key_part part = 0; part < HLC_PARTS; part++)
        count += hlc_part_is_extra(part) ? c->counts[part] : 0;
    return count;
}

static void refuse_without_lora(collection *c) {
    size_t count = c->table->count;
    c->out->good = false;
    if (count == 0)
        hlc_error(c->faults, HLC_FAULT_NO_LORA, c->table->path, NULL, "the file holds no tensor, so no LoRA weight");
    else
        hlc_fault(c->faults, HLC_ERROR, HLC_FAULT_NO_LORA, c->table->path, NULL, "give the adapter, not the model",
                  "none of the file's %zu tensors is a LoRA weight", count);
}

/* ---- The two halves of each module ---- */

static int compare_halves(uint32_t a, uint32_t b, const void *context) {
    const half *x = (const half *)context + a, *y = (const half *)context + b;
    int order = hlc_bytes_compare(x->module, x->module_length, y->module, y->module_length);
    return order != 0 ? order : (int)x->is_b - (int)y->is_b;
}

static const hlc_tensor *tensor_of(const collection *c, const half *h) {
    return &c->table->tensors[h->tensor];
}

static const char *side(const half *h) {
    return h->is_b ? "lora_B" : "lora_A";
}

static bool check_dtype(collection *c, const half *h) {
    const hlc_tensor *tensor = tensor_of(c, h);
    if (hlc_tensor_dtype_weight(tensor->dtype) != HLF_DTYPE_NONE)
        return true;
    tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL,
                 "the type %s is none of a LoRA weight: F16, BF16, F32 and F64 are read",
                 hlc_tensor_dtype_name(tensor->dtype));
    return false;
}

/* other: the module's other half, or NULL. */
static void refuse_dimensions(collection *c, const half *h, const half *other) {
    const hlc_tensor *tensor = tensor_of(c, h);
    char shape[HLC_SHAPE_SIZE];
    hlc_tensor_shape_text(c->table, tensor, shape);
    if (tensor->dims < 3)
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL, "shape %s is no matrix", shape);
    else if (h->is_b && other && tensor_of(c, other)->dims == 2)
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, "load and save the adapter with a newer PEFT",
                     "shape %s is that of enable_lora, of PEFT before 0.3, which is not supported", shape);
    else
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL,
                     "shape %s is that of an adapted convolution, which is not supported yet", shape);
}

/* Reads a half's shape: rank and the dimension of the module on its side. */
static bool read_shape(collection *c, const half *h, const half *other, uint64_t *rank, uint64_t *dimension) {
    const hlc_tensor *tensor = tensor_of(c, h);
    uint64_t shape[2];
    char text[HLC_SHAPE_SIZE];
    if (hlc_tensor_shape(c->table, tensor, shape, 2) != 2) {
        refuse_dimensions(c, h, other);
        return false;
    }
    *rank = shape[h->is_b];
    *dimension = shape[!h->is_b];
    hlc_tensor_shape_text(c->table, tensor, text);
    if (*rank == 0)
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL, "shape %s has rank 0", text);
    else if (*dimension == 0)
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL, "shape %s has no %s", text, h->is_b ? "outputs" : "inputs");
    else if (*rank > HLC_MOST_RANK)
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL,
                     "shape %s has rank %" PRIu64 "; at most %d is read", text, *rank, HLC_MOST_RANK);
    else if (*dimension > most_dimension)
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL,
                     "shape %s has a dimension above %" PRIu64, text, most_dimension);
    else
        return true;
    return false;
}

static bool fill_source(const collection *c, const half *h, uint64_t rows, uint64_t cols, hlc_matrix_source *out) {
    const hlc_tensor *tensor = tensor_of(c, h);
    *out = (hlc_matrix_source){.offset = c->table->data_at + tensor->begin,
                               .rows = rows,
                               .cols = cols,
                               .dtype = hlc_tensor_dtype_weight(tensor->dtype)};
    return hlc_string_copy(&out->key, tensor->name, tensor->name_length);
}

static void free_target(hlc_target *target) {
    hlc_string_free(&target->module);
    hlc_string_free(&target->a.key);
    hlc_string_free(&target->b.key);
}

/* False only when memory is out. */
static bool add_pair(collection *c, const half *a, const half *b) {
    uint64_t a_rank = 0, b_rank = 0, d_in = 0, d_out = 0;
    bool a_good = check_dtype(c, a), b_good = check_dtype(c, b);
    a_good = read_shape(c, a, b, &a_rank, &d_in) && a_good;
    b_good = read_shape(c, b, a, &b_rank, &d_out) && b_good;
    if (!a_good || !b_good)
        return true;
    if (a_rank != b_rank) {
        tensor_fault(c, HLC_FAULT_RANKS_DIFFER, tensor_of(c, a), NULL,
                     "lora_A has %" PRIu64 " rows but the module's lora_B has %" PRIu64 " columns", a_rank, b_rank);
        return true;
    }
    hlc_target *target = &c->out->targets[c->out->count];
    *target = (hlc_target){.kind = HLC_MODULE_LINEAR, .d_in = d_in, .d_out = d_out, .rank = (uint32_t)a_rank};
    if (!hlc_string_copy(&target->module, a->module, a->module_length) ||
        !fill_source(c, a, a_rank, d_in, &target->a) || !fill_source(c, b, d_out, b_rank, &target->b)) {
        free_target(target);
        return false;
    }
    c->out->count++;
    return true;
}

/* group: the halves of one module, A before B. False only when memory is out. */
static bool add_module(collection *c, const uint32_t *group, size_t size) {
    const half *first = &c->halves[group[0]];
    bool repeated = false;
    for (size_t i = 1; i < size; i++) {
        const half *before = &c->halves[group[i - 1]], *h = &c->halves[group[i]];
        if (before->is_b != h->is_b)
            continue;
        char place[HLC_PLACE_SIZE];
        repeated = true;
        tensor_fault(c, HLC_FAULT_TWICE, tensor_of(c, h), NULL, "the module has a second %s, %s", side(h),
                     hlc_place(place, "besides", tensor_of(c, before)->name, tensor_of(c, before)->name_length));
    }
    if (first->module_length > MOST_MODULE_BYTES) {
        tensor_fault(c, HLC_FAULT_TENSOR, tensor_of(c, first), NULL,
                     "the module's path has %u bytes; at most %d are read",
                     first->module_length, MOST_MODULE_BYTES);
        return true;
    }
    if (repeated)
        return true;
    if (size == 2)
        return add_pair(c, first, &c->halves[group[1]]);
    tensor_fault(c, HLC_FAULT_HALF, tensor_of(c, first),
                 "save the adapter again: it is not complete", "the module has %s but no %s",
                 side(first), first->is_b ? "lora_A" : "lora_B");
    return true;
}

static bool pair_halves(collection *c) {
    uint32_t *order = hlc_sorted_numbers(c->half_count, compare_halves, c->halves);
    c->out->targets = calloc(c->half_count / 2 + 1, sizeof *c->out->targets);
    bool ok = order && c->out->targets;
    for (size_t i = 0; ok && i < c->half_count;) {
        const half *h = &c->halves[order[i]];
        size_t end = i + 1;
        while (end < c->half_count && hlc_bytes_compare(h->module, h->module_length, c->halves[order[end]].module,
                                                        c->halves[order[end]].module_length) == 0)
            end++;
        ok = add_module(c, order + i, end - i);
        i = end;
    }
    free(order);
    return ok;
}

bool hlc_peft_tensors_read(const hlc_safetensors *table, bool drop_extras, hlc_peft_tensors *out, hlc_faults *faults) {
    *out = (hlc_peft_tensors){.good = true};
    collection c = {.table = table, .faults = faults, .drop_extras = drop_extras, .out = out};
    bool ok = sort_into_parts(&c);
    if (ok) {
        refuse_unsupported(&c);
        if (count_extras(&c) == table->count)
            refuse_without_lora(&c);
        else if (!out->foreign)
            treat_extras(&c);
        ok = pair_halves(&c);
    }
    free(c.halves);
    if (!ok) {
        hlc_targets_free(out->targets, out->count);
        *out = (hlc_peft_tensors){0};
        hlc_out_of_memory(faults, table->path, table->count * sizeof(half));
    }
    return ok;
}

void hlc_targets_free(hlc_target *targets, size_t count) {
    for (size_t i = 0; i < count; i++)
        free_target(&targets[i]);
    free(targets);
}
