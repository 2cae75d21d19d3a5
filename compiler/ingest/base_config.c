#include "compiler/ingest/base_config.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "compiler/base/files.h"
#include "compiler/ingest/json_scan.h"

enum { MOST_BYTES = 4 << 20 };

/* The first of the names, in the object or in its "text_config". */
static uint64_t find_number(const json_t *root, const char *const *names) {
    const json_t *places[] = {root, json_object_get(root, "text_config"), json_object_get(root, "llm_config")};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (size_t k = 0; names[k]; k++) {
            const json_t *value = json_object_get(places[i], names[k]);
            if (json_is_integer(value) && json_integer_value(value) > 0)
                return (uint64_t)json_integer_value(value);
        }
    return 0;
}

/* The largest of the names: encoders and decoders count their layers apart. */
static uint64_t find_largest(const json_t *root, const char *const *names) {
    uint64_t largest = 0;
    for (size_t k = 0; names[k]; k++) {
        const char *const one[] = {names[k], NULL};
        const uint64_t value = find_number(root, one);
        largest = value > largest ? value : largest;
    }
    return largest;
}

/* Python writes what is no number as NaN, Infinity and -Infinity, which is no JSON; configurations of models have such
 * bounds. They become 0 and spaces, and none of them is among what is looked for. */
static void replace_non_numbers(hlc_string *text) {
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    bool quoted = false;
    for (size_t at = 0; at < text->length; at++) {
        if (quoted && text->bytes[at] == '\\')
            at++;
        else if (text->bytes[at] == '"')
            quoted = !quoted;
        for (size_t i = 0; !quoted && at < text->length && i < sizeof words / sizeof *words; i++)
            if (hlc_bytes_start(text->bytes + at, text->length - at, words[i])) {
                memset(text->bytes + at, ' ', strlen(words[i]));
                text->bytes[at] = '0';
            }
    }
}

/* Depth and syntax are checked before a tree is built. */
static bool is_sound(const hlc_string *text) {
    hlc_json_scan scan;
    hlc_json_start(&scan, text->bytes, text->length);
    hlc_json_token token = hlc_json_next(&scan);
    while (token != HLC_JSON_END && token != HLC_JSON_ERROR)
        token = hlc_json_next(&scan);
    return token == HLC_JSON_END;
}

bool hlc_base_config_read(const char *path, hlc_base_config *out, hlc_faults *faults) {
    static const char *const vocabulary[] = {"vocab_size", NULL}, *const hidden[] = {"hidden_size", "n_embd", "d_model", NULL},
                             *const intermediate[] = {"intermediate_size", NULL},
                             *const layers[] = {"num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers",
                                                "encoder_layers", "decoder_layers", "n_layers", NULL};
    hlc_string text;
    *out = (hlc_base_config){0};
    if (!hlc_file_load(path, MOST_BYTES, &text, faults))
        return false;
    replace_non_numbers(&text);
    json_t *root = is_sound(&text) ? json_loadb(text.bytes, text.length, JSON_ALLOW_NUL, NULL) : NULL;
    const bool good = json_is_object(root);
    if (good) {
        const json_t *tied = json_object_get(root, "tie_word_embeddings");
        tied = tied ? tied : json_object_get(json_object_get(root, "text_config"), "tie_word_embeddings");
        out->vocabulary = find_number(root, vocabulary);
        out->hidden = find_number(root, hidden);
        out->intermediate = find_number(root, intermediate);
        out->layers = find_largest(root, layers);
        out->tied = !json_is_false(tied);
    } else {
        hlc_error(faults, HLC_FAULT_INPUT, path, NULL, "the base model's configuration is not readable JSON, or no object");
    }
    json_decref(root);
    hlc_string_free(&text);
    return good;
}

/* The last segment of a path. */
static hlc_string last_segment(const char *path, size_t length) {
    size_t at = length;
    while (at > 0 && path[at - 1] != '.')
        at--;
    return (hlc_string){(char *)(uintptr_t)(path + at), length - at};
}

static bool is_one_of(const hlc_string *segment, const char *const *names) {
    for (; *names; names++)
        if (hlc_bytes_equal(segment->bytes, segment->length, *names))
            return true;
    return false;
}

bool hlc_is_vocabulary(const char *path, size_t length) {
    static const char *const names[] = {"embed_tokens", "wte", "word_embeddings", "shared", "lm_head", "embed_out", NULL};
    const hlc_string segment = last_segment(path, length);
    return is_one_of(&segment, names);
}

/* The number behind "layers" and the like. */
static bool layer_of(const hlc_string *path, uint64_t *layer) {
    static const char *const names[] = {"layers", "h", "layer", "blocks", "block", NULL};
    size_t start = 0;
    hlc_string before = {NULL, 0};
    for (size_t at = 0; at <= path->length; at++) {
        if (at < path->length && path->bytes[at] != '.')
            continue;
        const hlc_string segment = {path->bytes + start, at - start};
        if (before.bytes && is_one_of(&before, names) && hlc_json_u64(segment.bytes, segment.length, layer))
            return true;
        before = segment;
        start = at + 1;
    }
    return false;
}

static bool differ(uint64_t said, uint64_t own, const char *what, char *reason, size_t size) {
    if (said == 0 || said == own)
        return false;
    snprintf(reason, size, "its %s is %" PRIu64 ", but the base model's config.json says %" PRIu64, what, own, said);
    return true;
}

bool hlc_base_config_refutes(const hlc_base_config *config, const hlc_target *target, char *reason, size_t size) {
    static const char *const from_hidden[] = {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "qkv_proj", NULL};
    static const char *const to_hidden[] = {"o_proj", "down_proj", NULL}, *const up[] = {"gate_proj", "up_proj", NULL},
                             *const down[] = {"down_proj", NULL};
    const hlc_string *path = &target->module, last = last_segment(path->bytes, path->length);
    uint64_t layer;
    if (memmem(path->bytes, path->length, "vision", 6) || memmem(path->bytes, path->length, "audio", 5))
        return false;
    if (config->layers && layer_of(path, &layer) && layer >= config->layers) {
        snprintf(reason, size, "layer %" PRIu64 " of %" PRIu64 " that the base model's config.json says", layer, config->layers);
        return true;
    }
    if (hlc_is_vocabulary(path->bytes, path->length)) {
        const bool embedding = target->kind == HLC_MODULE_EMBEDDING;
        return differ(config->vocabulary, embedding ? target->d_in : target->d_out, "vocabulary", reason, size) ||
               differ(config->hidden, embedding ? target->d_out : target->d_in, "hidden size", reason, size);
    }
    if (target->kind != HLC_MODULE_LINEAR || memmem(path->bytes, path->length, "expert", 6))
        return false;
    return (is_one_of(&last, from_hidden) && differ(config->hidden, target->d_in, "number of inputs", reason, size)) ||
           (is_one_of(&last, to_hidden) && differ(config->hidden, target->d_out, "number of outputs", reason, size)) ||
           (is_one_of(&last, up) && differ(config->intermediate, target->d_out, "number of outputs", reason, size)) ||
           (is_one_of(&last, down) && differ(config->intermediate, target->d_in, "number of inputs", reason, size));
}
