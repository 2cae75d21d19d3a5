/* What sessions keep and when they let go of it; memory that runs out; damaged chunks; several threads. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "format/index.h"
#include "tests/unit/session_fixture.h"

static const hlt_pool_spec spec = {.seed = 5,
                                   .adapters = 6,
                                   .modules = 3,
                                   .min_rank = 4,
                                   .max_rank = 8,
                                   .min_width = 40,
                                   .max_width = 90,
                                   .zstd = true,
                                   .svd = true};

/* ---- an allocator that counts, and fails when told to ---- */

typedef struct counter {
    atomic_long calls, live, bytes, peak; /* so many allocations, live ones, their bytes, the most there were */
    atomic_long fail_at;                  /* the call that fails; -1: none */
    bool fail_on;                         /* and all that follow */
} counter;

enum { HEAD = 64 }; /* before each block, for its size */

static void *counted_allocate(void *user, size_t size, size_t alignment) {
    counter *c = user;
    const long call = atomic_fetch_add(&c->calls, 1), fail_at = atomic_load(&c->fail_at);
    void *memory = NULL;
    ck_assert_uint_le(alignment, HEAD);
    if ((fail_at >= 0 && (call == fail_at || (c->fail_on && call > fail_at))) ||
        posix_memalign(&memory, HEAD, size + HEAD) != 0) {
        return NULL;
    }
    memset(memory, 0xA5, size + HEAD); /* nobody counts on zeros */
    memcpy(memory, &size, sizeof size);
    atomic_fetch_add(&c->live, 1);
    const long bytes = atomic_fetch_add(&c->bytes, (long)size) + (long)size;
    for (long peak = atomic_load(&c->peak); bytes > peak && !atomic_compare_exchange_weak(&c->peak, &peak, bytes);) {
    }
    return (char *)memory + HEAD;
}

static void counted_release(void *user, void *memory) {
    counter *c = user;
    size_t size;
    memcpy(&size, (char *)memory - HEAD, sizeof size);
    atomic_fetch_sub(&c->live, 1);
    atomic_fetch_sub(&c->bytes, (long)size);
    free((char *)memory - HEAD);
}

static fixture open_counted(const hlt_pool_spec *of, counter *c) {
    atomic_init(&c->calls, 0);
    atomic_init(&c->live, 0);
    atomic_init(&c->bytes, 0);
    atomic_init(&c->peak, 0);
    atomic_init(&c->fail_at, -1);
    c->fail_on = false;
    const hl_allocator allocator = {counted_allocate, counted_release, c};
    const hl_pool_options options = {.struct_size = sizeof options, .allocator = &allocator};
    return open_fixture(of, &options);
}

static hl_route *route_to(const hl_pool *pool, uint32_t adapter) {
    return explicit_route(pool, &adapter, 1, NULL, (hl_route_options){.gamma = 0.5});
}

/* Bytes that one adapter takes. */
static uint64_t bytes_of(const hl_pool *pool, uint32_t adapter) {
    hl_session *session = create_session(pool, (hl_session_options){0});
    hl_route *route = route_to(pool, adapter);
    prepare(session, &route, 1);
    const uint64_t bytes = info_of(session).needed_bytes;
    hl_session_destroy(session);
    hl_route_free(route);
    return bytes;
}

START_TEST(rows_are_kept_while_there_is_room) {
    fixture f = open_fixture(&spec, NULL);
    hl_route *routes[6];
    uint64_t bytes[6], largest = 0;
    for (uint32_t i = 0; i < 6; i++) {
        routes[i] = route_to(f.pool, i);
        bytes[i] = bytes_of(f.pool, i);
        largest = bytes[i] > largest ? bytes[i] : largest;
    }
    hl_session *session = create_session(f.pool, (hl_session_options){.cache_bytes = bytes[0] + bytes[1] + bytes[2]});
    for (uint32_t i = 0; i < 3; i++) {
        prepare(session, &routes[i], 1);
        ck_assert_uint_eq(info_of(session).misses, 3 * (i + 1));
        ck_assert_uint_eq(info_of(session).pinned_bytes, bytes[i]);
    }
    ck_assert_uint_eq(info_of(session).cached_bytes, bytes[0] + bytes[1] + bytes[2]);
    prepare(session, routes, 3); /* all there, together */
    hl_session_view view = info_of(session);
    ck_assert_uint_eq(view.misses, 9);
    ck_assert_uint_eq(view.hits, 9);
    ck_assert_uint_eq(view.pinned_bytes, view.cached_bytes);
    ck_assert_uint_eq(view.pinned_rocs, view.needed_rocs);
    ck_assert_uint_eq(view.routes, 3);
    prepare(session, &routes[1], 1); /* now 0 and 2 are the older ones */
    prepare(session, &routes[4], 1);
    view = info_of(session);
    ck_assert_uint_le(view.cached_bytes, view.cache_bytes);
    ck_assert_uint_eq(view.misses, 12);
    prepare(session, &routes[1], 1);
    ck_assert_uint_eq(info_of(session).misses, 12); /* the more recently used one was kept */
    prepare(session, &routes[0], 1);
    ck_assert_uint_gt(info_of(session).misses, 12); /* of the oldest something had to go */
    hl_session_destroy(session);
    for (uint32_t i = 0; i < 6; i++) {
        hl_route_free(routes[i]);
    }
    close_fixture(&f);
}
END_TEST

START_TEST(a_cache_that_is_too_small_says_what_it_needs) {
    fixture f = open_fixture(&spec, NULL);
    hl_route *routes[] = {route_to(f.pool, 0), route_to(f.pool, 1)};
    const uint64_t one = bytes_of(f.pool, 0), both = one + bytes_of(f.pool, 1);
    const hl_module_view m = module_of(f.pool, 0);
    float *x = normal_floats((size_t)m.d_in, 1);
    hl_session *session = create_session(f.pool, (hl_session_options){.cache_bytes = both - 1});
    hl_diag diag;
    hl_diag_clear(&diag);
    prepare(session, routes, 1);
    float *before = update_of(session, f.pool, 0, x, 0);
    ck_assert_int_eq(hl_session_prepare(session, (const hl_route *const *)routes, 2, &diag), HL_ERR_CACHE);
    char number[32];
    snprintf(number, sizeof number, "%llu", (unsigned long long)both);
    ck_assert_ptr_nonnull(strstr(diag.message, number));
    ck_assert_uint_eq(info_of(session).needed_bytes, both);
    ck_assert_uint_eq(info_of(session).routes, 1);
    float *after = update_of(session, f.pool, 0, x, 0);
    ck_assert_mem_eq(after, before, (size_t)m.d_out * 4);
    hl_session_destroy(session);

    session = create_session(f.pool, (hl_session_options){.cache_bytes = both});
    prepare(session, routes, 2);
    hl_session_destroy(session);
    session = create_session(f.pool, (hl_session_options){.cache_bytes = 1});
    ck_assert_int_eq(hl_session_prepare(session, (const hl_route *const *)routes, 1, NULL), HL_ERR_CACHE);
    hl_session_destroy(session);
    hl_route_free(routes[0]);
    hl_route_free(routes[1]);
    free(x);
    free(before);
    free(after);
    close_fixture(&f);
}
END_TEST

START_TEST(routes_share_what_they_have_in_common) {
    hlt_pool_spec mixed = spec;
    mixed.mixed_dtypes = true;
    mixed.adapters = 3;
    mixed.modules = 12;
    fixture f = open_fixture(&mixed, NULL);
    const uint32_t adapter = 1;
    hl_route *routes[4];
    uint64_t alone[4];
    static const hl_rows modes[] = {HL_ROWS_SOURCE, HL_ROWS_F32, HL_ROWS_F16, HL_ROWS_F16};
    hl_session *session = create_session(f.pool, (hl_session_options){.threads = 2});
    for (int i = 0; i < 4; i++) {
        routes[i] = explicit_route(f.pool, &adapter, 1, NULL, (hl_route_options){.rows = modes[i], .gamma = 0.5});
        prepare(session, &routes[i], 1);
        alone[i] = info_of(session).needed_bytes;
    }
    prepare(session, routes, 4);
    hl_session_view view = info_of(session);
    ck_assert_uint_eq(view.needed_bytes, alone[1] + alone[2]); /* each entry in float32 and in float16, not more */
    ck_assert_uint_eq(view.misses, 2 * mixed.modules);
    for (uint32_t m = 0; m < mixed.modules; m++) {
        hl_rows_view rows[4];
        for (uint32_t i = 0; i < 4; i++) {
            rows[i].struct_size = sizeof rows[i];
            ck_assert_int_eq(hl_session_rows(session, i, adapter, m, &rows[i], NULL), HL_OK);
        }
        ck_assert_int_eq(rows[1].dtype, HL_DTYPE_F32);
        ck_assert_int_eq(rows[2].dtype, HL_DTYPE_F16);
        ck_assert_ptr_eq(rows[2].a, rows[3].a);
        ck_assert_ptr_eq(rows[0].a, rows[0].dtype == HL_DTYPE_F32 ? rows[1].a : rows[2].a);
    }
    hl_session_destroy(session);
    for (int i = 0; i < 4; i++) {
        hl_route_free(routes[i]);
    }
    close_fixture(&f);
}
END_TEST

START_TEST(applying_allocates_nothing) {
    enum { TOKENS = 300 };
    counter c;
    fixture f = open_counted(&spec, &c);
    hl_route *routes[] = {route_to(f.pool, 0), route_to(f.pool, 3), route_to(f.pool, 5)};
    uint32_t route[TOKENS];
    hl_session *session = create_session(f.pool, (hl_session_options){.threads = 3});
    prepare(session, routes, 3);
    const long before = atomic_load(&c.calls);
    for (uint32_t module = 0; module < spec.modules; module++) {
        const hl_module_view m = module_of(f.pool, module);
        float *x = normal_floats(TOKENS * (size_t)m.d_in, 1), *y = normal_floats(TOKENS * (size_t)m.d_out, 2);
        for (uint32_t t = 0; t < TOKENS; t++) {
            route[t] = t % 4 < 3 ? t % 4 : HL_NONE;
        }
        for (size_t n = 1; n <= TOKENS; n += 23) {
            ck_assert_int_eq(
                hl_session_apply(session, module, n, x, (size_t)m.d_in, route, y, (size_t)m.d_out, HL_DTYPE_F32, NULL),
                HL_OK);
        }
        free(x);
        free(y);
    }
    ck_assert_int_eq(atomic_load(&c.calls), before);
    hl_session_destroy(session);
    for (int i = 0; i < 3; i++) {
        hl_route_free(routes[i]);
    }
    hl_pool_close(f.pool);
    ck_assert_int_eq(atomic_load(&c.live), 0);
    hlt_pool_free(&f.file);
}
END_TEST

/* Random routes in a cache that is always nearly full. alike: all entries take the same bytes. */
static void crowd_the_cache(bool alike) {
    enum { ROUNDS = 100 };
    hlt_pool_spec of = spec;
    of.adapters = 12;
    of.zstd = false;
    of.min_width = 200;
    of.max_width = 4000;
    if (alike) {
        of.min_rank = of.max_rank;
        of.min_width = of.max_width;
    }
    counter c;
    fixture f = open_counted(&of, &c);
    hl_route *routes[12];
    uint64_t largest = 0;
    for (uint32_t i = 0; i < of.adapters; i++) {
        routes[i] = route_to(f.pool, i);
        const uint64_t bytes = bytes_of(f.pool, i);
        largest = bytes > largest ? bytes : largest;
    }
    hlt_rng rng = {3};
    hl_session *session = create_session(f.pool, (hl_session_options){.cache_bytes = 3 * largest});
    for (uint32_t i = 0; i < of.adapters; i++) {
        prepare(session, &routes[i], 1); /* scratch grows to what the largest entry needs */
    }
    ck_assert_int_eq(hl_session_prepare(session, NULL, 0, NULL), HL_OK);
    const long idle = atomic_load(&c.bytes) - (long)info_of(session).cached_bytes;
    atomic_store(&c.peak, idle);
    long calls = 0;
    for (int round = 0; round < ROUNDS; round++) {
        hl_route *some[2] = {routes[hlt_between(&rng, 0, 11)], routes[hlt_between(&rng, 0, 11)]};
        const long before = atomic_load(&c.calls);
        prepare(session, some, 2);
        calls += round < 20 ? 0 : atomic_load(&c.calls) - before;
        ck_assert_uint_le(info_of(session).cached_bytes, 3 * largest);
    }
    ck_assert_uint_gt(info_of(session).misses, ROUNDS);
    /* Beside rows there are a few lists. */
    ck_assert_int_le(atomic_load(&c.peak) - idle, (long)(3 * largest) + 16384);
    ck_assert(!alike || calls <= 12 * (ROUNDS - 20)); /* lists alone: the memory of rows was used again */
    hl_session_destroy(session);
    for (uint32_t i = 0; i < of.adapters; i++) {
        hl_route_free(routes[i]);
    }
    hl_pool_close(f.pool);
    ck_assert_int_eq(atomic_load(&c.live), 0);
    hlt_pool_free(&f.file);
}

START_TEST(memory_stays_within_the_bound) {
    crowd_the_cache(false);
}
END_TEST

START_TEST(memory_of_alike_rows_is_used_again) {
    crowd_the_cache(true);
}
END_TEST

/* Everything that allocates, once; the first failure ends it. A session that stays must be usable. */
static hl_status run_all(const hl_pool *pool, hl_route *const *routes, hl_session **session, hl_lora **lora) {
    hl_status status = *session ? HL_OK : hl_session_create(pool, NULL, session, NULL);
    if (status == HL_OK) {
        status = hl_session_prepare(*session, (const hl_route *const *)routes, 2, NULL);
    }
    if (status == HL_OK) {
        status = hl_session_prepare(*session, (const hl_route *const *)routes + 1, 2, NULL);
    }
    if (status == HL_OK) {
        status = hl_blend(*session, routes[2], lora, NULL);
    }
    return status;
}

START_TEST(memory_that_runs_out_leaves_a_usable_session) {
    counter c;
    fixture f = open_counted(&spec, &c);
    hl_route *routes[] = {route_to(f.pool, 0), route_to(f.pool, 3), route_to(f.pool, 5)};
    const hl_module_view m = module_of(f.pool, 1);
    float *x = normal_floats((size_t)m.d_in, 1), *expected = NULL;
    const long idle = atomic_load(&c.live);
    long failures = 0;
    for (long n = 0;; n++) {
        hl_session *session = NULL;
        hl_lora *lora = NULL;
        c.fail_on = n % 2;
        atomic_store(&c.fail_at, atomic_load(&c.calls) + n / 2);
        const hl_status status = run_all(f.pool, routes, &session, &lora);
        atomic_store(&c.fail_at, -1);
        ck_assert(status == HL_OK || status == HL_ERR_MEMORY);
        failures += status != HL_OK;
        if (session) {
            float y[90] = {0};
            const uint32_t second = 1;
            const hl_status still =
                hl_session_apply(session, 1, 1, x, (size_t)m.d_in, &second, y, (size_t)m.d_out, HL_DTYPE_F32, NULL);
            ck_assert(still == HL_OK || still == HL_ERR_ARGUMENT); /* prepared or not */
            hl_lora_free(lora);
            lora = NULL;
            ck_assert_int_eq(run_all(f.pool, routes, &session, &lora), HL_OK);
            float *update = update_of(session, f.pool, 1, x, 1);
            if (!expected) {
                expected = update;
            } else {
                ck_assert_mem_eq(update, expected, (size_t)m.d_out * 4);
                free(update);
            }
        }
        hl_lora_free(lora);
        hl_session_destroy(session);
        ck_assert_int_eq(atomic_load(&c.live), idle);
        if (status == HL_OK && n % 2) {
            break;
        }
    }
    ck_assert_int_gt(failures, 100);
    for (int i = 0; i < 3; i++) {
        hl_route_free(routes[i]);
    }
    free(x);
    free(expected);
    close_fixture(&f);
}
END_TEST

START_TEST(a_damaged_chunk_is_met_at_preparing) {
    fixture f = open_fixture(&spec, NULL);
    hlf_index index;
    hlf_chunk_record chunk;
    ck_assert_int_eq(hlf_index_open(f.file.bytes, f.file.size, NULL, &index, NULL), HL_OK);
    hl_route *good = route_to(f.pool, 0), *bad = route_to(f.pool, 2);
    const hl_module_view m = module_of(f.pool, 0);
    float *x = normal_floats((size_t)m.d_in, 1);
    for (uint32_t threads = 1; threads <= 3; threads += 2) {
        hl_session *session = create_session(f.pool, (hl_session_options){.threads = threads});
        prepare(session, &good, 1);
        float *before = update_of(session, f.pool, 0, x, 0);
        for (uint32_t i = 2 * 9; i < 3 * 9; i++) { /* nine chunks an adapter */
            hlf_index_chunk(&index, i, &chunk);
            const uint64_t at = chunk.offset + chunk.stored * (i % 5) / 5;
            f.file.bytes[at] ^= 0x20;
            hl_diag diag;
            hl_diag_clear(&diag);
            const hl_route *both[] = {good, bad};
            ck_assert_int_eq(hl_session_prepare(session, both, 2, &diag), HL_ERR_CORRUPT);
            ck_assert_uint_eq(diag.offset, chunk.offset);
            ck_assert_uint_eq(info_of(session).routes, 0);
            ck_assert_uint_eq(info_of(session).pinned_bytes, 0);
            f.file.bytes[at] ^= 0x20;
            prepare(session, &good, 1);
            float *after = update_of(session, f.pool, 0, x, 0);
            ck_assert_mem_eq(after, before, (size_t)m.d_out * 4);
            free(after);
        }
        const hl_route *both[] = {good, bad};
        ck_assert_int_eq(hl_session_prepare(session, both, 2, NULL), HL_OK);
        free(before);
        hl_session_destroy(session);
    }
    free(x);
    hl_route_free(good);
    hl_route_free(bad);
    close_fixture(&f);
}
END_TEST

/* ---- threads ---- */

typedef struct user {
    const hl_pool *pool;
    const float *const *expected; /* by adapter */
    const float *x;
    uint64_t seed;
} user;

static void *use_pool(void *argument) {
    const user *u = argument;
    hlt_rng rng = {u->seed};
    const hl_module_view m = module_of(u->pool, 0);
    for (int round = 0; round < 30; round++) {
        hl_session *session = create_session(u->pool, (hl_session_options){.threads = 1 + (uint32_t)round % 2});
        const uint32_t adapter = hlt_between(&rng, 0, spec.adapters - 1);
        hl_route *route = route_to(u->pool, adapter);
        prepare(session, &route, 1);
        hl_route_free(route);
        float *y = update_of(session, u->pool, 0, u->x, 0);
        ck_assert_mem_eq(y, u->expected[adapter], (size_t)m.d_out * 4);
        free(y);
        hl_session_destroy(session);
    }
    return NULL;
}

START_TEST(sessions_of_several_threads_share_a_pool) {
    enum { THREADS = 4 };
    fixture f = open_fixture(&spec, NULL);
    const hl_module_view m = module_of(f.pool, 0);
    float *x = normal_floats((size_t)m.d_in, 1);
    const float *expected[6];
    for (uint32_t i = 0; i < spec.adapters; i++) {
        hl_session *session = create_session(f.pool, (hl_session_options){0});
        hl_route *route = route_to(f.pool, i);
        prepare(session, &route, 1);
        expected[i] = update_of(session, f.pool, 0, x, 0);
        hl_route_free(route);
        hl_session_destroy(session);
    }
    pthread_t threads[THREADS];
    user users[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        users[i] = (user){f.pool, expected, x, i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, use_pool, &users[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (uint32_t i = 0; i < spec.adapters; i++) {
        free((void *)(uintptr_t)expected[i]);
    }
    free(x);
    close_fixture(&f);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("session cache");
    TCase *tests = tcase_create("session cache");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, rows_are_kept_while_there_is_room);
    tcase_add_test(tests, a_cache_that_is_too_small_says_what_it_needs);
    tcase_add_test(tests, routes_share_what_they_have_in_common);
    tcase_add_test(tests, applying_allocates_nothing);
    tcase_add_test(tests, memory_stays_within_the_bound);
    tcase_add_test(tests, memory_of_alike_rows_is_used_again);
    tcase_add_test(tests, memory_that_runs_out_leaves_a_usable_session);
    tcase_add_test(tests, a_damaged_chunk_is_met_at_preparing);
    tcase_add_test(tests, sessions_of_several_threads_share_a_pool);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
