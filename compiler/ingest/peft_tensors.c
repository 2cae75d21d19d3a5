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

/* A tensor that is a part of a module's update. */
typedef struct half {
    const char *path; /* of the module, in its name or among the renamed */
    uint32_t path_length;
    uint32_t inside; /* length of the path of the module that it was wrapped in; 0 without */
    uint32_t tensor; /* its number in the table */
    uint8_t part;    /* hlc_key_part */
    bool weight;     /* ".weight" follows */
} half;

typedef struct collection {
    const hlc_peft_reading *reading;
    const hlc_safetensors *table;
    hlc_faults *faults;
    half *halves;
    size_t half_count;
    char *renamed; /* paths that are not in the tensors' names as they are */
    size_t renamed_length;
    size_t counts[HLC_PARTS];
    uint32_t firsts[HLC_PARTS]; /* a tensor of each part */
    const char *tuner;
    bool *bare; /* per module: its names lack ".weight" */
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

static const char wrapper[] = ".base_layer.";

static const char *find_wrapper(const char *path, size_t length) {
    return memmem(path, length, wrapper, sizeof wrapper - 1);
}

/* Room for the paths that change. */
static bool reserve_renamed(collection *c) {
    size_t total = 1;
    for (size_t i = 0; i < c->table->count; i++) {
        const hlc_tensor *tensor = &c->table->tensors[i];
        total += find_wrapper(tensor->name, tensor->name_length) ? tensor->name_length : 0;
    }
    c->renamed = malloc(total);
    return c->renamed != NULL;
}

/* "X.base_layer.child" is X.child of the base model: PEFT has put a layer around X. ("X.base_layer" itself is one of
 * several parameters of X.) */
static void rename_half(collection *c, half *h) {
    const char *from = h->path, *end = from + h->path_length;
    size_t core = h->path_length;
    while (hlc_bytes_end(from, core, ".base_layer"))
        core -= sizeof wrapper - 2;
    const char *at = find_wrapper(from, core);
    if (!at || at == from)
        return;
    char *out = c->renamed + c->renamed_length, *to = out;
    h->inside = (uint32_t)(at - from);
    for (; at; at = find_wrapper(from, (size_t)(h->path + core - from))) {
        memcpy(to, from, (size_t)(at - from));
        to += at - from;
        from = at + sizeof wrapper - 2; /* with the last dot, where another wrapper may begin */
    }
    memcpy(to, from, (size_t)(end - from));
    h->path = out;
    h->path_length = (uint32_t)((size_t)(to - out) + (size_t)(end - from));
    c->renamed_length += h->path_length;
}

static bool sort_into_parts(collection *c) {
    const hlc_safetensors *table = c->table;
    c->halves = calloc(table->count + 1, sizeof *c->halves);
    if (!c->halves || !reserve_renamed(c))
        return false;
    for (uint32_t i = 0; i < table->count; i++) {
        const hlc_tensor *tensor = &table->tensors[i];
        hlc_key key = hlc_peft_key(tensor->name, tensor->name_length);
        if (c->counts[key.part]++ == 0)
            c->firsts[key.part] = i;
        if (key.part == HLC_PART_OTHER_TUNER && !c->tuner)
            c->tuner = key.tuner;
        if (!hlc_part_is_update(key.part))
            continue;
        half *h = &c->halves[c->half_count++];
        *h = (half){.path = key.module,
                    .path_length = (uint32_t)key.module_length,
                    .tensor = i,
                    .part = (uint8_t)key.part,
                    .weight = key.weight};
        rename_half(c, h);
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
        if (c->counts[part] == 0 || hlc_part_is_update(part) || hlc_part_is_extra(part))
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
        if (!hlc_part_is_extra(part) ||
            (c->reading->known && part == HLC_PART_SAVED_EMBEDDING && c->reading->known(c->reading->user, tensor)))
            continue;
        if (!c->reading->drop_extras)
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

/* ---- Shapes and types ---- */

enum { MOST_DIMENSIONS = 5 }; /* of a three-dimensional convolution's A */

static int compare_halves(uint32_t a, uint32_t b, const void *context) {
    const half *x = (const half *)context + a, *y = (const half *)context + b;
    int order = hlc_bytes_compare(x->path, x->path_length, y->path, y->path_length);
    return order != 0 ? order : (int)x->part - (int)y->part;
}

static const hlc_tensor *tensor_of(const collection *c, const half *h) {
    return &c->table->tensors[h->tensor];
}

static const char *side(const half *h) {
    static const char *const names[] = {[HLC_PART_A] = "lora_A",
                                        [HLC_PART_B] = "lora_B",
                                        [HLC_PART_EMBEDDING_A] = "lora_embedding_A",
                                        [HLC_PART_EMBEDDING_B] = "lora_embedding_B",
                                        [HLC_PART_DIAGONAL] = "lora_E"};
    return names[h->part];
}

static bool is_b(const half *h) {
    return h->part == HLC_PART_B || h->part == HLC_PART_EMBEDDING_B;
}

static bool is_adalora(const collection *c) {
    return c->reading->config ? c->reading->config->adalora : c->counts[HLC_PART_DIAGONAL] > 0;
}

static bool check_dtype(collection *c, const half *h) {
    const hlc_tensor *tensor = tensor_of(c, h);
    if (hlc_tensor_dtype_weight(tensor->dtype) != HLF_DTYPE_NONE)
        return true;
    tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL, "the type %s is none of a LoRA weight: F16, BF16, F32 and F64 are read",
                 hlc_tensor_dtype_name(tensor->dtype));
    return false;
}

/* A half's shape. */
typedef struct form {
    uint64_t shape[MOST_DIMENSIONS];
    size_t dims;
    char text[HLC_SHAPE_SIZE];
} form;

static form form_of(const collection *c, const half *h) {
    const hlc_tensor *tensor = tensor_of(c, h);
    form f = {{0}, 0, ""};
    f.dims = hlc_tensor_shape(c->table, tensor, f.shape, MOST_DIMENSIONS);
    hlc_tensor_shape_text(c->table, tensor, f.text);
    return f;
}

/* Whether A and B have the dimensions of a matrix, or of a convolution and the 1 x 1 one behind it. */
static bool check_dimensions(collection *c, const half *a, const form *fa, const half *b, const form *fb) {
    if (fa->dims == 2 && fb->dims == 3) {
        tensor_fault(c, HLC_FAULT_TENSOR, tensor_of(c, b), "load and save the adapter with a newer PEFT",
                     "shape %s is that of enable_lora, of PEFT before 0.3, which is not supported", fb->text);
        return false;
    }
    const half *halves[] = {a, b};
    const form *forms[] = {fa, fb};
    bool good = true;
    for (int i = 0; i < 2; i++)
        if (forms[i]->dims < 2 || forms[i]->dims > MOST_DIMENSIONS) {
            tensor_fault(c, HLC_FAULT_TENSOR, tensor_of(c, halves[i]), NULL, "shape %s is no matrix%s", forms[i]->text,
                         forms[i]->dims > MOST_DIMENSIONS ? " and none of an adapted convolution" : "");
            good = false;
        }
    if (good && fa->dims != fb->dims) {
        tensor_fault(c, HLC_FAULT_TENSOR, tensor_of(c, b), NULL, "shape %s does not fit lora_A's %s", fb->text, fa->text);
        good = false;
    }
    for (size_t i = 2; good && i < fb->dims; i++)
        if (fb->shape[i] != 1) {
            tensor_fault(c, HLC_FAULT_TENSOR, tensor_of(c, b), NULL,
                         "shape %s is that of an adapted convolution whose lora_B has a kernel beside 1", fb->text);
            good = false;
        }
    return good;
}

/* rank: rows of A, or columns of B; dimension: the module's on this side, a product of `count` numbers. */
static bool check_numbers(collection *c, const half *h, const form *f, uint64_t rank, const uint64_t *parts, size_t count,
                          uint64_t *dimension) {
    const uint64_t most = c->reading->config && hlc_peft_config_parameters(c->reading->config) > 0 ? most_dimension : HLC_MOST_RANK;
    const hlc_tensor *tensor = tensor_of(c, h);
    bool fits = true;
    *dimension = 1;
    for (size_t i = 0; i < count; i++)
        fits = !__builtin_mul_overflow(*dimension, parts[i], dimension) && fits;
    if (rank == 0 && !is_adalora(c))
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL, "shape %s has rank 0", f->text);
    else if (fits && *dimension == 0)
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL, "shape %s has no %s", f->text, is_b(h) ? "outputs" : "inputs");
    else if (rank > most)
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL, "shape %s has rank %" PRIu64 "; at most %" PRIu64 " is read", f->text, rank, most);
    else if (!fits || *dimension > most_dimension)
        tensor_fault(c, HLC_FAULT_TENSOR, tensor, NULL, "shape %s has a dimension above %" PRIu64, f->text, most_dimension);
    else
        return true;
    return false;
}

/* What the shapes of A and B say about a module. */
static bool read_forms(collection *c, const half *a, const half *b, hlc_peft_module *out) {
    /* Spread out with its zeros, the B of a grouped convolution is rank x d_out numbers, whatever the file's size. */
    static const uint64_t most_spread = 1 << 24;
    bool good = check_dtype(c, a);
    good = check_dtype(c, b) && good;
    const form fa = form_of(c, a), fb = form_of(c, b);
    if (!check_dimensions(c, a, &fa, b, &fb))
        return false;
    const uint64_t columns = fb.shape[1];
    out->rank = fa.shape[0];
    good = check_numbers(c, a, &fa, fa.shape[0], fa.shape + 1, fa.dims - 1, &out->d_in) && good;
    good = check_numbers(c, b, &fb, columns, fb.shape, 1, &out->d_out) && good;
    const bool convolution = fa.dims > 2, grouped = convolution && columns && out->rank > columns && out->rank % columns == 0;
    if (good && out->rank != columns && !grouped) {
        tensor_fault(c, HLC_FAULT_RANKS_DIFFER, tensor_of(c, a), NULL, "lora_A has %" PRIu64 " rows but the module's lora_B has %" PRIu64 " columns",
                     out->rank, columns);
        return false;
    }
    if (!good || !convolution)
        return good;
    const uint64_t groups = out->rank / columns;
    if (out->d_out % groups != 0 || fa.shape[1] % groups != 0 || (groups > 1 && out->d_out > most_spread / out->rank)) {
        tensor_fault(c, HLC_FAULT_TENSOR, tensor_of(c, b), NULL, "shape %s beside lora_A's %s is none of a convolution in %" PRIu64 " groups%s",
                     fb.text, fa.text, groups, groups > 1 && out->d_out > most_spread / out->rank ? " that is read" : "");
        return false;
    }
    out->kind = HLC_MODULE_CONV1D + (hlc_module_kind)(fa.dims - 3);
    for (size_t i = 1; i < fa.dims; i++)
        out->geometry[i - 1] = (uint32_t)fa.shape[i];
    out->geometry[4] = (uint32_t)groups;
    return true;
}

/* ---- The parts of each module ---- */

static bool fill_source(const collection *c, const half *h, uint64_t rows, uint64_t cols, hlc_matrix_source *out) {
    const hlc_tensor *tensor = tensor_of(c, h);
    *out = (hlc_matrix_source){.offset = c->table->data_at + tensor->begin,
                               .rows = rows,
                               .cols = cols,
                               .dtype = hlc_tensor_dtype_weight(tensor->dtype)};
    return hlc_string_copy(&out->key, tensor->name, tensor->name_length);
}

static void free_module(hlc_peft_module *module) {
    hlc_string_free(&module->path);
    hlc_string_free(&module->a.key);
    hlc_string_free(&module->b.key);
    hlc_string_free(&module->e.key);
}

static bool check_diagonal(collection *c, const half *e, uint64_t rank) {
    const form f = form_of(c, e);
    bool good = check_dtype(c, e);
    if (f.dims == 2 && f.shape[0] == rank && f.shape[1] == 1)
        return good;
    tensor_fault(c, HLC_FAULT_TENSOR, tensor_of(c, e), NULL, "shape %s does not fit lora_A's rank %" PRIu64, f.text, rank);
    return false;
}

/* e: NULL without. False only when memory is out. */
static bool add_update(collection *c, const half *a, const half *b, const half *e) {
    hlc_peft_module *module = &c->out->modules[c->out->count];
    *module = (hlc_peft_module){.kind = a->part == HLC_PART_EMBEDDING_A ? HLC_MODULE_EMBEDDING : HLC_MODULE_LINEAR};
    module->config_length = a->path_length;
    if (!read_forms(c, a, b, module) || (e && !check_diagonal(c, e, module->rank)))
        return true;
    if (module->kind != HLC_MODULE_LINEAR && is_adalora(c)) {
        tensor_fault(c, HLC_FAULT_TENSOR, tensor_of(c, a), NULL, "this is no shape or name that AdaLoRA gives its weights");
        return true;
    }
    c->bare[c->out->count] = !a->weight || !b->weight;
    if (!hlc_string_copy(&module->path, a->path, a->path_length) ||
        !fill_source(c, a, module->rank, module->d_in, &module->a) ||
        !fill_source(c, b, module->d_out, module->rank, &module->b) ||
        (e && !fill_source(c, e, module->rank, 1, &module->e))) {
        free_module(module);
        return false;
    }
    module->b.groups = module->geometry[4];
    if (a->inside && b->inside)
        module->config_length = a->inside; /* settled when the module around it is known */
    c->out->count++;
    return true;
}

static bool check_repeats(collection *c, const uint32_t *group, size_t size) {
    bool good = true;
    for (size_t i = 1; i < size; i++) {
        const half *before = &c->halves[group[i - 1]], *h = &c->halves[group[i]];
        if (before->part != h->part)
            continue;
        char place[HLC_PLACE_SIZE];
        good = false;
        tensor_fault(c, HLC_FAULT_TWICE, tensor_of(c, h), NULL, "the module has a second %s, %s", side(h),
                     hlc_place(place, "besides", tensor_of(c, before)->name, tensor_of(c, before)->name_length));
    }
    return good;
}

/* group: the halves of one module, by part. False only when memory is out. */
static bool add_module(collection *c, const uint32_t *group, size_t size) {
    const half *first = &c->halves[group[0]], *of[HLC_PART_DIAGONAL + 1] = {NULL};
    bool good = check_repeats(c, group, size);
    if (first->path_length > MOST_MODULE_BYTES) {
        tensor_fault(c, HLC_FAULT_TENSOR, tensor_of(c, first), NULL, "the module's path has %u bytes; at most %d are read",
                     first->path_length, MOST_MODULE_BYTES);
        return true;
    }
    if (!good)
        return true;
    for (size_t i = 0; i < size; i++)
        of[c->halves[group[i]].part] = &c->halves[group[i]];
    const bool embedding = of[HLC_PART_EMBEDDING_A] || of[HLC_PART_EMBEDDING_B];
    const half *e = of[HLC_PART_DIAGONAL];
    if (embedding && (of[HLC_PART_A] || of[HLC_PART_B])) {
        tensor_fault(c, HLC_FAULT_TWICE, tensor_of(c, first), NULL, "the module is adapted both as an embedding and as a layer");
        return true;
    }
    const half *a = of[embedding ? HLC_PART_EMBEDDING_A : HLC_PART_A], *b = of[embedding ? HLC_PART_EMBEDDING_B : HLC_PART_B];
    if (!a || !b)
        tensor_fault(c, HLC_FAULT_HALF, tensor_of(c, first), "save the adapter again: it is not complete", "the module has %s but no %s",
                     side(first), a ? (embedding ? "lora_embedding_B" : "lora_B") : embedding ? "lora_embedding_A" : "lora_A");
    else if (is_adalora(c) && !e)
        tensor_fault(c, HLC_FAULT_HALF, tensor_of(c, a), "save the adapter again: it is not complete", "the module has no lora_E");
    else if (!is_adalora(c) && e)
        tensor_fault(c, HLC_FAULT_TENSOR, tensor_of(c, e), NULL, "a lora_E is AdaLoRA's, but the configuration's peft_type is LORA");
    else
        return add_update(c, a, b, e);
    return true;
}

static bool pair_halves(collection *c) {
    uint32_t *order = hlc_sorted_numbers(c->half_count, compare_halves, c->halves);
    c->out->modules = calloc(c->half_count / 2 + 1, sizeof *c->out->modules);
    c->bare = calloc(c->half_count / 2 + 1, sizeof *c->bare);
    bool ok = order && c->out->modules && c->bare;
    for (size_t i = 0; ok && i < c->half_count;) {
        const half *h = &c->halves[order[i]];
        size_t end = i + 1;
        while (end < c->half_count && hlc_bytes_compare(h->path, h->path_length, c->halves[order[end]].path,
                                                        c->halves[order[end]].path_length) == 0)
            end++;
        ok = add_module(c, order + i, end - i);
        i = end;
    }
    free(order);
    return ok;
}

/* ---- MultiheadAttention: the packed projection X, and X.base_layer.out_proj inside of it ---- */

static hlc_peft_module *find_module(const hlc_peft_tensors *tensors, const char *path, size_t length) {
    size_t low = 0, high = tensors->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        hlc_peft_module *module = &tensors->modules[middle];
        int order = hlc_bytes_compare(module->path.bytes, module->path.length, path, length);
        if (order == 0)
            return module;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static bool is_whole_linear(const hlc_peft_module *module) {
    return module->kind == HLC_MODULE_LINEAR && module->config_length == module->path.length;
}

static void settle_attention(const collection *c) {
    for (size_t i = 0; i < c->out->count; i++) {
        hlc_peft_module *inner = &c->out->modules[i];
        if (inner->config_length == inner->path.length)
            continue;
        hlc_peft_module *outer = find_module(c->out, inner->path.bytes, inner->config_length);
        const bool out_proj = hlc_bytes_equal(inner->path.bytes + inner->config_length,
                                              inner->path.length - inner->config_length, ".out_proj");
        if (out_proj && outer && is_whole_linear(outer) && inner->kind == HLC_MODULE_LINEAR &&
            outer->d_out == 3 * outer->d_in && inner->d_in == outer->d_in && inner->d_out == outer->d_in) {
            outer->kind = HLC_MODULE_ATTENTION_QKV;
            outer->geometry[0] = 3;
            c->bare[outer - c->out->modules] = c->bare[i] = false;
        } else {
            inner->config_length = inner->path.length;
        }
    }
}

/* Names without ".weight" are those of AdaLoRA and of embeddings, and of MultiheadAttention in older files. */
static void check_names(collection *c) {
    for (size_t i = 0; i < c->out->count; i++) {
        const hlc_peft_module *module = &c->out->modules[i];
        if (!c->bare[i] || module->kind == HLC_MODULE_EMBEDDING || is_adalora(c))
            continue;
        char place[HLC_PLACE_SIZE];
        c->out->good = false;
        hlc_fault(c->faults, HLC_ERROR, HLC_FAULT_TENSOR, c->table->path,
                  hlc_place(place, "tensor", module->a.key.bytes, module->a.key.length), "save the adapter with save_pretrained",
                  "the name lacks '.weight' and is none of MultiheadAttention, which has an out_proj beside");
    }
}

bool hlc_peft_tensors_read(const hlc_peft_reading *reading, hlc_peft_tensors *out, hlc_faults *faults) {
    *out = (hlc_peft_tensors){.good = true};
    collection c = {.reading = reading, .table = reading->table, .faults = faults, .out = out};
    bool ok = sort_into_parts(&c);
    if (ok) {
        refuse_unsupported(&c);
        out->extras = count_extras(&c);
        if (out->extras == c.table->count)
            refuse_without_lora(&c);
        else if (!out->foreign)
            treat_extras(&c);
        ok = pair_halves(&c);
    }
    if (ok) {
        settle_attention(&c);
        check_names(&c);
    }
    free(c.halves);
    free(c.renamed);
    free(c.bare);
    if (!ok) {
        hlc_peft_tensors_free(out);
        hlc_out_of_memory(faults, c.table->path, c.table->count * sizeof(half));
    }
    return ok;
}

void hlc_peft_tensors_free(hlc_peft_tensors *tensors) {
    for (size_t i = 0; i < tensors->count; i++)
        free_module(&tensors->modules[i]);
    free(tensors->modules);
    *tensors = (hlc_peft_tensors){0};
}
