/* Byte planes against their definition, for every set of processor features, length, alignment and width. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "format/cpu.h"
#include "format/planes.h"

static const size_t WIDTHS[] = {2, 4, 8};
static const unsigned MASKS[] = {0, HLF_CPU_AVX2, HLF_CPU_SHA, ~0u};

static void fill(uint8_t *bytes, size_t size, uint32_t seed) {
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(seed >> 24);
    }
}

/* The header's definition, one bit at a time: bit b of w goes to bit b + 1 of w', the sign to bit 0. */
static void oracle_split(uint8_t *dst, const uint8_t *src, size_t width, size_t n) {
    size_t bits = 8 * width;
    memset(dst, 0, width * n);
    for (size_t i = 0; i < n; i++) {
        for (size_t b = 0; b < bits; b++) {
            unsigned bit = src[i * width + b / 8] >> b % 8 & 1;
            size_t to = (b + 1) % bits;
            dst[to / 8 * n + i] = (uint8_t)(dst[to / 8 * n + i] | bit << to % 8);
        }
    }
}

START_TEST(one_element_by_hand) {
    const uint8_t f16[] = {0x34, 0x92};             /* 0x9234 -> 0x2469 */
    const uint8_t f32[] = {0x78, 0x56, 0x34, 0x92}; /* 0x92345678 -> 0x2468ACF1 */
    const uint8_t two[] = {0x01, 0x80, 0xFF, 0x7F}; /* 0x8001, 0x7FFF -> 0x0003, 0xFFFE */
    uint8_t planes[4];
    hlf_planes_split(planes, f16, 2, 1);
    ck_assert_mem_eq(planes, "\x69\x24", 2);
    hlf_planes_split(planes, f32, 4, 1);
    ck_assert_mem_eq(planes, "\xF1\xAC\x68\x24", 4);
    hlf_planes_split(planes, two, 2, 2);
    ck_assert_mem_eq(planes, "\x03\xFE\x00\xFF", 4);
}
END_TEST

static void assert_split_and_join(size_t width, size_t n, size_t src_offset, size_t dst_offset) {
    enum { GUARD = 64 };
    size_t size = width * n;
    uint8_t *src = malloc(size + src_offset + 1), *want = malloc(size + 1);
    uint8_t *planes = malloc(size + dst_offset + GUARD), *back = malloc(size + src_offset + GUARD);
    ck_assert(src != NULL && want != NULL && planes != NULL && back != NULL);
    fill(src + src_offset, size, (uint32_t)(n * 31 + width));
    oracle_split(want, src + src_offset, width, n);
    for (size_t m = 0; m < sizeof MASKS / sizeof *MASKS; m++) {
        unsigned features = MASKS[m] & hlf_cpu_features();
        memset(planes, 0xEE, size + dst_offset + GUARD);
        memset(back, 0xEE, size + src_offset + GUARD);
        hlf_planes_split_for(features, planes + dst_offset, src + src_offset, width, n);
        hlf_planes_join_for(features, back + src_offset, planes + dst_offset, width, n);
        if (memcmp(planes + dst_offset, want, size) != 0 || memcmp(back + src_offset, src + src_offset, size) != 0) {
            ck_abort_msg("width %zu, %zu elements, features %x", width, n, features);
        }
        for (size_t i = 0; i < GUARD; i++) {
            if (planes[dst_offset + size + i] != 0xEE || back[src_offset + size + i] != 0xEE) {
                ck_abort_msg("written past the end: width %zu, %zu elements, features %x", width, n, features);
            }
        }
    }
    free(src);
    free(want);
    free(planes);
    free(back);
}

START_TEST(every_length_follows_the_definition) {
    for (size_t w = 0; w < 3; w++) {
        for (size_t n = 0; n < 200; n++) {
            assert_split_and_join(WIDTHS[w], n, 0, 0);
        }
        assert_split_and_join(WIDTHS[w], 4096 * 3 + 17, 0, 0);
    }
}
END_TEST

START_TEST(every_alignment_follows_the_definition) {
    for (size_t w = 0; w < 3; w++) {
        for (size_t offset = 0; offset < 33; offset++) {
            assert_split_and_join(WIDTHS[w], 96 + offset, offset, 0);
            assert_split_and_join(WIDTHS[w], 96 + offset, 1, offset);
        }
    }
}
END_TEST

START_TEST(every_16_bit_pattern_comes_back) {
    enum { N = 0x10000 };
    uint8_t *src = malloc(2 * N), *planes = malloc(2 * N), *back = malloc(2 * N);
    ck_assert(src != NULL && planes != NULL && back != NULL);
    for (size_t i = 0; i < N; i++) {
        src[2 * i] = (uint8_t)i;
        src[2 * i + 1] = (uint8_t)(i >> 8);
    }
    hlf_planes_split(planes, src, 2, N);
    for (size_t i = 0; i < N; i++) {
        unsigned w = (unsigned)(i << 1 | i >> 15);
        if (planes[i] != (w & 0xFF) || planes[N + i] != (w >> 8 & 0xFF)) {
            ck_abort_msg("element %zx", i);
        }
    }
    hlf_planes_join(back, planes, 2, N);
    ck_assert_mem_eq(back, src, 2 * N);
    free(src);
    free(planes);
    free(back);
}
END_TEST

/* Both buffers end at a page that may not be touched. */
START_TEST(nothing_beyond_the_buffers_is_touched) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *a = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *b = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(a != MAP_FAILED && b != MAP_FAILED);
    ck_assert_int_eq(mprotect(a + page, page, PROT_NONE), 0);
    ck_assert_int_eq(mprotect(b + page, page, PROT_NONE), 0);
    for (size_t w = 0; w < 3; w++) {
        for (size_t n = 0; n < 150; n++) {
            size_t size = WIDTHS[w] * n;
            hlf_planes_split(b + page - size, a + page - size, WIDTHS[w], n);
            hlf_planes_join(a + page - size, b + page - size, WIDTHS[w], n);
        }
    }
    munmap(a, 2 * page);
    munmap(b, 2 * page);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("planes");
    TCase *tests = tcase_create("planes");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, one_element_by_hand);
    tcase_add_test(tests, every_length_follows_the_definition);
    tcase_add_test(tests, every_alignment_follows_the_definition);
    tcase_add_test(tests, every_16_bit_pattern_comes_back);
    tcase_add_test(tests, nothing_beyond_the_buffers_is_touched);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
