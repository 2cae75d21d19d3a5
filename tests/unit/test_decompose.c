/* Rank-one components: by hand, against the product they came from, and at the edges of the numbers. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/decompose/decompose.h"
#include "compiler/decompose/squeeze.h"
#include "compiler/linalg.h"
#include "tests/support/random.h"

static double *random_rows(uint64_t seed, size_t rows, size_t d) {
    hlt_rng rng = hlt_rng_for(seed, rows, d, 0);
    double *x = malloc((rows * d + 1) * sizeof *x);
    for (size_t i = 0; i < rows * d; i++) {
        x[i] = (double)(float)hlt_normal(&rng);
    }
    return x;
}

static double norm_of(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    return sqrt(sum);
}

/* Entry (row, column) of the product of rows: sum_l bt[l][row] a[l][column]. */
static double product_entry(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, size_t row, size_t column) {
    double sum = 0;
    for (size_t l = 0; l < rank; l++) {
        sum += bt[l * d_out + row] * a[l * d_in + column];
    }
    return sum;
}

START_TEST(a_diagonal_update_by_hand) {
    /* B A = diag(-6, 4, 0) in 3 x 3, s = 2: singular values 12 and 8; signs go to A's side as positive. */
    const double a[] = {0, -2, 0, /**/ 3, 0, 0}, bt[] = {0, -2, 0, /**/ -2, 0, 0};
    float ga[4], gb[4];
    double sv[2], a_new[6], bt_new[6];
    ck_assert_int_eq(hlc_gauge(a, bt, 2, 3, 3, 2, ga, gb, sv), HLC_DECOMPOSE_OK);
    ck_assert_double_eq_tol(sv[0], 12, 1e-14);
    ck_assert_double_eq_tol(sv[1], 8, 1e-14);
    const double expected_ga[] = {0, sqrt(12) / 3, -sqrt(8) / 2, 0}, expected_gb[] = {0, sqrt(8) / -2, sqrt(12) / 2, 0};
    for (size_t i = 0; i < 4; i++) {
        ck_assert_double_eq_tol((double)ga[i], expected_ga[i], 1e-6);
        ck_assert_double_eq_tol((double)gb[i], expected_gb[i], 1e-6);
    }
    ck_assert_int_eq(hlc_truncate(a, bt, 2, 3, 3, 2, 2, a_new, bt_new, sv), HLC_DECOMPOSE_OK);
    const double rows_a[] = {sqrt(12), 0, 0, 0, sqrt(8), 0}, rows_b[] = {-sqrt(12), 0, 0, 0, sqrt(8), 0};
    for (size_t i = 0; i < 6; i++) {
        ck_assert_double_eq_tol(a_new[i], rows_a[i], 1e-14);
        ck_assert_double_eq_tol(bt_new[i], rows_b[i], 1e-14);
    }
}
END_TEST

static const size_t shapes[][3] = {{1, 1, 1},    {1, 5, 9},   {4, 30, 20}, {8, 8, 8},       {6, 2, 40},
                                   {6, 40, 2}, {16, 64, 3}, {7, 3, 3},   {16, 3000, 1025}, {40, 1024, 1026}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

START_TEST(components_multiply_back_to_the_update) {
    const size_t rank = shapes[_i][0], d_in = shapes[_i][1], d_out = shapes[_i][2];
    const double scale = -0.75;
    double *a = random_rows(1, rank, d_in), *bt = random_rows(2, rank, d_out), *sv = malloc(rank * sizeof *sv);
    double *a_new = malloc(rank * d_in * sizeof *a_new), *bt_new = malloc(rank * d_out * sizeof *bt_new);
    float *ga = malloc(rank * rank * sizeof *ga), *gb = malloc(rank * rank * sizeof *gb);
    ck_assert_int_eq(hlc_truncate(a, bt, rank, d_in, d_out, scale, rank, a_new, bt_new, sv), HLC_DECOMPOSE_OK);
    ck_assert_int_eq(hlc_gauge(a, bt, rank, d_in, d_out, scale, ga, gb, sv), HLC_DECOMPOSE_OK);
    const double size = 0.75 * norm_of(a, rank * d_in) * norm_of(bt, rank * d_out);
    for (size_t row = 0; row < d_out; row += 1 + d_out / 20) {
        for (size_t column = 0; column < d_in; column += 1 + d_in / 20) {
            const double expected = scale * product_entry(a, bt, rank, d_in, d_out, row, column);
            ck_assert_double_eq_tol(product_entry(a_new, bt_new, rank, d_in, d_out, row, column), expected, 1e-14 * size);
        }
    }
    /* The same rows by the gauge. */
    for (size_t j = 0; j < rank; j++) {
        for (size_t column = 0; column < d_in; column += 1 + d_in / 20) {
            double sum = 0;
            for (size_t l = 0; l < rank; l++) {
                sum += (double)ga[j * rank + l] * a[l * d_in + column];
            }
            ck_assert_double_eq_tol(sum, a_new[j * d_in + column], 1e-6 * sqrt(size));
        }
        for (size_t row = 0; row < d_out; row += 1 + d_out / 20) {
            double sum = 0;
            for (size_t l = 0; l < rank; l++) {
                sum += (double)gb[l * rank + j] * bt[l * d_out + row];
            }
            ck_assert_double_eq_tol(sum, bt_new[j * d_out + row], 1e-6 * sqrt(size));
        }
    }
    free(a);
    free(bt);
    free(sv);
    free(a_new);
    free(bt_new);
    free(ga);
    free(gb);
}
END_TEST

START_TEST(rows_are_orthogonal_sorted_and_positive_at_their_peak) {
    const size_t rank = shapes[_i][0], d_in = shapes[_i][1], d_out = shapes[_i][2];
    const size_t most = rank < d_in ? (rank < d_out ? rank : d_out) : (d_in < d_out ? d_in : d_out);
    double *a = random_rows(3, rank, d_in), *bt = random_rows(4, rank, d_out), *sv = malloc(rank * sizeof *sv);
    double *a_new = malloc(rank * d_in * sizeof *a_new), *bt_new = malloc(rank * d_out * sizeof *bt_new);
    ck_assert_int_eq(hlc_truncate(a, bt, rank, d_in, d_out, 2, rank, a_new, bt_new, sv), HLC_DECOMPOSE_OK);
    const double size = 2 * norm_of(a, rank * d_in) * norm_of(bt, rank * d_out);
    for (size_t j = 0; j < rank; j++) {
        const double *row = a_new + j * d_in;
        ck_assert(j < most ? sv[j] > 0 : sv[j] == 0);
        ck_assert(j == 0 || sv[j] <= sv[j - 1]);
        ck_assert_double_eq_tol(norm_of(row, d_in), sqrt(sv[j]), 1e-12 * sqrt(size));
        ck_assert_double_eq_tol(norm_of(bt_new + j * d_out, d_out), sqrt(sv[j]), 1e-12 * sqrt(size));
        double peak = 0;
        for (size_t i = 0; i < d_in; i++) {
            peak = fabs(row[i]) > fabs(peak) ? row[i] : peak;
        }
        ck_assert(j < most ? peak > 0 : peak == 0);
        for (size_t other = 0; other < j; other++) {
            double product = 0;
            for (size_t i = 0; i < d_in; i++) {
                product += row[i] * a_new[other * d_in + i];
            }
            ck_assert_double_eq_tol(product, 0, 1e-11 * size);
        }
    }
    free(a);
    free(bt);
    free(sv);
    free(a_new);
    free(bt_new);
}
END_TEST

START_TEST(zero_updates_have_zero_gauges) {
    enum { RANK = 3, IN = 5, OUT = 4 };
    const double zeros[RANK * IN] = {0};
    double *a = random_rows(5, RANK, IN), *bt = random_rows(6, RANK, OUT), sv[RANK], a_new[2 * IN], bt_new[2 * OUT];
    float ga[RANK * RANK], gb[RANK * RANK];
    for (size_t which = 0; which < 3; which++) {
        const double *factor_a = which == 0 ? zeros : a, *factor_b = which == 1 ? zeros : bt;
        const double scale = which == 2 ? 0 : 1;
        memset(ga, 0xFF, sizeof ga);
        memset(gb, 0xFF, sizeof gb);
        memset(a_new, 0xFF, sizeof a_new);
        memset(bt_new, 0xFF, sizeof bt_new);
        ck_assert_int_eq(hlc_gauge(factor_a, factor_b, RANK, IN, OUT, scale, ga, gb, sv), HLC_DECOMPOSE_OK);
        const float none[RANK * RANK] = {0}; /* positive zeros */
        ck_assert_mem_eq(ga, none, sizeof ga);
        ck_assert_mem_eq(gb, none, sizeof gb);
        ck_assert(sv[0] == 0 && sv[1] == 0 && sv[2] == 0);
        ck_assert_int_eq(hlc_truncate(factor_a, factor_b, RANK, IN, OUT, scale, 2, a_new, bt_new, sv), HLC_DECOMPOSE_OK);
        ck_assert(norm_of(a_new, 2 * IN) == 0 && norm_of(bt_new, 2 * OUT) == 0);
    }
    free(a);
    free(bt);
}
END_TEST

/* Dependent rows, whose rounding would survive a threshold on the square root of a Gram matrix. */
START_TEST(dependent_rows_leave_zeros) {
    enum { RANK = 6, IN = 300, OUT = 200, TRUE_RANK = 2 };
    double *a = random_rows(7, RANK, IN), *bt = random_rows(8, RANK, OUT), sv[RANK];
    float ga[RANK * RANK], gb[RANK * RANK];
    for (size_t l = TRUE_RANK; l < RANK; l++) {
        for (size_t i = 0; i < IN; i++) {
            a[l * IN + i] = (double)l * a[i] - 0.375 * a[IN + i];
        }
    }
    ck_assert_int_eq(hlc_gauge(a, bt, RANK, IN, OUT, 1, ga, gb, sv), HLC_DECOMPOSE_OK);
    for (size_t j = 0; j < RANK; j++) {
        ck_assert((sv[j] > 0) == (j < TRUE_RANK));
        for (size_t l = 0; l < RANK && j >= TRUE_RANK; l++) {
            ck_assert(ga[j * RANK + l] == 0 && gb[l * RANK + j] == 0);
        }
    }
    free(a);
    free(bt);
}
END_TEST

START_TEST(non_finite_input_is_found_anywhere) {
    enum { RANK = 3, IN = 21, OUT = 18 };
    const double bad[] = {NAN, INFINITY, -INFINITY};
    double *a = random_rows(9, RANK, IN), *bt = random_rows(10, RANK, OUT), sv[RANK];
    float ga[RANK * RANK], gb[RANK * RANK];
    for (size_t at = 0; at < RANK * IN; at++) {
        const double kept = a[at];
        a[at] = bad[at % 3];
        ck_assert_int_eq(hlc_gauge(a, bt, RANK, IN, OUT, 1, ga, gb, sv), HLC_DECOMPOSE_NON_FINITE_INPUT);
        a[at] = kept;
    }
    for (size_t at = 0; at < RANK * OUT; at++) {
        const double kept = bt[at];
        bt[at] = bad[at % 3];
        ck_assert_int_eq(hlc_gauge(a, bt, RANK, IN, OUT, 1, ga, gb, sv), HLC_DECOMPOSE_NON_FINITE_INPUT);
        bt[at] = kept;
    }
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(hlc_gauge(a, bt, RANK, IN, OUT, bad[i], ga, gb, sv), HLC_DECOMPOSE_NON_FINITE_INPUT);
    }
    ck_assert_int_eq(hlc_gauge(a, bt, RANK, IN, OUT, 1, ga, gb, sv), HLC_DECOMPOSE_OK);
    free(a);
    free(bt);
}
END_TEST

START_TEST(a_gauge_beyond_float32_says_so) {
    const double small[] = {1e-42, 2e-42}, large[] = {3e38, -1e38};
    double a_new[2], bt_new[2], sv[1];
    float ga[1], gb[1];
    ck_assert_int_eq(hlc_gauge(small, large, 1, 2, 2, 1, ga, gb, sv), HLC_DECOMPOSE_NON_FINITE_GAUGE);
    ck_assert_int_eq(hlc_gauge(large, small, 1, 2, 2, 1, ga, gb, sv), HLC_DECOMPOSE_NON_FINITE_GAUGE);
    ck_assert_int_eq(hlc_truncate(small, large, 1, 2, 2, 1, 1, a_new, bt_new, sv), HLC_DECOMPOSE_OK);
    ck_assert_double_eq_tol(bt_new[0] * a_new[1], 6e-4, 1e-18);
    const double huge[] = {1e200, 0}; /* the gauge is 1, the singular value 1e400 */
    ck_assert_int_eq(hlc_gauge(huge, huge, 1, 2, 2, 1, ga, gb, sv), HLC_DECOMPOSE_NON_FINITE_GAUGE);
    ck_assert_int_eq(hlc_truncate(huge, huge, 1, 2, 2, 1, 1, a_new, bt_new, sv), HLC_DECOMPOSE_NON_FINITE_GAUGE);
    const double unit[] = {1, 0};
    ck_assert_int_eq(hlc_gauge(unit, unit, 1, 2, 2, DBL_MAX, ga, gb, sv), HLC_DECOMPOSE_NON_FINITE_GAUGE);
}
END_TEST

START_TEST(float64_extremes_do_not_overflow) {
    const double sizes[][3] = {{1e-320, 1e300, 1}, {1e300, 1e-300, 1e-3}, {1e-300, 1e-200, 1e250}, {1e160, 1e140, 1e-150}};
    const double a[] = {1, 2, -3, 1}, bt[] = {2, 1, 1, -2};
    double plain_a[4], plain_b[4], plain[2], scaled_a[4], scaled_b[4], x[4], y[4], sv[2];
    ck_assert_int_eq(hlc_truncate(a, bt, 2, 2, 2, 1, 2, plain_a, plain_b, plain), HLC_DECOMPOSE_OK);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t at = 0; at < 4; at++) {
            x[at] = a[at] * sizes[i][0];
            y[at] = bt[at] * sizes[i][1];
        }
        const double unit_a = x[0], unit_b = y[1]; /* what is left of a subnormal */
        ck_assert_int_eq(hlc_truncate(x, y, 2, 2, 2, sizes[i][2], 2, scaled_a, scaled_b, sv), HLC_DECOMPOSE_OK);
        const double root = sqrt(unit_a) * sqrt(unit_b) * sqrt(sizes[i][2]);
        for (size_t at = 0; at < 4; at++) {
            ck_assert_double_eq_tol(scaled_a[at] / root, plain_a[at], 1e-3);
            ck_assert_double_eq_tol(scaled_b[at] / root, plain_b[at], 1e-3);
        }
        ck_assert_double_eq_tol(sv[0] / root / root, plain[0], 1e-3);
    }
}
END_TEST

START_TEST(ties_in_sign_go_to_the_lower_column) {
    /* One row with entries of equal size: columns 5 and 1,030 lie in different blocks of the sign pass. */
    enum { IN = 1500 };
    double *a = calloc(IN, sizeof *a), *a_new = malloc(IN * sizeof *a_new);
    const double bt[] = {1, 1};
    double bt_new[2], sv[1];
    a[5] = -0.1;
    a[1030] = 0.1;
    ck_assert_int_eq(hlc_truncate(a, bt, 1, IN, 2, 1, 1, a_new, bt_new, sv), HLC_DECOMPOSE_OK);
    ck_assert(a_new[5] > 0 && a_new[1030] < 0 && bt_new[0] < 0);
    a[5] = 0.1;
    a[1030] = -0.1;
    ck_assert_int_eq(hlc_truncate(a, bt, 1, IN, 2, 1, 1, a_new, bt_new, sv), HLC_DECOMPOSE_OK);
    ck_assert(a_new[5] > 0 && a_new[1030] < 0 && bt_new[0] > 0);
    a[1030] = -0.1 * (1 + 8 * DBL_EPSILON);
    ck_assert_int_eq(hlc_truncate(a, bt, 1, IN, 2, 1, 1, a_new, bt_new, sv), HLC_DECOMPOSE_OK);
    ck_assert(a_new[5] < 0 && a_new[1030] > 0);
    free(a);
    free(a_new);
}
END_TEST

START_TEST(raw_importance_is_the_product_of_norms) {
    const double a[] = {3, 4, 0, 0, 1e-200, 0}, bt[] = {0, 2, 5, 5, 0, 1e200};
    double out[3];
    hlc_raw_importance(a, bt, 3, 2, 2, -0.5, out);
    ck_assert(out[0] == 5 && out[1] == 0);
    ck_assert_double_eq_tol(out[2], 0.5, 1e-15);
}
END_TEST

START_TEST(squeezed_rank_by_hand) {
    const double sv[] = {3, 2, 1, 1, 0, 0}; /* squares 9, 4, 1, 1 of 15 */
    ck_assert_uint_eq(hlc_squeezed_rank(sv, 6, 0, 0), 1);
    ck_assert_uint_eq(hlc_squeezed_rank(sv, 6, 0.6, 0), 1);
    ck_assert_uint_eq(hlc_squeezed_rank(sv, 6, 0.61, 0), 2);
    ck_assert_uint_eq(hlc_squeezed_rank(sv, 6, 13.0 / 15, 0), 2);
    ck_assert_uint_eq(hlc_squeezed_rank(sv, 6, 0.99, 0), 4);
    ck_assert_uint_eq(hlc_squeezed_rank(sv, 6, 1, 0), 4);
    ck_assert_uint_eq(hlc_squeezed_rank(sv, 6, 1, 3), 3);
    ck_assert_uint_eq(hlc_squeezed_rank(sv, 6, 0.7, 100), 2);
    ck_assert_uint_eq(hlc_squeezed_rank(sv + 4, 2, 1, 0), 1);
    const double tiny[] = {1, 1e-12};
    ck_assert_uint_eq(hlc_squeezed_rank(tiny, 2, 1, 0), 2);
}
END_TEST

START_TEST(rows_that_float16_keeps) {
    const double fits[] = {65504, 1, 65519, 0x1p-14, 0x1.002p-14, 0x1p-14}; /* 65519 rounds to 65504 */
    const double large[] = {65520, 1, 1}, small[] = {0x1p-10, 0x1.55p-20, 0x1p-10}, zeros[] = {0, 0, 0};
    ck_assert(hlc_rows_fit(fits, 2, 3, HLF_DTYPE_F16) && hlc_rows_fit(zeros, 1, 3, HLF_DTYPE_F16));
    ck_assert(!hlc_rows_fit(large, 1, 3, HLF_DTYPE_F16) && hlc_rows_fit(large, 1, 3, HLF_DTYPE_F32));
    ck_assert(hlc_rows_fit(small, 1, 3, HLF_DTYPE_F16)); /* the entry that is lost does not matter */
    const double lost[] = {1, 1, 1, 0x1.55p-20, 0, 0};
    ck_assert(hlc_rows_fit(lost, 1, 3, HLF_DTYPE_F16) && !hlc_rows_fit(lost, 2, 3, HLF_DTYPE_F16));
    const double tiny[] = {0x1.55p-148, 0, 0}, huge[] = {1e39, 0, 0};
    ck_assert(!hlc_rows_fit(tiny, 1, 3, HLF_DTYPE_F32) && !hlc_rows_fit(huge, 1, 3, HLF_DTYPE_F32));
}
END_TEST

/* diag(4, 3) in a gauge far from balance, beside diag(4 + e, 0). */
START_TEST(the_error_of_what_is_stored_by_hand) {
    const double a[] = {4e200, 0, 0, 3e-150}, bt[] = {1e-200, 0, 0, 1e150};
    const double part_a[] = {2, 0}, part_b[] = {2 + 0x1p-20, 0}, nothing[] = {0, 0}, broken[] = {INFINITY, 0};
    const hlc_factors whole = {a, bt, 2, 1}, part = {part_a, part_b, 1, 1}, none = {nothing, nothing, 1, 1};
    double error = 0;
    ck_assert(hlc_relative_error(&whole, &part, 2, 2, &error));
    ck_assert_double_eq_tol(error, hypot(0x1p-19, 3) / 5, 1e-15);
    ck_assert(hlc_relative_error(&whole, &none, 2, 2, &error) && error == 1);
    ck_assert(hlc_relative_error(&whole, &whole, 2, 2, &error));
    ck_assert_double_le(error, 1e-15);
    ck_assert(hlc_relative_error(&none, &none, 2, 2, &error) && error == 0);
    const hlc_factors negative = {part_a, part_b, 1, -1}, infinite = {broken, part_b, 1, 1};
    ck_assert(hlc_relative_error(&part, &negative, 2, 2, &error));
    ck_assert_double_eq_tol(error, 2, 1e-15);
    ck_assert(hlc_relative_error(&whole, &infinite, 2, 2, &error) && isnan(error));
}
END_TEST

int main(void) {
    hlc_linalg_setup();
    Suite *suite = suite_create("decompose");
    TCase *tests = tcase_create("decompose");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_diagonal_update_by_hand);
    tcase_add_loop_test(tests, components_multiply_back_to_the_update, 0, SHAPES);
    tcase_add_loop_test(tests, rows_are_orthogonal_sorted_and_positive_at_their_peak, 0, SHAPES);
    tcase_add_test(tests, zero_updates_have_zero_gauges);
    tcase_add_test(tests, dependent_rows_leave_zeros);
    tcase_add_test(tests, non_finite_input_is_found_anywhere);
    tcase_add_test(tests, a_gauge_beyond_float32_says_so);
    tcase_add_test(tests, float64_extremes_do_not_overflow);
    tcase_add_test(tests, ties_in_sign_go_to_the_lower_column);
    tcase_add_test(tests, raw_importance_is_the_product_of_norms);
    tcase_add_test(tests, squeezed_rank_by_hand);
    tcase_add_test(tests, rows_that_float16_keeps);
    tcase_add_test(tests, the_error_of_what_is_stored_by_hand);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
