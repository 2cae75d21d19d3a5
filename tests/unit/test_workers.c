/* Threads: every index once, results in order, a bounded lead, and a stop that leaks nothing. */
#include <check.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "compiler/base/workers.h"

enum { COUNT = 1000 };

static void count_call(void *context, size_t i, size_t worker) {
    (void)worker;
    atomic_fetch_add(&((atomic_int *)context)[i], 1);
}

START_TEST(parallel_calls_each_index_once) {
    const size_t threads = (size_t)_i;
    atomic_int *calls = calloc(COUNT, sizeof *calls);
    ck_assert(hlc_parallel(threads, COUNT, count_call, calls));
    for (size_t i = 0; i < COUNT; i++) {
        ck_assert_int_eq(atomic_load(&calls[i]), 1);
    }
    ck_assert(hlc_parallel(threads, 0, count_call, calls));
    free(calls);
}
END_TEST

typedef struct line {
    atomic_size_t made, dropped;
    size_t taken, fail_at, stop_at, threads;
} line;

static void *make_number(void *context, size_t i, size_t worker) {
    line *l = context;
    ck_assert_uint_lt(worker, l->threads);
    if (i == l->fail_at) {
        return NULL;
    }
    atomic_fetch_add(&l->made, 1);
    size_t *number = malloc(sizeof *number);
    *number = i;
    return number;
}

static bool take_number(void *context, size_t i, void *made) {
    line *l = context;
    ck_assert_uint_eq(*(size_t *)made, i);
    ck_assert_uint_eq(l->taken, i);
    ck_assert_uint_le(atomic_load(&l->made), l->taken + 2 * l->threads);
    free(made);
    l->taken++;
    return i != l->stop_at;
}

static void drop_number(void *context, void *made) {
    atomic_fetch_add(&((line *)context)->dropped, 1);
    free(made);
}

static bool run_line(line *l, size_t count) {
    const hlc_pipeline pipeline = {make_number, take_number, drop_number, l};
    return hlc_ordered(l->threads, count, &pipeline);
}

START_TEST(ordered_hands_over_in_order) {
    line l = {.threads = (size_t)_i, .fail_at = SIZE_MAX, .stop_at = SIZE_MAX};
    ck_assert(run_line(&l, COUNT));
    ck_assert_uint_eq(l.taken, COUNT);
    ck_assert_uint_eq(atomic_load(&l.dropped), 0);
}
END_TEST

START_TEST(ordered_stops_when_making_fails) {
    line l = {.threads = (size_t)_i, .fail_at = 100, .stop_at = SIZE_MAX};
    ck_assert(!run_line(&l, COUNT));
    ck_assert_uint_eq(l.taken, 100);
    ck_assert_uint_eq(atomic_load(&l.made), l.taken + atomic_load(&l.dropped));
}
END_TEST

START_TEST(ordered_stops_when_taking_fails) {
    line l = {.threads = (size_t)_i, .fail_at = SIZE_MAX, .stop_at = 100};
    ck_assert(!run_line(&l, COUNT));
    ck_assert_uint_eq(l.taken, 101);
    ck_assert_uint_eq(atomic_load(&l.made), l.taken + atomic_load(&l.dropped));
}
END_TEST

START_TEST(ordered_with_nothing_to_do) {
    line l = {.threads = 2, .fail_at = SIZE_MAX, .stop_at = SIZE_MAX};
    ck_assert(run_line(&l, 0));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("workers");
    TCase *tests = tcase_create("workers");
    tcase_add_loop_test(tests, parallel_calls_each_index_once, 1, 6);
    tcase_add_loop_test(tests, ordered_hands_over_in_order, 1, 6);
    tcase_add_loop_test(tests, ordered_stops_when_making_fails, 1, 6);
    tcase_add_loop_test(tests, ordered_stops_when_taking_fails, 1, 6);
    tcase_add_test(tests, ordered_with_nothing_to_do);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
