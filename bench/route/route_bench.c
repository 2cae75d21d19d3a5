/* route_bench [DIM [ADAPTERS [MODULES]]]: opening a pool and routing prompts, on made-up pools; best of many, one
 * thread.
 *
 *   open     map the file and check its tables (the file is warm)
 *   first    the first route: it verifies the statistics, too
 *   route    a route with the defaults
 *   batch    a route in a batch of 64
 *   cosine   a route by cosine
 *   verify   the whole file */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <hilora/hilora.h>

#include "tests/support/pool_builder.h"

enum { PROMPTS = 64, ROUNDS = 30 };

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void check(hl_status status, const hl_diag *diag) {
    if (status != HL_OK) {
        fprintf(stderr, "%s: %s\n", hl_status_name(status), diag->message);
        exit(1);
    }
}

static hl_pool *open_pool(const char *path, hl_isa isa) {
    hl_pool_options options = {.struct_size = sizeof options, .isa = isa};
    hl_diag diag;
    hl_pool *pool;
    hl_diag_clear(&diag);
    check(hl_pool_open(path, &options, &pool, &diag), &diag);
    return pool;
}

static double time_open(const char *path) {
    double best = 1e9;
    for (int i = 0; i < ROUNDS; i++) {
        double start = now_ms();
        hl_pool *pool = open_pool(path, HL_ISA_AUTO);
        double took = now_ms() - start;
        best = took < best ? took : best;
        hl_pool_close(pool);
    }
    return best;
}

static double time_route(const hl_pool *pool, const float *prompts, size_t dim, hl_select select, int rounds) {
    const hl_route_options options = {.struct_size = sizeof options, .select = select};
    hl_diag diag;
    double best = 1e9;
    hl_diag_clear(&diag);
    for (int i = 0; i < rounds; i++) {
        hl_route *route;
        double start = now_ms();
        check(hl_route_compute(pool, prompts + (size_t)(i % PROMPTS) * dim, dim, &options, &route, &diag), &diag);
        double took = now_ms() - start;
        best = took < best ? took : best;
        hl_route_free(route);
    }
    return best;
}

static double time_batch(const hl_pool *pool, const float *prompts, size_t dim) {
    const hl_embeddings batch = {.data = prompts, .dtype = HL_DTYPE_F32, .count = PROMPTS, .dim = dim};
    hl_diag diag;
    double best = 1e9;
    hl_diag_clear(&diag);
    for (int i = 0; i < 5; i++) {
        hl_route *routes[PROMPTS];
        double start = now_ms();
        check(hl_route_compute_batch(pool, &batch, NULL, routes, &diag), &diag);
        double took = (now_ms() - start) / PROMPTS;
        best = took < best ? took : best;
        for (int k = 0; k < PROMPTS; k++) {
            hl_route_free(routes[k]);
        }
    }
    return best;
}

static void run(const char *path, const float *prompts, size_t dim, hl_isa isa, const char *name) {
    hl_pool *pool = open_pool(path, isa);
    double first = time_route(pool, prompts, dim, HL_SELECT_DEFAULT, 1);
    double route = time_route(pool, prompts, dim, HL_SELECT_DEFAULT, ROUNDS), batch = time_batch(pool, prompts, dim);
    double cosine = time_route(pool, prompts, dim, HL_SELECT_COSINE, ROUNDS), start = now_ms();
    hl_diag diag;
    hl_diag_clear(&diag);
    check(hl_pool_verify(pool, NULL, &diag), &diag);
    printf("%-6s first %.2f ms, route %.2f ms, batch %.2f ms each, cosine %.2f ms, verify %.0f ms\n", name, first,
           route, batch, cosine, now_ms() - start);
    hl_pool_close(pool);
}

int main(int argc, char **argv) {
    hlt_pool_spec spec = {
        .seed = 1, .min_rank = 4, .max_rank = 16, .min_width = 8, .max_width = 8, .svd = true, .zstd = true};
    spec.dim = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 768;
    spec.adapters = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1000;
    spec.modules = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 64;
    spec.min_samples = spec.max_samples = 20;
    if (spec.dim == 0 || spec.adapters == 0 || spec.modules == 0) {
        fputs("usage: route_bench [DIM [ADAPTERS [MODULES]]]\n", stderr);
        return 2;
    }
    char path[] = "/tmp/route_bench-XXXXXX";
    int file = mkstemp(path);
    if (file < 0) {
        perror(path);
        return 3;
    }
    close(file);
    hlt_pool pool = hlt_pool_build(&spec);
    hlt_pool_write(&pool, path);
    float *prompts = malloc(PROMPTS * (size_t)spec.dim * sizeof *prompts);
    if (!prompts) {
        return 3;
    }
    for (uint32_t i = 0; i < PROMPTS; i++) {
        hlt_embedding(&spec, &pool, i, prompts + (size_t)i * spec.dim);
    }
    printf("%u adapters x %u modules, d = %u, m = 20, %.1f MB\n", spec.adapters, spec.modules, spec.dim,
           (double)pool.size / 1e6);
    hlt_pool_free(&pool);
    printf("open   %.2f ms\n", time_open(path));
    run(path, prompts, spec.dim, HL_ISA_SCALAR, "scalar");
    run(path, prompts, spec.dim, HL_ISA_AUTO, "auto");
    free(prompts);
    return unlink(path) == 0 ? 0 : 3;
}
