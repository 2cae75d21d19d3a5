/* One adapter's scatter and its log density, against definitions in plain loops. */
#include <check.h>
#include <float.h>

#include "compiler/linalg.h"
#include "compiler/stats/density.h"
#include "compiler/stats/scatter.h"
#include "tests/unit/gaussian_fixture.h"

static const size_t shapes[][3] = {/* m, d, distinct */
                                   {2, 1, 0}, {2, 9, 0}, {3, 2, 0},  {4, 5, 0},  {6, 6, 0},  {7, 6, 0},
                                   {20, 64, 0}, {50, 8, 0}, {9, 30, 2}, {12, 40, 5}, {30, 4, 3}, {6, 5, 1}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static size_t true_rank(const size_t *shape) {
    const size_t points = shape[2] > 0 ? shape[2] : shape[0];
    return points - 1 < shape[1] ? points - 1 : shape[1];
}

START_TEST(factors_rebuild_the_samples) {
    const size_t m = shapes[_i][0], d = shapes[_i][1];
    float *samples = samples_of(1, m, d, shapes[_i][2]);
    hlc_scatter fit;
    ck_assert(hlc_scatter_fit(samples, m, d, &fit));
    ck_assert_uint_eq(fit.q, true_rank(shapes[_i]));
    double *deviation = malloc(d * sizeof *deviation), sum = 0;
    for (size_t k = 0; k < m; k++) {
        hlc_scatter_deviation(&fit, k, deviation);
        for (size_t i = 0; i < d; i++) {
            ck_assert_double_eq_tol((double)fit.mean[i] + deviation[i], (double)samples[k * d + i], 3e-6);
        }
    }
    for (size_t j = 0; j < fit.q; j++) {
        ck_assert(fit.sv[j] > 0 && (j == 0 || fit.sv[j - 1] >= fit.sv[j]));
        sum += fit.sv[j] * fit.sv[j];
    }
    ck_assert_double_eq_tol(fit.tau, sum / ((double)(m - 1) * (double)d), 1e-14 * sum + DBL_MIN);
    ck_assert(fit.oas >= 0 && fit.oas <= 1 && fit.ledoit_wolf >= 0 && fit.ledoit_wolf <= 1);
    free(deviation);
    free(samples);
    hlc_scatter_free(&fit);
}
END_TEST

START_TEST(basis_is_orthonormal_and_its_signs_canonical) {
    const size_t m = shapes[_i][0], d = shapes[_i][1];
    float *samples = samples_of(2, m, d, shapes[_i][2]);
    hlc_scatter fit;
    ck_assert(hlc_scatter_fit(samples, m, d, &fit));
    for (size_t j = 0; j < fit.q; j++) {
        const float *row = fit.basis + j * d;
        size_t largest = 0;
        for (size_t i = 0; i < d; i++) {
            largest = fabsf(row[i]) > fabsf(row[largest]) ? i : largest;
        }
        ck_assert(row[largest] > 0);
        for (size_t other = 0; other <= j; other++) {
            double product = 0;
            for (size_t i = 0; i < d; i++) {
                product += (double)row[i] * (double)fit.basis[other * d + i];
            }
            ck_assert_double_eq_tol(product, other == j, 2e-7);
        }
    }
    free(samples);
    hlc_scatter_free(&fit);
}
END_TEST

/* Rounding each entry to the nearest float32 would leave errors of about 1e-8. */
START_TEST(rounding_keeps_the_basis_orthonormal) {
    enum { M = 12, D = 384 };
    hlt_rng rng = hlt_rng_for(3, M, D, 0);
    float samples[M * D];
    for (size_t i = 0; i < M * D; i++) {
        samples[i] = (float)hlt_normal(&rng);
    }
    hlc_scatter fit;
    ck_assert(hlc_scatter_fit(samples, M, D, &fit));
    ck_assert_uint_eq(fit.q, M - 1);
    for (size_t j = 0; j < fit.q; j++) {
        for (size_t other = 0; other <= j; other++) {
            double product = 0;
            for (size_t i = 0; i < D; i++) {
                product += (double)fit.basis[j * D + i] * (double)fit.basis[other * D + i];
            }
            ck_assert_double_eq_tol(product, other == j, 1e-9);
        }
    }
    hlc_scatter_free(&fit);
}
END_TEST

START_TEST(two_samples_by_hand) {
    const float samples[] = {1, 2, 4, 6}; /* (1, 2) and (4, 6): apart by (3, 4) */
    hlc_scatter fit;
    ck_assert(hlc_scatter_fit(samples, 2, 2, &fit));
    ck_assert_uint_eq(fit.q, 1);
    ck_assert(fit.mean[0] == 2.5F && fit.mean[1] == 4);
    ck_assert_float_eq_tol(fit.basis[0], 0.6F, 1e-7F);
    ck_assert_float_eq_tol(fit.basis[1], 0.8F, 1e-7F);
    ck_assert_double_eq_tol(fit.sv[0], 5 / sqrt(2), 1e-15);
    ck_assert_double_eq_tol(fit.w[0], -sqrt(0.5), 1e-15);
    ck_assert_double_eq_tol(fit.w[1], sqrt(0.5), 1e-15);
    ck_assert_double_eq_tol(fit.tau, 6.25, 1e-14);
    hlc_scatter_free(&fit);
}
END_TEST

START_TEST(equal_samples_have_no_scatter) {
    const float same[] = {0.1F, -3e30F, 1e-40F, 0.1F, -3e30F, 1e-40F, 0.1F, -3e30F, 1e-40F};
    hlc_scatter fit;
    ck_assert(hlc_scatter_fit(same, 3, 3, &fit));
    ck_assert(fit.q == 0 && fit.tau == 0 && fit.oas == 1 && fit.ledoit_wolf == 1);
    ck_assert_mem_eq(fit.mean, same, 3 * sizeof *same);
    const hlc_gaussian gaussian = hlc_gaussian_of(&fit, 1, 0.25, 0);
    const float z[] = {0.1F, -3e30F, 1};
    const double two_pi = 6.283185307179586;
    ck_assert_double_eq_tol(hlc_log_density(&fit, &gaussian, z), -1.5 * log(two_pi * 0.25) - 0.5 / 0.25, 1e-12);
    hlc_scatter_free(&fit);
}
END_TEST

START_TEST(fewer_than_two_samples_are_refused) {
    const float one[] = {1, 2};
    hlc_scatter fit;
    ck_assert(!hlc_scatter_fit(one, 1, 2, &fit));
    ck_assert(!hlc_scatter_fit(one, 0, 2, &fit));
    ck_assert(!hlc_scatter_fit(one, 2, 0, &fit));
    ck_assert_ptr_null(fit.mean);
    ck_assert(!hlc_scatter_fit(one, (size_t)1 << 40, (size_t)1 << 40, &fit));
}
END_TEST

START_TEST(collinear_samples_keep_rank_one_far_from_the_origin) {
    enum { M = 5, D = 20 };
    const int steps[M] = {0, 1, 3, 4, 9};
    float samples[M * D];
    for (size_t k = 0; k < M; k++) {
        for (size_t i = 0; i < D; i++) {
            samples[k * D + i] = (1 + (float)i / 32) + (float)(steps[k] * (1 + (int)i % 3)) * FLT_EPSILON;
        }
    }
    hlc_scatter fit;
    ck_assert(hlc_scatter_fit(samples, M, D, &fit));
    ck_assert_uint_eq(fit.q, 1);
    hlc_scatter_free(&fit);
}
END_TEST

START_TEST(log_density_is_the_dense_one) {
    const size_t m = shapes[_i][0], d = shapes[_i][1];
    const double rhos[] = {0.02, 0.5, 1};
    float *samples = samples_of(4, m, d, shapes[_i][2]), *queries = samples_of(5, 6, d, 0);
    double *mean = malloc(d * sizeof *mean), *s = malloc(d * d * sizeof *s);
    hlc_scatter fit;
    ck_assert(hlc_scatter_fit(samples, m, d, &fit));
    sample_covariance(samples, m, d, m, mean, s);
    for (size_t r = 0; r < sizeof rhos / sizeof *rhos; r++) {
        const double floor = fit.tau > 0 ? 1e-6 * fit.tau : 1e-2;
        const hlc_gaussian gaussian = hlc_gaussian_of(&fit, rhos[r], floor, 0);
        for (size_t k = 0; k < m + 6; k++) {
            const float *z = k < m ? samples + k * d : queries + (k - m) * d;
            const double expected = dense_log_density(mean, s, d, rhos[r], floor, z);
            ck_assert_double_eq_tol(hlc_log_density(&fit, &gaussian, z), expected, density_tolerance(expected, d));
        }
    }
    free(samples);
    free(queries);
    free(mean);
    free(s);
    hlc_scatter_free(&fit);
}
END_TEST

START_TEST(whitening_shifts_every_log_density) {
    float *samples = samples_of(6, 5, 4, 0);
    hlc_scatter fit;
    ck_assert(hlc_scatter_fit(samples, 5, 4, &fit));
    const hlc_gaussian plain = hlc_gaussian_of(&fit, 0.3, 1e-9, 0), shifted = hlc_gaussian_of(&fit, 0.3, 1e-9, 2.5);
    ck_assert_double_eq_tol(hlc_log_density(&fit, &shifted, samples), hlc_log_density(&fit, &plain, samples) - 2.5, 1e-13);
    free(samples);
    hlc_scatter_free(&fit);
}
END_TEST

int main(void) {
    hlc_linalg_setup();
    Suite *suite = suite_create("scatter");
    TCase *tests = tcase_create("scatter");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, factors_rebuild_the_samples, 0, SHAPES);
    tcase_add_loop_test(tests, basis_is_orthonormal_and_its_signs_canonical, 0, SHAPES);
    tcase_add_test(tests, rounding_keeps_the_basis_orthonormal);
    tcase_add_test(tests, two_samples_by_hand);
    tcase_add_test(tests, equal_samples_have_no_scatter);
    tcase_add_test(tests, fewer_than_two_samples_are_refused);
    tcase_add_test(tests, collinear_samples_keep_rank_one_far_from_the_origin);
    tcase_add_loop_test(tests, log_density_is_the_dense_one, 0, SHAPES);
    tcase_add_test(tests, whitening_shifts_every_log_density);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
