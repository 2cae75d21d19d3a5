/* Applying routes beside the base model's matrix product (OpenBLAS), both on one thread: bench_apply [D] [MODULES]
 *
 * A step is one forward pass of MODULES projections of D x D. Each is first multiplied by its matrix and then updated
 * by a route of three adapters with 24 components each, so 72 rows are scored and 48 applied. The two alternate, so
 * that neither finds its data in the caches that the other has not left there. Prints, per number of tokens and
 * precision, the medians over steps and their ratio. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hilora/hilora.h>

#include "format/dtype.h"
#include "tests/support/pool_builder.h"
#include "tests/support/random.h"

extern void openblas_set_num_threads(int threads);

enum { ADAPTERS = 3, RANK = 24, MOST_STEPS = 31, MOST_TOKENS = 512, MATRICES = 4 };

static const double gamma_of_48 = 48.0 / 72;

typedef struct bench {
    size_t d, modules;
    float *matrix[MATRICES]; /* D x D each; shared in turn by the modules, but larger than any cache */
    float *x, *y;            /* MOST_TOKENS x D */
    uint16_t *x_half, *y_half;
    hl_pool *pool;
} bench;

static void die(const char *what) {
    fprintf(stderr, "bench_apply: %s\n", what);
    exit(1);
}

static void *allocate(size_t n, size_t size) {
    void *memory = aligned_alloc(64, (n * size + 63) / 64 * 64);
    if (!memory) {
        die("out of memory");
    }
    return memory;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, ascending);
    return values[n / 2];
}

static float *normals(size_t n, uint64_t seed) {
    hlt_rng rng = {seed};
    float *values = allocate(n, sizeof *values);
    for (size_t i = 0; i < n; i++) { /* a sum of four uniforms is normal enough */
        const uint64_t bits = hlt_next(&rng);
        values[i] = (float)((bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48)) / 65536 - 2;
    }
    return values;
}

static void multiply(const bench *b, size_t module, size_t tokens) {
    const int d = (int)b->d;
    const float *matrix = b->matrix[module % MATRICES];
    if (tokens == 1) {
        cblas_sgemv(CblasRowMajor, CblasNoTrans, d, d, 1, matrix, d, b->x, 1, 0, b->y, 1);
    } else {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)tokens, d, d, 1, b->x, d, matrix, d, 0, b->y, d);
    }
}

static void update(const bench *b, hl_session *session, size_t module, size_t tokens, hl_dtype dtype) {
    const void *x = dtype == HL_DTYPE_F32 ? (const void *)b->x : b->x_half;
    void *y = dtype == HL_DTYPE_F32 ? (void *)b->y : b->y_half;
    if (hl_session_apply(session, (uint32_t)module, tokens, x, b->d, NULL, y, b->d, dtype, NULL) != HL_OK) {
        die("applying failed");
    }
}

static void measure(const bench *b, hl_session *session, size_t tokens, hl_rows rows, hl_dtype dtype) {
    const size_t modules = tokens == 1 ? b->modules : 4, steps = tokens <= 32 ? MOST_STEPS : 5;
    double base[MOST_STEPS], ours[MOST_STEPS];
    for (size_t step = 0; step < steps; step++) {
        base[step] = ours[step] = 0;
        for (size_t m = 0; m < modules; m++) {
            const double start = now();
            multiply(b, m, tokens);
            const double middle = now();
            update(b, session, m, tokens, dtype);
            const double end = now();
            base[step] += (middle - start) * 1e6 / (double)modules;
            ours[step] += (end - middle) * 1e6 / (double)modules;
        }
    }
    const double theirs = median(base, steps), own = median(ours, steps);
    printf("| %zu | %s | %s | %.0f | %.1f | %.2f %% |\n", tokens, rows == HL_ROWS_F32 ? "float32" : "float16",
           dtype == HL_DTYPE_F32 ? "float32" : "bfloat16", theirs, own, 100 * own / theirs);
    fflush(stdout);
}

static hl_session *prepare(const bench *b, hl_rows rows, hl_isa isa) {
    static const uint32_t adapters[ADAPTERS] = {0, 1, 2};
    const hl_route_options options = {.struct_size = sizeof options,
                                      .select = HL_SELECT_EXPLICIT,
                                      .rows = rows,
                                      .gamma = gamma_of_48,
                                      .adapters = adapters,
                                      .adapter_count = ADAPTERS};
    const hl_session_options room = {.struct_size = sizeof room, .cache_bytes = UINT64_C(1) << 34, .isa = isa};
    hl_route *route;
    hl_session *session;
    if (hl_route_compute(b->pool, NULL, 0, &options, &route, NULL) != HL_OK ||
        hl_session_create(b->pool, &room, &session, NULL) != HL_OK ||
        hl_session_prepare(session, (const hl_route *const *)&route, 1, NULL) != HL_OK) {
        die("preparing failed");
    }
    hl_route_free(route);
    return session;
}

int main(int argc, char **argv) {
    bench b = {.d = argc > 1 ? (size_t)atoi(argv[1]) : 4096, .modules = argc > 2 ? (size_t)atoi(argv[2]) : 24};
    const char *isa = argc > 3 ? argv[3] : "";
    const hlt_pool_spec spec = {.seed = 1,
                                .adapters = ADAPTERS,
                                .modules = (uint32_t)b.modules,
                                .min_rank = RANK,
                                .max_rank = RANK,
                                .min_width = (uint32_t)b.d,
                                .max_width = (uint32_t)b.d};
    openblas_set_num_threads(1);
    hlt_pool file = hlt_pool_build(&spec);
    if (hl_pool_open_memory(file.bytes, file.size, NULL, &b.pool, NULL) != HL_OK) {
        die("opening failed");
    }
    for (size_t i = 0; i < MATRICES; i++) {
        b.matrix[i] = normals(b.d * b.d, i);
    }
    b.x = normals(MOST_TOKENS * b.d, 10);
    b.y = normals(MOST_TOKENS * b.d, 11);
    b.x_half = allocate(MOST_TOKENS * b.d, 2);
    b.y_half = allocate(MOST_TOKENS * b.d, 2);
    hlf_convert(b.x_half, HLF_DTYPE_BF16, b.x, HLF_DTYPE_F32, MOST_TOKENS * b.d);
    hlf_convert(b.y_half, HLF_DTYPE_BF16, b.y, HLF_DTYPE_F32, MOST_TOKENS * b.d);

    printf("d = %zu, %zu modules, 72 components scored, 48 applied, one thread, microseconds a module; base: %s\n\n",
           b.d, b.modules, "OpenBLAS, float32");
    puts("| tokens | rows | x, y | base | update | ratio |\n|---|---|---|---|---|---|");
    for (hl_rows rows = HL_ROWS_F32; rows <= HL_ROWS_F16; rows++) {
        hl_session *session = prepare(&b, rows, strcmp(isa, "scalar") == 0 ? HL_ISA_SCALAR : HL_ISA_AUTO);
        for (size_t tokens = 1; tokens <= MOST_TOKENS; tokens *= 8) {
            measure(&b, session, tokens, rows, HL_DTYPE_F32);
            measure(&b, session, tokens, rows, HL_DTYPE_BF16);
        }
        hl_session_destroy(session);
    }
    hl_pool_close(b.pool);
    return 0;
}
