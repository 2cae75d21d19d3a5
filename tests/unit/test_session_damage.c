/* Damaged pools, from opening to applying: a status, or the same result as before. Never a crash, never another result
 * in silence. */
#include "tests/support/exercise.h"
#include "tests/unit/session_fixture.h"

static const hlt_pool_spec specs[] = {
    {.seed = 8,
     .adapters = 3,
     .modules = 2,
     .min_rank = 2,
     .max_rank = 3,
     .min_width = 9,
     .max_width = 20,
     .dim = 16,
     .min_samples = 4,
     .max_samples = 6,
     .zstd = true,
     .svd = true,
     .mixed_dtypes = true,
     .rivals = 1,
     .whiten = true},
    {.seed = 9,
     .adapters = 2,
     .modules = 2,
     .min_rank = 1,
     .max_rank = 4,
     .min_width = 9,
     .max_width = 20,
     .dim = 8,
     .min_samples = 3,
     .max_samples = 5,
     .normalized = true},
};

typedef struct damaged {
    hlt_pool pool, copy;
    hlt_outcome expected;
} damaged;

static damaged build(const hlt_pool_spec *spec) {
    damaged d = {hlt_pool_build(spec), hlt_pool_build(spec), {HL_OK, 0}};
    d.expected = hlt_exercise(d.pool.bytes, d.pool.size);
    ck_assert_int_eq(d.expected.status, HL_OK);
    ck_assert_uint_eq(hlt_exercise(d.copy.bytes, d.copy.size).result, d.expected.result);
    return d;
}

static void destroy(damaged *d) {
    hlt_pool_free(&d->pool);
    hlt_pool_free(&d->copy);
}

START_TEST(every_truncation_ends_in_a_status) {
    damaged d = build(&specs[_i]);
    for (size_t size = 0; size < d.pool.size; size += size % 4096 < 64 ? 1 : 61) {
        uint8_t *cut = aligned_alloc(64, (size + 64) / 64 * 64); /* so that a sanitizer sees reads behind the end */
        ck_assert_ptr_nonnull(cut);
        memcpy(cut, d.pool.bytes, size);
        const hlt_outcome outcome = hlt_exercise(cut, size);
        ck_assert_msg(outcome.status != HL_OK, "%zu of %zu bytes", size, d.pool.size);
        free(cut);
    }
    destroy(&d);
}
END_TEST

START_TEST(no_flipped_bit_changes_a_result_in_silence) {
    damaged d = build(&specs[_i]);
    hlt_rng rng = {1};
    for (size_t at = 0; at < d.pool.size; at += hlt_between(&rng, 1, 9)) {
        const uint8_t bit = (uint8_t)(1 << hlt_between(&rng, 0, 7));
        d.copy.bytes[at] ^= bit;
        const hlt_outcome outcome = hlt_exercise(d.copy.bytes, d.copy.size);
        d.copy.bytes[at] ^= bit;
        ck_assert_msg(outcome.status != HL_OK || outcome.result == d.expected.result, "byte %zu of %zu, bit %x", at,
                      d.pool.size, bit);
        ck_assert_int_ne(outcome.status, HL_ERR_INTERNAL);
    }
    destroy(&d);
}
END_TEST

/* With checksums made right again, so that everything behind them meets the damage. */
START_TEST(damage_that_checksums_do_not_show_is_survived) {
    damaged d = build(&specs[_i]);
    hlt_rng rng = {2};
    int opened = 0;
    for (int round = 0; round < 6000; round++) {
        memcpy(d.copy.bytes, d.pool.bytes, d.pool.size);
        for (uint32_t n = hlt_between(&rng, 1, 4); n > 0; n--) {
            const size_t at = hlt_between(&rng, 0, (uint32_t)d.pool.size - 1);
            d.copy.bytes[at] =
                (uint8_t)(hlt_chance(&rng, 0.5) ? hlt_next(&rng) : d.copy.bytes[at] ^ 1u << hlt_between(&rng, 0, 7));
        }
        hlt_pool_seal(d.copy.bytes, d.copy.size);
        const hlt_outcome outcome = hlt_exercise(d.copy.bytes, d.copy.size);
        ck_assert_int_ne(outcome.status, HL_ERR_INTERNAL);
        opened += outcome.status == HL_OK;
    }
    ck_assert_int_gt(opened, 0);
    destroy(&d);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("session damage");
    TCase *tests = tcase_create("session damage");
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, every_truncation_ends_in_a_status, 0, 2);
    tcase_add_loop_test(tests, no_flipped_bit_changes_a_result_in_silence, 0, 2);
    tcase_add_loop_test(tests, damage_that_checksums_do_not_show_is_survived, 0, 2);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
