/* The door to LAPACK: products, factors, limits, and equal bits from many threads at once. */
#include <check.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/linalg.h"
#include "tests/support/random.h"

static double *random_matrix(uint64_t seed, size_t m, size_t n) {
    hlt_rng rng = hlt_rng_for(seed, m, n, 0);
    double *a = malloc((m * n + 1) * sizeof *a);
    for (size_t i = 0; i < m * n; i++) {
        a[i] = hlt_normal(&rng);
    }
    return a;
}

static double *copy_of(const double *a, size_t n) {
    double *copy = malloc((n + 1) * sizeof *copy);
    memcpy(copy, a, n * sizeof *copy);
    return copy;
}

static double at(bool transposed, const double *a, size_t ld, size_t row, size_t column) {
    return transposed ? a[row * ld + column] : a[column * ld + row];
}

static const size_t shapes[][2] = {{1, 1}, {4, 4}, {9, 1}, {1, 9}, {300, 16}, {16, 300}, {33, 32}, {32, 33}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

START_TEST(gemm_is_the_definition) {
    const bool ta = (_i & 1) != 0, tb = (_i & 2) != 0;
    const size_t m = 7, n = 5, k = 11, lda = (ta ? k : m) + 2, ldb = (tb ? n : k) + 1, ldc = m + 3;
    double *a = random_matrix(1, lda, 20), *b = random_matrix(2, ldb, 20), *c = random_matrix(3, ldc, n), *before = copy_of(c, ldc * n);
    ck_assert(hlc_gemm(ta, tb, m, n, k, 1.5, a, lda, b, ldb, -0.5, c, ldc));
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < ldc; i++) {
            double expected = before[j * ldc + i];
            if (i < m) {
                expected *= -0.5;
                for (size_t l = 0; l < k; l++) {
                    expected += 1.5 * at(ta, a, lda, i, l) * at(tb, b, ldb, l, j);
                }
            }
            ck_assert_double_eq_tol(c[j * ldc + i], expected, 1e-13);
        }
    }
    free(a);
    free(b);
    free(c);
    free(before);
}
END_TEST

START_TEST(r_has_the_gram_matrix_of_a) {
    const size_t m = shapes[_i][0], n = shapes[_i][1], k = m < n ? m : n;
    double *a = random_matrix(4, m, n), *used = copy_of(a, m * n), *r = malloc(k * n * sizeof *r);
    memset(r, 0xFF, k * n * sizeof *r);
    ck_assert(hlc_qr_r(m, n, used, r));
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            double gram = 0, found = 0;
            for (size_t l = 0; l < m; l++) {
                gram += a[i * m + l] * a[j * m + l];
            }
            for (size_t l = 0; l < k; l++) {
                found += r[i * k + l] * r[j * k + l];
            }
            ck_assert_double_eq_tol(found, gram, 1e-11);
            ck_assert(i >= k || j >= i || r[j * k + i] == 0);
        }
    }
    free(a);
    free(used);
    free(r);
}
END_TEST

START_TEST(svd_multiplies_back) {
    const size_t m = shapes[_i][0], n = shapes[_i][1], k = m < n ? m : n;
    double *a = random_matrix(5, m, n), *used = copy_of(a, m * n);
    double *u = malloc(m * k * sizeof *u), *s = malloc(k * sizeof *s), *vt = malloc(k * n * sizeof *vt);
    ck_assert(hlc_svd(m, n, used, u, s, vt));
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < m; i++) {
            double found = 0;
            for (size_t l = 0; l < k; l++) {
                found += u[l * m + i] * s[l] * vt[j * k + l];
            }
            ck_assert_double_eq_tol(found, a[j * m + i], 1e-12);
        }
    }
    for (size_t l = 1; l < k; l++) {
        ck_assert(s[l - 1] >= s[l] && s[l] >= 0);
    }
    free(a);
    free(used);
    free(u);
    free(s);
    free(vt);
}
END_TEST

START_TEST(cholesky_and_inverse_undo_each_other) {
    enum { N = 12 };
    double *x = random_matrix(6, N, 2 * N), a[N * N], factor[N * N];
    ck_assert(hlc_gemm(false, true, N, N, 2 * N, 1, x, N, x, N, 0, a, N));
    memcpy(factor, a, sizeof a);
    factor[1] = 1e9; /* below the diagonal: not read */
    ck_assert(hlc_cholesky(N, factor));
    for (size_t j = 0; j < N; j++) {
        for (size_t i = 0; i < N; i++) {
            double found = 0;
            for (size_t l = 0; l < N; l++) {
                found += factor[i * N + l] * factor[j * N + l];
            }
            ck_assert_double_eq_tol(found, a[j * N + i], 1e-12);
            ck_assert(i <= j || factor[j * N + i] == 0);
        }
    }
    double inverse[N * N], product[N * N];
    memcpy(inverse, factor, sizeof factor);
    ck_assert(hlc_invert_upper(N, inverse));
    ck_assert(hlc_gemm(false, false, N, N, N, 1, factor, N, inverse, N, 0, product, N));
    for (size_t i = 0; i < N * N; i++) {
        ck_assert_double_eq_tol(product[i], i % (N + 1) == 0, 1e-12);
    }
    a[0] = -1;
    ck_assert(!hlc_cholesky(N, a));
    memset(inverse, 0, sizeof inverse);
    ck_assert(!hlc_invert_upper(N, inverse));
    free(x);
}
END_TEST

START_TEST(empty_matrices_are_fine) {
    double nothing[1] = {7};
    ck_assert(hlc_qr_r(0, 3, nothing, nothing));
    ck_assert(hlc_svd(3, 0, nothing, nothing, nothing, nothing));
    ck_assert(hlc_gemm(false, false, 0, 0, 4, 1, nothing, 0, nothing, 4, 0, nothing, 0));
    ck_assert(hlc_gemm(false, false, 1, 1, 0, 1, nothing, 1, nothing, 0, 0, nothing, 1));
    ck_assert(nothing[0] == 0);
    ck_assert(hlc_cholesky(0, nothing) && hlc_invert_upper(0, nothing));
}
END_TEST

START_TEST(dimensions_beyond_lapack_are_refused) {
    const size_t huge[] = {(size_t)INT_MAX + 1, (size_t)1 << 32, (size_t)1 << 33 | 1, SIZE_MAX};
    double none = 0;
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        ck_assert(!hlc_qr_r(huge[i], 2, &none, &none) && !hlc_qr_r(2, huge[i], &none, &none));
        ck_assert(!hlc_svd(huge[i], 2, &none, &none, &none, &none) && !hlc_svd(2, huge[i], &none, &none, &none, &none));
        ck_assert(!hlc_cholesky(huge[i], &none) && !hlc_invert_upper(huge[i], &none));
        ck_assert(!hlc_gemm(false, false, huge[i], 1, 1, 1, &none, 1, &none, 1, 0, &none, 1));
        ck_assert(!hlc_gemm(false, false, 1, huge[i], 1, 1, &none, 1, &none, 1, 0, &none, 1));
        ck_assert(!hlc_gemm(false, false, 1, 1, huge[i], 1, &none, 1, &none, 1, 0, &none, 1));
        ck_assert(!hlc_gemm(false, false, 1, 1, 1, 1, &none, huge[i], &none, 1, 0, &none, 1));
    }
    ck_assert(!hlc_svd(20000, 20000, &none, &none, &none, &none)); /* its workspace would overflow LAPACK's integers */
}
END_TEST

enum { THREADS = 100, SIDE = 90, RESULTS = SIDE * SIDE + 20 * 20 + SIDE * 20 + 20 + 20 * 20 };

/* A product, an R and an SVD; out: RESULTS. */
static void *all_kinds(void *out) {
    double *a = random_matrix(8, SIDE, SIDE), *b = random_matrix(9, SIDE, 20), *c = copy_of(b, SIDE * 20), *next = out;
    bool ok = hlc_gemm(true, false, SIDE, SIDE, SIDE, 1, a, SIDE, a, SIDE, 0, next, SIDE);
    next += SIDE * SIDE;
    ok = ok && hlc_qr_r(SIDE, 20, b, next);
    next += 20 * 20;
    ok = ok && hlc_svd(SIDE, 20, c, next, next + SIDE * 20, next + SIDE * 20 + 20);
    free(a);
    free(b);
    free(c);
    return ok ? out : NULL;
}

START_TEST(many_threads_get_the_same_bits) {
    pthread_t thread[THREADS];
    double *results = malloc((THREADS + 1) * RESULTS * sizeof *results), *expected = results + THREADS * RESULTS;
    ck_assert_ptr_eq(all_kinds(expected), expected);
    for (size_t i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&thread[i], NULL, all_kinds, results + i * RESULTS), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *done = NULL;
        pthread_join(thread[i], &done);
        ck_assert_ptr_nonnull(done);
        ck_assert_mem_eq(results + i * RESULTS, expected, RESULTS * sizeof *expected);
    }
    free(results);
}
END_TEST

int main(void) {
    hlc_linalg_setup();
    Suite *suite = suite_create("linalg");
    TCase *tests = tcase_create("linalg");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, gemm_is_the_definition, 0, 4);
    tcase_add_loop_test(tests, r_has_the_gram_matrix_of_a, 0, SHAPES);
    tcase_add_loop_test(tests, svd_multiplies_back, 0, SHAPES);
    tcase_add_test(tests, cholesky_and_inverse_undo_each_other);
    tcase_add_test(tests, empty_matrices_are_fine);
    tcase_add_test(tests, dimensions_beyond_lapack_are_refused);
    tcase_add_test(tests, many_threads_get_the_same_bits);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
