/* Tokens per second of modes A and B beside the base model without adapters, in one run.
 *
 *     llama_speed MODEL.gguf POOL.hlp [THREADS]
 *
 * Routes name adapters of the pool, three each, with the pool's gamma. Each figure is the median of REPEATS runs, the ways in
 * turn. With one thread the clock is the processor's time, so that other work on the machine matters less. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "plugins/llama.cpp/hilora_llama.h"

enum { REPEATS = 5, PROMPT = 256, STEPS = 32, SEQUENCES = 4, PER_ROUTE = 3, FIGURES = 3 };

typedef enum way { BASE, MODE_A, MODE_A_OWN_ROUTES, MODE_B, WAYS } way;
static const char *const way_names[WAYS] = {"base model", "mode A, one route", "mode A, a route per sequence", "mode B"};

typedef struct speed_case {
    struct llama_model *model;
    struct llama_context *context;
    hl_llama *shim;
    hl_route *routes[SEQUENCES];
    struct llama_batch batch;
    uint32_t route_of_token[PROMPT];
    way how;
} speed_case;

static void die(const char *what, const hl_diag *diag) {
    fprintf(stderr, "llama_speed: %s%s%s\n", what, diag ? ": " : "", diag ? diag->message : "");
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *user) {
    (void)level, (void)text, (void)user;
}

static clockid_t used_clock = CLOCK_PROCESS_CPUTIME_ID;

static double now(void) {
    struct timespec t;
    clock_gettime(used_clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Route i: PER_ROUTE adapters from position i on. */
static hl_route *make_route(const hl_pool *pool, uint32_t adapters, uint32_t first) {
    uint32_t positions[PER_ROUTE];
    const uint32_t count = adapters < PER_ROUTE ? adapters : PER_ROUTE;
    for (uint32_t i = 0; i < count; i++) {
        positions[i] = (first + i) % adapters;
    }
    const hl_route_options options = {
        .struct_size = sizeof options, .select = HL_SELECT_EXPLICIT, .adapters = positions, .adapter_count = count};
    hl_route *route = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    if (hl_route_compute(pool, NULL, 0, &options, &route, &diag) != HL_OK) {
        die("cannot route", &diag);
    }
    return route;
}

static void open_context(speed_case *c, int32_t threads) {
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 2 * (PROMPT + STEPS) * SEQUENCES;
    params.n_batch = params.n_ubatch = PROMPT;
    params.n_seq_max = SEQUENCES;
    params.kv_unified = true;
    params.n_threads = params.n_threads_batch = threads;
    if (c->how == MODE_A || c->how == MODE_A_OWN_ROUTES) {
        params.cb_eval = hl_llama_eval;
        params.cb_eval_user_data = c->shim;
    }
    c->context = llama_init_from_model(c->model, params);
    if (!c->context) {
        die("cannot make a context", NULL);
    }
}

static void add_token(speed_case *c, int32_t sequence, int32_t position) {
    const int32_t t = c->batch.n_tokens++;
    c->batch.token[t] = (position * 31 + sequence * 7) % 200 + 10;
    c->batch.pos[t] = position;
    c->batch.n_seq_id[t] = 1;
    c->batch.seq_id[t][0] = sequence;
    c->batch.logits[t] = position + 1 >= PROMPT;
    c->route_of_token[t] = c->how == MODE_A_OWN_ROUTES ? (uint32_t)sequence : 0;
}

static void decode(speed_case *c) {
    hl_diag diag;
    hl_diag_clear(&diag);
    if (c->how == MODE_A || c->how == MODE_A_OWN_ROUTES) {
        if (hl_llama_decode(c->shim, c->context, c->batch, c->route_of_token, &diag) != HL_OK) {
            die("cannot decode", &diag);
        }
    } else if (llama_decode(c->context, c->batch) != 0) {
        die("cannot decode", NULL);
    }
    llama_synchronize(c->context);
    c->batch.n_tokens = 0;
}

static double time_prompt(speed_case *c) {
    llama_memory_clear(llama_get_memory(c->context), true);
    const double start = now();
    for (int32_t i = 0; i < PROMPT; i++) {
        add_token(c, 0, i);
    }
    decode(c);
    return PROMPT / (now() - start);
}

static double time_steps(speed_case *c, int32_t sequences) {
    llama_memory_clear(llama_get_memory(c->context), true);
    for (int32_t s = 0; s < sequences; s++) {
        add_token(c, s, 0);
    }
    decode(c);
    const double start = now();
    for (int32_t i = 1; i <= STEPS; i++) {
        for (int32_t s = 0; s < sequences; s++) {
            add_token(c, s, i);
            c->batch.logits[c->batch.n_tokens - 1] = true;
        }
        decode(c);
    }
    return STEPS * sequences / (now() - start);
}

static double median(double values[REPEATS]) {
    qsort(values, REPEATS, sizeof *values, by_value);
    return values[REPEATS / 2];
}

/* A context of its own for each way; the shim serves one call at a time. */
static void open_way(speed_case *c, way how, int32_t threads, struct llama_adapter_lora **adapter) {
    hl_diag diag;
    float scale = 1;
    hl_diag_clear(&diag);
    c->how = how;
    open_context(c, threads);
    if (how == MODE_B && (hl_llama_blend(c->shim, c->model, c->routes[0], adapter, &diag) != HL_OK ||
                          llama_set_adapters_lora(c->context, adapter, 1, &scale) != 0)) {
        die("cannot blend", &diag);
    }
}

static void print_way(way how, double values[FIGURES][REPEATS], double base[FIGURES]) {
    printf("%-30s", way_names[how]);
    for (int f = 0; f < FIGURES; f++) {
        const double found = median(values[f]);
        base[f] = how == BASE ? found : base[f];
        printf(" %9.2f (%.2f)", found, found / base[f]);
    }
    printf("\n");
}

static void measure(speed_case *c, int32_t threads) {
    struct llama_context *contexts[WAYS];
    struct llama_adapter_lora *adapter = NULL;
    static double values[WAYS][FIGURES][REPEATS];
    double base[FIGURES] = {1, 1, 1};
    for (way how = BASE; how < WAYS; how++) {
        open_way(c, how, threads, &adapter);
        contexts[how] = c->context;
    }
    for (int r = 0; r < REPEATS; r++) {
        for (way how = BASE; how < WAYS; how++) {
            c->how = how;
            c->context = contexts[how];
            values[how][0][r] = time_prompt(c);
            values[how][1][r] = time_steps(c, 1);
            values[how][2][r] = time_steps(c, SEQUENCES);
        }
    }
    for (way how = BASE; how < WAYS; how++) {
        print_way(how, values[how], base);
        llama_free(contexts[how]);
    }
    llama_adapter_lora_free(adapter);
}

int main(int argc, char **argv) {
    speed_case c = {.model = NULL};
    hl_pool *pool = NULL;
    hl_pool_view view = {.struct_size = sizeof view};
    hl_diag diag;
    hl_diag_clear(&diag);
    if (argc < 3) {
        fprintf(stderr, "usage: llama_speed MODEL.gguf POOL.hlp [THREADS]\n");
        return 2;
    }
    const int32_t threads = argc > 3 ? atoi(argv[3]) : 1;
    const hl_llama_options options = {
        .struct_size = sizeof options,
        .session = {.struct_size = sizeof options.session, .threads = (uint32_t)threads}};
    llama_log_set(quiet, NULL);
    if (hl_pool_open(argv[2], NULL, &pool, &diag) != HL_OK || hl_pool_info(pool, &view) != HL_OK ||
        hl_llama_create(pool, argv[1], &options, &c.shim, &diag) != HL_OK) {
        die("pool", &diag);
    }
    c.model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!c.model) {
        die("cannot load the model", NULL);
    }
    c.batch = llama_batch_init(PROMPT, 0, 1);
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        c.routes[s] = make_route(pool, view.adapters, s);
    }
    if (threads > 1) {
        used_clock = CLOCK_MONOTONIC;
    }
    if (hl_llama_prepare(c.shim, (const hl_route *const *)c.routes, SEQUENCES, &diag) != HL_OK) {
        die("cannot prepare", &diag);
    }
    printf("tokens per second%s (part of the base model's), %d threads; median of %d\n%-30s %16s %16s %16s\n",
           threads > 1 ? "" : " of processor time", threads, REPEATS, "", "prompt of 256", "1 sequence", "4 sequences");
    measure(&c, threads);
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        hl_route_free(c.routes[s]);
    }
    llama_batch_free(c.batch);
    llama_model_free(c.model);
    hl_llama_destroy(c.shim);
    hl_pool_close(pool);
    return 0;
}
