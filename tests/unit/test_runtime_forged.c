/* Routing over statistics that no compiler makes: values at the edge of float64, scores exactly at a threshold. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <hilora/hilora.h>

#include "format/bytes.h"
#include "format/header.h"
#include "format/records.h"
#include "runtime/score.h"
#include "tests/support/pool_builder.h"
#include "tests/support/random.h"

static const hlt_pool_spec spec = {
    .seed = 3,
    .adapters = 5,
    .modules = 2,
    .min_rank = 4,
    .max_rank = 8,
    .min_width = 4,
    .max_width = 9,
    .dim = 21,
    .min_samples = 5,
    .max_samples = 9,
    .whiten = true,
};

/* Where a record of a table, or a number of an array, lies in the file. */
static uint8_t *element(const hlt_pool *pool, hlf_section_id section, uint64_t i) {
    hlf_header header;
    ck_assert_int_eq(hlf_header_parse(pool->bytes, pool->size, pool->size, &header, NULL), HL_OK);
    return pool->bytes + header.sections[section].offset + i * hlf_section_element_size(section);
}

static hl_pool *open_pool(hlt_pool *pool) {
    hl_pool *opened = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    hlt_pool_seal(pool->bytes, pool->size);
    ck_assert_msg(hl_pool_open_memory(pool->bytes, pool->size, NULL, &opened, &diag) == HL_OK, "%s", diag.message);
    return opened;
}

static hl_route *route(const hl_pool *pool, const float *z, hl_select select) {
    hl_route_options options = {.struct_size = sizeof options, .select = select};
    hl_route *made = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    ck_assert_msg(hl_route_compute(pool, z, spec.dim, &options, &made, &diag) == HL_OK, "%s", diag.message);
    return made;
}

static hl_route_view info(const hl_route *made) {
    hl_route_view view = {.struct_size = sizeof view};
    ck_assert_int_eq(hl_route_info(made, &view), HL_OK);
    return view;
}

START_TEST(scores_stay_finite_when_the_arithmetic_does_not) {
    static const double lambdas[] = {5e-324, 1e-300, 1e308}, singulars[] = {0, 1e-300, 1e200, 1.7e308};
    float z[21];
    for (int i = 0; i < 21; i++) {
        z[i] = i % 2 ? 3e38f : -3e38f;
    }
    for (size_t l = 0; l < 3; l++) {
        for (size_t s = 0; s < 4; s++) {
            hlt_pool bytes = hlt_pool_build(&spec);
            for (uint32_t i = 0; i < spec.adapters; i++) {
                uint8_t *record = element(&bytes, HLF_SECTION_STATS, i);
                hlf_stats_record stats;
                hlf_stats_decode(&stats, record);
                stats.lambda = lambdas[l];
                stats.rho = i % 2;
                stats.log_norm = i == 0 ? -1.7e308 : 1.7e308;
                hlf_stats_encode(&stats, record);
                hlf_store_f64(element(&bytes, HLF_SECTION_SINGULAR, stats.first_row), singulars[s]);
            }
            for (uint32_t i = 0; i < 21 * 21; i++) {
                hlf_store_f64(element(&bytes, HLF_SECTION_WHITEN, i), i % 22 == 0);
            }
            hl_pool *pool = open_pool(&bytes);
            for (int select = HL_SELECT_POSTERIOR; select <= HL_SELECT_COSINE; select++) {
                hl_route *made = route(pool, z, (hl_select)select);
                uint32_t weight = 0;
                for (uint32_t i = 0; i < info(made).count; i++) {
                    hl_route_item item = {.struct_size = sizeof item};
                    ck_assert_int_eq(hl_route_item_at(made, i, &item), HL_OK);
                    ck_assert(isfinite(item.log_likelihood));
                    weight += item.weight_256;
                }
                ck_assert(weight == 256 || info(made).weights == HL_WEIGHTS_SUM);
                hl_route_free(made);
            }
            hl_pool_close(pool);
            hlt_pool_free(&bytes);
        }
    }
}
END_TEST

START_TEST(a_score_at_the_quantile_reaches_it) {
    hlt_pool bytes = hlt_pool_build(&spec);
    float z[21];
    hlt_embedding(&spec, &bytes, 5, z);
    hl_pool *pool = open_pool(&bytes);
    double scores[5], best = -INFINITY, second = -INFINITY;
    ck_assert_int_eq(hl_score_compute(pool, z, 21, scores, 5, NULL), HL_OK);
    for (int i = 0; i < 5; i++) {
        second = scores[i] > best ? best : scores[i] > second ? scores[i] : second;
        best = scores[i] > best ? scores[i] : best;
    }
    hl_pool_close(pool);
    const double levels[] = {second, best, nextafter(best, INFINITY)};
    for (int i = 0; i < 3; i++) {
        uint8_t *record = element(&bytes, HLF_SECTION_POOL, 0);
        hlf_pool_record stored;
        hlf_pool_decode(&stored, record);
        for (int k = 0; k < HLF_QUANTILES; k++) {
            stored.quantiles[k] = levels[i];
        }
        hlf_pool_encode(&stored, record);
        pool = open_pool(&bytes);
        hl_route *made = route(pool, z, HL_SELECT_POSTERIOR);
        ck_assert_int_eq(info(made).familiar, i < 2);
        hl_route_free(made);
        made = route(pool, z, HL_SELECT_CALIBRATED);
        ck_assert_uint_eq(info(made).wanted, i == 0 ? 2 : i == 1 ? 1 : 5); /* the last: the wide fallback */
        hl_route_free(made);
        hl_pool_close(pool);
    }
    hlt_pool_free(&bytes);
}
END_TEST

/* Rows whose terms cancel, so that another order of summation gives another float32. */
START_TEST(whitening_sums_in_the_documented_order) {
    hlt_pool bytes = hlt_pool_build(&spec);
    double matrix[21 * 21];
    hlt_rng rng = {1};
    for (int i = 0; i < 21 * 21; i++) {
        const int at = i % 21;
        matrix[i] = at < 3 ? 1e17 : at < 6 ? -1e17 : at;
        const uint32_t other = (uint32_t)(i - at) + hlt_between(&rng, 0, (uint32_t)at);
        const double swap = matrix[other];
        matrix[other] = matrix[i];
        matrix[i] = swap;
    }
    for (int i = 0; i < 21 * 21; i++) {
        hlf_store_f64(element(&bytes, HLF_SECTION_WHITEN, (uint64_t)i), matrix[i]);
    }
    float x[21], z[32];
    double scratch[32];
    for (int j = 0; j < 21; j++) {
        x[j] = 1;
    }
    hl_pool *pool = open_pool(&bytes);
    ck_assert_int_eq(hlr_embedding_prepare(pool, x, HL_DTYPE_F32, 21, 0, z, scratch, NULL), HL_OK);
    int order_matters = 0;
    for (int i = 0; i < 21; i++) {
        volatile double s[8] = {0}, plain = 0;
        for (int j = 0; j < 21; j++) {
            volatile double term = matrix[i * 21 + j] * (double)x[j];
            s[j % 8] = s[j % 8] + term;
            plain = plain + term;
        }
        const double sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
        ck_assert_float_eq(z[i], (float)sum);
        order_matters += (float)sum != (float)plain;
    }
    ck_assert_int_gt(order_matters, 5);
    for (int i = 21; i < 32; i++) {
        ck_assert_float_eq(z[i], 0);
    }
    for (int i = 0; i < 21; i++) {
        x[i] = 3e38f;
    }
    ck_assert_int_eq(hlr_embedding_prepare(pool, x, HL_DTYPE_F32, 21, 0, z, scratch, NULL), HL_ERR_INPUT);
    hl_pool_close(pool);
    hlt_pool_free(&bytes);
}
END_TEST

/* A damaged block fails each time it is asked for, and the other adapters stay of use. */
START_TEST(damaged_statistics_are_never_used) {
    hlt_pool bytes = hlt_pool_build(&spec);
    hlt_pool_seal(bytes.bytes, bytes.size);
    *(element(&bytes, HLF_SECTION_MEAN, 2 * 32) + 5) ^= 4; /* adapter 2 */
    hl_pool *pool = NULL;
    ck_assert_int_eq(hl_pool_open_memory(bytes.bytes, bytes.size, NULL, &pool, NULL), HL_OK);
    float z[21];
    hlt_embedding(&spec, &bytes, 1, z);
    const uint32_t others[] = {0, 1, 3, 4}, damaged[] = {2};
    hl_route_options options = {.struct_size = sizeof options, .deny = others, .deny_count = 4};
    for (int i = 0; i < 3; i++) {
        hl_route *made = NULL;
        hl_diag diag;
        hl_diag_clear(&diag);
        options.deny = others;
        options.deny_count = 4;
        ck_assert_int_eq(hl_route_compute(pool, z, 21, &options, &made, &diag), HL_ERR_CORRUPT);
        ck_assert_ptr_nonnull(strstr(diag.message, "adapter 2"));
        ck_assert_ptr_null(made);
        options.deny = damaged;
        options.deny_count = 1;
        ck_assert_int_eq(hl_route_compute(pool, z, 21, &options, &made, NULL), HL_OK);
        hl_route_free(made);
    }
    hl_pool_close(pool);
    hlt_pool_free(&bytes);
}
END_TEST

/* Sums run over the padding, so it must be zero, and finite numbers must be finite, whatever the checksums say. */
START_TEST(rows_are_checked_beyond_their_checksums) {
    static const struct {
        hlf_section_id section;
        uint32_t number;
        float value;
        hl_status status;
    } forgeries[] = {
        {HLF_SECTION_MEAN, 32 + 21, 1, HL_ERR_CORRUPT}, /* d = 21, stride 32 */
        {HLF_SECTION_BASIS, 31, 1e-30f, HL_ERR_CORRUPT},
        {HLF_SECTION_MEAN, 20, NAN, HL_ERR_INPUT},
        {HLF_SECTION_BASIS, 2, INFINITY, HL_ERR_INPUT},
    };
    float z[21];
    for (size_t i = 0; i < sizeof forgeries / sizeof forgeries[0]; i++) {
        hlt_pool bytes = hlt_pool_build(&spec);
        hlt_embedding(&spec, &bytes, 1, z);
        memcpy(element(&bytes, forgeries[i].section, forgeries[i].number), &forgeries[i].value, sizeof(float));
        hl_pool *pool = open_pool(&bytes);
        hl_route *made = NULL;
        ck_assert_int_eq(hl_route_compute(pool, z, 21, NULL, &made, NULL), forgeries[i].status);
        ck_assert_int_eq(hl_pool_verify(pool, NULL, NULL), forgeries[i].status);
        hl_pool_close(pool);
        hlt_pool_free(&bytes);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("forged");
    TCase *tests = tcase_create("forged");
    tcase_add_test(tests, scores_stay_finite_when_the_arithmetic_does_not);
    tcase_add_test(tests, a_score_at_the_quantile_reaches_it);
    tcase_add_test(tests, whitening_sums_in_the_documented_order);
    tcase_add_test(tests, damaged_statistics_are_never_used);
    tcase_add_test(tests, rows_are_checked_beyond_their_checksums);
    tcase_set_timeout(tests, 120);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
