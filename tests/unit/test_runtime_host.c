/* What the program around the library keeps for itself: its heap and its signals. */
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/session_fixture.h"

static const hlt_pool_spec spec = {.seed = 3,
                                   .adapters = 200,
                                   .modules = 2,
                                   .min_rank = 1,
                                   .max_rank = 3,
                                   .min_width = 4,
                                   .max_width = 9,
                                   .dim = 10,
                                   .min_samples = 3,
                                   .max_samples = 6};

/* ---- the heap ---- */

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_MALLOC 1
void *__libc_malloc(size_t size);
void *malloc(size_t size);

static atomic_long mallocs;

/* In place of the C library's, also for the C library itself. */
void *malloc(size_t size) {
    atomic_fetch_add(&mallocs, 1);
    return __libc_malloc(size);
}

typedef struct arena {
    _Alignas(64) unsigned char bytes[1 << 20];
    size_t used;
} arena;

static void *arena_allocate(void *user, size_t size, size_t alignment) {
    arena *a = user;
    const size_t at = (a->used + alignment - 1) / alignment * alignment;
    if (at > sizeof a->bytes || size > sizeof a->bytes - at) {
        return NULL;
    }
    a->used = at + size;
    return a->bytes + at;
}

static void arena_release(void *user, void *memory) {
    (void)user;
    (void)memory;
}

START_TEST(routing_keeps_to_the_allocator) {
    static arena memory;
    const hl_allocator allocator = {arena_allocate, arena_release, &memory};
    const hl_pool_options options = {.struct_size = sizeof options, .allocator = &allocator};
    const hl_route_options all = {.struct_size = sizeof all,
                                  .select = HL_SELECT_TOP_K,
                                  .weights = HL_WEIGHTS_SUM,
                                  .gamma = 1,
                                  .k = spec.adapters,
                                  .max_adapters = spec.adapters,
                                  .keep_all = 1};
    hlt_pool file = hlt_pool_build(&spec);
    hl_pool *pool;
    hl_route *route;
    float z[10];
    hlt_embedding(&spec, &file, 1, z);
    const long before = atomic_load(&mallocs); /* assertions allocate, too */
    const hl_status opened = hl_pool_open_memory(file.bytes, file.size, &options, &pool, NULL);
    const hl_status routed = opened == HL_OK ? hl_route_compute(pool, z, 10, &all, &route, NULL) : opened;
    const long after = atomic_load(&mallocs);
    ck_assert_int_eq(routed, HL_OK);
    ck_assert_int_eq(after, before);
    hl_route_free(route);
    hl_pool_close(pool);
    hlt_pool_free(&file);
}
END_TEST
#endif

/* ---- signals ---- */

static volatile sig_atomic_t caught;

static void catch_signal(int number) {
    caught = number;
}

static void send_signal(int number) {
    const struct timespec while_ago = {.tv_nsec = 2000000};
    caught = 0;
    ck_assert_int_eq(kill(getpid(), number), 0);
    for (int i = 0; i < 50 && !caught; i++) {
        nanosleep(&while_ago, NULL);
    }
}

START_TEST(signals_are_left_to_the_callers_threads) {
    fixture f = open_fixture(&spec, NULL);
    const struct sigaction action = {.sa_handler = catch_signal};
    sigset_t usr1, pending, mask;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    ck_assert_int_eq(sigaction(SIGUSR1, &action, NULL), 0);
    hl_session *session = create_session(f.pool, (hl_session_options){.threads = 4});

    /* The caller's mask is as it was. */
    ck_assert_int_eq(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
    ck_assert(!sigismember(&mask, SIGUSR1));
    send_signal(SIGUSR1);
    ck_assert_int_eq(caught, SIGUSR1);

    /* Blocked in the only thread of the program, the signal waits. */
    ck_assert_int_eq(pthread_sigmask(SIG_BLOCK, &usr1, NULL), 0);
    send_signal(SIGUSR1);
    ck_assert_int_eq(caught, 0);
    ck_assert_int_eq(sigpending(&pending), 0);
    ck_assert(sigismember(&pending, SIGUSR1));
    ck_assert_int_eq(pthread_sigmask(SIG_UNBLOCK, &usr1, NULL), 0);
    ck_assert_int_eq(caught, SIGUSR1);
    hl_session_destroy(session);
    close_fixture(&f);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("host");
    TCase *tests = tcase_create("host");
    tcase_set_timeout(tests, 60);
#if defined(COUNTS_MALLOC)
    tcase_add_test(tests, routing_keeps_to_the_allocator);
#endif
    tcase_add_test(tests, signals_are_left_to_the_callers_threads);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
