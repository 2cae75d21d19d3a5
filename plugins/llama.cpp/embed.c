/* Embeddings of prompts by a GGUF model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"
#include "plugins/llama.cpp/program.h"

typedef struct embedder {
    struct llama_model *model;
    struct llama_context *context;
    const char *file;
    hl_pool_view pool;
} embedder;

static bool tokenize(const embedder *e, const char *text, llama_token **tokens, int32_t *count, hlc_faults *faults) {
    const struct llama_vocab *vocab = llama_model_get_vocab(e->model);
    hlc_text whole = {0};
    hlc_text_append(&whole, e->pool.prefix.data, e->pool.prefix.size);
    hlc_text_append(&whole, text, strlen(text));
    const int32_t length = (int32_t)whole.length;
    const int32_t wanted = -llama_tokenize(vocab, whole.bytes, length, NULL, 0, true, false);
    *tokens = wanted > 0 ? malloc((size_t)wanted * sizeof **tokens) : NULL;
    *count = *tokens ? llama_tokenize(vocab, whole.bytes, length, *tokens, wanted, true, false) : 0;
    hlc_text_free(&whole);
    if (*count <= 0) {
        hlc_bad_input(faults, e->file, NULL, "the prompt has no tokens");
        return false;
    }
    if ((uint32_t)*count > llama_n_ubatch(e->context)) {
        hlc_bad_input(faults, e->file, NULL, "the prompt has %d tokens, and the embedding model takes %u", *count,
                      llama_n_ubatch(e->context));
        return false;
    }
    return true;
}

static void normalise(float *values, size_t dim) {
    double square = 0;
    for (size_t i = 0; i < dim; i++) {
        square += (double)values[i] * values[i];
    }
    for (size_t i = 0; i < dim && square > 0; i++) {
        values[i] = (float)(values[i] / sqrt(square));
    }
}

static bool embed_one(const embedder *e, const char *text, float *out, size_t dim, hlc_faults *faults) {
    llama_token *tokens = NULL;
    int32_t count = 0;
    const float *pooled = NULL;
    if (tokenize(e, text, &tokens, &count, faults)) {
        struct llama_batch batch = llama_batch_init(count, 0, 1);
        for (int32_t t = 0; t < count; t++) {
            batch.token[t] = tokens[t];
            batch.pos[t] = t;
            batch.n_seq_id[t] = 1;
            batch.seq_id[t][0] = 0;
            batch.logits[t] = true;
        }
        batch.n_tokens = count;
        llama_memory_t memory = llama_get_memory(e->context); /* NULL for encoders */
        if (memory) {
            llama_memory_clear(memory, true);
        }
        const bool encoder = llama_model_has_encoder(e->model) && !llama_model_has_decoder(e->model);
        if ((encoder ? llama_encode(e->context, batch) : llama_decode(e->context, batch)) == 0) {
            pooled = llama_get_embeddings_seq(e->context, 0);
        }
        llama_batch_free(batch);
        if (!pooled) {
            hlp_fault_engine(faults, e->file, "the model gave no embedding of the prompt");
        }
    }
    free(tokens);
    if (pooled) {
        memcpy(out, pooled, dim * sizeof *out);
        if (e->pool.normalized != HL_NORMALIZED_NO) {
            normalise(out, dim);
        }
    }
    return pooled != NULL;
}

static bool open_embedder(embedder *e, const hlp_settings *s, hlc_faults *faults) {
    struct llama_model_params model = llama_model_default_params();
    struct llama_context_params context = llama_context_default_params();
    model.n_gpu_layers = 0;
    e->model = llama_model_load_from_file(e->file, model);
    if (!e->model) {
        hlp_fault_engine(faults, e->file, "llama.cpp cannot load the embedding model");
        return false;
    }
    const int32_t trained = llama_model_n_ctx_train(e->model);
    context.embeddings = true;
    context.n_ctx = context.n_batch = context.n_ubatch = trained > 0 && trained < 2048 ? (uint32_t)trained : 2048;
    context.n_threads = context.n_threads_batch = (int32_t)s->threads;
    e->context = llama_init_from_model(e->model, context);
    if (e->context && llama_pooling_type(e->context) == LLAMA_POOLING_TYPE_NONE) {
        llama_free(e->context); /* the file does not say how to pool: as most encoders do */
        context.pooling_type = LLAMA_POOLING_TYPE_MEAN;
        e->context = llama_init_from_model(e->model, context);
    }
    if (!e->context) {
        hlp_fault_engine(faults, e->file, "llama.cpp cannot use the embedding model");
    }
    return e->context != NULL;
}

float *hlp_embed(const hlp_settings *s, const hl_pool *pool, size_t *dim, hlc_faults *faults) {
    embedder e = {.file = s->embedding_model, .pool = {.struct_size = sizeof e.pool}};
    float *rows = NULL;
    bool good = hl_pool_info(pool, &e.pool) == HL_OK && open_embedder(&e, s, faults);
    if (good) {
        *dim = (size_t)llama_model_n_embd(e.model);
        rows = malloc(s->prompt_count * *dim * sizeof *rows);
        if (!rows) {
            hlc_out_of_memory(faults, e.file, s->prompt_count * *dim * sizeof *rows);
            good = false;
        }
    }
    for (size_t i = 0; good && i < s->prompt_count; i++) {
        good = embed_one(&e, s->prompts[i], rows + i * *dim, *dim, faults);
    }
    if (e.context) {
        llama_free(e.context);
    }
    if (e.model) {
        llama_model_free(e.model);
    }
    if (!good) {
        free(rows);
    }
    return good ? rows : NULL;
}
