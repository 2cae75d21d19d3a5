/* Making routes ready: bench_prepare POOL.hlp
 *
 * Decodes the first two adapters of a pool (made by hilora-compile), in each precision and on 1 and 2 threads: into
 * fresh memory; in turn, into a cache that holds one of them; and again while it is cached. The file should be in the
 * page cache. Rates count the bytes of A and B as they are stored, decoded: what a copy would move; memcpy's own is
 * beside them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hilora/hilora.h>

enum { ROUNDS = 9 };

static void check(hl_status status, const char *what) {
    if (status != HL_OK) {
        fprintf(stderr, "bench_prepare: %s: %s\n", what, hl_status_name(status));
        exit(1);
    }
}

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double memcpy_rate(size_t size) {
    char *a = malloc(size), *b = malloc(size);
    double best = 1e9;
    if (!a || !b) {
        exit(1);
    }
    memset(a, 1, size);
    for (int i = 0; i < ROUNDS; i++) {
        const double start = seconds(CLOCK_PROCESS_CPUTIME_ID);
        memcpy(b, a, size);
        __asm__ volatile("" ::"r"(b) : "memory");
        const double taken = seconds(CLOCK_PROCESS_CPUTIME_ID) - start;
        best = taken < best ? taken : best;
    }
    free(a);
    free(b);
    return (double)size / best / 1e9;
}

static uint64_t weight_bytes(const hl_pool *pool, uint32_t adapter, uint32_t modules) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < modules; i++) {
        hl_entry_view entry = {.struct_size = sizeof entry};
        hl_module_view module = {.struct_size = sizeof module};
        check(hl_entry_at(pool, adapter, i, &entry), "entry");
        check(hl_module_at(pool, entry.module, &module), "module");
        const uint64_t a = entry.stored_dtype_a <= HL_DTYPE_BF16 ? 2 : 4,
                       b = entry.stored_dtype_b <= HL_DTYPE_BF16 ? 2 : 4;
        bytes += entry.rank * (module.d_in * a + module.d_out * b);
    }
    return bytes;
}

static hl_route *route_to(const hl_pool *pool, uint32_t adapter, hl_rows rows) {
    const hl_route_options options = {.struct_size = sizeof options,
                                      .select = HL_SELECT_EXPLICIT,
                                      .rows = rows,
                                      .adapters = &adapter,
                                      .adapter_count = 1};
    hl_route *route;
    check(hl_route_compute(pool, NULL, 0, &options, &route, NULL), "route");
    return route;
}

static hl_session *session_of(const hl_pool *pool, uint64_t cache_bytes, uint32_t threads) {
    const hl_session_options options = {.struct_size = sizeof options, .cache_bytes = cache_bytes, .threads = threads};
    hl_session *session;
    check(hl_session_create(pool, &options, &session, NULL), "session");
    return session;
}

/* Seconds that one hl_session_prepare takes. */
static double prepare(hl_session *session, const hl_route *route, clockid_t clock) {
    const double start = seconds(clock);
    check(hl_session_prepare(session, &route, 1, NULL), "prepare");
    return seconds(clock) - start;
}

static void measure(const hl_pool *pool, hl_rows rows, uint32_t threads, uint64_t bytes) {
    hl_route *routes[2] = {route_to(pool, 0, rows), route_to(pool, 1, rows)};
    double fresh = 1e9, turn = 1e9, turn_wall = 1e9, again = 1e9;
    hl_session_view view = {.struct_size = sizeof view};
    for (int i = 0; i < ROUNDS; i++) {
        hl_session *session = session_of(pool, 1u << 30, threads);
        const double taken = prepare(session, routes[0], CLOCK_PROCESS_CPUTIME_ID);
        fresh = taken < fresh ? taken : fresh;
        check(hl_session_info(session, &view), "info");
        hl_session_destroy(session);
    }
    hl_session *session = session_of(pool, view.needed_bytes, threads);
    for (int i = 0; i < 2 * ROUNDS; i++) {
        const double wall = seconds(CLOCK_MONOTONIC), taken = prepare(session, routes[i % 2], CLOCK_PROCESS_CPUTIME_ID);
        const double wall_taken = seconds(CLOCK_MONOTONIC) - wall,
                     cached = prepare(session, routes[i % 2], CLOCK_PROCESS_CPUTIME_ID);
        turn = taken < turn ? taken : turn;
        turn_wall = wall_taken < turn_wall ? wall_taken : turn_wall;
        again = cached < again ? cached : again;
    }
    hl_session_destroy(session);
    hl_route_free(routes[0]);
    hl_route_free(routes[1]);
    printf("| %s | %u | %.0f | %.1f | %.2f | %.1f | %.2f | %.1f | %.2f |\n",
           rows == HL_ROWS_F32 ? "float32" : "float16", threads, (double)view.needed_bytes / 1e6, fresh * 1e3,
           (double)bytes / fresh / 1e9, turn * 1e3, (double)bytes / turn / 1e9, turn_wall * 1e3, again * 1e3);
}

int main(int argc, char **argv) {
    hl_pool *pool;
    hl_adapter_view adapter = {.struct_size = sizeof adapter};
    if (argc != 2) {
        fputs("usage: bench_prepare POOL.hlp\n", stderr);
        return 2;
    }
    check(hl_pool_open(argv[1], NULL, &pool, NULL), argv[1]);
    check(hl_pool_verify(pool, NULL, NULL), "verify"); /* also brings the file into memory */
    check(hl_adapter_at(pool, 0, &adapter), "adapter");
    const uint64_t bytes = weight_bytes(pool, 0, adapter.modules);
    printf("%s: %.*s, %u modules, rank %u, %.1f MB of weights; memcpy %.1f GB/s\n\n", argv[1], (int)adapter.name.size,
           adapter.name.data, adapter.modules, adapter.rank, (double)bytes / 1e6, memcpy_rate(64 << 20));
    puts("| rows | threads | decoded MB | fresh memory, CPU ms | GB/s | in turn, CPU ms | GB/s | wall ms | cached, ms "
         "|\n"
         "|---|---|---|---|---|---|---|---|---|");
    for (hl_rows rows = HL_ROWS_F32; rows <= HL_ROWS_F16; rows++) {
        for (uint32_t threads = 1; threads <= 2; threads++) {
            measure(pool, rows, threads, bytes);
        }
    }
    hl_pool_close(pool);
    return 0;
}
