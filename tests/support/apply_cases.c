/* apply_cases FOLDER SEED POOLS
 *
 * Writes POOLS random pools to FOLDER/pool-N.hlp, and to FOLDER/cases.jsonl, one JSON object a line, what a session
 * makes of a few routes on each: a batch whose tokens mix the routes and none, for every module, and every route blended. The
 * reader is tests/interop/test_apply_cases.py. Everything follows from SEED. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <hilora/hilora.h>

#include "tests/support/pool_builder.h"
#include "tests/support/random.h"

enum { MOST_ADAPTERS = 6, MOST_ROUTES = 4, MOST_TOKENS = 7, MOST_WIDTH = 37 };

static void check(hl_status status, const hl_diag *diag) {
    if (status != HL_OK) {
        fprintf(stderr, "apply_cases: %s: %s\n", hl_status_name(status), diag->message);
        abort();
    }
}

static hlt_pool_spec random_spec(hlt_rng *rng) {
    hlt_pool_spec spec = {
        .seed = hlt_next(rng),
        .adapters = hlt_between(rng, 1, MOST_ADAPTERS),
        .modules = hlt_between(rng, 1, 4),
        .min_rank = 1,
        .max_rank = hlt_between(rng, 1, 19),
        .min_width = 1,
        .max_width = hlt_between(rng, 1, MOST_WIDTH),
        .zstd = hlt_chance(rng, 0.5),
        .svd = hlt_chance(rng, 0.5),
        .mixed_dtypes = hlt_chance(rng, 0.5),
        .coarse = hlt_chance(rng, 0.5),
    };
    spec.modules_per_adapter = hlt_chance(rng, 0.5) ? 0 : hlt_between(rng, 1, spec.modules);
    spec.squeezed = spec.svd && hlt_chance(rng, 0.3);
    return spec;
}

static hl_route *random_route(hlt_rng *rng, const hl_pool *pool, uint32_t adapters) {
    static const double gammas[] = {0.05, 0.25, 0.4, 0.7, 1}, weights[] = {1, 1, 1, 2, 0.5, 3};
    uint32_t named[MOST_ADAPTERS];
    double given[MOST_ADAPTERS];
    size_t n = 0;
    const uint32_t sure = hlt_between(rng, 0, adapters - 1);
    for (uint32_t i = 0; i < adapters; i++) {
        if (i == sure || hlt_chance(rng, 0.5)) {
            given[n] = weights[hlt_between(rng, 0, 5)];
            named[n++] = i;
        }
    }
    const hl_route_options options = {.struct_size = sizeof options,
                                      .select = HL_SELECT_EXPLICIT,
                                      .weights = hlt_chance(rng, 0.2) ? HL_WEIGHTS_SUM : HL_WEIGHTS_DEFAULT,
                                      .gate = (hl_gate)hlt_between(rng, 1, HL_GATE_STATIC),
                                      .rows = (hl_rows)hlt_between(rng, 1, HL_ROWS_F16),
                                      .variance_norm = (hl_switch)hlt_between(rng, 1, HL_SWITCH_ON),
                                      .gamma = gammas[hlt_between(rng, 0, 4)],
                                      .adapters = named,
                                      .adapter_count = n,
                                      .adapter_weights = given};
    hl_route *route;
    hl_diag diag;
    hl_diag_clear(&diag);
    check(hl_route_compute(pool, NULL, 0, &options, &route, &diag), &diag);
    return route;
}

/* Deviates, or small whole numbers, whose sums are exact; now and then nothing but zeros. */
static void fill_random(hlt_rng *rng, bool coarse, float *values, size_t n) {
    const bool zero = hlt_chance(rng, 0.1);
    for (size_t i = 0; i < n; i++) {
        values[i] = zero ? 0 : coarse ? (float)hlt_between(rng, 0, 4) - 2 : (float)hlt_normal(rng);
    }
}

/* ---- JSON ---- */

static void put_floats(FILE *out, const char *key, const float *values, size_t n) {
    fprintf(out, "\"%s\": [", key);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%s%.9g", i ? ", " : "", (double)values[i]);
    }
    fputs("]", out);
}

static void put_route(FILE *out, const hl_route *route) {
    hl_route_view view = {.struct_size = sizeof view};
    hl_route_item item = {.struct_size = sizeof item};
    check(hl_route_info(route, &view), NULL);
    fprintf(out, "{\"gate\": %d, \"rows\": %d, \"variance_norm\": %u, \"items\": [", (int)view.gate, (int)view.rows,
            view.variance_norm);
    for (uint32_t i = 0; hl_route_item_at(route, i, &item) == HL_OK; i++) {
        fprintf(out, "%s[%u, %u, %u, %u]", i ? ", " : "", item.adapter, item.rank, item.rocs, item.weight_256);
    }
    fputs("]", out);
}

static void put_blend(FILE *out, hl_session *session, const hl_route *route) {
    hl_lora *lora;
    hl_lora_view view = {.struct_size = sizeof view};
    hl_diag diag;
    hl_diag_clear(&diag);
    check(hl_blend(session, route, &lora, &diag), &diag);
    fputs(", \"blend\": [", out);
    for (uint32_t i = 0; hl_lora_at(lora, i, &view) == HL_OK; i++) {
        fprintf(out, "%s{\"module\": %u, \"rank\": %u, ", i ? ", " : "", view.module, view.rank);
        put_floats(out, "a", view.a, view.rank * view.d_in);
        fputs(", ", out);
        put_floats(out, "b", view.b, view.rank * view.d_out);
        fputs("}", out);
    }
    fputs("]}", out);
    hl_lora_free(lora);
}

static void put_module(FILE *out, hlt_rng *rng, hl_session *session, const hl_pool *pool, uint32_t module, bool coarse,
                       const uint32_t *route_of_token, size_t tokens) {
    float x[MOST_TOKENS * MOST_WIDTH], y[MOST_TOKENS * MOST_WIDTH];
    hl_module_view view = {.struct_size = sizeof view};
    hl_diag diag;
    hl_diag_clear(&diag);
    check(hl_module_at(pool, module, &view), &diag);
    for (size_t t = 0; t < tokens; t++) {
        fill_random(rng, coarse, x + t * view.d_in, (size_t)view.d_in);
        fill_random(rng, coarse, y + t * view.d_out, (size_t)view.d_out);
    }
    fputs(module ? ", {" : "{", out);
    put_floats(out, "x", x, tokens * view.d_in);
    fputs(", ", out);
    put_floats(out, "before", y, tokens * view.d_out);
    check(hl_session_apply(session, module, tokens, x, (size_t)view.d_in, route_of_token, y, (size_t)view.d_out,
                           HL_DTYPE_F32, &diag),
          &diag);
    fputs(", ", out);
    put_floats(out, "after", y, tokens * view.d_out);
    fputs("}", out);
}

static void put_case(FILE *out, hlt_rng *rng, const hlt_pool_spec *spec, const hl_pool *pool, uint32_t number) {
    const size_t count = hlt_between(rng, 1, MOST_ROUTES), tokens = hlt_between(rng, 1, MOST_TOKENS);
    const hl_session_options options = {.struct_size = sizeof options,
                                        .threads = hlt_between(rng, 1, 3),
                                        .isa = hlt_chance(rng, 0.5) ? HL_ISA_SCALAR : HL_ISA_AUTO};
    hl_route *routes[MOST_ROUTES];
    uint32_t route_of_token[MOST_TOKENS];
    hl_session *session;
    hl_diag diag;
    hl_diag_clear(&diag);
    for (size_t i = 0; i < count; i++) {
        routes[i] = random_route(rng, pool, spec->adapters);
    }
    for (size_t i = 0; i < tokens; i++) {
        route_of_token[i] = hlt_chance(rng, 0.15) ? HL_NONE : hlt_between(rng, 0, (uint32_t)count - 1);
    }
    check(hl_session_create(pool, &options, &session, &diag), &diag);
    check(hl_session_prepare(session, (const hl_route *const *)routes, count, &diag), &diag);
    fprintf(out, "{\"pool\": %u, \"coarse\": %s, \"tokens\": [", number, spec->coarse ? "true" : "false");
    for (size_t i = 0; i < tokens; i++) {
        fprintf(out, "%s%" PRId64, i ? ", " : "", route_of_token[i] == HL_NONE ? -1 : (int64_t)route_of_token[i]);
    }
    fputs("], \"modules\": [", out);
    for (uint32_t module = 0; module < spec->modules; module++) {
        put_module(out, rng, session, pool, module, spec->coarse, route_of_token, tokens);
    }
    fputs("], \"routes\": [", out);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? ", " : "", out);
        put_route(out, routes[i]);
        put_blend(out, session, routes[i]);
        hl_route_free(routes[i]);
    }
    fputs("]}\n", out);
    hl_session_destroy(session);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fputs("usage: apply_cases FOLDER SEED POOLS\n", stderr);
        return 2;
    }
    hlt_rng rng = {strtoull(argv[2], NULL, 10)};
    char path[4096];
    snprintf(path, sizeof path, "%s/cases.jsonl", argv[1]);
    FILE *out = fopen(path, "w");
    if (!out) {
        perror(path);
        return 3;
    }
    const uint32_t pools = (uint32_t)strtoul(argv[3], NULL, 10);
    for (uint32_t i = 0; i < pools; i++) {
        const hlt_pool_spec spec = random_spec(&rng);
        hlt_pool bytes = hlt_pool_build(&spec);
        hl_pool *pool;
        hl_diag diag;
        hl_diag_clear(&diag);
        check(hl_pool_open_memory(bytes.bytes, bytes.size, NULL, &pool, &diag), &diag);
        snprintf(path, sizeof path, "%s/pool-%u.hlp", argv[1], i);
        hlt_pool_write(&bytes, path);
        put_case(out, &rng, &spec, pool, i);
        hl_pool_close(pool);
        hlt_pool_free(&bytes);
    }
    return fclose(out) == 0 ? 0 : 3;
}
