/* route_cases FOLDER SEED POOLS CASES
 *
 * Writes POOLS random pools to FOLDER/pool-N.hlp and, for CASES random requests to each, what the library answers, as
 * one JSON object a line in FOLDER/cases.jsonl: the reader is tests/interop/test_routing.py. Everything follows from
 * SEED. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hilora/hilora.h>

#include "tests/support/pool_builder.h"
#include "tests/support/random.h"
#include "tests/support/route_json.h"

enum { MAX_ADAPTERS = 40, MAX_DIM = 24 };

typedef struct request {
    hl_route_options options;
    bool has_embedding;
    float z[MAX_DIM];
    uint32_t allow[MAX_ADAPTERS], deny[MAX_ADAPTERS], adapters[MAX_ADAPTERS];
    double weights[MAX_ADAPTERS];
    uint32_t conditional[MAX_ADAPTERS];
    double thresholds[MAX_ADAPTERS];
} request;

static hlt_pool_spec random_spec(hlt_rng *rng) {
    hlt_pool_spec spec = {
        .seed = hlt_next(rng),
        .adapters = hlt_chance(rng, 0.1) ? hlt_between(rng, 13, MAX_ADAPTERS) : hlt_between(rng, 1, 12),
        .modules = hlt_between(rng, 1, 3),
        .min_rank = 1,
        .max_rank = hlt_between(rng, 1, 16),
        .min_width = 1,
        .max_width = 3,
        .dim = hlt_between(rng, 1, MAX_DIM),
        .min_samples = 2,
        .max_samples = hlt_between(rng, 2, 8),
        .svd = hlt_chance(rng, 0.5),
        .lattice = hlt_chance(rng, 0.6),
        .duplicate = hlt_chance(rng, 0.5) ? 0.5 : 0,
        .unroutable = hlt_chance(rng, 0.3) ? 0.3 : 0,
        .conditional = hlt_chance(rng, 0.3) ? 0.5 : 0,
        .uncalibrated = hlt_chance(rng, 0.15)  ? 1
                        : hlt_chance(rng, 0.3) ? 0.4
                                               : 0,
        .gate = hlt_between(rng, 0, 2),
    };
    spec.squeezed = spec.svd && hlt_chance(rng, 0.3);
    spec.normalized = !spec.lattice && hlt_chance(rng, 0.4);
    spec.whiten = !spec.lattice && hlt_chance(rng, 0.4);
    static const double temperatures[] = {0.5, 1, 3, 100};
    spec.temperature = spec.lattice ? temperatures[hlt_between(rng, 0, 3)] : 0;
    return spec;
}

/* One of a list, or something in between. */
static double pick(hlt_rng *rng, const double *list, uint32_t n, double low, double high) {
    uint32_t i = hlt_between(rng, 0, n);
    return i < n ? list[i] : low + (high - low) * hlt_uniform(rng);
}

static uint32_t pick_subset(hlt_rng *rng, uint32_t adapters, double chance, uint32_t *out) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < adapters; i++) {
        if (hlt_chance(rng, chance)) {
            out[n++] = i;
        }
    }
    return n;
}

static void name_adapters(hlt_rng *rng, uint32_t adapters, request *r) {
    static const double weights[] = {1, 1, 1, 2, 0.5, 3, 1e-3, 0};
    uint32_t n = pick_subset(rng, adapters, 0.4, r->adapters);
    for (uint32_t i = n; i > 1; i--) { /* any order */
        uint32_t j = hlt_between(rng, 0, i - 1), swap = r->adapters[j];
        r->adapters[j] = r->adapters[i - 1];
        r->adapters[i - 1] = swap;
    }
    if (n && hlt_chance(rng, 0.05)) {
        r->adapters[n - 1] = r->adapters[0];
    }
    for (uint32_t i = 0; i < n; i++) {
        r->weights[i] = pick(rng, weights, hlt_chance(rng, 0.1) ? 8 : 6, 0.1, 4);
    }
    r->options.adapters = r->adapters;
    r->options.adapter_count = n;
    r->options.adapter_weights = hlt_chance(rng, 0.6) ? r->weights : NULL;
    r->has_embedding = hlt_chance(rng, 0.8);
}

/* Thresholds around the score of the prompt that the adapter would just pass, some at it exactly, some that lift. */
static void add_thresholds(hlt_rng *rng, const hl_pool *pool, uint32_t adapters, uint32_t dim, request *r) {
    double scores[MAX_ADAPTERS];
    if (hl_score_compute(pool, r->z, dim, scores, adapters, NULL) != HL_OK) {
        return; /* an embedding that no call takes */
    }
    r->options.conditional = r->conditional;
    r->options.thresholds = r->thresholds;
    r->options.conditional_count = pick_subset(rng, adapters, hlt_chance(rng, 0.2) ? 1 : 0.4, r->conditional);
    const double shift = hlt_chance(rng, 0.1) ? 1e6 : 1;
    for (size_t i = 0; i < r->options.conditional_count; i++) {
        const double score = scores[r->conditional[i]] / dim, known = isnan(score) ? 0 : score;
        r->thresholds[i] = hlt_chance(rng, 0.1)   ? -(double)INFINITY
                           : hlt_chance(rng, 0.4) ? known
                                                  : known + shift * (hlt_uniform(rng) - 0.5);
    }
    if (r->options.conditional_count && hlt_chance(rng, 0.03)) {
        r->thresholds[0] = (double)NAN;
    } else if (r->options.conditional_count > 1 && hlt_chance(rng, 0.03)) {
        r->conditional[1] = r->conditional[0];
    }
}

static void random_request(hlt_rng *rng, const hlt_pool_spec *spec, const hlt_pool *bytes, const hl_pool *pool,
                           request *r) {
    static const double ps[] = {0, 0.1, 0.5, 0.9, 1}, gammas[] = {0, 0.05, 0.25, 0.4, 0.5, 1};
    static const double temperatures[] = {0, 0, 1, 1e-3, 1e3},
                        levels[] = {0, HL_FAMILIAR_LOWEST, 0.01, 0.02, 0.05, 0.25, 0.5};
    memset(r, 0, sizeof *r);
    hl_route_options *o = &r->options;
    o->struct_size = sizeof *o;
    o->select = (hl_select)hlt_between(rng, 0, HL_SELECT_EXPLICIT);
    o->fallback = (hl_fallback)hlt_between(rng, 0, HL_FALLBACK_NONE);
    o->weights = hlt_chance(rng, 0.5) ? HL_WEIGHTS_DEFAULT : (hl_weights)hlt_between(rng, 1, HL_WEIGHTS_SUM);
    o->allocate = (hl_allocate)hlt_between(rng, 0, HL_ALLOCATE_MULTINOMIAL);
    o->gate = (hl_gate)hlt_between(rng, 0, HL_GATE_STATIC);
    o->rows = (hl_rows)hlt_between(rng, 0, HL_ROWS_F16);
    o->variance_norm = (hl_switch)hlt_between(rng, 0, HL_SWITCH_ON);
    o->k = hlt_between(rng, 0, spec->adapters + 1);
    o->wide_k = hlt_between(rng, 0, spec->adapters + 1);
    o->max_adapters = hlt_chance(rng, 0.5) ? 0 : hlt_between(rng, 1, spec->adapters + 1);
    o->p = pick(rng, ps, 5, 0.01, 1);
    o->gamma = pick(rng, gammas, 6, 0.01, 1);
    o->temperature = pick(rng, temperatures, 5, 0.1, 50);
    o->familiar = pick(rng, levels, 7, 0.001, 0.5);
    o->seed = hlt_next(rng);
    o->keep_all = hlt_chance(rng, 0.3);
    r->has_embedding = true;
    if (hlt_chance(rng, 0.3)) {
        o->allow = r->allow;
        o->allow_count = pick_subset(rng, spec->adapters, 0.7, r->allow);
    }
    if (hlt_chance(rng, 0.3)) {
        o->deny = r->deny;
        o->deny_count = pick_subset(rng, spec->adapters, 0.2, r->deny);
    }
    if (o->select == HL_SELECT_EXPLICIT) {
        name_adapters(rng, spec->adapters, r);
    }
    hlt_embedding(spec, bytes, hlt_next(rng), r->z);
    if (hlt_chance(rng, 0.01)) {
        r->z[0] = (float)NAN;
    } else if (hlt_chance(rng, 0.03)) {
        r->z[0] += 2;
    } else if (!spec->normalized && hlt_chance(rng, 0.02)) {
        memset(r->z, 0, sizeof r->z);
    }
    if (hlt_chance(rng, 0.25)) {
        add_thresholds(rng, pool, spec->adapters, spec->dim, r);
    }
}

/* ---- JSON ---- */

static void put_positions(FILE *out, const char *key, const uint32_t *list, size_t n) {
    fprintf(out, ", \"%s\": [", key);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%s%" PRIu32, i ? ", " : "", list[i]);
    }
    fputs("]", out);
}

static void put_number_option(FILE *out, const char *key, double value) {
    if (value != 0) {
        fprintf(out, ", \"%s\": ", key);
        hlt_put_number(out, value);
    }
}

static void put_choice(FILE *out, const char *key, const char *const *names, int value) {
    if (value) {
        fprintf(out, ", \"%s\": \"%s\"", key, names[value]);
    }
}

static void put_options(FILE *out, const hl_route_options *o) {
    static const char *const selects[] = {"",        "posterior", "paper",  "calibrated",
                                          "nucleus", "top-k",     "cosine", "explicit"};
    static const char *const fallbacks[] = {"", "wide", "base", "none"}, *const weights[] = {"", "posterior", "mean",
                                                                                             "sum"};
    static const char *const allocates[] = {"", "proportional", "multinomial"};
    fprintf(out, "{\"seed\": %" PRIu64, o->seed);
    put_choice(out, "select", selects, o->select);
    put_choice(out, "fallback", fallbacks, o->fallback);
    put_choice(out, "weights", weights, o->weights);
    put_choice(out, "allocate", allocates, o->allocate);
    put_number_option(out, "gate", o->gate);
    put_number_option(out, "rows", o->rows);
    put_number_option(out, "k", o->k);
    put_number_option(out, "wide_k", o->wide_k);
    put_number_option(out, "max_adapters", o->max_adapters);
    put_number_option(out, "p", o->p);
    put_number_option(out, "gamma", o->gamma);
    put_number_option(out, "temperature", o->temperature);
    if (o->familiar != 0) {
        fputs(", \"familiar\": ", out);
        hlt_put_number(out, o->familiar == HL_FAMILIAR_LOWEST ? 0 : o->familiar);
    }
    if (o->variance_norm) {
        fprintf(out, ", \"variance_norm\": %d", o->variance_norm == HL_SWITCH_ON);
    }
    if (o->allow) {
        put_positions(out, "allow", o->allow, o->allow_count);
    }
    put_positions(out, "deny", o->deny, o->deny_count);
    if (o->select == HL_SELECT_EXPLICIT) {
        put_positions(out, "adapters", o->adapters, o->adapter_count);
    }
    if (o->adapter_weights) {
        fputs(", \"adapter_weights\": [", out);
        for (size_t i = 0; i < o->adapter_count; i++) {
            fputs(i ? ", " : "", out);
            hlt_put_number(out, o->adapter_weights[i]);
        }
        fputs("]", out);
    }
    if (o->conditional) {
        put_positions(out, "conditional", o->conditional, o->conditional_count);
        fputs(", \"thresholds\": [", out);
        for (size_t i = 0; i < o->conditional_count; i++) {
            fputs(i ? ", " : "", out);
            hlt_put_number(out, o->thresholds[i]);
        }
        fputs("]", out);
    }
    fputs("}", out);
}

static void put_case(FILE *out, const hl_pool *pool, uint32_t pool_number, uint32_t dim, const request *r) {
    fprintf(out, "{\"pool\": %" PRIu32 ", \"z\": ", pool_number);
    for (uint32_t i = 0; r->has_embedding && i < dim; i++) {
        fputs(i ? ", " : "[", out);
        hlt_put_number(out, (double)r->z[i]);
    }
    fputs(r->has_embedding ? "], \"options\": " : "null, \"options\": ", out);
    put_options(out, &r->options);
    hl_route *route = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    hl_status status =
        hl_route_compute(pool, r->has_embedding ? r->z : NULL, r->has_embedding ? dim : 0, &r->options, &route, &diag);
    fprintf(out, ", \"status\": %d, \"message\": \"%s\"", (int)status, diag.message);
    if (status == HL_OK) {
        hlt_put_route(out, route);
        hl_route_free(route);
    }
    fputs("}\n", out);
}

static void write_cases(FILE *out, const char *folder, hlt_rng *rng, uint32_t number, uint32_t cases) {
    const hlt_pool_spec spec = random_spec(rng);
    hlt_pool bytes = hlt_pool_build(&spec);
    hl_pool *pool = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    if (hl_pool_open_memory(bytes.bytes, bytes.size, NULL, &pool, &diag) != HL_OK) {
        fprintf(stderr, "pool %" PRIu32 ": %s\n", number, diag.message);
        abort();
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/pool-%" PRIu32 ".hlp", folder, number);
    hlt_pool_write(&bytes, path);
    for (uint32_t i = 0; i < cases; i++) {
        request r;
        random_request(rng, &spec, &bytes, pool, &r);
        put_case(out, pool, number, spec.dim, &r);
    }
    hl_pool_close(pool);
    hlt_pool_free(&bytes);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fputs("usage: route_cases FOLDER SEED POOLS CASES\n", stderr);
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
    const uint32_t pools = (uint32_t)strtoul(argv[3], NULL, 10), cases = (uint32_t)strtoul(argv[4], NULL, 10);
    for (uint32_t i = 0; i < pools; i++) {
        write_cases(out, argv[1], &rng, i, cases);
    }
    return fclose(out) == 0 ? 0 : 3;
}
