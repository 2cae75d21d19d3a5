#include "compiler/ingest/peft_coverage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/ingest/json_scan.h"
#include "compiler/ingest/order.h"

enum { STEPS_OF_A_SEARCH = 20 };

/* A value of target_modules or exclude_modules: a list of names, each of which stands for every path that ends with it,
 * or a regular expression for whole paths. */
typedef struct module_set {
    const char **names;
    size_t *lengths;
    bool *used;
    uint32_t *order; /* of the names, bytewise */
    size_t count;
    bool is_pattern;
    hlc_key_pattern pattern;
} module_set;

static int compare_names(uint32_t a, uint32_t b, const void *context) {
    const module_set *set = context;
    return hlc_bytes_compare(set->names[a], set->lengths[a], set->names[b], set->lengths[b]);
}

static void free_set(module_set *set) {
    free(set->names);
    free(set->lengths);
    free(set->used);
    free(set->order);
    hlc_key_pattern_free(&set->pattern);
}

static bool fill_list(module_set *set, const json_t *list) {
    size_t room = json_array_size(list) + 1, i;
    set->names = calloc(room, sizeof *set->names);
    set->lengths = calloc(room, sizeof *set->lengths);
    set->used = calloc(room, sizeof *set->used);
    if (!set->names || !set->lengths || !set->used)
        return false;
    const json_t *name;
    json_array_foreach(list, i, name) {
        if (!json_is_string(name))
            continue;
        set->names[set->count] = json_string_value(name);
        set->lengths[set->count++] = json_string_length(name);
    }
    set->order = hlc_sorted_numbers(set->count, compare_names, set);
    return set->order != NULL;
}

typedef enum set_state { SET_ABSENT, SET_THERE, SET_NO_MEMORY } set_state;

/* A pattern that cannot be evaluated is left alone, as nothing but a warning depends on it. */
static set_state read_set(const hlc_peft_config *config, const char *key, module_set *set) {
    const json_t *value = json_object_get(config->root, key);
    char error[HLC_PATTERN_ERROR_SIZE];
    *set = (module_set){0};
    if (json_is_array(value) && json_array_size(value) > 0)
        return fill_list(set, value) ? SET_THERE : SET_NO_MEMORY;
    if (!json_is_string(value) || strcmp(json_string_value(value), "all-linear") == 0 || json_string_length(value) == 0)
        return SET_ABSENT;
    set->is_pattern = true;
    return hlc_key_pattern_compile(&set->pattern, HLC_PATTERN_FULL, json_string_value(value), json_string_length(value),
                                   error)
               ? SET_THERE
               : SET_ABSENT;
}

static bool find_name(module_set *set, hlc_matcher *matcher, const char *name, size_t length) {
    size_t low = 0, high = set->count;
    if (!hlc_matcher_spend(matcher, STEPS_OF_A_SEARCH * (1 + length / 64)))
        return false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        uint32_t i = set->order[middle];
        int order = hlc_bytes_compare(set->names[i], set->lengths[i], name, length);
        if (order == 0) {
            set->used[i] = true;
            return true;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* *whole: the path itself is in the list, which PEFT exempts from layers_to_transform. in_doubt: the answer where the
 * pattern is too hard. */
static bool set_holds(module_set *set, hlc_matcher *matcher, const hlc_string *path, bool in_doubt, bool *whole) {
    *whole = false;
    if (set->is_pattern) {
        hlc_match match = hlc_key_pattern_match(&set->pattern, matcher, path->bytes, path->length);
        return match == HLC_MATCH_YES || (match != HLC_MATCH_NO && in_doubt);
    }
    bool found = *whole = find_name(set, matcher, path->bytes, path->length);
    for (size_t at = 0; at < path->length; at++)
        if (path->bytes[at] == '.')
            found |= find_name(set, matcher, path->bytes + at + 1, path->length - at - 1);
    return matcher->steps_left > 0 ? found : in_doubt;
}

/* The first segment of digits that has two segments before it and one behind. */
static bool layer_of(const hlc_string *path, uint64_t *layer) {
    size_t start = 0, position = 0;
    for (size_t at = 0; at < path->length; at++) {
        if (path->bytes[at] != '.')
            continue;
        if (position >= 2 && hlc_json_u64(path->bytes + start, at - start, layer))
            return true;
        start = at + 1;
        position++;
    }
    return false;
}

static bool layer_is_listed(const json_t *layers, uint64_t layer) {
    if (json_is_integer(layers))
        return json_integer_value(layers) >= 0 && (uint64_t)json_integer_value(layers) == layer;
    size_t i;
    const json_t *item;
    json_array_foreach(layers, i, item) {
        if (json_is_integer(item) && json_integer_value(item) >= 0 && (uint64_t)json_integer_value(item) == layer)
            return true;
    }
    return false;
}

/* The value of layers_to_transform where it can be checked; else NULL. */
static const json_t *checkable_layers(const hlc_peft_config *config) {
    enum { MOST_LAYERS = 1000 };
    const json_t *layers = json_object_get(config->root, "layers_to_transform");
    const json_t *pattern = json_object_get(config->root, "layers_pattern");
    bool given = json_is_integer(layers) || (json_array_size(layers) > 0 && json_array_size(layers) <= MOST_LAYERS);
    bool plain = !pattern || json_is_null(pattern) || json_string_length(pattern) + json_array_size(pattern) == 0;
    return given && plain ? layers : NULL;
}

/* What disagrees, counted. */
typedef struct disagreement {
    size_t count;
    const char *first;
    size_t first_length;
} disagreement;

static void note(disagreement *d, const char *name, size_t length) {
    if (d->count++ == 0) {
        d->first = name;
        d->first_length = length;
    }
}

static void warn(const hlc_peft_config *config, const char *key, const disagreement *d, const char *what,
                 hlc_faults *faults) {
    if (d->count == 0)
        return;
    char place[2 * HLC_PLACE_SIZE], key_place[HLC_PLACE_SIZE], name[HLC_PLACE_SIZE];
    snprintf(place, sizeof place, "%s%s%s", config->within ? config->within : "", config->within ? ", " : "",
             hlc_place(key_place, "key", key, strlen(key)));
    hlc_fault(faults, HLC_WARNING, HLC_FAULT_COVERAGE, config->path, place, NULL, "%s: %zu, such as %s", what, d->count,
              hlc_place(name, "module", d->first, d->first_length));
}

/* The path that the configuration has for a module. */
static hlc_string path_of(const hlc_peft_module *module) {
    return (hlc_string){module->path.bytes, module->config_length};
}

static bool check_targets(hlc_peft_config *config, const hlc_peft_tensors *tensors, hlc_faults *faults) {
    module_set set;
    set_state state = read_set(config, "target_modules", &set);
    const json_t *layers = checkable_layers(config);
    disagreement missing = {0}, unused = {0}, other_layers = {0};
    for (size_t i = 0; state == SET_THERE && i < tensors->count; i++) {
        const hlc_string path = path_of(&tensors->modules[i]);
        bool whole;
        uint64_t layer;
        if (!set_holds(&set, &config->matcher, &path, true, &whole))
            note(&missing, path.bytes, path.length);
        else if (layers && !set.is_pattern && !whole && (!layer_of(&path, &layer) || !layer_is_listed(layers, layer)))
            note(&other_layers, path.bytes, path.length);
    }
    if (hlc_peft_config_parameters(config) > 0) /* which bring modules of their own */
        missing.count = 0;
    for (size_t i = 0; state == SET_THERE && config->matcher.steps_left > 0 && i < set.count; i++)
        if (!set.used[i])
            note(&unused, set.names[i], set.lengths[i]);
    warn(config, "target_modules", &missing, "modules of the file that it does not name", faults);
    warn(config, "target_modules", &unused, "names that no module of the file has", faults);
    warn(config, "layers_to_transform", &other_layers, "modules of other layers are in the file", faults);
    free_set(&set);
    return state != SET_NO_MEMORY;
}

static bool check_excluded(hlc_peft_config *config, const hlc_peft_tensors *tensors, hlc_faults *faults) {
    module_set set;
    set_state state = read_set(config, "exclude_modules", &set);
    disagreement excluded = {0};
    for (size_t i = 0; state == SET_THERE && i < tensors->count; i++) {
        const hlc_string path = path_of(&tensors->modules[i]);
        bool whole;
        if (set_holds(&set, &config->matcher, &path, false, &whole))
            note(&excluded, path.bytes, path.length);
    }
    warn(config, "exclude_modules", &excluded, "modules of the file that it excludes", faults);
    free_set(&set);
    return state != SET_NO_MEMORY;
}

bool hlc_peft_check_coverage(hlc_peft_config *config, const hlc_peft_tensors *tensors, hlc_faults *faults) {
    return check_targets(config, tensors, faults) && check_excluded(config, tensors, faults);
}
