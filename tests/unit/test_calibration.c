/* Leave-one-out values against refits without the sample, and quantiles by hand. */
#include <check.h>

#include "compiler/linalg.h"
#include "compiler/stats/calibration.h"
#include "compiler/stats/density.h"
#include "compiler/stats/quantiles.h"
#include "tests/unit/gaussian_fixture.h"

START_TEST(quantiles_by_hand) {
    const double values[] = {1, 2, 4, 8, 16};
    const double levels[] = {0, 0.05, 0.1, 0.25, 0.5, 0.6, 0.875, 1};
    const double expected[] = {1, 1.2, 1.4, 2, 4, 5.6, 12, 16};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        ck_assert_double_eq_tol(hlc_quantile(values, 5, levels[i]), expected[i], 1e-14);
    }
    ck_assert(hlc_quantile(values, 1, 0.3) == 1);
    double odd[] = {3, -1, 2}, even[] = {4, -2, 1, 2};
    ck_assert(hlc_median(odd, 3) == 2);
    ck_assert(hlc_median(even, 4) == 1.5);
    ck_assert(even[0] == -2 && even[3] == 4);
}
END_TEST

/* m, d, distinct; the last ones drive 1 - c g h below 1e-6 when rho is small. */
static const size_t shapes[][3] = {{3, 1, 0},  {3, 8, 0},  {8, 8, 0},   {9, 8, 0},   {20, 30, 0},
                                   {60, 6, 0}, {3, 6, 2},  {12, 40, 5}, {7, 10, 2},  {60, 6, 20}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

START_TEST(leave_one_out_is_a_refit_without_the_sample) {
    const size_t m = shapes[_i][0], d = shapes[_i][1];
    const double rhos[] = {0, 1e-4, 0.1, 0.6, 1};
    float *samples = samples_of(1, m, d, shapes[_i][2]);
    double *mean = malloc(d * sizeof *mean), *s = malloc(d * d * sizeof *s);
    hlc_scatter fit;
    hlc_calibration calibration;
    ck_assert(hlc_scatter_fit(samples, m, d, &fit));
    for (size_t r = 0; r < sizeof rhos / sizeof *rhos; r++) {
        const double floor = 1e-6 * fit.tau;
        const hlc_gaussian gaussian = hlc_gaussian_of(&fit, rhos[r], floor, 0);
        ck_assert(hlc_calibrate(&fit, &gaussian, floor, 0, &calibration));
        ck_assert(calibration.calibrated);
        for (size_t k = 0; k < m; k++) {
            sample_covariance(samples, m, d, k, mean, s);
            const double expected = dense_log_density(mean, s, d, rhos[r], floor, samples + k * d);
            ck_assert_double_eq_tol(calibration.values[k], expected, density_tolerance(expected, d));
        }
        free(calibration.values);
    }
    free(samples);
    free(mean);
    free(s);
    hlc_scatter_free(&fit);
}
END_TEST

/* Samples on the axes, and lambda 10^14 times smaller than their variances: what rounding leaves of 1 - c g h is noise. */
START_TEST(a_tiny_lambda_leaves_nothing_to_rounding) {
    const double floor = 1e-14, log_two_pi = log(2 * 3.14159265358979323846);
    const size_t m = 3 + (size_t)_i % 2; /* with the origin once or twice */
    const double far = 4 + _i;
    const float samples[] = {0, 0, 3, 0, 0, (float)far, 0, 0};
    hlc_scatter fit;
    hlc_calibration calibration;
    ck_assert(hlc_scatter_fit(samples, m, 2, &fit));
    const hlc_gaussian gaussian = hlc_gaussian_of(&fit, 0, floor, 0);
    ck_assert(hlc_calibrate(&fit, &gaussian, floor, 0, &calibration));
    /* Without (3, 0) the others lie on the second axis. */
    const double mean = far / (double)(m - 1), variance = far * mean + floor;
    const double expected = -0.5 * (2 * log_two_pi + log(variance) + log(floor) + 9 / floor + mean * mean / variance);
    ck_assert_double_eq_tol(calibration.values[1], expected, 1e-6 * fabs(expected));
    free(calibration.values);
    hlc_scatter_free(&fit);
}
END_TEST

START_TEST(quantiles_and_deviation_are_those_of_the_values) {
    enum { M = 21, D = 12 };
    float *samples = samples_of(2, M, D, 0);
    hlc_scatter fit;
    hlc_calibration plain, whitened;
    ck_assert(hlc_scatter_fit(samples, M, D, &fit));
    const hlc_gaussian gaussian = hlc_gaussian_of(&fit, 0.4, 0, 0);
    ck_assert(hlc_calibrate(&fit, &gaussian, 0, 0, &plain));
    ck_assert(hlc_calibrate(&fit, &gaussian, 0, 3, &whitened));
    double sorted[M], mean = 0, squares = 0;
    memcpy(sorted, plain.values, sizeof sorted);
    hlc_sort(sorted, M);
    for (size_t k = 0; k < M; k++) {
        mean += plain.values[k] / M;
        ck_assert_double_eq_tol(whitened.values[k], plain.values[k] - 3, 1e-12);
    }
    for (size_t k = 0; k < M; k++) {
        squares += (plain.values[k] - mean) * (plain.values[k] - mean);
    }
    ck_assert_double_eq_tol(plain.deviation, sqrt(squares / (M - 1)), 1e-12);
    ck_assert(plain.quantiles[0] == sorted[0]);
    ck_assert(plain.quantiles[3] == sorted[1]); /* 5 % of 20 steps */
    ck_assert(plain.quantiles[6] == sorted[10]);
    free(plain.values);
    free(whitened.values);
    free(samples);
    hlc_scatter_free(&fit);
}
END_TEST

START_TEST(two_samples_or_no_scatter_stay_uncalibrated) {
    const float two[] = {1, 2, 3, 5}, same[] = {1, 2, 1, 2, 1, 2};
    hlc_scatter pair, still, none = {0};
    ck_assert(hlc_scatter_fit(two, 2, 2, &pair) && hlc_scatter_fit(same, 3, 2, &still));
    const hlc_scatter *cases[] = {&pair, &still, &none};
    for (size_t i = 0; i < 3; i++) {
        const hlc_gaussian gaussian = {.rho = 0.5, .lambda = 1};
        hlc_calibration calibration;
        ck_assert(hlc_calibrate(cases[i], &gaussian, 1e-3, 0, &calibration));
        ck_assert(!calibration.calibrated && !calibration.values);
        ck_assert(isnan(calibration.deviation) && isnan(calibration.quantiles[0]) && isnan(calibration.quantiles[6]));
    }
    hlc_scatter_free(&pair);
    hlc_scatter_free(&still);
}
END_TEST

int main(void) {
    hlc_linalg_setup();
    Suite *suite = suite_create("calibration");
    TCase *tests = tcase_create("calibration");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, quantiles_by_hand);
    tcase_add_loop_test(tests, leave_one_out_is_a_refit_without_the_sample, 0, SHAPES);
    tcase_add_loop_test(tests, a_tiny_lambda_leaves_nothing_to_rounding, 0, 40);
    tcase_add_test(tests, quantiles_and_deviation_are_those_of_the_values);
    tcase_add_test(tests, two_samples_or_no_scatter_stay_uncalibrated);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
