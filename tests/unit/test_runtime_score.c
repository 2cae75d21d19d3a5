/* The kernels of scoring: the documented order of operations, the same bits on every processor, nothing read or written
 * outside. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "format/cpu.h"
#include "runtime/score_kernels.h"
#include "tests/support/random.h"

enum { MAX_STRIDE = 1024, MAX_ROWS = 11 };

typedef struct data {
    float z[MAX_STRIDE], mu[MAX_STRIDE], rows[MAX_ROWS * MAX_STRIDE];
} data;

static void fill(float *out, size_t n, hlt_rng *rng) {
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)(hlt_normal(rng) * pow(10, 6 * hlt_uniform(rng) - 3));
    }
}

static data *make_data(uint64_t seed) {
    data *d = malloc(sizeof *d);
    ck_assert_ptr_nonnull(d);
    hlt_rng rng = {seed};
    fill(d->z, MAX_STRIDE, &rng);
    fill(d->mu, MAX_STRIDE, &rng);
    fill(d->rows, MAX_ROWS * MAX_STRIDE, &rng);
    return d;
}

/* Straight from docs/ROUTING.md: element e to sum e mod 8. volatile keeps compilers from doing anything else. */
static double documented_sum(const double *terms, size_t n) {
    volatile double s[8] = {0};
    for (size_t e = 0; e < n; e++) {
        s[e % 8] = s[e % 8] + terms[e];
    }
    volatile double a = s[0] + s[4], b = s[2] + s[6], c = s[1] + s[5], d = s[3] + s[7];
    volatile double left = a + b, right = c + d;
    return left + right;
}

static void check_kernels(const hlr_score_kernels *kernels, uint64_t seed, size_t stride) {
    data *d = make_data(seed);
    double v[MAX_STRIDE], terms[MAX_STRIDE], p[MAX_ROWS];
    double square = kernels->center(v, d->z, d->mu, stride);
    for (size_t e = 0; e < stride; e++) {
        ck_assert_double_eq(v[e], (double)d->z[e] - (double)d->mu[e]);
        terms[e] = v[e] * v[e];
    }
    ck_assert_double_eq(square, documented_sum(terms, stride));
    for (size_t n = 0; n <= MAX_ROWS; n++) {
        kernels->project(p, v, d->rows, stride, n);
        for (size_t j = 0; j < n; j++) {
            for (size_t e = 0; e < stride; e++) {
                terms[e] = (double)d->rows[j * stride + e] * v[e];
            }
            ck_assert_double_eq(p[j], documented_sum(terms, stride));
        }
    }
    square = kernels->center(v, d->z, NULL, stride);
    for (size_t e = 0; e < stride; e++) {
        ck_assert_double_eq(v[e], (double)d->z[e]);
        terms[e] = v[e] * v[e];
    }
    ck_assert_double_eq(square, documented_sum(terms, stride));
    free(d);
}

static void check_all(const hlr_score_kernels *kernels) {
    static const size_t strides[] = {16, 32, 48, 384, 768, MAX_STRIDE};
    for (size_t i = 0; i < sizeof strides / sizeof strides[0]; i++) {
        for (uint64_t seed = 0; seed < 20; seed++) {
            check_kernels(kernels, seed, strides[i]);
        }
    }
}

START_TEST(scalar_keeps_the_documented_order) {
    check_all(&hlr_score_scalar);
}
END_TEST

START_TEST(vectors_keep_the_documented_order) {
    const hlr_score_kernels *kernels = hlr_score_x86(hlf_cpu_features());
    if (kernels) {
        check_all(kernels);
    }
}
END_TEST

START_TEST(masked_features_mean_scalar) {
    ck_assert_ptr_null(hlr_score_x86(0));
    ck_assert_ptr_null(hlr_score_x86(HLF_CPU_SHA));
}
END_TEST

/* Rows that end at a page without access: one float too many is a fault. */
static void check_bounds(const hlr_score_kernels *kernels) {
    const size_t page = 4096, stride = 16;
    unsigned char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(pages, MAP_FAILED);
    ck_assert_int_eq(mprotect(pages + page, page, PROT_NONE), 0);
    float *rows = (float *)(void *)(pages + page) - 5 * stride;
    double v[16], p[5];
    memset(rows, 0, 5 * stride * sizeof *rows);
    kernels->center(v, rows + 4 * stride, rows + 4 * stride, stride);
    kernels->project(p, v, rows, stride, 5);
    ck_assert_double_eq(p[4], 0);
    munmap(pages, 2 * page);
}

START_TEST(nothing_is_read_behind_the_rows) {
    check_bounds(&hlr_score_scalar);
    const hlr_score_kernels *kernels = hlr_score_x86(hlf_cpu_features());
    if (kernels) {
        check_bounds(kernels);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("score");
    TCase *tests = tcase_create("kernels");
    tcase_add_test(tests, scalar_keeps_the_documented_order);
    tcase_add_test(tests, vectors_keep_the_documented_order);
    tcase_add_test(tests, masked_features_mean_scalar);
    tcase_add_test(tests, nothing_is_read_behind_the_rows);
    tcase_set_timeout(tests, 120);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
