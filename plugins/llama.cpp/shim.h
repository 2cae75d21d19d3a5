/* Inside the plugin. */
#ifndef HILORA_LLAMA_SHIM_H
#define HILORA_LLAMA_SHIM_H

#include "compiler/export/gguf_names.h"
#include "plugins/llama.cpp/hilora_llama.h"

/* A module of the pool and the weight of the model that it adapts. */
typedef struct hlp_target {
    char weight[HLC_GGUF_NAME_SIZE];
    uint32_t module; /* in the pool */
    uint32_t heads;  /* whose rows llama.cpp has in another order; 0: none */
    uint64_t d_in, d_out;
    bool wanted, seen; /* in the batch at hand: a route adapts it; its product was met */
} hlp_target;

/* The batch that llama_decode works on. */
typedef struct hlp_batch {
    bool active;
    const struct llama_batch *tokens;
    const uint32_t *routes; /* of each token */
    uint32_t *output_routes; /* of the tokens with outputs, in order */
    uint32_t outputs;
    hl_status status;
    hl_diag *diag;
} hlp_batch;

struct hl_llama {
    const hl_pool *pool;
    hl_session *session;
    uint32_t max_tokens;
    const char *architecture;
    hlp_target *targets; /* by weight name */
    uint32_t target_count;
    uint32_t *target_of_module; /* in the pool's order */
    /* Which modules each prepared route adapts: routes x modules. */
    uint8_t *adapts;
    uint32_t route_count, modules;
    uint32_t *all_first; /* max_tokens zeros: every token has route 0 */
    uint32_t *output_routes;
    float *x, *y; /* copies from devices, and outputs in the pool's order of rows; they grow */
    size_t x_capacity, y_capacity;
    hlp_batch batch;
};

/* Sets the diagnostic, whose first error wins, and answers the status. */
hl_status hlp_fail(hl_diag *diag, hl_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Fills architecture, targets and target_of_module from the model file. */
hl_status hlp_match(hl_llama *shim, const char *model_path, const hl_llama_options *options, hl_diag *diag);

#endif
