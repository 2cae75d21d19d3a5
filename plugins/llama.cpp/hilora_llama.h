/* Pools in llama.cpp, over the public headers of both: no change to the engine.
 *
 * Mode A: hl_llama_eval, llama.cpp's evaluation callback, adds each token's routed update to the outputs of the matrix
 * products. A batch may mix prompts of different routes. Mode B: hl_llama_blend hands llama.cpp a LoRA adapter of its
 * own, made in memory from one route; it serves a whole context.
 *
 * An hl_llama belongs to one llama_context and one thread at a time. README.md says what llama.cpp does to the callback
 * and which set-ups are refused. */
#ifndef HILORA_LLAMA_H
#define HILORA_LLAMA_H

#include <hilora/hilora.h>
#include <llama.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hl_llama hl_llama;

typedef struct hl_llama_options {
    size_t struct_size;
    hl_session_options session; /* its max_tokens bounds a batch */
    void (*report)(void *user, const hl_diag *fault); /* every reason why the pool does not fit the model; may be NULL */
    void *user;
} hl_llama_options;

/* Matches a pool, which must outlive the result, with the model file that the engine loads: architecture, names and
 * shapes of every module of the pool. Reads the file's metadata alone. *out is NULL on failure. HL_ERR_UNSUPPORTED: a
 * kind of model or module that cannot be served; HL_ERR_INPUT: the pool is for another base model; HL_ERR_IO: the file
 * cannot be read as GGUF; HL_ERR_MEMORY. */
HL_NODISCARD hl_status hl_llama_create(const hl_pool *pool, const char *model_path, const hl_llama_options *options,
                                       hl_llama **out, hl_diag *diag);

/* NULL is allowed. After the llama_context is gone. */
void hl_llama_destroy(hl_llama *shim);

/* ---- Mode A ---- */

/* For llama_context_params.cb_eval; cb_eval_user_data is the hl_llama. The context wants kv_unified (or one sequence)
 * and batches of at most n_ubatch tokens. */
bool hl_llama_eval(struct ggml_tensor *node, bool ask, void *shim);

/* Decodes what the routes need (hl_session_prepare, with its statuses). */
HL_NODISCARD hl_status hl_llama_prepare(hl_llama *shim, const hl_route *const *routes, size_t count, hl_diag *diag);

/* llama_decode of a batch of tokens in which token i has the prepared route route_of_token[i], or HL_NONE for the base
 * model; NULL: all have route 0. batch.logits says which tokens have outputs. After a failure the batch's outputs and
 * its places in the KV cache are worthless; the model and what was decoded before are untouched. HL_ERR_ARGUMENT: a batch
 * that cannot be served; HL_ERR_UNSUPPORTED: llama.cpp computed something that the callback could not follow;
 * HL_ERR_INTERNAL: llama_decode failed. */
HL_NODISCARD hl_status hl_llama_decode(hl_llama *shim, struct llama_context *context, struct llama_batch batch,
                                       const uint32_t *route_of_token, hl_diag *diag);

/* ---- Mode B ---- */

/* The route's blend (hl_blend) as an adapter of the engine: for llama_set_adapters_lora with scale 1. Freed by
 * llama_adapter_lora_free. *out is NULL on failure: as hl_blend, HL_ERR_IO when there is no memory file, and
 * HL_ERR_UNSUPPORTED when llama.cpp refuses it (its log says why). */
HL_NODISCARD hl_status hl_llama_blend(hl_llama *shim, struct llama_model *model, const hl_route *route,
                                      struct llama_adapter_lora **out, hl_diag *diag);

#ifdef __cplusplus
}
#endif
#endif
