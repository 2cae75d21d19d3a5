#include "compiler/ingest/peft_targets.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/ingest/order.h"

/* Against files whose few bytes stand for many experts. */
enum { MOST_EXPERT_TARGETS = 200000, MOST_EXPERT_PATH = 512 };
/* Of one module's parameters: they nest in an order that the file does not tell, and are told apart by their ranks. */
enum { MOST_NESTED = 4, MOST_SETTINGS = 4 };

static const char inner[] = ".base_layer";

typedef struct making {
    const hlc_peft_tensors *tensors;
    hlc_peft_config *config;
    const hlc_ingest_options *options;
    const char *weights;
    hlc_faults *faults;
    hlc_peft_targets *out;
    size_t capacity, experts;
    hlc_expert_layout layout;
    size_t unsettled; /* fused parameters whose layout is not known */
    bool zero_scale;
    bool no_memory, gave_up;
} making;

static void module_fault(making *m, hlc_fault_kind kind, const hlc_peft_module *module, const char *remedy,
                         const char *format, ...) __attribute__((format(printf, 5, 6)));
static void module_fault(making *m, hlc_fault_kind kind, const hlc_peft_module *module, const char *remedy,
                         const char *format, ...) {
    char place[HLC_PLACE_SIZE], reason[512];
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(reason, sizeof reason, format, arguments) < 0)
        reason[0] = '\0';
    va_end(arguments);
    hlc_fault(m->faults, HLC_ERROR, kind, m->weights,
              hlc_place(place, "tensor", module->a.key.bytes, module->a.key.length), remedy, "%s", reason);
    m->out->good = false;
}

/* ---- Targets ---- */

/* An empty one at the end; NULL when memory is out. */
static hlc_target *new_target(making *m) {
    hlc_peft_targets *out = m->out;
    if (out->count == m->capacity) {
        size_t capacity = m->capacity > 0 ? 2 * m->capacity : m->tensors->count + 1;
        hlc_target *larger = realloc(out->targets, capacity * sizeof *larger);
        if (!larger) {
            m->no_memory = true;
            return NULL;
        }
        out->targets = larger;
        m->capacity = capacity;
    }
    out->targets[out->count] = (hlc_target){.rank = 0};
    return &out->targets[out->count++];
}

static bool copy_source(const hlc_matrix_source *from, hlc_matrix_source *to) {
    *to = *from;
    return hlc_string_copy(&to->key, from->key.bytes, from->key.length);
}

/* A module whose update is one A and one B. */
static void add_whole(making *m, const hlc_peft_module *module, uint32_t rank, double scale) {
    hlc_target *target = new_target(m);
    if (!target)
        return;
    *target = (hlc_target){.kind = module->kind, .d_in = module->d_in, .d_out = module->d_out, .rank = rank, .scale = scale};
    memcpy(target->geometry, module->geometry, sizeof target->geometry);
    m->no_memory |= !hlc_string_copy(&target->module, module->path.bytes, module->path.length) ||
                    !copy_source(&module->a, &target->a) || !copy_source(&module->b, &target->b) ||
                    (module->e.key.bytes && !copy_source(&module->e, &target->e));
    m->zero_scale |= scale == 0;
}

/* The rows of A and the columns of B that are expert e's: A is expert after expert; B is by the layout. */
static void take_expert(const hlc_peft_module *module, hlc_expert_layout layout, uint32_t rank, uint32_t experts, uint32_t e,
                        hlc_target *target) {
    const uint64_t a_size = hlf_dtype_size(module->a.dtype), b_size = hlf_dtype_size(module->b.dtype);
    target->a.rows = rank;
    target->a.offset += (uint64_t)e * rank * module->d_in * a_size;
    target->b.cols = rank;
    target->b.row_step = module->rank;
    target->b.column_step = layout == HLC_EXPERTS_GROUPED ? 1 : experts;
    target->b.tensor_offset = module->b.offset;
    target->b.tensor_bytes = module->d_out * module->rank * b_size;
    target->b.offset += (layout == HLC_EXPERTS_GROUPED ? (uint64_t)e * rank : e) * b_size;
}

static void add_experts(making *m, const hlc_peft_module *module, uint32_t rank, uint32_t experts, double scale) {
    for (uint32_t e = 0; e < experts && !m->no_memory; e++) {
        hlc_target *target = new_target(m);
        if (!target)
            return;
        *target = (hlc_target){.kind = HLC_MODULE_EXPERTS,
                               .geometry = {experts, e},
                               .d_in = module->d_in,
                               .d_out = module->d_out,
                               .rank = rank,
                               .scale = scale};
        char name[MOST_EXPERT_PATH + 16];
        memcpy(name, module->path.bytes, module->path.length);
        int number = snprintf(name + module->path.length, 16, "[%" PRIu32 "]", e);
        m->no_memory |= !hlc_string_copy(&target->module, name, module->path.length + (size_t)number) ||
                        !copy_source(&module->a, &target->a) || !copy_source(&module->b, &target->b);
        take_expert(module, m->layout, rank, experts, e, target);
    }
    m->zero_scale |= scale == 0;
}

static void add_fused(making *m, const hlc_peft_module *module, uint32_t rank, double scale) {
    const uint64_t experts = module->rank / rank;
    if (experts > MOST_EXPERT_TARGETS - m->experts || module->path.length > MOST_EXPERT_PATH) {
        module_fault(m, HLC_FAULT_UNSUPPORTED, module, NULL, "%" PRIu64 " experts of one parameter; at most %d of an adapter are read, in modules of at most %d bytes",
                     experts, MOST_EXPERT_TARGETS, MOST_EXPERT_PATH);
        return;
    }
    m->experts += (size_t)experts;
    m->out->expert_layout = m->layout;
    if (m->layout == HLC_EXPERTS_UNKNOWN)
        m->unsettled++;
    else
        add_experts(m, module, rank, (uint32_t)experts, scale);
}

/* ---- Ordinary modules ---- */

static bool resolve(making *m, const char *path, size_t length, uint32_t *rank, double *scale) {
    if (!m->gave_up && !hlc_peft_config_resolve(m->config, path, length, rank, scale, m->faults))
        m->gave_up = true;
    return !m->gave_up;
}

static void add_ordinary(making *m, const hlc_peft_module *module) {
    uint32_t rank;
    double scale;
    char place[HLC_PLACE_SIZE];
    if (!resolve(m, module->path.bytes, module->config_length, &rank, &scale))
        return;
    if (rank != module->rank)
        module_fault(m, HLC_FAULT_RANK_CONFIG, module, NULL, "the rank is %" PRIu64 ", but the configuration says %" PRIu32 " for this module",
                     module->rank, rank);
    else if (rank == 0)
        hlc_fault(m->faults, HLC_NOTE, HLC_FAULT_TENSOR, m->weights,
                  hlc_place(place, "module", module->path.bytes, module->path.length), NULL,
                  "AdaLoRA pruned it to rank 0, so there is nothing of it to keep");
    else
        add_whole(m, module, rank, scale);
}

/* ---- LoRA on parameters ---- */

/* What one parameter of a module may have. */
typedef struct setting {
    uint32_t rank;
    double scale;
    uint32_t parameters; /* so many of the names in target_parameters have it */
} setting;

typedef struct settings {
    setting list[MOST_SETTINGS];
    size_t count;
    bool dotted; /* a name says which module it means, not the parameter alone */
    bool too_many;
} settings;

/* Whether a name of target_parameters may mean a parameter of the module; *last: where its last segment starts. */
static bool names_parameter_of(const char *name, size_t length, const hlc_string *module, size_t module_length, size_t *last) {
    size_t dot = length;
    while (dot > 0 && name[dot - 1] != '.')
        dot--;
    *last = dot;
    if (dot == 0)
        return length > 0;
    const size_t prefix = dot - 1;
    if (prefix > module_length || memcmp(module->bytes + (module_length - prefix), name, prefix) != 0)
        return false;
    return prefix == module_length || (prefix > 0 && module->bytes[module_length - prefix - 1] == '.');
}

static void add_setting(settings *s, uint32_t rank, double scale) {
    for (size_t i = 0; i < s->count; i++)
        if (s->list[i].rank == rank && s->list[i].scale == scale) {
            s->list[i].parameters++;
            return;
        }
    if (s->count == MOST_SETTINGS)
        s->too_many = true;
    else
        s->list[s->count++] = (setting){rank, scale, 1};
}

/* What the parameters of the module that the configuration names have, by PEFT's rule: patterns match MODULE.PARAMETER. */
static bool list_settings(making *m, const hlc_string *path, size_t length, settings *out) {
    *out = (settings){.count = 0};
    for (size_t i = 0; i < hlc_peft_config_parameters(m->config); i++) {
        size_t name_length, last;
        const char *name = hlc_peft_config_parameter(m->config, i, &name_length);
        if (!hlc_matcher_spend(&m->config->matcher, 1 + name_length / 64)) {
            hlc_peft_config_fault(m->config, m->faults, HLC_ERROR, HLC_FAULT_CONFIG, "target_parameters", NULL, "the names need too many steps");
            m->gave_up = true;
            return false;
        }
        if (!names_parameter_of(name, name_length, path, length, &last))
            continue;
        hlc_text full = {0};
        uint32_t rank = 0;
        double scale = 0;
        hlc_text_append(&full, path->bytes, length);
        hlc_text_append(&full, ".", 1);
        m->no_memory |= !hlc_text_append(&full, name + last, name_length - last) || full.failed;
        const bool good = !m->no_memory && resolve(m, full.bytes, full.length, &rank, &scale);
        hlc_text_free(&full);
        if (!good)
            return false;
        out->dotted |= last > 0;
        add_setting(out, rank, scale);
    }
    return true;
}

/* The parameters of one module, from the outermost in. */
typedef struct nest {
    const hlc_peft_module *modules[MOST_NESTED];
    size_t count, choice[MOST_NESTED], found[MOST_NESTED], solutions;
    uint64_t experts, found_experts;
} nest;

/* Tries the settings for the i-th parameter and those behind it. All parameters of a module have the same experts. */
static void assign(nest *n, settings *s, size_t i) {
    if (i >= n->count || i >= MOST_NESTED) {
        n->solutions++;
        memcpy(n->found, n->choice, sizeof n->found);
        n->found_experts = n->experts;
        return;
    }
    for (size_t k = 0; k < s->count; k++) {
        const uint64_t rank = s->list[k].rank, rows = n->modules[i]->rank;
        if (s->list[k].parameters == 0 || rows % rank != 0 || (i > 0 && rows / rank != n->experts))
            continue;
        n->experts = rows / rank;
        s->list[k].parameters--;
        n->choice[i] = k;
        assign(n, s, i + 1);
        s->list[k].parameters++;
        n->experts = i > 0 ? n->experts : 0;
    }
}

static void add_parameters(making *m, nest *n, settings *s) {
    const hlc_peft_module *outermost = n->modules[0];
    assign(n, s, 0);
    if (n->solutions == 0) {
        module_fault(m, HLC_FAULT_RANK_CONFIG, outermost, NULL, "the rows of its %s fit no rank that the configuration has for the parameters in "
                     "target_parameters (rank x experts)", n->count > 1 ? "parameters' lora_A" : "lora_A");
        return;
    }
    if (n->solutions > 1) {
        module_fault(m, HLC_FAULT_RANK_CONFIG, outermost, "give all of its parameters one rank and one alpha",
                     "several ranks fit its rows: the file does not say which of target_parameters it is");
        return;
    }
    for (size_t i = 0; i < n->count; i++) {
        const setting *chosen = &s->list[n->found[i]];
        if (n->modules[i]->kind != HLC_MODULE_LINEAR)
            module_fault(m, HLC_FAULT_TENSOR, n->modules[i], NULL, "LoRA on a parameter, yet with the shape of a convolution");
        else if (n->found_experts == 1)
            add_whole(m, n->modules[i], chosen->rank, chosen->scale);
        else
            add_fused(m, n->modules[i], chosen->rank, chosen->scale);
    }
}

static const hlc_peft_module *find_module(const hlc_peft_tensors *tensors, const char *path, size_t length) {
    size_t low = 0, high = tensors->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const hlc_peft_module *module = &tensors->modules[middle];
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

/* The module and its "X.base_layer", "X.base_layer.base_layer", ... False when they are too many, or memory is out. */
static bool list_nest(making *m, const hlc_peft_module *module, nest *out) {
    hlc_text path = {0};
    *out = (nest){.count = 1};
    out->modules[0] = module;
    hlc_text_append(&path, module->path.bytes, module->path.length);
    for (;;) {
        if (!hlc_text_append(&path, inner, sizeof inner - 1)) {
            m->no_memory = true;
            break;
        }
        const hlc_peft_module *next = find_module(m->tensors, path.bytes, path.length);
        if (!next)
            break;
        if (out->count == MOST_NESTED) {
            module_fault(m, HLC_FAULT_UNSUPPORTED, next, NULL, "more than %d parameters of one module", MOST_NESTED);
            hlc_text_free(&path);
            return false;
        }
        out->modules[out->count++] = next;
    }
    hlc_text_free(&path);
    return !m->no_memory;
}

static bool is_inner(const hlc_peft_module *module) {
    return hlc_bytes_end(module->path.bytes, module->path.length, inner);
}

/* One that is inside of others is taken with the outermost. */
static void check_inner(making *m, const hlc_peft_module *module) {
    size_t length = module->path.length;
    while (hlc_bytes_end(module->path.bytes, length, inner))
        length -= sizeof inner - 1;
    if (!find_module(m->tensors, module->path.bytes, length))
        module_fault(m, HLC_FAULT_HALF, module, "save the adapter again: it is not complete",
                     "the name has a base_layer, as the inner ones of several parameters have, but there is no outer one");
}

static void add_module(making *m, const hlc_peft_module *module) {
    nest n;
    settings s;
    if (is_inner(module)) {
        check_inner(m, module);
        return;
    }
    if (!list_nest(m, module, &n) || !list_settings(m, &module->path, module->path.length, &s))
        return;
    uint32_t rank;
    double scale;
    if (n.count == 1 && !s.dotted) {
        if (s.count > 0 && !resolve(m, module->path.bytes, module->config_length, &rank, &scale))
            return;
        if (s.count == 0 || rank == module->rank) { /* a bare name means any module that has such a parameter */
            add_ordinary(m, module);
            return;
        }
    }
    if (s.count == 0)
        module_fault(m, HLC_FAULT_RANK_CONFIG, n.modules[1], NULL,
                     "the name has a base_layer, as LoRA on several parameters has, but target_parameters names none of this module");
    else if (s.too_many)
        module_fault(m, HLC_FAULT_UNSUPPORTED, module, NULL, "its parameters have more than %d ranks and scales", MOST_SETTINGS);
    else
        add_parameters(m, &n, &s);
}

/* ---- The whole ---- */

static void report_layout(making *m) {
    if (m->unsettled > 0) {
        hlc_fault(m->faults, HLC_ERROR, HLC_FAULT_UNSUPPORTED, m->weights, NULL,
                  "--expert-layout rank-major for what PEFT trained and saved, grouped for Unsloth before September 2026 and for Megatron-Bridge",
                  "%zu fused parameters of experts, and nothing says how the columns of lora_B are ordered: programs differ, with "
                  "the same names and shapes", m->unsettled);
        m->out->good = false;
    } else if (m->experts > 0 && !m->config->swaps_experts && m->config->expert_layout == HLC_EXPERTS_UNKNOWN) {
        hlc_fault(m->faults, HLC_WARNING, HLC_FAULT_UNSUPPORTED, m->weights, NULL, "check a module with --base-model",
                  "not known to be saved by PEFT 0.19 or later: before, A and B of parameters that are (experts, outputs, inputs) "
                  "stood for outputs and inputs exchanged");
    }
}

static int compare_names(uint32_t a, uint32_t b, const void *context) {
    const hlc_target *x = (const hlc_target *)context + a, *y = (const hlc_target *)context + b;
    return hlc_bytes_compare(x->module.bytes, x->module.length, y->module.bytes, y->module.length);
}

/* Sorted, and no name twice: "x[0]" may be a module's own name, too. */
static void sort_targets(making *m) {
    hlc_peft_targets *out = m->out;
    uint32_t *order = hlc_sorted_numbers(out->count, compare_names, out->targets);
    hlc_target *sorted = malloc((out->count + 1) * sizeof *sorted);
    m->no_memory |= !order || !sorted;
    if (!m->no_memory) {
        for (size_t i = 0; i < out->count; i++) {
            sorted[i] = out->targets[order[i]];
            char place[HLC_PLACE_SIZE];
            const hlc_string *name = &sorted[i].module;
            if (i > 0 && hlc_bytes_compare(name->bytes, name->length, sorted[i - 1].module.bytes, sorted[i - 1].module.length) == 0) {
                hlc_error(m->faults, HLC_FAULT_TWICE, m->weights, hlc_place(place, "module", name->bytes, name->length),
                              "a module and an expert have this name");
                out->good = false;
            }
        }
        free(out->targets);
        out->targets = sorted;
        sorted = NULL;
    }
    free(sorted);
    free(order);
}

bool hlc_peft_targets_make(const hlc_peft_tensors *tensors, hlc_peft_config *config, const hlc_ingest_options *options,
                           const char *weights, hlc_peft_targets *out, hlc_faults *faults) {
    *out = (hlc_peft_targets){.good = true};
    making m = {.tensors = tensors, .config = config, .options = options, .weights = weights, .faults = faults, .out = out};
    m.layout = config->expert_layout != HLC_EXPERTS_UNKNOWN ? config->expert_layout : options->expert_layout;
    for (size_t i = 0; i < tensors->count && !m.no_memory && !m.gave_up; i++)
        add_module(&m, &tensors->modules[i]);
    out->good = out->good && !m.gave_up;
    report_layout(&m);
    if (!m.no_memory)
        sort_targets(&m);
    if (out->good && tensors->good && tensors->count > 0 && out->count == 0) {
        hlc_error(faults, HLC_FAULT_NO_LORA, weights, NULL, "AdaLoRA pruned every module to rank 0: nothing is left");
        out->good = false;
    }
    if (m.zero_scale)
        hlc_peft_config_fault(config, faults, HLC_WARNING, HLC_FAULT_ZERO_SCALE, NULL, NULL,
                              "lora_alpha is 0 for some modules, so their update is zero");
    if (m.no_memory) {
        hlc_targets_free(out->targets, out->count);
        *out = (hlc_peft_targets){0};
        hlc_out_of_memory(faults, weights, m.capacity * sizeof(hlc_target));
    }
    return !m.no_memory;
}
