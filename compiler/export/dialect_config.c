#include "compiler/export/dialect_config.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The lora_alpha for which alpha / rank is `scale` again: the product, or a neighbour of it where rounding came between.
 * For scales that are no quotient of a double by the rank it is the nearest there is. */
static double alpha_of(double scale, uint32_t rank) {
    const double product = scale * rank;
    const double tries[] = {product, nextafter(product, INFINITY), nextafter(product, -INFINITY)};
    for (size_t i = 0; i < 3; i++) {
        if (tries[i] / rank == scale) {
            return tries[i];
        }
    }
    return product;
}

/* A regular expression that only this module's path matches. */
static json_t *put_pattern(json_t *patterns, const char *module, size_t length, json_t *value) {
    hlc_text pattern = {0};
    hlc_text_append(&pattern, "^", 1);
    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)module[i];
        if (ispunct(c) && c != '_') {
            hlc_text_append(&pattern, "\\", 1);
        }
        hlc_text_append(&pattern, module + i, 1);
    }
    int failed = pattern.failed || json_object_setn_new(patterns, pattern.bytes, pattern.length, value) != 0;
    if (pattern.failed) {
        json_decref(value);
    }
    hlc_text_free(&pattern);
    return failed ? NULL : patterns;
}

static const char *module_name(const hlf_index *index, const hlf_entry_record *entry, size_t *length) {
    hlf_module_record module;
    hlf_index_module(index, entry->module, &module);
    *length = module.name.length;
    return hlf_index_string(index, module.name);
}

static bool add_patterns(const hlf_index *index, const hlf_adapter_record *adapter, uint32_t rank, double alpha, json_t *ranks,
                         json_t *alphas, json_t *targets) {
    bool good = ranks && alphas && targets;
    for (uint32_t i = 0; good && i < adapter->entries; i++) {
        hlf_entry_record entry;
        size_t length;
        hlf_index_entry(index, (uint32_t)adapter->first_entry + i, &entry);
        const char *name = module_name(index, &entry, &length);
        const double own = alpha_of(entry.scale, entry.rank);
        good = json_array_append_new(targets, json_stringn(name, length)) == 0;
        if (good && entry.rank != rank) {
            good = put_pattern(ranks, name, length, json_integer(entry.rank)) != NULL;
        }
        if (good && own != alpha) {
            good = put_pattern(alphas, name, length, json_real(own)) != NULL;
        }
    }
    return good;
}

static json_t *base_model(const hlf_index *index) {
    const hlf_string_ref name = index->pool.base_model;
    return name.length ? json_stringn(hlf_index_string(index, name), name.length) : json_null();
}

bool hlc_dialect_config(const hlf_index *index, const hlf_adapter_record *adapter, hlc_string *out) {
    hlf_entry_record first;
    hlf_index_entry(index, (uint32_t)adapter->first_entry, &first);
    const double alpha = alpha_of(first.scale, first.rank);
    json_t *ranks = json_object(), *alphas = json_object(), *targets = json_array();
    bool good = add_patterns(index, adapter, first.rank, alpha, ranks, alphas, targets);
    json_t *config = json_pack("{s:s, s:n, s:o, s:s, s:b, s:b, s:f, s:i, s:o, s:o, s:o, s:b, s:b}", "peft_type", "LORA", "task_type",
                               "base_model_name_or_path", base_model(index), "bias", "none", "inference_mode", 1,
                               "init_lora_weights", 1, "lora_alpha", alpha, "r", (int)first.rank, "rank_pattern", ranks,
                               "alpha_pattern", alphas, "target_modules", targets, "use_dora", 0, "use_rslora", 0);
    char *text = good && config ? json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    good = text && hlc_string_copy(out, text, strlen(text));
    free(text);
    json_decref(config);
    return good;
}
