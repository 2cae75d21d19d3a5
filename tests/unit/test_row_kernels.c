/* The inner loops of the token level against float64 arithmetic, every version against the portable one, and the choice
 * of components against sorting. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <hilora/session.h>

#include "format/cpu.h"
#include "runtime/row_kernels.h"
#include "runtime/sort.h"
#include "tests/support/random.h"

enum { MOST_ROWS = 37, STRIDE = 2 * HLR_SPAN + 3 * HLR_ROW_UNIT, MOST_TOKENS = 14 };

typedef struct fixture {
    float x[MOST_TOKENS][STRIDE];
    float wide[MOST_ROWS * STRIDE];
    uint16_t half[MOST_ROWS * STRIDE];
} fixture;

static fixture *f;

static const hlr_row_kernels *const portable = &hlr_rows_portable;

static void setup(void) {
    hlt_rng rng = {42};
    f = malloc(sizeof *f);
    ck_assert_ptr_nonnull(f);
    for (size_t t = 0; t < MOST_TOKENS; t++) {
        for (size_t i = 0; i < STRIDE; i++) {
            f->x[t][i] = (float)hlt_normal(&rng);
        }
    }
    for (size_t i = 0; i < MOST_ROWS * STRIDE; i++) {
        f->half[i] = hlf_f32_to_f16((float)hlt_normal(&rng));
        f->wide[i] = hlf_f16_to_f32(f->half[i]);
    }
}

static void teardown(void) {
    free(f);
}

static hlr_span span_of(bool half) {
    return (hlr_span){half ? (const void *)f->half : f->wide, STRIDE, 0, half};
}

/* The versions that this processor can run. */
static size_t versions(const hlr_row_kernels *out[2]) {
    out[0] = portable;
    out[1] = hlr_rows_x86(hlf_cpu_features());
    return out[1] ? 2 : 1;
}

START_TEST(no_version_without_its_instructions) {
    ck_assert_ptr_null(hlr_rows_x86(0));
    ck_assert_ptr_null(hlr_rows_x86(HLF_CPU_AVX2 | HLF_CPU_SHA));
}
END_TEST

/* |error| <= (HLR_SPAN / 8 + 8) u sum |x_i r_i|, u = 2^-24: at most HLR_SPAN / 8 additions and a product in each
 * partial sum, 3 additions of these, one for each span. */
static void assert_dot(const hlr_row_kernels *kernels, bool half, size_t tokens, size_t rows, size_t n) {
    float scores[MOST_TOKENS][MOST_ROWS], *u[MOST_TOKENS];
    const float *x[MOST_TOKENS];
    for (size_t t = 0; t < tokens; t++) {
        u[t] = scores[t];
        x[t] = f->x[t];
        for (size_t j = 0; j < MOST_ROWS; j++) {
            scores[t][j] = 3;
        }
    }
    const hlr_span span = span_of(half);
    kernels->dot(u, x, tokens, &span, rows, n);
    for (size_t t = 0; t < tokens; t++) {
        for (size_t j = 0; j < MOST_ROWS; j++) {
            double exact = 0, magnitude = 0;
            for (size_t i = 0; i < n; i++) {
                exact += (double)f->x[t][i] * f->wide[j * STRIDE + i];
                magnitude += fabs((double)f->x[t][i] * f->wide[j * STRIDE + i]);
            }
            const double bound = (HLR_SPAN / 8 + 8) * 0x1p-24 * magnitude + 0x1p-23 * 3;
            if (j < rows ? fabs(scores[t][j] - 3 - exact) > bound : scores[t][j] != 3) {
                ck_abort_msg("half %d, %zu tokens, %zu rows, %zu elements: u[%zu][%zu] = %g, not %g", half, tokens,
                             rows, n, t, j, (double)scores[t][j] - 3, exact);
            }
        }
    }
}

START_TEST(dot_products_are_right) {
    const hlr_row_kernels *all[2];
    for (size_t v = versions(all); v-- > 0;) {
        for (int half = 0; half < 2; half++) {
            for (size_t tokens = 1; tokens <= MOST_TOKENS; tokens++) {
                for (size_t rows = 1; rows <= 9; rows++) {
                    assert_dot(all[v], half, tokens, rows, 48);
                }
                assert_dot(all[v], half, tokens, MOST_ROWS, HLR_SPAN);
                assert_dot(all[v], half, tokens, 10, STRIDE);
            }
            assert_dot(all[v], half, 1, MOST_ROWS, HLR_ROW_UNIT);
        }
    }
}
END_TEST

/* The order of summation that the header promises, whatever the tile. */
START_TEST(a_score_does_not_depend_on_its_company) {
    const hlr_row_kernels *all[2];
    for (size_t v = versions(all); v-- > 0;) {
        for (int half = 0; half < 2; half++) {
            const hlr_span span = span_of(half);
            float alone[MOST_TOKENS][MOST_ROWS] = {{0}}, together[MOST_TOKENS][MOST_ROWS] = {{0}}, *u[MOST_TOKENS];
            const float *x[MOST_TOKENS];
            for (size_t t = 0; t < MOST_TOKENS; t++) {
                u[t] = together[t];
                x[t] = f->x[t];
                for (size_t j = 0; j < MOST_ROWS; j++) {
                    const size_t size = half ? 2 : 4;
                    const hlr_span one = {(const char *)span.at + j * STRIDE * size, STRIDE, (uint32_t)j, half};
                    float *place = &alone[t][j];
                    all[v]->dot(&place, &x[t], 1, &one, 1, STRIDE);
                }
            }
            for (size_t tokens = 1; tokens <= MOST_TOKENS; tokens++) {
                memset(together, 0, sizeof together);
                all[v]->dot(u, x, tokens, &span, MOST_ROWS, STRIDE);
                ck_assert_mem_eq(together, alone, tokens * sizeof *alone);
            }
        }
    }
}
END_TEST

/* Also when a long sum is asked for in parts. */
START_TEST(the_portable_dot_product_has_the_documented_order) {
    float expected = 0, u = 0, parts = 0, *place = &u;
    const float *x = f->x[0];
    for (size_t at = 0; at < STRIDE; at += HLR_SPAN) {
        float s[8] = {0};
        for (size_t i = at; i < at + HLR_SPAN && i < STRIDE; i++) {
            s[i % 8] += x[i] * f->wide[i];
        }
        expected += ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    }
    hlr_span span = span_of(false);
    portable->dot(&place, &x, 1, &span, 1, STRIDE);
    ck_assert_mem_eq(&u, &expected, sizeof u);
    const hlr_row_kernels *all[2];
    for (size_t v = versions(all); v-- > 0;) {
        u = parts = 0;
        place = &u;
        x = f->x[0];
        span.at = f->wide;
        all[v]->dot(&place, &x, 1, &span, 1, STRIDE);
        place = &parts;
        all[v]->dot(&place, &x, 1, &span, 1, HLR_SPAN);
        x += HLR_SPAN;
        span.at = f->wide + HLR_SPAN;
        all[v]->dot(&place, &x, 1, &span, 1, STRIDE - HLR_SPAN);
        ck_assert_mem_eq(&parts, &u, sizeof u);
    }
}
END_TEST

static const uint32_t used[] = {0, 3, 4, 11, 12, 30, 36};
enum { ACTIVE = sizeof used / sizeof *used };

static void make_weights(float weights[ACTIVE]) {
    hlt_rng rng = {5};
    for (size_t k = 0; k < ACTIVE; k++) {
        weights[k] = (float)hlt_normal(&rng);
    }
}

/* Whether `got` is start + the first `count` weighted rows in column i, to rounding. */
static void assert_weighted(double got, double start, const float *weights, size_t count, size_t i, double unit) {
    double exact = start, magnitude = fabs(start);
    for (size_t k = 0; k < count; k++) {
        exact += (double)weights[k] * f->wide[used[k] * STRIDE + i];
        magnitude += fabs((double)weights[k] * f->wide[used[k] * STRIDE + i]);
    }
    ck_assert_double_le(fabs(got - exact), ((double)count + 1) * 0x1p-24 * magnitude + unit * fabs(exact));
}

START_TEST(weighted_sums_are_right) {
    float weights[ACTIVE], sum[STRIDE + 8];
    const hlr_row_kernels *all[2];
    make_weights(weights);
    for (size_t v = versions(all); v-- > 0;) {
        for (size_t n = HLR_ROW_UNIT; n <= STRIDE; n += n < 208 ? HLR_ROW_UNIT : 432) {
            for (size_t count = 0; count <= ACTIVE; count++) {
                for (int half = 0; half < 2; half++) {
                    const hlr_span span = span_of(half);
                    for (size_t i = 0; i < STRIDE + 8; i++) {
                        sum[i] = (float)i;
                    }
                    all[v]->accumulate(sum, n, &span, used, weights, count);
                    for (size_t i = 0; i < STRIDE + 8; i++) {
                        assert_weighted((double)sum[i], (double)i, weights, i < n ? count : 0, i, 0);
                    }
                }
            }
        }
    }
}
END_TEST

/* The sum alone is that of accumulate, bit for bit, and y is added to it once. */
START_TEST(updates_are_sums_added_once) {
    static const hlf_dtype dtypes[] = {HLF_DTYPE_F32, HLF_DTYPE_BF16, HLF_DTYPE_F16};
    enum { WIDE = HLR_SPAN + 16 };
    float weights[ACTIVE], start[WIDE];
    uint8_t y[WIDE * 4], expected[WIDE * 4];
    const hlr_row_kernels *all[2];
    make_weights(weights);
    for (size_t i = 0; i < WIDE; i++) {
        start[i] = (float)i / 8;
    }
    for (size_t v = versions(all); v-- > 0;) {
        for (size_t n = 1; n <= HLR_SPAN; n += n < 140 ? 1 : 93) {
            for (size_t d = 0; d < 3; d++) {
                const hlr_span span = span_of(false);
                float sum[WIDE] = {0};
                all[v]->accumulate(sum, (n + 15) / 16 * 16, &span, used, weights, ACTIVE);
                hlf_convert(y, dtypes[d], start, HLF_DTYPE_F32, WIDE);
                memcpy(expected, y, sizeof y);
                all[v]->add(expected, dtypes[d], sum, n);
                all[v]->update(y, dtypes[d], n, f->wide, STRIDE, used, weights, ACTIVE);
                ck_assert_mem_eq(y, expected, WIDE * hlf_dtype_size(dtypes[d]));
            }
        }
    }
}
END_TEST

/* Every number of the 16-bit types, widened and narrowed; NaN may differ in its payload. */
static bool same_or_nan(const float *a, const float *b) {
    return memcmp(a, b, sizeof *a) == 0 || (isnan(*a) && isnan(*b));
}

START_TEST(conversions_are_those_of_the_format) {
    const hlr_row_kernels *all[2];
    uint16_t bits[0x400], back[0x400];
    float wide[0x400];
    for (size_t v = versions(all); v-- > 0;) {
        for (uint32_t base = 0; base < 0x10000; base += 0x3FF) { /* odd lengths exercise the rest */
            const size_t n = 0x10000 - base < 0x3FF ? 0x10000 - base : 0x3FF;
            for (size_t i = 0; i < n; i++) {
                bits[i] = (uint16_t)(base + i);
            }
            all[v]->widen(wide, bits, HLF_DTYPE_BF16, n);
            for (size_t i = 0; i < n; i++) {
                float expected = hlf_bf16_to_f32(bits[i]);
                ck_assert(same_or_nan(&wide[i], &expected));
            }
            all[v]->widen(wide, bits, HLF_DTYPE_F16, n);
            all[v]->narrow(back, wide, 1, n);
            for (size_t i = 0; i < n; i++) {
                float expected = hlf_f16_to_f32(bits[i]), again = hlf_f16_to_f32(back[i]);
                ck_assert(same_or_nan(&wide[i], &expected));
                ck_assert(same_or_nan(&again, &expected));
            }
        }
    }
}
END_TEST

START_TEST(narrowing_scales_and_rounds_to_even) {
    const hlr_row_kernels *all[2];
    hlt_rng rng = {6};
    enum { N = 1003 };
    float values[N];
    uint16_t out[N];
    for (size_t i = 0; i < N; i++) {
        uint32_t bits = (uint32_t)hlt_next(&rng); /* any float */
        memcpy(&values[i], &bits, sizeof bits);
    }
    values[0] = 1 + 0x1p-11f; /* half way: to even, down */
    values[1] = 1 + 0x3p-11f; /* half way: up */
    for (size_t v = versions(all); v-- > 0;) {
        for (int e = -20; e <= 20; e += 10) {
            all[v]->narrow(out, values, ldexpf(1, e), N);
            for (size_t i = 0; i < N; i++) {
                float expected = hlf_f16_to_f32(hlf_f32_to_f16(ldexpf(values[i], e))), got = hlf_f16_to_f32(out[i]);
                ck_assert_msg(same_or_nan(&got, &expected), "%a by 2^%d: %a, not %a", (double)values[i], e, (double)got,
                              (double)expected);
            }
        }
        all[v]->narrow(out, values, 1, 2);
        ck_assert_uint_eq(out[0], 0x3C00);
        ck_assert_uint_eq(out[1], 0x3C02);
    }
}
END_TEST

/* y + update in float32, rounded once, with nothing written behind. */
static void assert_add(const hlr_row_kernels *kernels, hlf_dtype dtype, size_t n) {
    enum { N = HLR_SPAN + 1 };
    hlt_rng rng = {n + 1};
    float update[N], before[N];
    uint8_t y[N * 4], expected[N * 4];
    for (size_t i = 0; i < N; i++) {
        update[i] = (float)(hlt_normal(&rng) * pow(2, hlt_between(&rng, 0, 30) - 25.0));
        before[i] = (float)hlt_normal(&rng);
    }
    before[0] = NAN;
    before[1] = INFINITY;
    update[2] = dtype == HLF_DTYPE_F16 ? 65519 : 3e38f;
    const float half_unit = dtype == HLF_DTYPE_F16 ? 0x1p-11f : 0x1p-8f; /* of 1: half way between two numbers */
    before[3] = before[4] = 1;
    update[3] = half_unit;
    update[4] = 3 * half_unit;
    hlf_convert(y, dtype, before, HLF_DTYPE_F32, N);
    memcpy(expected, y, sizeof y);
    for (size_t i = 0; i < n; i++) {
        float sum;
        hlf_to_f32(&sum, y + i * hlf_dtype_size(dtype), dtype, 1);
        sum += update[i];
        hlf_convert(expected + i * hlf_dtype_size(dtype), dtype, &sum, HLF_DTYPE_F32, 1);
    }
    kernels->add(y, dtype, update, n);
    ck_assert_mem_eq(y, expected, N * hlf_dtype_size(dtype));
}

START_TEST(additions_round_once) {
    const hlr_row_kernels *all[2];
    for (size_t v = versions(all); v-- > 0;) {
        for (size_t n = 0; n <= HLR_SPAN; n += n < 40 ? 1 : 59) {
            assert_add(all[v], HLF_DTYPE_F32, n);
            assert_add(all[v], HLF_DTYPE_BF16, n);
            assert_add(all[v], HLF_DTYPE_F16, n);
        }
    }
}
END_TEST

/* ---- the choice of components ---- */

typedef struct scored {
    float key;
    uint32_t at;
} scored;

static int best_first(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (isnan(x->key) || isnan(y->key)) {
        int order = isnan(y->key) - isnan(x->key);
        return order ? order : (x->at > y->at) - (x->at < y->at);
    }
    return x->key != y->key ? (x->key < y->key) - (x->key > y->key) : (x->at > y->at) - (x->at < y->at);
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void assert_selected(hl_gate gate, const float *u, const float *norm, uint32_t rank, uint32_t count) {
    enum { MOST = 128 };
    scored list[MOST];
    uint32_t expected[MOST], active[MOST + 1];
    for (uint32_t j = 0; j < rank; j++) {
        float product = u[j] * norm[j];
        list[j] = (scored){gate == HL_GATE_CONTRIBUTION ? fabsf(product) : fabsf(u[j]), j};
    }
    if (gate != HL_GATE_STATIC) {
        qsort(list, rank, sizeof *list, best_first);
    }
    for (uint32_t i = 0; i < count; i++) {
        expected[i] = list[i].at;
    }
    qsort(expected, count, sizeof *expected, ascending);
    active[count] = 0xABCD;
    hl_gate_select(gate, u, norm, rank, count, active);
    ck_assert_msg(memcmp(active, expected, count * sizeof *active) == 0 && active[count] == 0xABCD, "gate %d, %u of %u",
                  gate, count, rank);
}

START_TEST(the_choice_is_that_of_sorting) {
    static const float special[] = {0.0f, -0.0f, 1, -1, 0x1p-149f, INFINITY, -INFINITY, NAN, 3.4e38f};
    hlt_rng rng = {9};
    float u[100], norm[100];
    for (int round = 0; round < 3000; round++) {
        const uint32_t rank = hlt_between(&rng, 1, 100);
        const bool lattice = hlt_chance(&rng, 0.5), strange = hlt_chance(&rng, 0.2);
        for (uint32_t j = 0; j < rank; j++) {
            u[j] = lattice ? (float)hlt_between(&rng, 0, 6) - 3 : (float)hlt_normal(&rng);
            norm[j] = lattice ? (float)hlt_between(&rng, 0, 2) : (float)hlt_uniform(&rng);
            if (strange && hlt_chance(&rng, 0.3)) {
                u[j] = special[hlt_between(&rng, 0, sizeof special / sizeof *special - 1)];
            }
        }
        const uint32_t count = hlt_between(&rng, 0, rank);
        assert_selected(HL_GATE_ACTIVATION, u, norm, rank, count);
        assert_selected(HL_GATE_CONTRIBUTION, u, norm, rank, count);
        assert_selected(HL_GATE_STATIC, u, norm, rank, count);
        assert_selected(HL_GATE_ACTIVATION, u, norm, rank, rank);
    }
}
END_TEST

START_TEST(the_choice_bears_odd_arguments) {
    const float u[] = {1, -3, 2};
    uint32_t active[3] = {7, 7, 7};
    hl_gate_select(HL_GATE_CONTRIBUTION, u, NULL, 3, 1, active);
    ck_assert_uint_eq(active[0], 1);
    hl_gate_select(HL_GATE_DEFAULT, u, NULL, 3, 2, active);
    ck_assert_uint_eq(active[0], 1);
    ck_assert_uint_eq(active[1], 2);
    hl_gate_select(HL_GATE_STATIC, u, NULL, 3, 9, active);
    ck_assert_uint_eq(active[2], 2);
    uint32_t payload = 0x7FFFFFFF;
    float all_ones[3];
    for (int i = 0; i < 3; i++) {
        memcpy(&all_ones[i], &payload, sizeof payload);
    }
    hl_gate_select(HL_GATE_ACTIVATION, all_ones, NULL, 3, 2, active);
    ck_assert_uint_eq(active[0], 0);
    ck_assert_uint_eq(active[1], 1);
}
END_TEST

static int compare_keys(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

START_TEST(keys_are_sorted) {
    hlt_rng rng = {11};
    uint64_t keys[300], expected[300];
    for (size_t n = 0; n < 300; n++) {
        for (size_t i = 0; i < n; i++) {
            keys[i] = expected[i] = n % 3 ? hlt_next(&rng) : hlt_between(&rng, 0, 20);
        }
        qsort(expected, n, sizeof *expected, compare_keys);
        hlr_sort(keys, n);
        ck_assert_mem_eq(keys, expected, n * sizeof *keys);
        const size_t kept = hlr_unique(keys, n);
        for (size_t i = 1; i < kept; i++) {
            ck_assert_uint_lt(keys[i - 1], keys[i]);
        }
        ck_assert(n == 0 || (keys[0] == expected[0] && keys[kept - 1] == expected[n - 1]));
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("row kernels");
    TCase *tests = tcase_create("row kernels");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, no_version_without_its_instructions);
    tcase_add_test(tests, dot_products_are_right);
    tcase_add_test(tests, a_score_does_not_depend_on_its_company);
    tcase_add_test(tests, the_portable_dot_product_has_the_documented_order);
    tcase_add_test(tests, weighted_sums_are_right);
    tcase_add_test(tests, updates_are_sums_added_once);
    tcase_add_test(tests, conversions_are_those_of_the_format);
    tcase_add_test(tests, narrowing_scales_and_rounds_to_even);
    tcase_add_test(tests, additions_round_once);
    tcase_add_test(tests, the_choice_is_that_of_sorting);
    tcase_add_test(tests, the_choice_bears_odd_arguments);
    tcase_add_test(tests, keys_are_sorted);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
