/* What llama.cpp calls the modules of a Hugging Face model, and how it keeps their rows. Pure: no allocation, no state,
 * safe from any thread. */
#ifndef HILORA_COMPILER_GGUF_NAMES_H
#define HILORA_COMPILER_GGUF_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a GGUF base model is, as far as names and rows of LoRA tensors depend on it. */
typedef struct hlc_gguf_base {
    const char *architecture; /* general.architecture: "llama"; static storage */
    uint32_t heads, kv_heads; /* of attention; read only where rows are regrouped */
} hlc_gguf_base;

/* The architecture of that name as GGUF files say it ("llama", "qwen2"); NULL when it is not one of those that
 * hlc_gguf_find_target knows. */
const char *hlc_gguf_architecture(const char *name);
/* The same from the model_type of a Hugging Face config.json ("mistral"); NULL when it is not known. */
const char *hlc_gguf_architecture_of_model_type(const char *model_type);
/* True when llama.cpp's conversion regroups the rows of the query and key projections, so that the number of heads
 * matters. */
bool hlc_gguf_regroups(const char *architecture);

enum { HLC_GGUF_NAME_SIZE = 64 };

/* Where a LoRA of a module goes. */
typedef struct hlc_gguf_target {
    char tensor[HLC_GGUF_NAME_SIZE]; /* the base model's weight: "blk.0.attn_q.weight" */
    /* Heads whose rows are regrouped: of d_out = heads x 2 x half rows in the order (head, half, i) llama.cpp keeps
     * (head, i, half). 0: rows stay in place. */
    uint32_t heads;
} hlc_gguf_target;

/* Finds the weight of a linear module, named by its path in the Hugging Face model ("model.layers.0.self_attn.q_proj").
 * False when the architecture has no such module as far as we know. */
bool hlc_gguf_find_target(const hlc_gguf_base *base, const char *module, size_t length, hlc_gguf_target *out);

/* The place in llama.cpp's order of row `row` of d_out; d_out is a multiple of 2 heads, or heads is 0. */
uint64_t hlc_gguf_row(uint32_t heads, uint64_t d_out, uint64_t row);

#endif
