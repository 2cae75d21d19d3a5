#include "compiler/rules/adapter_rules.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compiler/rules/rule_table.h"

static void report(const hlc_adapter *adapter, hlc_fault_kind kind, const char *place, const char *reason,
                   hlc_faults *faults) {
    const hlc_rule *rule = &hlc_rules[hlc_rule_of_kind(kind)];
    hlc_fault(faults, rule->severity, kind, adapter->config_path ? adapter->config_path : adapter->path, place,
              rule->remedy, "%s", reason);
}

/* What a configuration says of all modules. Defaults as PEFT's. */
typedef struct general {
    double rank, alpha;
    bool rslora, patterns;
} general;

static bool is_filled(const json_t *value) {
    return json_object_size(value) > 0;
}

static double number_of(const json_t *root, const char *key, double otherwise) {
    const json_t *value = json_object_get(root, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

static bool nearly(double a, double b) {
    return fabs(a - b) <= 1e-9 * fabs(b);
}

/* What llama.cpp's converter does: alpha over the tensor's rank. */
static double llama_scale(const general *g, const hlc_target *target) {
    return g->alpha / target->rank;
}

/* What vLLM does, and LoRAX in this respect: the general alpha and rank for every module. */
static double global_scale(const general *g) {
    return g->rslora ? g->alpha / sqrt(g->rank) : g->alpha / g->rank;
}

static void check_rslora(const hlc_adapter *adapter, const general *g, hlc_faults *faults) {
    double most = 1;
    for (size_t i = 0; g->rslora && i < adapter->target_count; i++) {
        most = fmax(most, sqrt((double)adapter->targets[i].rank));
    }
    if (most > 1) {
        char reason[160];
        snprintf(reason, sizeof reason,
                 "the scale is alpha / sqrt(r); llama.cpp reads alpha / r, up to %.3g times too weak", most);
        report(adapter, HLC_FAULT_RSLORA, "key 'use_rslora'", reason, faults);
    }
}

/* rsLoRA's own difference is told by its own rule. */
static void check_patterns(const hlc_adapter *adapter, const general *g, hlc_faults *faults) {
    size_t global = 0, llama = 0;
    const hlc_target *first = NULL;
    for (size_t i = 0; g->patterns && i < adapter->target_count; i++) {
        const hlc_target *target = &adapter->targets[i];
        const bool off_global = !nearly(global_scale(g), target->scale);
        const bool off_llama = !g->rslora && !nearly(llama_scale(g, target), target->scale);
        global += off_global;
        llama += off_llama;
        first = !first && (off_global || off_llama) ? target : first;
    }
    if (first) {
        char reason[200], place[HLC_PLACE_SIZE];
        snprintf(reason, sizeof reason,
                 "vLLM and LoRAX scale %zu of %zu modules differently, llama.cpp %zu, such as this one", global,
                 adapter->target_count, llama);
        report(adapter, HLC_FAULT_PATTERNS, hlc_place(place, "module", first->module.bytes, first->module.length),
               reason, faults);
    }
}

/* False when memory is out: the text was read before. */
static bool check_scale(const hlc_adapter *adapter, hlc_faults *faults) {
    json_error_t error;
    if (adapter->dialect != HLC_DIALECT_PEFT || !adapter->config_text.length) {
        return true;
    }
    json_t *root = json_loadb(adapter->config_text.bytes, adapter->config_text.length, JSON_ALLOW_NUL, &error);
    const general g = {.rank = number_of(root, "r", 8),
                       .alpha = number_of(root, "lora_alpha", 8),
                       .rslora = json_is_true(json_object_get(root, "use_rslora")),
                       .patterns = is_filled(json_object_get(root, "rank_pattern")) ||
                                   is_filled(json_object_get(root, "alpha_pattern"))};
    check_rslora(adapter, &g, faults);
    check_patterns(adapter, &g, faults);
    json_decref(root);
    return root != NULL;
}

static void check_types(const hlc_adapter *adapter, hlc_faults *faults) {
    const hlf_dtype first = adapter->targets[0].a.dtype;
    for (size_t i = 0; i < adapter->target_count; i++) {
        const hlc_target *target = &adapter->targets[i];
        const hlc_matrix_source *other = target->a.dtype != first   ? &target->a
                                         : target->b.dtype != first ? &target->b
                                                                    : NULL;
        if (other) {
            const hlc_rule *rule = &hlc_rules[hlc_rule_of_kind(HLC_FAULT_MIXED_TYPES)];
            char place[HLC_PLACE_SIZE];
            hlc_fault(faults, rule->severity, rule->kind, adapter->path,
                      hlc_place(place, "tensor", other->key.bytes, other->key.length), rule->remedy,
                      "its element type is not that of the other tensors");
            return;
        }
    }
}

bool hlc_check_adapter_rules(const hlc_adapter *adapter, hlc_faults *faults) {
    check_types(adapter, faults);
    return check_scale(adapter, faults);
}
