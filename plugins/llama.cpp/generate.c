/* Greedy generation of several prompts in one batch. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "plugins/llama.cpp/program.h"

enum { UBATCH = 2048 }; /* tokens of a call; what hl_llama takes by default is more */

typedef struct run {
    const hlp_settings *settings;
    hl_llama *shim;
    struct llama_model *model;
    struct llama_context *context;
    struct llama_batch batch;
    uint32_t routes[UBATCH];     /* of the batch's tokens */
    hlp_prompt *prompt_of[UBATCH]; /* of a token with an output; else NULL */
    hlp_prompt **group;
    uint32_t group_size;
    hlp_speed *speed;
    hlc_faults *faults;
} run;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- A batch ---- */

static void add_token(run *r, uint32_t sequence, llama_token token, int32_t position, bool output) {
    const int32_t t = r->batch.n_tokens++;
    r->batch.token[t] = token;
    r->batch.pos[t] = position;
    r->batch.n_seq_id[t] = 1;
    r->batch.seq_id[t][0] = (llama_seq_id)sequence;
    r->batch.logits[t] = output;
    r->routes[t] = r->settings->mode == HLP_MODE_A ? sequence : HL_NONE;
    r->prompt_of[t] = output ? r->group[sequence] : NULL;
}

static llama_token best_token(const float *logits, int32_t words) {
    llama_token best = 0;
    for (llama_token w = 1; w < words; w++) {
        best = logits[w] > logits[best] ? w : best;
    }
    return best;
}

/* The token after an output; the first one keeps its logits where they were asked for. */
static bool take_output(run *r, int32_t t) {
    hlp_prompt *prompt = r->prompt_of[t];
    const struct llama_vocab *vocab = llama_model_get_vocab(r->model);
    const int32_t words = llama_vocab_n_tokens(vocab);
    const float *logits = llama_get_logits_ith(r->context, t);
    if (!logits) {
        hlp_fault_engine(r->faults, r->settings->model, "llama.cpp gave no logits");
        return false;
    }
    if (prompt->logits && prompt->output_count == 0) {
        memcpy(prompt->logits, logits, (size_t)words * sizeof *logits);
    }
    const llama_token token = best_token(logits, words);
    prompt->done = (uint64_t)prompt->output_count >= r->settings->predict || llama_vocab_is_eog(vocab, token);
    if (!prompt->done) {
        prompt->output[prompt->output_count++] = token;
    }
    return true;
}

static bool decode(run *r) {
    bool good = true;
    if (r->settings->mode == HLP_MODE_A) {
        hl_diag diag;
        hl_diag_clear(&diag);
        if (hl_llama_decode(r->shim, r->context, r->batch, r->routes, &diag) != HL_OK) {
            hlc_route_fault(r->faults, r->settings->model, &diag);
            good = false;
        }
    } else if (llama_decode(r->context, r->batch) != 0) {
        hlp_fault_engine(r->faults, r->settings->model, "llama.cpp cannot decode the batch");
        good = false;
    }
    for (int32_t t = 0; good && t < r->batch.n_tokens; t++) {
        good = !r->prompt_of[t] || take_output(r, t);
    }
    r->batch.n_tokens = 0;
    return good;
}

/* ---- A group of prompts ---- */

static bool read_prompts(run *r) {
    bool good = true;
    const double start = now();
    for (uint32_t p = 0; p < r->group_size; p++) {
        const hlp_prompt *prompt = r->group[p];
        for (int32_t i = 0; good && i < prompt->token_count; i++) {
            add_token(r, p, prompt->tokens[i], i, i + 1 == prompt->token_count);
            good = r->batch.n_tokens < UBATCH || decode(r);
        }
        r->speed->prompt_tokens += prompt->token_count;
    }
    good = good && (r->batch.n_tokens == 0 || decode(r));
    r->speed->prompt_seconds += now() - start;
    return good;
}

static bool write_outputs(run *r) {
    bool good = true;
    const double start = now();
    for (bool more = true; good && more;) {
        for (uint32_t p = 0; p < r->group_size; p++) {
            const hlp_prompt *prompt = r->group[p];
            if (!prompt->done && prompt->output_count > 0) {
                add_token(r, p, prompt->output[prompt->output_count - 1], prompt->token_count + prompt->output_count - 1, true);
                r->speed->output_tokens++;
            }
        }
        more = r->batch.n_tokens > 0;
        good = !more || decode(r);
    }
    r->speed->output_seconds += now() - start;
    return good;
}

static bool open_context(run *r) {
    struct llama_context_params params = llama_context_default_params();
    uint64_t tokens = 0;
    for (uint32_t p = 0; p < r->group_size; p++) {
        tokens += (uint64_t)r->group[p]->token_count + r->settings->predict;
    }
    if (tokens > INT32_MAX || r->group_size > llama_max_parallel_sequences()) {
        hlc_bad_input(r->faults, r->settings->model, NULL, "too many prompts or tokens for one batch: %u, %llu", r->group_size,
                      (unsigned long long)tokens);
        return false;
    }
    params.n_ctx = (uint32_t)tokens + 1;
    params.n_batch = params.n_ubatch = UBATCH;
    params.n_seq_max = r->group_size;
    params.kv_unified = true; /* tokens stay in the batch's order */
    params.n_threads = params.n_threads_batch = (int32_t)r->settings->threads;
    if (r->settings->exact_cache) {
        params.type_k = params.type_v = GGML_TYPE_F32;
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    if (r->settings->mode == HLP_MODE_A) {
        params.cb_eval = hl_llama_eval;
        params.cb_eval_user_data = r->shim;
    }
    r->context = llama_init_from_model(r->model, params);
    if (!r->context) {
        hlp_fault_engine(r->faults, r->settings->model, "llama.cpp cannot make a context");
    }
    return r->context != NULL;
}

static bool prepare(run *r, struct llama_adapter_lora **adapter) {
    hl_diag diag;
    hl_diag_clear(&diag);
    hl_status status = HL_OK;
    hl_route_view view = {.struct_size = sizeof view};
    if (r->settings->mode == HLP_MODE_A) {
        const hl_route **routes = malloc(r->group_size * sizeof *routes);
        for (uint32_t p = 0; routes && p < r->group_size; p++) {
            routes[p] = r->group[p]->route;
        }
        status = routes ? hl_llama_prepare(r->shim, routes, r->group_size, &diag) : HL_ERR_MEMORY;
        free(routes);
    } else if (r->settings->mode == HLP_MODE_B && hl_route_info(r->group[0]->route, &view) == HL_OK && view.count > 0) {
        status = hl_llama_blend(r->shim, r->model, r->group[0]->route, adapter, &diag);
        float scale = 1;
        if (status == HL_OK && llama_set_adapters_lora(r->context, adapter, 1, &scale) != 0) {
            status = HL_ERR_INTERNAL;
        }
    }
    if (r->settings->lora) {
        float scale = 1;
        *adapter = llama_adapter_lora_init(r->model, r->settings->lora);
        if (!*adapter || llama_set_adapters_lora(r->context, adapter, 1, &scale) != 0) {
            hlp_fault_engine(r->faults, r->settings->lora, "llama.cpp cannot load the LoRA");
            return false;
        }
    }
    if (status != HL_OK) {
        diag.status = status;
        hlc_route_fault(r->faults, r->settings->route.pool, &diag);
    }
    return status == HL_OK;
}

static bool run_group(run *r) {
    struct llama_adapter_lora *adapter = NULL;
    bool good = open_context(r) && prepare(r, &adapter);
    good = good && read_prompts(r) && write_outputs(r);
    if (r->context) {
        llama_free(r->context);
        r->context = NULL;
    }
    if (adapter) {
        llama_adapter_lora_free(adapter);
    }
    return good;
}

/* ---- All prompts ---- */

static bool same_group(const hlp_settings *s, const hlp_prompt *a, const hlp_prompt *b) {
    return s->mode != HLP_MODE_B || memcmp(a->digest, b->digest, sizeof a->digest) == 0;
}

bool hlp_generate(const hlp_settings *s, hl_llama *shim, struct llama_model *model, hlp_prompt *prompts, hlp_speed *speed,
                  hlc_faults *faults) {
    run *r = calloc(1, sizeof *r);
    hlp_prompt **group = calloc(s->prompt_count, sizeof *group);
    bool *grouped = calloc(s->prompt_count, sizeof *grouped);
    bool good = r && group && grouped;
    if (good) {
        *r = (run){.settings = s, .shim = shim, .model = model, .group = group, .speed = speed, .faults = faults};
        r->batch = llama_batch_init(UBATCH, 0, 1);
    } else {
        hlc_out_of_memory(faults, s->model, sizeof *r);
    }
    for (size_t first = 0; good && first < s->prompt_count; first++) {
        if (grouped[first]) {
            continue;
        }
        r->group_size = 0;
        for (size_t p = first; p < s->prompt_count; p++) {
            if (!grouped[p] && same_group(s, &prompts[first], &prompts[p])) {
                grouped[p] = true;
                group[r->group_size++] = &prompts[p];
            }
        }
        good = run_group(r);
    }
    if (r && r->batch.token) {
        llama_batch_free(r->batch);
    }
    free(grouped);
    free(group);
    free(r);
    return good;
}
