/* Mode A: the routed update, added to the products of llama.cpp's graph as it computes them. */
#include <ggml-backend.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/llama.cpp/shim.h"

/* ---- Which node is it ---- */

static int compare_weight(const void *name, const void *target) {
    return strcmp(name, ((const hlp_target *)target)->weight);
}

static hlp_target *find_target(const hl_llama *shim, const struct ggml_tensor *node) {
    if (node->op != GGML_OP_MUL_MAT || !node->src[0] || !node->src[1]) {
        return NULL;
    }
    return bsearch(node->src[0]->name, shim->targets, shim->target_count, sizeof *shim->targets, compare_weight);
}

static bool refuse(hl_llama *shim, hl_status status, const char *weight, const char *reason) {
    hlp_batch *batch = &shim->batch;
    if (batch->status == HL_OK) {
        batch->status = hlp_fail(batch->diag, status, "%s: %s", weight, reason);
    }
    return false;
}

static bool is_host(const struct ggml_tensor *tensor) {
    const ggml_backend_buffer_t buffer = tensor->view_src ? tensor->view_src->buffer : tensor->buffer;
    return buffer && ggml_backend_buffer_is_host(buffer);
}

/* llama.cpp may split a batch and reorder its tokens. Ids and positions, which the graph reads, must be the batch's own
 * and in its order. */
static bool same_order(const struct ggml_tensor *input, const int32_t *expected, int32_t count) {
    if (!expected || !input || input->type != GGML_TYPE_I32 || !is_host(input)) {
        return true;
    }
    return input->ne[0] == count && memcmp(input->data, expected, (size_t)count * sizeof *expected) == 0;
}

static void check_order(hl_llama *shim, const struct ggml_tensor *node) {
    const struct llama_batch *tokens = shim->batch.tokens;
    bool good = true;
    if (node->op == GGML_OP_GET_ROWS && node->src[0] && strcmp(node->src[0]->name, "token_embd.weight") == 0) {
        good = same_order(node->src[1], tokens->token, tokens->n_tokens);
    } else if (node->op == GGML_OP_ROPE && node->src[1] && node->src[1]->ne[0] == tokens->n_tokens) {
        good = same_order(node->src[1], tokens->pos, tokens->n_tokens);
    }
    if (!good) {
        refuse(shim, HL_ERR_UNSUPPORTED, node->name,
               "llama.cpp split the batch or changed its order; use kv_unified and batches of at most n_ubatch tokens");
    }
}

/* ---- Adding the update ---- */

static float *grow(float **memory, size_t *capacity, size_t wanted) {
    if (wanted > *capacity) {
        float *grown = realloc(*memory, wanted * sizeof *grown);
        if (!grown) {
            return NULL;
        }
        *memory = grown;
        *capacity = wanted;
    }
    return *memory;
}

static bool is_matrix_of(const struct ggml_tensor *tensor, uint64_t width) {
    return tensor->type == GGML_TYPE_F32 && (uint64_t)tensor->ne[0] == width && tensor->ne[2] == 1 && tensor->ne[3] == 1 &&
           tensor->nb[0] == sizeof(float) && tensor->nb[1] % sizeof(float) == 0;
}

/* The routes of the product's rows: all tokens, or in the last layer those with outputs. NULL: neither. */
static const uint32_t *routes_of_rows(const hlp_batch *batch, int64_t rows) {
    if (rows == batch->tokens->n_tokens) {
        return batch->routes;
    }
    return rows == batch->outputs ? batch->output_routes : NULL;
}

/* A product whose rows llama.cpp keeps in another order: the update is made in the pool's, then added in its. */
static bool add_regrouped(hl_llama *shim, const hlp_target *target, const float *x, size_t x_stride, size_t rows,
                          const uint32_t *routes, float *y, size_t y_stride) {
    const size_t d = target->d_out;
    float *own = grow(&shim->y, &shim->y_capacity, rows * d);
    if (!own) {
        return refuse(shim, HL_ERR_MEMORY, target->weight, "no memory for the products of a batch");
    }
    memset(own, 0, rows * d * sizeof *own);
    shim->batch.status = hl_session_apply(shim->session, target->module, rows, x, x_stride, routes, own, d, HL_DTYPE_F32,
                                          shim->batch.diag);
    for (size_t o = 0; o < d && shim->batch.status == HL_OK; o++) {
        const size_t place = hlc_gguf_row(target->heads, d, o);
        for (size_t t = 0; t < rows; t++) {
            y[t * y_stride + place] += own[t * d + o];
        }
    }
    return shim->batch.status == HL_OK;
}

static bool add_update(hl_llama *shim, const hlp_target *target, const float *x, size_t x_stride, size_t rows, float *y,
                       size_t y_stride) {
    const uint32_t *routes = routes_of_rows(&shim->batch, (int64_t)rows);
    if (!routes) {
        return refuse(shim, HL_ERR_UNSUPPORTED, target->weight, "its product has neither a row per token nor one per output");
    }
    if (target->heads) {
        return add_regrouped(shim, target, x, x_stride, rows, routes, y, y_stride);
    }
    shim->batch.status = hl_session_apply(shim->session, target->module, rows, x, x_stride, routes, y, y_stride,
                                          HL_DTYPE_F32, shim->batch.diag);
    return shim->batch.status == HL_OK;
}

/* The same where tensors are not in memory that the CPU reads. */
static bool add_on_device(hl_llama *shim, const hlp_target *target, struct ggml_tensor *node) {
    const struct ggml_tensor *input = node->src[1];
    const size_t rows = (size_t)node->ne[1];
    if (!ggml_is_contiguous(input) || !ggml_is_contiguous(node)) {
        return refuse(shim, HL_ERR_UNSUPPORTED, target->weight, "its product on the device is not contiguous");
    }
    const size_t x_size = rows * target->d_in, y_size = rows * target->d_out;
    float *x = grow(&shim->x, &shim->x_capacity, x_size + y_size);
    if (!x) {
        return refuse(shim, HL_ERR_MEMORY, target->weight, "no memory for the products of a batch");
    }
    float *y = x + x_size;
    ggml_backend_tensor_get(input, x, 0, x_size * sizeof *x);
    ggml_backend_tensor_get(node, y, 0, y_size * sizeof *y);
    if (!add_update(shim, target, x, target->d_in, rows, y, target->d_out)) {
        return false;
    }
    ggml_backend_tensor_set(node, y, 0, y_size * sizeof *y);
    return true;
}

static bool apply(hl_llama *shim, const hlp_target *target, struct ggml_tensor *node) {
    const struct ggml_tensor *input = node->src[1];
    if (!is_matrix_of(input, target->d_in) || !is_matrix_of(node, target->d_out) || input->ne[1] != node->ne[1]) {
        return refuse(shim, HL_ERR_UNSUPPORTED, target->weight, "its product is no float32 matrix of one row per token");
    }
    if (node->ne[1] == 0) {
        return true;
    }
    if (!is_host(input) || !is_host(node)) {
        return add_on_device(shim, target, node);
    }
    return add_update(shim, target, input->data, input->nb[1] / sizeof(float), (size_t)node->ne[1], node->data,
                      node->nb[1] / sizeof(float));
}

bool hl_llama_eval(struct ggml_tensor *node, bool ask, void *user) {
    hl_llama *shim = user;
    if (!shim->batch.active || shim->batch.status != HL_OK) {
        return false;
    }
    hlp_target *target = find_target(shim, node);
    if (!ask) {
        return !target || apply(shim, target, node);
    }
    check_order(shim, node);
    if (target) {
        target->seen = true;
    }
    return target && target->wanted && shim->batch.status == HL_OK;
}

/* ---- A batch ---- */

static hl_status check_batch(const hl_llama *shim, const struct llama_context *context, const struct llama_batch *tokens,
                             const uint32_t *routes, hl_diag *diag) {
    const int32_t n = tokens->n_tokens;
    if (n <= 0 || !tokens->token) {
        return hlp_fail(diag, HL_ERR_ARGUMENT, "a batch of token ids is wanted");
    }
    if ((uint32_t)n > shim->max_tokens || (uint32_t)n > llama_n_ubatch(context)) {
        return hlp_fail(diag, HL_ERR_ARGUMENT, "%d tokens in one batch: at most max_tokens (%u) and n_ubatch (%u)", n,
                        shim->max_tokens, llama_n_ubatch(context));
    }
    for (int32_t t = 0; t < n; t++) {
        if (routes[t] != HL_NONE && routes[t] >= shim->route_count) {
            return hlp_fail(diag, HL_ERR_ARGUMENT, "token %d has route %u of %u", t, routes[t], shim->route_count);
        }
    }
    return HL_OK;
}

static void want_targets(hl_llama *shim, const uint32_t *routes, int32_t count) {
    for (uint32_t i = 0; i < shim->target_count; i++) {
        shim->targets[i].wanted = shim->targets[i].seen = false;
    }
    for (int32_t t = 0; t < count; t++) {
        if (routes[t] == HL_NONE || (t > 0 && routes[t] == routes[t - 1])) {
            continue;
        }
        const uint8_t *adapts = shim->adapts + (size_t)routes[t] * shim->modules;
        for (uint32_t i = 0; i < shim->target_count; i++) {
            shim->targets[i].wanted |= adapts[shim->targets[i].module] != 0;
        }
    }
}

static uint32_t list_outputs(hl_llama *shim, const struct llama_batch *tokens, const uint32_t *routes) {
    uint32_t outputs = 0;
    for (int32_t t = 0; t < tokens->n_tokens; t++) {
        if (tokens->logits ? tokens->logits[t] != 0 : t == tokens->n_tokens - 1) {
            shim->output_routes[outputs++] = routes[t];
        }
    }
    return outputs;
}

static hl_status check_seen(const hl_llama *shim, hl_diag *diag) {
    for (uint32_t i = 0; i < shim->target_count; i++) {
        if (shim->targets[i].wanted && !shim->targets[i].seen) {
            return hlp_fail(diag, HL_ERR_UNSUPPORTED,
                            "%s: llama.cpp did not show its product (a fused or offloaded operation); use mode B",
                            shim->targets[i].weight);
        }
    }
    return HL_OK;
}

hl_status hl_llama_decode(hl_llama *shim, struct llama_context *context, struct llama_batch tokens,
                          const uint32_t *route_of_token, hl_diag *diag) {
    hl_diag own;
    hl_diag_clear(&own);
    const uint32_t *routes = route_of_token ? route_of_token : shim->all_first;
    hl_status status = check_batch(shim, context, &tokens, routes, &own);
    if (status == HL_OK) {
        want_targets(shim, routes, tokens.n_tokens);
        shim->batch = (hlp_batch){.active = true,
                                  .tokens = &tokens,
                                  .routes = routes,
                                  .output_routes = shim->output_routes,
                                  .outputs = list_outputs(shim, &tokens, routes),
                                  .diag = &own};
        const int32_t code = llama_decode(context, tokens);
        status = shim->batch.status;
        shim->batch = (hlp_batch){.active = false};
        if (status == HL_OK && code != 0) {
            status = hlp_fail(&own, HL_ERR_INTERNAL, code == 1 ? "no room in the KV cache for %d tokens" : "llama_decode of %d tokens failed",
                              tokens.n_tokens);
        }
        if (status == HL_OK) {
            status = check_seen(shim, &own);
        }
    }
    return status == HL_OK ? HL_OK : hlp_fail(diag, status, "%s", own.message);
}
