/* Rank and scale of a module by its configuration. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compiler/ingest/peft_config.h"

enum { PATH_BYTES = 4096 }; /* of a module, at most */

static void give_up(hlc_peft_config *config, const char *key, const hlc_key_pattern *pattern, hlc_match match,
                    hlc_faults *faults) {
    char place[HLC_PLACE_SIZE], reason[HLC_PLACE_SIZE + 64];
    config->gave_up = true;
    config->state = HLC_CONFIG_FAULTY;
    if (match == HLC_MATCH_NO_MEMORY) {
        hlc_out_of_memory(faults, config->path, 0);
        return;
    }
    hlc_place(place, "pattern", pattern->text, pattern->length);
    snprintf(reason, sizeof reason, "%s: %s", place,
             match == HLC_MATCH_SPENT ? "all patterns together need too many steps" : "it needs too many steps");
    hlc_peft_config_fault(config, faults, HLC_ERROR, HLC_FAULT_CONFIG, key, "write simpler patterns", reason);
}

/* As in PEFT: the first pattern that matches, else the entry whose key is the path itself, else the general value. */
static bool look_up(hlc_peft_config *config, const char *key, const hlc_pattern_map *map, const char *module,
                    size_t length, double *value, hlc_faults *faults) {
    const hlc_pattern_value *same = NULL;
    for (size_t i = 0; i < map->count; i++) {
        const hlc_pattern_value *entry = &map->entries[i];
        hlc_match match = hlc_key_pattern_match(&entry->pattern, &config->matcher, module, length);
        if (match == HLC_MATCH_YES) {
            *value = entry->value;
            return true;
        }
        if (match != HLC_MATCH_NO) {
            give_up(config, key, &entry->pattern, match, faults);
            return false;
        }
        if (hlc_bytes_compare(entry->pattern.text, entry->pattern.length, module, length) == 0)
            same = entry;
    }
    if (same)
        *value = same->value;
    return true;
}

/* AdaLoRA: init_r, or what the training left of it. The scale is what PEFT gives the module on loading, where an alpha
 * that is not positive stands for the rank. */
static void allocated(const hlc_peft_config *config, const char *module, size_t length, uint32_t *rank, double *scale) {
    static const char suffix[] = ".lora_E";
    char key[PATH_BYTES + sizeof suffix];
    const json_t *map = json_object_get(config->root, "rank_pattern"), *kept;
    const json_t *list = NULL;
    if (length <= PATH_BYTES) {
        memcpy(key, module, length);
        memcpy(key + length, suffix, sizeof suffix - 1);
        list = json_object_getn(map, key, length + sizeof suffix - 1);
    }
    size_t i, count = 0;
    json_array_foreach(list, i, kept) count += json_is_true(kept) ? 1 : 0;
    *rank = list ? (uint32_t)count : (uint32_t)config->init_rank;
    *scale = (config->alpha > 0 ? config->alpha : (double)*rank) / (config->init_rank + 1e-5);
}

bool hlc_peft_config_resolve(hlc_peft_config *config, const char *module, size_t length, uint32_t *rank, double *scale,
                             hlc_faults *faults) {
    if (!config->rank_known || !config->alpha_known || config->gave_up)
        return false;
    if (config->adalora) {
        allocated(config, module, length, rank, scale);
        return true;
    }
    double r = config->rank, alpha = config->alpha;
    if (!look_up(config, "rank_pattern", &config->ranks, module, length, &r, faults) ||
        !look_up(config, "alpha_pattern", &config->alphas, module, length, &alpha, faults))
        return false;
    *rank = (uint32_t)r;
    *scale = config->rslora ? alpha / sqrt(r) : alpha / r;
    return true;
}

size_t hlc_peft_config_parameters(const hlc_peft_config *config) {
    return json_array_size(config->parameters);
}

const char *hlc_peft_config_parameter(const hlc_peft_config *config, size_t i, size_t *length) {
    const json_t *name = json_array_get(config->parameters, i);
    *length = json_string_length(name);
    return json_string_value(name);
}
