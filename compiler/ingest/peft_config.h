/* PEFT's adapter_config.json: what it says about rank and scale, and what in it makes an adapter unfit for a pool
 * (docs/INPUTS.md). */
#ifndef HILORA_COMPILER_PEFT_CONFIG_H
#define HILORA_COMPILER_PEFT_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler/base/faults.h"
#include "compiler/base/text.h"
#include "compiler/ingest/adapter.h"
#include "compiler/ingest/key_pattern.h"

enum { HLC_CONFIG_MOST_BYTES = 16 << 20, HLC_MOST_RANK = 65535 };

typedef enum hlc_config_state {
    HLC_CONFIG_GOOD,
    HLC_CONFIG_FAULTY, /* errors were added; what could be read is there */
    HLC_CONFIG_FOREIGN /* of no LoRA, or no JSON: an error was added, and nothing else of the adapter is worth a look */
} hlc_config_state;

/* One entry of rank_pattern or alpha_pattern. */
typedef struct hlc_pattern_value {
    hlc_key_pattern pattern;
    double value;
} hlc_pattern_value;

typedef struct hlc_pattern_map {
    hlc_pattern_value *entries; /* in the file's order: the first match counts */
    size_t count;
} hlc_pattern_map;

/* Not to be shared by threads: matching uses up the matcher's steps. */
typedef struct hlc_peft_config {
    hlc_config_state state;
    hlc_string base_model, revision; /* empty where not said; no NUL in them */
    bool biases;                     /* bias is "all" or "lora_only" */
    bool adalora;                    /* peft_type ADALORA: keys without ".weight", a lora_E, ranks in lists of booleans */
    bool fan_in_fan_out;
    hlc_expert_layout expert_layout; /* lora_B_layout */
    bool swaps_experts; /* saved by PEFT 0.19 or later, which knows the (experts, out, in) order of fused parameters */
    /* Private. */
    const char *path, *within;
    json_t *root;
    bool rank_known, alpha_known, rslora, gave_up;
    double init_rank; /* AdaLoRA's r */
    double rank, alpha;
    const json_t *parameters; /* target_parameters; NULL without */
    hlc_pattern_map ranks, alphas;
    hlc_matcher matcher;
} hlc_peft_config;

/* text: the JSON; it, path and within must live as long as the config. path: the file it stands in; within: where in
 * the file
 * ("metadata key 'x'"), or NULL. drop_extras: what is no low-rank update is warned about, not refused. NULL when memory
 * is out. */
hlc_peft_config *hlc_peft_config_read(const char *path, const char *within, const hlc_string *text, bool drop_extras,
                                      hlc_faults *faults);
void hlc_peft_config_free(hlc_peft_config *config);

/* Rank and scale of a module (its path without "base_model.model."). False when they are not known; the fault was
 * added. An AdaLoRA module may have rank 0. */
bool hlc_peft_config_resolve(hlc_peft_config *config, const char *module, size_t length, uint32_t *rank, double *scale,
                             hlc_faults *faults);
/* Adds a fault about a key, where the configuration stands. */
void hlc_peft_config_fault(const hlc_peft_config *config, hlc_faults *faults, hlc_severity severity, hlc_fault_kind kind,
                           const char *key, const char *remedy, const char *reason);

/* target_parameters: how many, and the i-th. */
size_t hlc_peft_config_parameters(const hlc_peft_config *config);
const char *hlc_peft_config_parameter(const hlc_peft_config *config, size_t i, size_t *length);
/* Whether JSON text is an object with this key at its top; false for text that is no JSON. */
bool hlc_json_has_key(const char *text, size_t length, const char *key);

#endif
