/* The statistics of a pool: what is pooled, what is left out, and that neither threads nor a second derivation changes a bit. */
#include <check.h>

#include "compiler/linalg.h"
#include "compiler/stats/calibration.h"
#include "compiler/stats/misses.h"
#include "compiler/stats/quantiles.h"
#include "compiler/stats/scatter.h"
#include "compiler/stats/tasks.h"
#include "compiler/stats/whiten.h"
#include "tests/unit/gaussian_fixture.h"

enum { D = 10, COUNT = 9 };

/* Adapters of all kinds: calibrated, two samples, none, no scatter, more than 64 samples, repeated samples. */
static const size_t sizes[COUNT] = {5, 2, 0, 20, 4, 70, 12, 3, 9};
static const size_t distinct[COUNT] = {0, 0, 0, 0, 1, 0, 5, 0, 0};

typedef struct pool_samples {
    float *rows[COUNT];
} pool_samples;

static pool_samples draw_pool(uint64_t seed) {
    pool_samples pool = {{0}};
    for (size_t i = 0; i < COUNT; i++) {
        pool.rows[i] = sizes[i] > 0 ? samples_of(seed + i, sizes[i], D, distinct[i]) : NULL;
    }
    return pool;
}

static void free_pool(pool_samples *pool) {
    for (size_t i = 0; i < COUNT; i++) {
        free(pool->rows[i]);
    }
}

static bool fit(const pool_samples *pool, const hlc_stats_options *options, hlc_pool_stats *out) {
    const float *rows[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        rows[i] = pool->rows[i];
    }
    return hlc_pool_stats_fit(rows, sizes, COUNT, D, options, out);
}

static void *copy(const void *from, size_t bytes) {
    void *to = malloc(bytes + 1);
    memcpy(to, from, bytes);
    return to;
}

/* What a pool stores, and nothing else. */
static void store(const hlc_pool_stats *stats, hlc_scatter *out) {
    for (size_t i = 0; i < stats->count; i++) {
        const hlc_scatter *from = &stats->scatter[i];
        out[i] = (hlc_scatter){.m = from->m, .d = from->d, .q = from->q, .tau = from->tau};
        if (from->m > 0) {
            out[i].mean = copy(from->mean, D * sizeof(float));
            out[i].basis = copy(from->basis, from->q * D * sizeof(float));
            out[i].w = copy(from->w, from->m * from->q * sizeof(double));
            out[i].sv = copy(from->sv, from->q * sizeof(double));
        }
    }
}

static void assert_same_bits(const hlc_pool_stats *a, const hlc_pool_stats *b) {
    ck_assert_mem_eq(&a->rho, &b->rho, sizeof a->rho);
    ck_assert_mem_eq(&a->floor, &b->floor, sizeof a->floor);
    ck_assert_mem_eq(&a->temperature, &b->temperature, sizeof a->temperature);
    ck_assert_mem_eq(a->quantiles, b->quantiles, sizeof a->quantiles);
    ck_assert_mem_eq(&a->miss_first, &b->miss_first, sizeof a->miss_first);
    ck_assert_mem_eq(&a->miss_third, &b->miss_third, sizeof a->miss_third);
    ck_assert_uint_eq(a->calibrated, b->calibrated);
    ck_assert_uint_eq(a->miss_samples, b->miss_samples);
    ck_assert(a->whitened == b->whitened);
    ck_assert(!a->whitened || memcmp(a->whiten, b->whiten, D * D * sizeof *a->whiten) == 0);
    ck_assert_mem_eq(a->gaussian, b->gaussian, a->count * sizeof *a->gaussian);
    for (size_t i = 0; i < a->count; i++) {
        const hlc_scatter *x = &a->scatter[i], *y = &b->scatter[i];
        ck_assert(x->m == y->m && x->q == y->q && x->tau == y->tau && x->oas == y->oas && x->ledoit_wolf == y->ledoit_wolf);
        ck_assert(x->m == 0 || memcmp(x->basis, y->basis, x->q * D * sizeof *x->basis) == 0);
        ck_assert_mem_eq(a->calibration[i].quantiles, b->calibration[i].quantiles, sizeof a->calibration[i].quantiles);
        ck_assert(a->calibration[i].calibrated == b->calibration[i].calibrated);
        if (a->calibration[i].calibrated) {
            ck_assert_mem_eq(a->calibration[i].values, b->calibration[i].values, x->m * sizeof(double));
        }
    }
}

START_TEST(threads_change_nothing) {
    pool_samples pool = draw_pool(1);
    hlc_pool_stats one, many;
    hlc_stats_options options = {.shrinkage = (hlc_shrinkage)(_i % 4), .number = 0.3, .whiten = _i >= 4, .threads = 1};
    ck_assert(fit(&pool, &options, &one));
    for (options.threads = 2; options.threads < 40; options.threads += 9) {
        ck_assert(fit(&pool, &options, &many));
        assert_same_bits(&one, &many);
        hlc_pool_stats_free(&many);
    }
    hlc_pool_stats_free(&one);
    free_pool(&pool);
}
END_TEST

START_TEST(derived_statistics_are_the_fitted_ones) {
    pool_samples pool = draw_pool(2);
    hlc_pool_stats fitted, derived;
    hlc_scatter stored[COUNT];
    hlc_stats_options options = {.shrinkage = (hlc_shrinkage)(_i % 4), .number = 0.3, .whiten = _i >= 4, .threads = 1};
    ck_assert(fit(&pool, &options, &fitted));
    store(&fitted, stored);
    options.whitening = fitted.whiten;
    options.whitening_log_det = fitted.whiten_log_det;
    ck_assert(hlc_pool_stats_derive(stored, COUNT, D, &options, &derived));
    assert_same_bits(&fitted, &derived);
    ck_assert_ptr_null(stored[0].basis); /* taken over */
    hlc_pool_stats_free(&fitted);
    hlc_pool_stats_free(&derived);
    free_pool(&pool);
}
END_TEST

START_TEST(pool_rho_and_floor_are_medians) {
    pool_samples pool = draw_pool(3);
    const hlc_stats_options options = {.threads = 1};
    hlc_pool_stats stats;
    ck_assert(fit(&pool, &options, &stats));
    double rhos[COUNT], taus[COUNT];
    size_t n = 0, positive = 0;
    for (size_t i = 0; i < COUNT; i++) {
        if (stats.scatter[i].m > 0 && stats.scatter[i].tau > 0) {
            taus[positive++] = stats.scatter[i].tau;
            if (stats.scatter[i].m > 2) {
                rhos[n++] = stats.scatter[i].oas;
            }
        }
    }
    ck_assert_uint_eq(n, 6);
    ck_assert_uint_eq(positive, 7);
    ck_assert(stats.rho == hlc_median(rhos, n));
    ck_assert(stats.floor == 1e-6 * hlc_median(taus, positive));
    ck_assert_uint_eq(stats.calibrated, 6);
    ck_assert_uint_eq(stats.miss_samples, 5 + 20 + 70 + 12 + 3 + 9);
    ck_assert(isnan(stats.gaussian[2].rho));
    ck_assert(stats.gaussian[4].lambda == stats.floor); /* no scatter */
    ck_assert(!stats.calibration[1].calibrated && !stats.calibration[4].calibrated);
    hlc_pool_stats_free(&stats);
    free_pool(&pool);
}
END_TEST

/* The rank of each sample by the public density, over the sample itself: rounding aside the same as over the rebuilt one. */
START_TEST(miss_rates_count_rivals_that_score_higher) {
    enum { ADAPTERS = 12, M = 6, DIM = 8 };
    float *rows[ADAPTERS];
    size_t m[ADAPTERS], first = 0, third = 0;
    for (size_t i = 0; i < ADAPTERS; i++) {
        rows[i] = samples_of(40 + i, M, DIM, 0);
        m[i] = M;
        for (size_t k = 0; k < M * DIM; k++) {
            rows[i][k] -= 0.8F * rows[i][k % DIM]; /* closer together */
        }
    }
    const hlc_stats_options options = {.threads = 2};
    hlc_pool_stats stats;
    ck_assert(hlc_pool_stats_fit((const float *const *)rows, m, ADAPTERS, DIM, &options, &stats));
    for (size_t i = 0; i < ADAPTERS; i++) {
        for (size_t k = 0; k < M; k++) {
            size_t beaten = 0;
            for (size_t j = 0; j < ADAPTERS; j++) {
                const double score = hlc_log_density(&stats.scatter[j], &stats.gaussian[j], rows[i] + k * DIM);
                beaten += j != i && score > stats.calibration[i].values[k];
            }
            first += beaten > 0;
            third += beaten > 2;
        }
    }
    ck_assert(first > 0 && third > 0 && third < first);
    ck_assert_double_eq_tol(stats.miss_first, (double)first / (ADAPTERS * M), 1e-15);
    ck_assert_double_eq_tol(stats.miss_third, (double)third / (ADAPTERS * M), 1e-15);
    hlc_pool_stats_free(&stats);
    for (size_t i = 0; i < ADAPTERS; i++) {
        free(rows[i]);
    }
}
END_TEST

START_TEST(pool_quantiles_take_64_of_a_large_adapter) {
    pool_samples pool = draw_pool(5);
    const hlc_stats_options options = {.threads = 1};
    hlc_pool_stats stats;
    double values[64 * COUNT], sorted[70], deviations[COUNT];
    size_t n = 0, calibrated = 0;
    ck_assert(fit(&pool, &options, &stats));
    for (size_t i = 0; i < COUNT; i++) {
        const hlc_calibration *own = &stats.calibration[i];
        for (size_t k = 0; own->calibrated && k < 64 && k < sizes[i]; k++) {
            memcpy(sorted, own->values, sizes[i] * sizeof *sorted);
            hlc_sort(sorted, sizes[i]);
            values[n++] = sizes[i] > 64 ? hlc_quantile(sorted, sizes[i], ((double)k + 0.5) / 64) : own->values[k];
        }
        if (own->calibrated) {
            deviations[calibrated++] = own->deviation;
        }
    }
    hlc_sort(values, n);
    for (size_t level = 0; level < HLC_QUANTILES; level++) {
        ck_assert(stats.quantiles[level] == hlc_quantile(values, n, hlc_quantile_levels[level]));
    }
    ck_assert(stats.temperature == fmax(1e-3 * D, 0.25 * hlc_median(deviations, calibrated)));
    hlc_pool_stats_free(&stats);
    free_pool(&pool);
}
END_TEST

START_TEST(equal_values_leave_the_least_temperature) {
    const float simplex[] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
    const float *samples[] = {simplex};
    const size_t m[] = {4};
    const hlc_stats_options options = {.threads = 1};
    hlc_pool_stats stats;
    ck_assert(hlc_pool_stats_fit(samples, m, 1, 4, &options, &stats));
    ck_assert(stats.temperature == 1e-3 * 4);
    ck_assert(stats.miss_first == 0 && stats.miss_samples == 4);
    hlc_pool_stats_free(&stats);
}
END_TEST

/* One direction and exact numbers: samples at (1, 0) and (-1, 0) about the origin, rivals that are points at the origin. */
START_TEST(ties_count_for_rivals_of_lower_index) {
    enum { RIVALS = 5, OWN = 1 };
    float origin[2] = {0, 0}, axis[2] = {1, 0};
    double w[4] = {0.5, -0.5, 0.5, -0.5}, sv[1] = {2}, values[4] = {-2.5, -2.5, -2.5, -2.5};
    hlc_scatter scatter[RIVALS];
    hlc_gaussian gaussian[RIVALS];
    hlc_calibration calibration[RIVALS] = {{0}};
    for (size_t i = 0; i < RIVALS; i++) {
        scatter[i] = (hlc_scatter){.m = 2, .d = 2, .mean = origin};
        gaussian[i] = (hlc_gaussian){.rho = 1, .lambda = 1, .log_norm = -2};
    }
    scatter[OWN] = (hlc_scatter){.m = 4, .d = 2, .q = 1, .mean = origin, .basis = axis, .w = w, .sv = sv, .tau = 1};
    calibration[OWN] = (hlc_calibration){.calibrated = true, .values = values};
    hlc_pool_stats stats = {
        .count = RIVALS, .d = 2, .calibrated = 1, .scatter = scatter, .gaussian = gaussian, .calibration = calibration};
    ck_assert(hlc_log_density(&scatter[0], &gaussian[0], axis) == -2.5);
    ck_assert(hlc_miss_rates(&stats, 1));
    ck_assert_uint_eq(stats.miss_samples, 4);
    ck_assert(stats.miss_first == 1 && stats.miss_third == 0); /* rival 0 alone */
    gaussian[0].log_norm = -2.0000001;
    ck_assert(hlc_miss_rates(&stats, 1));
    ck_assert(stats.miss_first == 0);
}
END_TEST

START_TEST(pools_with_nothing_to_calibrate) {
    const float same[] = {1, 2, 1, 2}, pair[] = {0, 0, 1, 2};
    const float *none[] = {NULL}, *still[] = {same, NULL}, *two[] = {pair, NULL};
    const size_t m[] = {2, 0}, zero[] = {0};
    const hlc_stats_options options = {.threads = 3};
    hlc_pool_stats stats;
    for (size_t i = 0; i < 4; i++) {
        const bool empty = i == 0, scattered = i == 3;
        ck_assert(hlc_pool_stats_fit(i < 2 ? none : i == 2 ? still : two, i < 2 ? zero : m, empty ? 0 : i < 2 ? 1 : 2, 2, &options,
                                     &stats));
        ck_assert(stats.rho == 1 && stats.calibrated == 0 && stats.miss_samples == 0);
        ck_assert_double_eq_tol(stats.floor, scattered ? 1e-6 * 1.25 : 1e-12, 1e-20);
        ck_assert(stats.temperature == 0.05 * 2);
        ck_assert(isnan(stats.quantiles[0]) && isnan(stats.miss_first) && isnan(stats.miss_third));
        hlc_pool_stats_free(&stats);
    }
}
END_TEST

START_TEST(whitening_takes_the_pooled_covariance_to_the_identity) {
    enum { ADAPTERS = 40, M = 30, DIM = 6 };
    float *rows[ADAPTERS];
    size_t m[ADAPTERS];
    double inverse[DIM * DIM], log_det, covariance[DIM * DIM] = {0}, mean[DIM], s[DIM * DIM];
    float *mapped = malloc(M * DIM * sizeof *mapped);
    for (size_t i = 0; i < ADAPTERS; i++) {
        rows[i] = samples_of(60 + i, M, DIM, 0);
        m[i] = M;
    }
    ck_assert(hlc_whiten_fit((const float *const *)rows, m, ADAPTERS, DIM, 2, inverse, &log_det));
    for (size_t i = 0; i < ADAPTERS; i++) {
        ck_assert(hlc_whiten_apply(inverse, DIM, rows[i], M, mapped));
        sample_covariance(mapped, M, DIM, M, mean, s);
        for (size_t at = 0; at < DIM * DIM; at++) {
            covariance[at] += s[at] / ADAPTERS;
        }
        free(rows[i]);
    }
    for (size_t at = 0; at < DIM * DIM; at++) {
        const bool diagonal = at % (DIM + 1) == 0;
        ck_assert_double_eq_tol(covariance[at], diagonal, 0.1); /* but for the shrinkage, about 1 / (40 * 29) */
        ck_assert(at % DIM <= at / DIM || inverse[at] == 0);
    }
    double sum = 0;
    for (size_t i = 0; i < DIM; i++) {
        sum -= log(inverse[i * (DIM + 1)]);
    }
    ck_assert_double_eq_tol(log_det, sum, 1e-13);
    free(mapped);
}
END_TEST

START_TEST(whitening_out_of_range_fails) {
    const float rows[] = {1e-40F, 1e38F, 2e-40F, 1e38F, 5e-40F, 1e38F};
    const float *samples[] = {rows};
    const size_t m[] = {3};
    const hlc_stats_options options = {.threads = 1, .whiten = true};
    hlc_pool_stats stats;
    ck_assert(!hlc_pool_stats_fit(samples, m, 1, 2, &options, &stats));
    ck_assert_ptr_null(stats.scatter);

    const double inverse[] = {10, 0, 0, 1};
    const float edge[] = {3.4e37F, 1, 3.5e37F, 1};
    float mapped[2];
    ck_assert(hlc_whiten_apply(inverse, 2, edge, 1, mapped));
    ck_assert(mapped[0] == (float)(10 * (double)edge[0]));
    ck_assert(!hlc_whiten_apply(inverse, 2, edge + 2, 1, mapped));
}
END_TEST

static bool fail_at_seven(void *context, size_t worker, size_t index) {
    (void)context;
    (void)worker;
    return index != 7;
}

START_TEST(one_failed_task_fails_all) {
    for (size_t threads = 1; threads < 5; threads++) {
        ck_assert(!hlc_tasks(threads, 20, fail_at_seven, NULL));
        ck_assert(hlc_tasks(threads, 7, fail_at_seven, NULL));
    }
}
END_TEST

int main(void) {
    hlc_linalg_setup();
    Suite *suite = suite_create("pool_stats");
    TCase *tests = tcase_create("pool_stats");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, threads_change_nothing, 0, 8);
    tcase_add_loop_test(tests, derived_statistics_are_the_fitted_ones, 0, 8);
    tcase_add_test(tests, pool_rho_and_floor_are_medians);
    tcase_add_test(tests, miss_rates_count_rivals_that_score_higher);
    tcase_add_test(tests, pool_quantiles_take_64_of_a_large_adapter);
    tcase_add_test(tests, equal_values_leave_the_least_temperature);
    tcase_add_test(tests, ties_count_for_rivals_of_lower_index);
    tcase_add_test(tests, pools_with_nothing_to_calibrate);
    tcase_add_test(tests, whitening_takes_the_pooled_covariance_to_the_identity);
    tcase_add_test(tests, whitening_out_of_range_fails);
    tcase_add_test(tests, one_failed_task_fails_all);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
