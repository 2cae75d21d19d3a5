/* Distances between adapters by hand, lists in order, and the same bits for all thread counts. */
#include <check.h>

#include "compiler/linalg.h"
#include "compiler/stats/rivals.h"
#include "tests/unit/gaussian_fixture.h"

START_TEST(one_dimension_by_hand) {
    /* N(1, 2), N(12, 8) and again N(1, 2). */
    const float first[] = {0, 2}, second[] = {10, 14};
    const float *samples[] = {first, second, NULL, first};
    const size_t m[] = {2, 2, 0, 2};
    const hlc_stats_options options = {.threads = 1};
    const double expected = 121.0 / 5 / 8 + 0.5 * log(5 / sqrt(2 * 8));
    hlc_pool_stats stats;
    hlc_rivals rivals;
    ck_assert(hlc_pool_stats_fit(samples, m, 4, 1, &options, &stats));
    ck_assert(hlc_rivals_find(&stats, 3, 4, 1, &rivals));
    const uint32_t nearest[] = {3, 1, HLC_NO_RIVAL, 0, 3, HLC_NO_RIVAL, HLC_NO_RIVAL, HLC_NO_RIVAL, HLC_NO_RIVAL, 0, 1, HLC_NO_RIVAL};
    ck_assert_mem_eq(rivals.nearest, nearest, sizeof nearest);
    ck_assert_double_eq_tol(rivals.distance[0], 0, 1e-12);
    ck_assert_double_eq_tol(rivals.distance[1], expected, 1e-12);
    ck_assert_double_eq_tol(rivals.distance[3], expected, 1e-12);
    ck_assert_double_eq_tol(rivals.distance[4], expected, 1e-12);
    ck_assert(isnan(rivals.distance[2]) && isnan(rivals.distance[6]) && isnan(rivals.sum[2]));
    ck_assert_double_eq_tol(rivals.sum[0], 1 + exp(-expected), 1e-12);
    ck_assert_double_eq_tol(rivals.sum[1], 2 * exp(-expected), 1e-12);
    hlc_rivals_free(&rivals);
    hlc_pool_stats_free(&stats);
}
END_TEST

START_TEST(certificate_is_a_probability) {
    ck_assert(hlc_certificate(0.3, 1) == 0.3);
    ck_assert(hlc_certificate(6, 3) == 1);
    ck_assert(hlc_certificate(0, 2) == 0);
}
END_TEST

enum { COUNT = 90, D = 24 };

static void draw_stats(hlc_pool_stats *stats) {
    float *samples[COUNT];
    size_t m[COUNT];
    const hlc_stats_options options = {.threads = 2};
    for (size_t i = 0; i < COUNT; i++) {
        m[i] = i % 7 == 3 ? 0 : 2 + i % 40;
        samples[i] = m[i] > 0 ? samples_of(i, m[i], D, i % 5 == 0 ? 2 : 0) : NULL;
    }
    ck_assert(hlc_pool_stats_fit((const float *const *)samples, m, COUNT, D, &options, stats));
    for (size_t i = 0; i < COUNT; i++) {
        free(samples[i]);
    }
}

START_TEST(threads_change_nothing) {
    hlc_pool_stats stats;
    hlc_rivals one, many;
    draw_stats(&stats);
    ck_assert(hlc_rivals_find(&stats, 8, COUNT, 1, &one));
    for (size_t threads = 2; threads < 20; threads += 5) {
        ck_assert(hlc_rivals_find(&stats, 8, COUNT, threads, &many));
        ck_assert_mem_eq(one.sum, many.sum, COUNT * sizeof *one.sum);
        ck_assert_mem_eq(one.nearest, many.nearest, COUNT * 8 * sizeof *one.nearest);
        for (size_t at = 0; at < COUNT * 8; at++) {
            ck_assert(one.distance[at] == many.distance[at] || (isnan(one.distance[at]) && isnan(many.distance[at])));
        }
        hlc_rivals_free(&many);
    }
    hlc_rivals_free(&one);
    hlc_pool_stats_free(&stats);
}
END_TEST

START_TEST(large_pools_get_rivals_and_no_sums) {
    hlc_pool_stats stats;
    hlc_rivals all, few;
    draw_stats(&stats);
    ck_assert(hlc_rivals_find(&stats, 8, COUNT, 2, &all));
    ck_assert(hlc_rivals_find(&stats, 2, COUNT - 1, 2, &few));
    for (size_t i = 0; i < COUNT; i++) {
        ck_assert(isnan(few.sum[i]) && (isnan(all.sum[i]) == (stats.scatter[i].m == 0)));
        ck_assert_mem_eq(few.nearest + 2 * i, all.nearest + 8 * i, 2 * sizeof *few.nearest);
        for (size_t at = 1; at < 8 && all.nearest[8 * i + at] != HLC_NO_RIVAL; at++) {
            ck_assert(all.distance[8 * i + at - 1] <= all.distance[8 * i + at]);
        }
    }
    hlc_rivals_free(&all);
    hlc_rivals_free(&few);
    ck_assert(hlc_rivals_find(&stats, 0, COUNT, 2, &few));
    ck_assert(few.sum[0] > 0);
    hlc_rivals_free(&few);
    hlc_pool_stats_free(&stats);
}
END_TEST

START_TEST(empty_and_single_pools) {
    const float pair[] = {0, 1, 2, 2};
    const float *samples[] = {pair};
    const size_t m[] = {2};
    const hlc_stats_options options = {.threads = 2};
    hlc_pool_stats stats;
    hlc_rivals rivals;
    for (size_t count = 0; count < 2; count++) {
        ck_assert(hlc_pool_stats_fit(samples, m, count, 2, &options, &stats));
        ck_assert(hlc_rivals_find(&stats, 1, 10, 2, &rivals));
        ck_assert(count == 0 || (rivals.sum[0] == 0 && rivals.nearest[0] == HLC_NO_RIVAL));
        hlc_rivals_free(&rivals);
        hlc_pool_stats_free(&stats);
    }
}
END_TEST

int main(void) {
    hlc_linalg_setup();
    Suite *suite = suite_create("rivals");
    TCase *tests = tcase_create("rivals");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, one_dimension_by_hand);
    tcase_add_test(tests, certificate_is_a_probability);
    tcase_add_test(tests, threads_change_nothing);
    tcase_add_test(tests, large_pools_get_rivals_and_no_sums);
    tcase_add_test(tests, empty_and_single_pools);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
