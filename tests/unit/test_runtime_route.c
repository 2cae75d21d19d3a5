/* The steps between scores and a route, each against a plain version of the rule in docs/ROUTING.md. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/route_row.h"
#include "tests/support/random.h"

enum { MAX = 24 };

/* ---- ranking ---- */

static int by_key(const void *a, const void *b) {
    const hlr_ranked *x = a, *y = b;
    if (x->key != y->key) {
        return x->key < y->key ? 1 : -1;
    }
    return (x->adapter > y->adapter) - (x->adapter < y->adapter);
}

START_TEST(ranking_is_sorting_cut_short) {
    hlt_rng rng = {1};
    for (int round = 0; round < 3000; round++) {
        hlr_ranked list[MAX] = {{0, 0, 0}}, sorted[MAX];
        const uint32_t n = hlt_between(&rng, 0, MAX), k = hlt_between(&rng, 0, MAX + 2);
        for (uint32_t i = 0; i < n; i++) {
            list[i] = (hlr_ranked){hlt_between(&rng, 0, 5) - 2.5, i, i};
        }
        for (uint32_t i = n; i > 1; i--) {
            const uint32_t j = hlt_between(&rng, 0, i - 1);
            hlr_ranked swap = list[j];
            list[j] = list[i - 1];
            list[i - 1] = swap;
        }
        memcpy(sorted, list, sizeof list);
        qsort(sorted, n, sizeof *sorted, by_key);
        hlr_rank(list, n, k);
        for (uint32_t i = 0; i < n && i < k; i++) {
            ck_assert_uint_eq(list[i].adapter, sorted[i].adapter);
        }
        qsort(list, n, sizeof *list, by_key); /* nothing lost */
        ck_assert_mem_eq(list, sorted, n * sizeof *list);
    }
}
END_TEST

/* ---- rounding ---- */

START_TEST(rounded_weights_by_hand) {
    hlr_ranked scratch[3];
    hlr_candidate thirds[3] = {{.adapter = 7}, {.adapter = 3}, {.adapter = 5}};
    for (int i = 0; i < 3; i++) {
        thirds[i].share = 1.0 / 3;
    }
    hlr_round_shares(thirds, 3, scratch);
    ck_assert_uint_eq(thirds[0].parts, 85);
    ck_assert_uint_eq(thirds[1].parts, 86); /* the lower adapter, not the first place */
    ck_assert_uint_eq(thirds[2].parts, 85);
    hlr_candidate uneven[3] = {{.share = 0.998}, {.share = 0.0015}, {.share = 0.0005}};
    hlr_round_shares(uneven, 3, scratch);
    ck_assert_uint_eq(uneven[0].parts, 256); /* 255.488, 0.384, 0.128 */
    ck_assert_uint_eq(uneven[1].parts, 0);
    hlr_candidate rescaled[3] = {{.adapter = 2, .parts = 1}, {.adapter = 1, .parts = 1}, {.adapter = 0, .parts = 1}};
    hlr_rescale_parts(rescaled, 3, scratch);
    ck_assert_uint_eq(rescaled[0].parts, 85);
    ck_assert_uint_eq(rescaled[2].parts, 86);
}
END_TEST

START_TEST(rounded_weights_sum_to_one_and_stay_near) {
    hlt_rng rng = {2};
    for (int round = 0; round < 3000; round++) {
        hlr_candidate list[MAX];
        hlr_ranked scratch[MAX];
        const uint32_t n = hlt_between(&rng, 1, MAX);
        for (uint32_t i = 0; i < n; i++) {
            list[i] =
                (hlr_candidate){.adapter = i, .share = round % 2 ? hlt_uniform(&rng) + 1e-9 : hlt_between(&rng, 1, 4)};
        }
        hlr_scale_shares(list, n);
        hlr_round_shares(list, n, scratch);
        uint32_t sum = 0;
        for (uint32_t i = 0; i < n; i++) {
            sum += list[i].parts;
            ck_assert_double_lt(fabs(list[i].parts - 256 * list[i].share), 1);
        }
        ck_assert_uint_eq(sum, 256);
    }
}
END_TEST

/* ---- allocation ---- */

typedef struct bench {
    hlr_plan plan;
    hlr_row row;
    hlr_candidate candidates[MAX];
    hlr_ranked ranked[MAX];
    uint8_t fates[MAX];
} bench;

static void make_row(bench *b, uint32_t n, const uint32_t *ranks, const uint32_t *parts, double gamma,
                     hl_allocate allocate) {
    memset(b, 0, sizeof *b);
    b->plan = (hlr_plan){.gamma = gamma, .allocate = allocate, .seed = 42};
    b->row =
        (hlr_row){.plan = &b->plan, .candidates = b->candidates, .ranked = b->ranked, .fates = b->fates, .count = n};
    b->row.weights = HL_WEIGHTS_POSTERIOR;
    for (uint32_t i = 0; i < n; i++) {
        b->candidates[i] = (hlr_candidate){.adapter = i, .rank = ranks[i], .parts = parts[i]};
    }
}

static uint64_t rocs_of(const bench *b, uint32_t adapter) {
    for (size_t i = 0; i < b->row.count; i++) {
        if (b->candidates[i].adapter == adapter) {
            return b->candidates[i].rocs;
        }
    }
    return 0;
}

START_TEST(caps_cascade) {
    /* Budget 20 of 24: 18.75 1.17 0.08; the first is capped at 4; 16 over 15 and 1: 15 and 1; the second is capped at
     * 8; the last takes 8. */
    bench b;
    make_row(&b, 3, (const uint32_t[]){4, 8, 12}, (const uint32_t[]){240, 15, 1}, 20.0 / 24, HL_ALLOCATE_PROPORTIONAL);
    hlr_row_allocate(&b.row);
    ck_assert_uint_eq(b.row.budget, 20);
    ck_assert_uint_eq(rocs_of(&b, 0), 4);
    ck_assert_uint_eq(rocs_of(&b, 1), 8);
    ck_assert_uint_eq(rocs_of(&b, 2), 8);
}
END_TEST

START_TEST(the_budget_is_at_least_one_each) {
    bench b;
    make_row(&b, 3, (const uint32_t[]){2, 2, 2}, (const uint32_t[]){86, 85, 85}, 1e-9, HL_ALLOCATE_PROPORTIONAL);
    hlr_row_allocate(&b.row);
    ck_assert_uint_eq(b.row.budget, 3);
    ck_assert_uint_eq(b.row.count, 3);
}
END_TEST

START_TEST(an_adapter_without_a_roc_leaves_and_weights_are_scaled_again) {
    bench b;
    make_row(&b, 3, (const uint32_t[]){8, 8, 8}, (const uint32_t[]){192, 63, 1}, 0.4, HL_ALLOCATE_PROPORTIONAL);
    hlr_row_allocate(&b.row); /* 10: 7.5, 2.46, 0.04 */
    ck_assert_uint_eq(b.row.count, 2);
    ck_assert_uint_eq(rocs_of(&b, 0), 8);
    ck_assert_uint_eq(rocs_of(&b, 1), 2);
    ck_assert_uint_eq(b.candidates[0].parts, 193); /* 192 x 256 / 255 = 192.75, 63.25 */
    ck_assert_uint_eq(b.candidates[1].parts, 63);
    ck_assert_uint_eq(b.fates[2], HL_FATE_NO_ROC);
}
END_TEST

START_TEST(sums_stay_whole) {
    bench b;
    make_row(&b, 3, (const uint32_t[]){8, 8, 8}, (const uint32_t[]){256, 0, 0}, 0.5, HL_ALLOCATE_PROPORTIONAL);
    b.row.weights = HL_WEIGHTS_SUM;
    hlr_row_allocate(&b.row); /* 12: the first is capped at 8, 4 over two without weight: 2 each */
    ck_assert_uint_eq(b.row.count, 3);
    ck_assert_uint_eq(rocs_of(&b, 1), 2);
    ck_assert_uint_eq(rocs_of(&b, 2), 2);
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(b.candidates[i].parts, 256);
    }
}
END_TEST

START_TEST(every_allocation_keeps_its_promises) {
    hlt_rng rng = {3};
    for (int round = 0; round < 3000; round++) {
        uint32_t ranks[MAX], parts[MAX], n = hlt_between(&rng, 1, MAX), ranks_sum = 0;
        for (uint32_t i = 0; i < n; i++) {
            ranks[i] = hlt_between(&rng, 1, 16);
            parts[i] = 1;
            ranks_sum += ranks[i];
        }
        for (uint32_t left = 256 - n; left > 0; left--) {
            parts[hlt_between(&rng, 0, hlt_between(&rng, 0, n - 1))]++;
        }
        bench b;
        make_row(&b, n, ranks, parts, hlt_uniform(&rng) * 0.999 + 0.001, (hl_allocate)hlt_between(&rng, 1, 2));
        hlr_row_allocate(&b.row);
        uint64_t dealt = 0, weight = 0;
        for (size_t i = 0; i < b.row.count; i++) {
            ck_assert_uint_ge(b.candidates[i].rocs, 1);
            ck_assert_uint_le(b.candidates[i].rocs, b.candidates[i].rank);
            dealt += b.candidates[i].rocs;
            weight += b.candidates[i].parts;
        }
        ck_assert_uint_eq(dealt, b.row.budget < ranks_sum ? b.row.budget : ranks_sum); /* nothing is lost */
        ck_assert(b.row.count == n || weight == 256);
    }
}
END_TEST

/* Chi-square over 4 categories: 16.27 is its 0.1 % point with 3 degrees of freedom. */
START_TEST(draws_follow_the_weights) {
    enum { ROUNDS = 400 };
    const uint32_t ranks[] = {1000, 1000, 1000, 1000}, parts[] = {128, 64, 48, 16};
    double seen[4] = {0}, total = 0, chi = 0;
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        bench b;
        make_row(&b, 4, ranks, parts, 0.025, HL_ALLOCATE_MULTINOMIAL);
        b.plan.seed = seed;
        hlr_row_allocate(&b.row);
        for (uint32_t i = 0; i < 4; i++) {
            seen[i] += (double)rocs_of(&b, i);
            total += (double)rocs_of(&b, i);
        }
    }
    ck_assert_double_eq(total, 100 * ROUNDS);
    for (int i = 0; i < 4; i++) {
        const double expected = total * parts[i] / 256;
        chi += (seen[i] - expected) * (seen[i] - expected) / expected;
    }
    ck_assert_double_lt(chi, 16.27);
    ck_assert_double_gt(chi, 0.02);
}
END_TEST

START_TEST(equal_seeds_draw_equally) {
    const uint32_t ranks[] = {9, 9, 9}, parts[] = {100, 100, 56};
    bench a, b;
    int differ = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        make_row(&a, 3, ranks, parts, 0.5, HL_ALLOCATE_MULTINOMIAL);
        make_row(&b, 3, ranks, parts, 0.5, HL_ALLOCATE_MULTINOMIAL);
        a.plan.seed = b.plan.seed = seed;
        hlr_row_allocate(&a.row);
        hlr_row_allocate(&b.row);
        ck_assert_mem_eq(a.candidates, b.candidates, sizeof a.candidates);
        b.plan.seed = seed + 1;
        make_row(&b, 3, ranks, parts, 0.5, HL_ALLOCATE_MULTINOMIAL);
        b.plan.seed = seed + 1;
        hlr_row_allocate(&b.row);
        differ += memcmp(a.candidates, b.candidates, sizeof a.candidates) != 0;
    }
    ck_assert_int_gt(differ, 20);
}
END_TEST

/* ---- quantiles ---- */

START_TEST(positions_between_quantiles) {
    const double q[HL_QUANTILES] = {-100, -90, -85, -80, -70, -50, -40};
    ck_assert_double_eq(hlr_quantile_position(q, -200), 0);
    ck_assert_double_eq(hlr_quantile_position(q, -100), 0);
    ck_assert_double_eq(hlr_quantile_position(q, -90), 0.01);
    ck_assert_double_eq_tol(hlr_quantile_position(q, -75), 0.075, 1e-15);
    ck_assert_double_eq(hlr_quantile_position(q, -40), 0.5);
    ck_assert_double_eq(hlr_quantile_position(q, 0), 0.5);
    const double flat[HL_QUANTILES] = {1, 1, 1, 1, 1, 1, 1};
    ck_assert_double_eq(hlr_quantile_position(flat, 1), 0);
    ck_assert_double_eq(hlr_quantile_position(flat, 2), 0.5);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("route");
    TCase *tests = tcase_create("steps");
    tcase_add_test(tests, ranking_is_sorting_cut_short);
    tcase_add_test(tests, rounded_weights_by_hand);
    tcase_add_test(tests, rounded_weights_sum_to_one_and_stay_near);
    tcase_add_test(tests, caps_cascade);
    tcase_add_test(tests, the_budget_is_at_least_one_each);
    tcase_add_test(tests, an_adapter_without_a_roc_leaves_and_weights_are_scaled_again);
    tcase_add_test(tests, sums_stay_whole);
    tcase_add_test(tests, every_allocation_keeps_its_promises);
    tcase_add_test(tests, draws_follow_the_weights);
    tcase_add_test(tests, equal_seeds_draw_equally);
    tcase_add_test(tests, positions_between_quantiles);
    tcase_set_timeout(tests, 120);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
