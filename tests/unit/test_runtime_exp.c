/* The routing's own exp against the C library's in extended precision, which is exact to far below half a unit here. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/exp.h"
#include "tests/support/random.h"

/* The distance of y from e^x in units in the last place of a float64. */
static double error_of(double x, double y) {
    long double exact = expl((long double)x);
    int exponent;
    frexpl(exact, &exponent);
    double unit = ldexp(1, exponent - DBL_MANT_DIG);
    return (double)(fabsl((long double)y - exact) / (unit < 0x1p-1074 ? 0x1p-1074 : unit));
}

START_TEST(is_within_one_unit) {
    hlt_rng rng = {1};
    double worst = 0;
    for (int i = 0; i < 400000; i++) {
        const double u = hlt_uniform(&rng);
        const double x = i % 4 == 0 ? -745.2 * u : i % 4 == 1 ? -u : i % 4 == 2 ? -40 * u : -pow(10, -20 * u);
        const double error = error_of(x, hlr_exp(x));
        if (!(error < 1)) { /* assertions are slow by the million */
            ck_abort_msg("exp(%a) is off by %g units", x, error);
        }
        worst = error > worst ? error : worst;
    }
    ck_assert_double_gt(worst, 0.5);
}
END_TEST

START_TEST(has_the_documented_edges) {
    ck_assert_double_eq(hlr_exp(0), 1);
    ck_assert_double_eq(hlr_exp(-0.0), 1);
    ck_assert_double_eq(hlr_exp(-INFINITY), 0);
    ck_assert_double_eq(hlr_exp(-DBL_MAX), 0);
    ck_assert_double_eq(hlr_exp(-746.5), 0);
    ck_assert_double_eq(hlr_exp(-745.0), 0x1p-1074);
    ck_assert_double_eq(hlr_exp(-745.14), 0);
    ck_assert_double_eq(hlr_exp(-DBL_MIN), 1);
    ck_assert_double_eq(hlr_exp(NAN), 0);
}
END_TEST

/* The bits are part of the format of routes: docs/ROUTING.md. */
START_TEST(has_the_documented_bits) {
    ck_assert_double_eq(hlr_exp(-1.0), 0x1.78b56362cef38p-2);
    ck_assert_double_eq(hlr_exp(-0.5), 0x1.368b2fc6f960ap-1);
    ck_assert_double_eq(hlr_exp(-10.0), 0x1.7cd79b5647c9ap-15);
    ck_assert_double_eq(hlr_exp(-700.5), 0x1.4ff475c68ca02p-1011);
}
END_TEST

/* FNV-1a over the bytes of 4096 values, from tests/interop/routing_reference.py: every bit of every step counts. */
START_TEST(has_the_bits_of_the_reference) {
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    for (int k = 0; k < 4096; k++) {
        const double y = hlr_exp(-k * 0.18203125);
        unsigned char bytes[sizeof y];
        memcpy(bytes, &y, sizeof y);
        for (size_t i = 0; i < sizeof y; i++) {
            hash = (hash ^ bytes[i]) * UINT64_C(0x100000001B3);
        }
    }
    ck_assert_uint_eq(hash, UINT64_C(0x267EB9F6AE809F02));
}
END_TEST

START_TEST(never_falls_while_x_rises) {
    double previous = 0;
    for (int i = 0; i <= 2000000; i++) {
        const double y = hlr_exp(-750 + i * 3.75e-4);
        if (!(y >= previous)) {
            ck_abort_msg("exp falls to %a from %a", y, previous);
        }
        previous = y;
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("exp");
    TCase *tests = tcase_create("exp");
    tcase_add_test(tests, is_within_one_unit);
    tcase_add_test(tests, has_the_documented_edges);
    tcase_add_test(tests, has_the_documented_bits);
    tcase_add_test(tests, has_the_bits_of_the_reference);
    tcase_add_test(tests, never_falls_while_x_rises);
    tcase_set_timeout(tests, 120);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
