#include "compiler/export/gguf_names.h"

#include <stdio.h>
#include <string.h>

typedef struct model_type {
    const char *hugging_face, *gguf;
    bool regroups; /* convert_hf_to_gguf.py permutes Q and K: those whose rotary embedding pairs neighbours */
} model_type;

static const model_type model_types[] = {
    {"llama", "llama", true},     {"mistral", "llama", true},   {"granite", "granite", true},
    {"smollm3", "smollm3", true}, {"qwen2", "qwen2", false},    {"qwen3", "qwen3", false},
    {"gemma", "gemma", false},    {"gemma2", "gemma2", false},  {"gemma3", "gemma3", false},
    {"gemma3_text", "gemma3", false}, {"phi", "phi2", false},   {"phi3", "phi3", false},
};

enum { MODEL_TYPES = sizeof model_types / sizeof model_types[0] };

const char *hlc_gguf_architecture(const char *name) {
    for (size_t i = 0; i < MODEL_TYPES; i++) {
        if (strcmp(model_types[i].gguf, name) == 0) {
            return model_types[i].gguf;
        }
    }
    return NULL;
}

const char *hlc_gguf_architecture_of_model_type(const char *name) {
    for (size_t i = 0; i < MODEL_TYPES; i++) {
        if (strcmp(model_types[i].hugging_face, name) == 0) {
            return model_types[i].gguf;
        }
    }
    return NULL;
}

bool hlc_gguf_regroups(const char *architecture) {
    for (size_t i = 0; i < MODEL_TYPES; i++) {
        if (strcmp(model_types[i].gguf, architecture) == 0) {
            return model_types[i].regroups;
        }
    }
    return false;
}

typedef enum head_kind { NO_HEADS, QUERY_HEADS, KEY_HEADS } head_kind;

typedef struct layer_module {
    const char *hugging_face, *gguf;
    head_kind heads;
    const char *only; /* the one architecture that has it; NULL: any */
} layer_module;

static const layer_module layer_modules[] = {
    {"self_attn.q_proj", "attn_q", QUERY_HEADS, NULL},      {"self_attn.k_proj", "attn_k", KEY_HEADS, NULL},
    {"self_attn.v_proj", "attn_v", NO_HEADS, NULL},         {"self_attn.o_proj", "attn_output", NO_HEADS, NULL},
    {"mlp.gate_proj", "ffn_gate", NO_HEADS, NULL},          {"mlp.up_proj", "ffn_up", NO_HEADS, NULL},
    {"mlp.down_proj", "ffn_down", NO_HEADS, NULL},          {"self_attn.qkv_proj", "attn_qkv", NO_HEADS, "phi3"},
    {"mlp.gate_up_proj", "ffn_up", NO_HEADS, "phi3"},       {"self_attn.dense", "attn_output", NO_HEADS, "phi2"},
    {"mlp.fc1", "ffn_up", NO_HEADS, "phi2"},                {"mlp.fc2", "ffn_down", NO_HEADS, "phi2"},
};

/* Modules stand below one of these, or at the top. */
static const char *const roots[] = {"model.language_model.", "language_model.model.", "language_model.", "model.", ""};

static bool starts(const char *text, size_t length, const char *prefix) {
    const size_t size = strlen(prefix);
    return length >= size && memcmp(text, prefix, size) == 0;
}

static bool equals(const char *text, size_t length, const char *other) {
    return length == strlen(other) && memcmp(text, other, length) == 0;
}

/* "layers.12.": its number and the length of the whole; 0 when it is not there. */
static size_t layer_prefix(const char *text, size_t length, unsigned *layer) {
    size_t at = strlen("layers.");
    const size_t digits = at;
    if (!starts(text, length, "layers.")) {
        return 0;
    }
    for (*layer = 0; at < length && text[at] >= '0' && text[at] <= '9' && at < digits + 6; at++) {
        *layer = *layer * 10 + (unsigned)(text[at] - '0');
    }
    const bool canonical = at == digits + 1 || text[digits] != '0';
    return at > digits && at < length && text[at] == '.' && canonical ? at + 1 : 0;
}

static bool find_in_layer(const hlc_gguf_base *base, const char *rest, size_t length, hlc_gguf_target *out) {
    unsigned layer;
    const size_t prefix = layer_prefix(rest, length, &layer);
    if (!prefix) {
        return false;
    }
    for (size_t i = 0; i < sizeof layer_modules / sizeof layer_modules[0]; i++) {
        const layer_module *module = &layer_modules[i];
        if (equals(rest + prefix, length - prefix, module->hugging_face) &&
            (!module->only || strcmp(module->only, base->architecture) == 0)) {
            snprintf(out->tensor, sizeof out->tensor, "blk.%u.%s.weight", layer, module->gguf);
            const uint32_t heads = module->heads == QUERY_HEADS ? base->heads : base->kv_heads;
            out->heads = module->heads != NO_HEADS && hlc_gguf_regroups(base->architecture) ? heads : 0;
            return true;
        }
    }
    return false;
}

bool hlc_gguf_find_target(const hlc_gguf_base *base, const char *module, size_t length, hlc_gguf_target *out) {
    *out = (hlc_gguf_target){.heads = 0};
    if (equals(module, length, "lm_head") || equals(module, length, "language_model.lm_head")) {
        snprintf(out->tensor, sizeof out->tensor, "output.weight");
        return true;
    }
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
        const size_t root = strlen(roots[i]);
        if (starts(module, length, roots[i]) && find_in_layer(base, module + root, length - root, out)) {
            return true;
        }
    }
    return false;
}

uint64_t hlc_gguf_row(uint32_t heads, uint64_t d_out, uint64_t row) {
    if (!heads) {
        return row;
    }
    const uint64_t size = d_out / heads, half = size / 2;
    const uint64_t in_head = row % size;
    return row - in_head + in_head % half * 2 + in_head / half;
}
