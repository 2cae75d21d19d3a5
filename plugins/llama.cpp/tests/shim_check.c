/* The shim as an engine's author uses it: what it refuses, and that a refusal leaves the model as it was.
 *
 *     shim_check MODEL.gguf POOL.hlp ADAPTER DAMAGED.hlp DAMAGED-ADAPTER */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/llama.cpp/hilora_llama.h"

enum { TOKENS = 12 };

static int failures;

#define CHECK(condition)                                                                                                      \
    do {                                                                                                                      \
        if (!(condition)) {                                                                                                   \
            fprintf(stderr, "shim_check.c:%d: %s\n", __LINE__, #condition);                                                   \
            failures++;                                                                                                       \
        }                                                                                                                     \
    } while (0)

typedef struct setup {
    struct llama_model *model;
    const char *model_path;
    int32_t words;
    hl_pool *pool;
    hl_route *route;
    hl_llama *shim;
    struct llama_context *context;
    struct llama_batch batch;
} setup;

static void quiet(enum ggml_log_level level, const char *text, void *user) {
    (void)level, (void)text, (void)user;
}

static hl_route *route_of(const hl_pool *pool, const char *name) {
    const uint32_t adapter = hl_adapter_find(pool, name, strlen(name));
    const hl_route_options options = {.struct_size = sizeof options,
                                      .select = HL_SELECT_EXPLICIT,
                                      .adapters = &adapter,
                                      .adapter_count = 1,
                                      .gamma = 1};
    hl_route *route = NULL;
    CHECK(hl_route_compute(pool, NULL, 0, &options, &route, NULL) == HL_OK);
    return route;
}

static struct llama_context *context_of(const setup *s, uint32_t ubatch, uint32_t sequences, bool unified, bool callback) {
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 256;
    params.n_batch = 64;
    params.n_ubatch = ubatch;
    params.n_seq_max = sequences;
    params.kv_unified = unified;
    params.n_threads = params.n_threads_batch = 1;
    if (callback) {
        params.cb_eval = hl_llama_eval;
        params.cb_eval_user_data = s->shim;
    }
    return llama_init_from_model(s->model, params);
}

/* Tokens of `sequences` prompts: one after the other, or in turn. The last of each has an output. */
static void fill(setup *s, uint32_t sequences, bool in_turn) {
    const int32_t each = TOKENS / (int32_t)sequences;
    s->batch.n_tokens = TOKENS;
    for (int32_t t = 0; t < TOKENS; t++) {
        const int32_t sequence = in_turn ? t % (int32_t)sequences : t / each, position = in_turn ? t / (int32_t)sequences : t % each;
        s->batch.token[t] = 'a' + 7 * sequence + position;
        s->batch.pos[t] = position;
        s->batch.n_seq_id[t] = 1;
        s->batch.seq_id[t][0] = sequence;
        s->batch.logits[t] = position + 1 == each;
    }
}

static hl_status decode(setup *s, const uint32_t *routes, hl_diag *diag) {
    hl_diag_clear(diag);
    llama_memory_clear(llama_get_memory(s->context), true);
    return hl_llama_decode(s->shim, s->context, s->batch, routes, diag);
}

static void keep(const setup *s, float *out) {
    memcpy(out, llama_get_logits_ith(s->context, TOKENS - 1), (size_t)s->words * sizeof *out);
}

static bool same(const setup *s, const float *a, const float *b) {
    return memcmp(a, b, (size_t)s->words * sizeof *a) == 0;
}

static float distance(const setup *s, const float *a, const float *b) {
    float most = 0;
    for (int32_t w = 0; w < s->words; w++) {
        most = fmaxf(most, fabsf(a[w] - b[w]));
    }
    return most;
}

static void with_context(setup *s, uint32_t ubatch, uint32_t sequences, bool unified, bool callback) {
    if (s->context) {
        llama_free(s->context);
    }
    s->context = context_of(s, ubatch, sequences, unified, callback);
    CHECK(s->context);
}

/* The base model's logits do not depend on the callback being there. */
static void check_base(setup *s, float *base, const uint32_t *none) {
    hl_diag diag;
    with_context(s, 64, 1, true, false);
    fill(s, 1, false);
    CHECK(llama_decode(s->context, s->batch) == 0);
    keep(s, base);
    float *found = calloc((size_t)s->words, sizeof *found);
    with_context(s, 64, 1, true, true);
    CHECK(decode(s, none, &diag) == HL_OK);
    keep(s, found);
    CHECK(same(s, base, found));
    free(found);
}

static void check_refusals(setup *s, const float *base, const uint32_t *none) {
    static const uint32_t beyond[TOKENS] = {7};
    hl_diag diag;
    float *found = calloc((size_t)s->words, sizeof *found);
    CHECK(decode(s, beyond, &diag) == HL_ERR_ARGUMENT && strstr(diag.message, "route 7"));
    CHECK(decode(s, NULL, &diag) == HL_OK);
    keep(s, found);
    CHECK(distance(s, found, base) > 0.01F);
    CHECK(decode(s, none, &diag) == HL_OK);
    keep(s, found);
    CHECK(same(s, found, base));

    with_context(s, 8, 1, true, true); /* the batch would be cut into pieces */
    CHECK(decode(s, NULL, &diag) == HL_ERR_ARGUMENT && strstr(diag.message, "n_ubatch"));
    with_context(s, 64, 1, true, false);
    CHECK(decode(s, NULL, &diag) == HL_ERR_UNSUPPORTED && strstr(diag.message, "did not show"));
    free(found);
}

/* Prompts of two routes, their tokens in turn: right, or refused, with a cache of its own for each of them. */
static void check_order(setup *s) {
    uint32_t routes[TOKENS];
    hl_diag diag;
    float *expected = calloc((size_t)s->words, sizeof *expected), *found = calloc((size_t)s->words, sizeof *found);
    for (int32_t t = 0; t < TOKENS; t++) {
        routes[t] = t % 2 ? 0 : HL_NONE;
    }
    with_context(s, 64, 2, true, true);
    fill(s, 2, true);
    CHECK(decode(s, routes, &diag) == HL_OK);
    keep(s, expected);
    with_context(s, 64, 2, false, true);
    const hl_status status = decode(s, routes, &diag);
    CHECK(status == HL_OK || (status == HL_ERR_UNSUPPORTED && strstr(diag.message, "order")));
    if (status == HL_OK) {
        keep(s, found);
        CHECK(distance(s, found, expected) < 1e-3F);
    }
    printf("tokens in turn without a unified cache: %s\n", status == HL_OK ? "served" : "refused");
    free(expected);
    free(found);
}

/* Damage is met when a route is prepared; what was decoded before stays. */
static void check_damage(setup *s, const char *path, const char *adapter, const float *base, const uint32_t *none) {
    hl_pool *pool = NULL;
    hl_llama *shim = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    float *found = calloc((size_t)s->words, sizeof *found);
    CHECK(hl_pool_open(path, NULL, &pool, &diag) == HL_OK);
    CHECK(hl_llama_create(pool, s->model_path, NULL, &shim, &diag) == HL_OK);
    hl_route *bad = route_of(pool, adapter);
    hl_llama *good = s->shim;
    s->shim = shim;
    with_context(s, 64, 1, true, true);
    fill(s, 1, false);
    CHECK(hl_llama_prepare(shim, (const hl_route *const *)&bad, 1, &diag) == HL_ERR_CORRUPT && diag.message[0]);
    CHECK(decode(s, NULL, &diag) == HL_ERR_ARGUMENT); /* nothing is prepared */
    CHECK(decode(s, none, &diag) == HL_OK);
    keep(s, found);
    CHECK(same(s, found, base));
    struct llama_adapter_lora *blend = NULL;
    hl_diag_clear(&diag);
    CHECK(hl_llama_blend(shim, s->model, bad, &blend, &diag) == HL_ERR_CORRUPT && !blend);
    llama_free(s->context);
    s->context = NULL;
    s->shim = good;
    hl_route_free(bad);
    hl_llama_destroy(shim);
    hl_pool_close(pool);
    free(found);
}

int main(int argc, char **argv) {
    static uint32_t none[TOKENS];
    setup s = {.model = NULL};
    hl_diag diag;
    hl_diag_clear(&diag);
    if (argc != 6) {
        return 2;
    }
    llama_log_set(quiet, NULL);
    s.model_path = argv[1];
    s.model = llama_model_load_from_file(argv[1], llama_model_default_params());
    CHECK(s.model && hl_pool_open(argv[2], NULL, &s.pool, &diag) == HL_OK);
    if (failures) {
        return 1;
    }
    memset(none, 0xff, sizeof none); /* HL_NONE */
    s.words = llama_vocab_n_tokens(llama_model_get_vocab(s.model));
    s.batch = llama_batch_init(TOKENS, 0, 1);
    s.route = route_of(s.pool, argv[3]);
    CHECK(hl_llama_create(s.pool, argv[1], NULL, &s.shim, &diag) == HL_OK);
    CHECK(hl_llama_prepare(s.shim, (const hl_route *const *)&s.route, 1, &diag) == HL_OK);
    float *base = calloc((size_t)s.words, sizeof *base);
    check_base(&s, base, none);
    check_refusals(&s, base, none);
    check_order(&s);
    check_damage(&s, argv[4], argv[5], base, none);
    free(base);
    if (s.context) {
        llama_free(s.context);
    }
    hl_llama_destroy(s.shim);
    hl_route_free(s.route);
    hl_pool_close(s.pool);
    llama_batch_free(s.batch);
    llama_model_free(s.model);
    return failures != 0;
}
