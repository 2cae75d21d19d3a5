/* The chunk codec: every value comes back, frames are plain zstd, bytes are always the same, damage is noticed. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "compiler/emit/codec.h"
#include "format/dtype.h"
#include "format/planes.h"

static const size_t WIDTHS[] = {2, 4, 8};

static hlc_encoder *encoder;

static void setup(void) {
    encoder = hlc_encoder_create();
    ck_assert_ptr_nonnull(encoder);
}

static void teardown(void) {
    hlc_encoder_destroy(encoder);
}

static uint64_t random_u64(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static void *allocate(size_t size) {
    void *bytes = malloc(size > 0 ? size : 1);
    ck_assert_ptr_nonnull(bytes);
    return bytes;
}

static void *random_bytes(size_t size, uint64_t seed) {
    uint8_t *bytes = allocate(size);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(random_u64(&seed) >> 56);
    }
    return bytes;
}

/* Normally distributed values, as weights are (Box and Muller). */
static void *random_weights(hlf_dtype dtype, size_t n, uint64_t seed) {
    double *values = allocate(n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        double u = (double)((random_u64(&seed) >> 11) + 1) * 0x1p-53, v = (double)(random_u64(&seed) >> 11) * 0x1p-53;
        values[i] = 0.02 * sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
    }
    void *weights = allocate(n * hlf_dtype_size(dtype));
    hlf_convert(weights, dtype, values, HLF_DTYPE_F64, n);
    free(values);
    return weights;
}

/* Encodes, checks what every zstd sees and what our decoder gives back; returns the frame's size, the frame in *out
 * when out is not NULL. */
static size_t round_trip(const void *src, size_t width, size_t n, uint8_t **out) {
    size_t bound = hlc_encode_bound(width, n), content = width * n;
    uint8_t *frame = allocate(bound), *planes = allocate(content), *decoded = allocate(content + 1);
    size_t size = hlc_encode_chunk(encoder, src, width, n, frame, bound);
    ck_assert_uint_gt(size, 0);
    ck_assert_uint_le(size, bound);
    ck_assert_uint_eq(ZSTD_getFrameContentSize(frame, size), content);
    hlf_planes_split(planes, src, width, n);
    ck_assert_uint_eq(ZSTD_decompress(decoded, content + 1, frame, size), content);
    ck_assert_int_eq(memcmp(decoded, planes, content), 0);
    ck_assert(hlc_decode_chunk(encoder, frame, size, width, n, decoded));
    ck_assert_int_eq(memcmp(decoded, src, content), 0);
    free(planes);
    free(decoded);
    if (out != NULL) {
        *out = frame;
    } else {
        free(frame);
    }
    return size;
}

START_TEST(every_small_size_comes_back) {
    for (size_t w = 0; w < 3; w++) {
        for (size_t n = 1; n < 300; n += 1 + n / 20) {
            uint8_t *noise = random_bytes(WIDTHS[w] * n, n);
            round_trip(noise, WIDTHS[w], n, NULL);
            memset(noise, 0, WIDTHS[w] * n);
            round_trip(noise, WIDTHS[w], n, NULL);
            free(noise);
        }
    }
}
END_TEST

START_TEST(sizes_around_the_block_limit_come_back) {
    const size_t sizes[] = {131071, 131072, 131073, 262144, 262145, 393219};
    for (size_t w = 0; w < 3; w++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            const hlf_dtype dtypes[] = {HLF_DTYPE_BF16, HLF_DTYPE_F32, HLF_DTYPE_F64};
            void *weights = random_weights(dtypes[w], sizes[i], i);
            size_t size = round_trip(weights, WIDTHS[w], sizes[i], NULL);
            ck_assert_uint_lt(size, WIDTHS[w] * sizes[i]);
            free(weights);
        }
    }
}
END_TEST

START_TEST(a_huge_chunk_comes_back) {
    size_t n = 262144 * 64;
    void *weights = random_weights(HLF_DTYPE_F32, n, 5);
    ck_assert_uint_lt(round_trip(weights, 4, n, NULL), 4 * n * 9 / 10);
    free(weights);
}
END_TEST

START_TEST(constant_weights_take_next_to_nothing) {
    enum { N = 65536 };
    float *weights = allocate(N * sizeof *weights);
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < N; i++) {
            weights[i] = k == 0 ? 0.0f : k == 1 ? -0.0f : 0.1f;
        }
        ck_assert_uint_lt(round_trip(weights, 4, N, NULL), 100);
    }
    free(weights);
}
END_TEST

START_TEST(noise_grows_by_no_more_than_the_headers) {
    for (size_t w = 0; w < 3; w++) {
        void *noise = random_bytes(WIDTHS[w] * 200000, w);
        size_t size = round_trip(noise, WIDTHS[w], 200000, NULL);
        ck_assert_uint_le(size, WIDTHS[w] * (200000 + 2 * 3) + 18);
        free(noise);
    }
}
END_TEST

/* Extreme bit patterns: NaN payloads, infinities, subnormals, both zeros. */
START_TEST(every_16_bit_pattern_comes_back) {
    uint16_t *patterns = allocate(0x10000 * sizeof *patterns);
    for (size_t i = 0; i < 0x10000; i++) {
        patterns[i] = (uint16_t)(i * 40503);
    }
    round_trip(patterns, 2, 0x10000, NULL);
    free(patterns);
}
END_TEST

static double order_0_bytes(const uint8_t *plane, size_t n) {
    size_t counts[256] = {0};
    double bits = 0;
    for (size_t i = 0; i < n; i++) {
        counts[plane[i]]++;
    }
    for (int b = 0; b < 256; b++) {
        bits -= counts[b] > 0 ? (double)counts[b] * log2((double)counts[b] / (double)n) : 0.0;
    }
    return bits / 8;
}

START_TEST(weights_come_close_to_the_order_0_bound) {
    enum { N = 65536 };
    const hlf_dtype dtypes[] = {HLF_DTYPE_F16, HLF_DTYPE_BF16, HLF_DTYPE_F32};
    for (int k = 0; k < 3; k++) {
        size_t width = hlf_dtype_size(dtypes[k]);
        void *weights = random_weights(dtypes[k], N, 11);
        uint8_t *planes = allocate(width * N);
        hlf_planes_split(planes, weights, width, N);
        double bound = 0;
        for (size_t p = 0; p < width; p++) {
            bound += order_0_bytes(planes + p * N, N);
        }
        double size = (double)round_trip(weights, width, N, NULL);
        ck_assert_msg(size < bound / 0.99, "%s: %g bytes, bound %g", hlf_dtype_name(dtypes[k]), size, bound);
        free(weights);
        free(planes);
    }
}
END_TEST

/* What was coded before, with which encoder and in which thread, leaves no trace. */
static void *encode_elsewhere(void *weights) {
    size_t bound = hlc_encode_bound(2, 50000);
    uint8_t *frame = malloc(bound + sizeof(size_t));
    hlc_encoder *own = hlc_encoder_create();
    if (frame != NULL && own != NULL) {
        size_t size = hlc_encode_chunk(own, weights, 2, 50000, frame + sizeof size, bound);
        memcpy(frame, &size, sizeof size);
    }
    hlc_encoder_destroy(own);
    return frame;
}

START_TEST(the_same_chunk_gives_the_same_bytes) {
    void *weights = random_weights(HLF_DTYPE_BF16, 50000, 3), *other = random_weights(HLF_DTYPE_F32, 70000, 4);
    uint8_t *first, *again;
    size_t size = round_trip(weights, 2, 50000, &first);
    round_trip(other, 4, 70000, NULL);
    ck_assert_uint_eq(round_trip(weights, 2, 50000, &again), size);
    ck_assert_mem_eq(again, first, size);
    free(again);
    again = allocate(2 * hlc_encode_bound(2, 50000));
    ck_assert_uint_eq(hlc_encode_chunk(encoder, weights, 2, 50000, again, 2 * hlc_encode_bound(2, 50000)), size);
    ck_assert_mem_eq(again, first, size);
    pthread_t threads[4];
    for (int t = 0; t < 4; t++) {
        ck_assert_int_eq(pthread_create(&threads[t], NULL, encode_elsewhere, weights), 0);
    }
    for (int t = 0; t < 4; t++) {
        void *result;
        size_t their_size;
        ck_assert_int_eq(pthread_join(threads[t], &result), 0);
        ck_assert_ptr_nonnull(result);
        memcpy(&their_size, result, sizeof their_size);
        ck_assert_uint_eq(their_size, size);
        ck_assert_mem_eq((uint8_t *)result + sizeof their_size, first, size);
        free(result);
    }
    free(first);
    free(again);
    free(weights);
    free(other);
}
END_TEST

START_TEST(the_zstd_program_decodes_to_the_planes) {
    enum { N = 40000 };
    if (system("command -v zstd >/dev/null") != 0) {
        puts("no zstd program here: its view of the frames was not tested");
        return;
    }
    void *weights = random_weights(HLF_DTYPE_F32, N, 13);
    uint8_t *frame, *planes = allocate(4 * N), *seen = allocate(4 * N + 1);
    size_t size = round_trip(weights, 4, N, &frame);
    char path[] = "/tmp/hilora-codec-XXXXXX", command[sizeof path + 32];
    int file = mkstemp(path);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(write(file, frame, size), (ssize_t)size);
    close(file);
    snprintf(command, sizeof command, "zstd -q -d -c <%s", path);
    FILE *output = popen(command, "r");
    ck_assert_ptr_nonnull(output);
    size_t got = fread(seen, 1, 4 * N + 1, output);
    ck_assert_int_eq(pclose(output), 0);
    unlink(path);
    hlf_planes_split(planes, weights, 4, N);
    ck_assert_uint_eq(got, 4 * N);
    ck_assert_int_eq(memcmp(seen, planes, 4 * N), 0);
    free(weights);
    free(frame);
    free(planes);
    free(seen);
}
END_TEST

START_TEST(impossible_chunks_are_refused) {
    uint8_t src[64] = {0}, frame[256];
    ck_assert_uint_eq(hlc_encode_chunk(encoder, src, 2, 0, frame, sizeof frame), 0);
    ck_assert_uint_eq(hlc_encode_chunk(encoder, src, 0, 4, frame, sizeof frame), 0);
    ck_assert_uint_eq(hlc_encode_chunk(encoder, src, 1, 4, frame, sizeof frame), 0);
    ck_assert_uint_eq(hlc_encode_chunk(encoder, src, 3, 4, frame, sizeof frame), 0);
    ck_assert_uint_eq(hlc_encode_chunk(encoder, src, 16, 4, frame, sizeof frame), 0);
    ck_assert_uint_eq(hlc_encode_chunk(encoder, src, 8, SIZE_MAX / 8 + 2, frame, sizeof frame), 0);
    ck_assert_uint_eq(hlc_encode_chunk(encoder, src, 2, 32, frame, hlc_encode_bound(2, 32) - 1), 0);
    ck_assert_uint_eq(hlc_encode_bound(4, 0), 0);
    ck_assert_uint_eq(hlc_encode_bound(5, 1), 0);
    ck_assert_uint_eq(hlc_encode_bound(4, SIZE_MAX / 4), 0);
    ck_assert_uint_gt(hlc_encode_chunk(encoder, src, 2, 32, frame, hlc_encode_bound(2, 32)), 0);
}
END_TEST

START_TEST(frames_of_another_shape_are_refused) {
    enum { N = 3000 };
    float *weights = random_weights(HLF_DTYPE_F32, N, 9), back[N + 1];
    uint8_t *frame;
    size_t size = round_trip(weights, 4, N, &frame);
    uint8_t *longer = allocate(2 * size + 16);
    memcpy(longer, frame, size);
    memcpy(longer + size, frame, size);
    ck_assert(!hlc_decode_chunk(encoder, frame, size, 4, N - 1, back));
    ck_assert(!hlc_decode_chunk(encoder, frame, size, 4, N + 1, back));
    ck_assert(!hlc_decode_chunk(encoder, frame, size, 3, N, back));
    ck_assert(!hlc_decode_chunk(encoder, frame, size, 4, 0, back));
    ck_assert(!hlc_decode_chunk(encoder, longer, size + 1, 4, N, back));
    ck_assert(!hlc_decode_chunk(encoder, longer, 2 * size, 4, N, back));
    ck_assert(!hlc_decode_chunk(encoder, frame, 0, 4, N, back));
    /* zstd itself skips what follows here. */
    const uint8_t skippable[] = {0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0};
    memcpy(longer + size, skippable, sizeof skippable);
    ck_assert_uint_eq(ZSTD_decompress(back, 4 * N, longer, size + sizeof skippable), 4 * N);
    ck_assert(!hlc_decode_chunk(encoder, longer, size + sizeof skippable, 4, N, back));
    size_t empty = ZSTD_compress(longer + size, size, NULL, 0, 1);
    ck_assert_uint_eq(ZSTD_decompress(back, 4 * N, longer, size + empty), 4 * N);
    ck_assert(!hlc_decode_chunk(encoder, longer, size + empty, 4, N, back));
    for (size_t cut = 1; cut < size; cut += 1 + cut / 8) {
        ck_assert(!hlc_decode_chunk(encoder, frame, size - cut, 4, N, back));
    }
    /* Two frames that together hold the content. */
    size_t half = ZSTD_compress(longer, size, frame, 8, 1);
    memcpy(longer + half, longer, half);
    ck_assert(!hlc_decode_chunk(encoder, longer, 2 * half, 4, 4, back));
    free(frame);
    free(longer);
    free(weights);
}
END_TEST

START_TEST(skippable_and_legacy_and_wide_frames_are_refused) {
    float back[16];
    const uint8_t skippable[16] = {0x50, 0x2A, 0x4D, 0x18, 8, 0, 0, 0};
    ck_assert(!hlc_decode_chunk(encoder, skippable, sizeof skippable, 4, 2, back));
    const uint8_t legacy[16] = {0x27, 0xB5, 0x2F, 0xFD};
    ck_assert(!hlc_decode_chunk(encoder, legacy, sizeof legacy, 4, 2, back));
    /* RFC 8878: single segment off, 4-byte content size, window descriptor, one raw block of 8 bytes. */
    uint8_t wide[] = {0x28, 0xB5, 0x2F, 0xFD, 0x80, 0x58, 8, 0, 0, 0, 8 << 3 | 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t plain[8];
    ck_assert_uint_eq(ZSTD_decompress(plain, sizeof plain, wide, sizeof wide), 8); /* zstd itself takes it */
    ck_assert(!hlc_decode_chunk(encoder, wide, sizeof wide, 4, 2, back));
    /* The same without a declared size. */
    uint8_t unsized[] = {0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x00, 8 << 3 | 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
    ck_assert_uint_eq(ZSTD_decompress(plain, sizeof plain, unsized, sizeof unsized), 8);
    ck_assert(!hlc_decode_chunk(encoder, unsized, sizeof unsized, 4, 2, back));
}
END_TEST

/* A flipped bit is refused or gives other values, a few padding bits aside; nothing reads or writes out of bounds. */
START_TEST(no_flipped_bit_harms) {
    enum { N = 900 };
    uint8_t *frame, back[2 * N];
    void *weights = random_weights(HLF_DTYPE_BF16, N, 21);
    size_t size = round_trip(weights, 2, N, &frame), harmless = 0;
    for (size_t bit = 0; bit < 8 * size; bit++) {
        uint8_t *damaged = allocate(size); /* of exactly this size, for the address sanitizer */
        memcpy(damaged, frame, size);
        damaged[bit / 8] = (uint8_t)(damaged[bit / 8] ^ 1 << bit % 8);
        if (hlc_decode_chunk(encoder, damaged, size, 2, N, back)) {
            harmless += memcmp(back, weights, sizeof back) == 0;
        }
        free(damaged);
    }
    ck_assert_uint_le(harmless, 8);
    free(frame);
    free(weights);
}
END_TEST

START_TEST(text_comes_back) {
    for (size_t size = 0; size < 300000; size = size * 3 + 1) {
        char *text = allocate(size), *back = allocate(size + 1);
        for (size_t i = 0; i < size; i++) {
            text[i] = "{\"lora_A\": [16, 4096], "[i % 22];
        }
        size_t frame_size;
        void *frame = hlc_compress_text(text, size, &frame_size);
        ck_assert_ptr_nonnull(frame);
        ck_assert_uint_lt(frame_size, 100);
        ck_assert(hlc_decompress_text(frame, frame_size, back, size));
        ck_assert_int_eq(memcmp(back, text, size), 0);
        ck_assert(!hlc_decompress_text(frame, frame_size, back, size + 1));
        ck_assert(size == 0 || !hlc_decompress_text(frame, frame_size, back, size - 1));
        ck_assert(!hlc_decompress_text(frame, frame_size - 1, back, size));
        free(frame);
        free(text);
        free(back);
    }
    const uint8_t skippable[8] = {0x50, 0x2A, 0x4D, 0x18};
    ck_assert(!hlc_decompress_text(skippable, sizeof skippable, NULL, 0));
}
END_TEST

START_TEST(the_version_is_zstds) {
    ck_assert_uint_eq(hlc_zstd_version(), ZSTD_versionNumber());
}
END_TEST

int main(void) {
    Suite *suite = suite_create("codec");
    TCase *tests = tcase_create("codec");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, every_small_size_comes_back);
    tcase_add_test(tests, sizes_around_the_block_limit_come_back);
    tcase_add_test(tests, a_huge_chunk_comes_back);
    tcase_add_test(tests, constant_weights_take_next_to_nothing);
    tcase_add_test(tests, noise_grows_by_no_more_than_the_headers);
    tcase_add_test(tests, every_16_bit_pattern_comes_back);
    tcase_add_test(tests, weights_come_close_to_the_order_0_bound);
    tcase_add_test(tests, the_same_chunk_gives_the_same_bytes);
    tcase_add_test(tests, the_zstd_program_decodes_to_the_planes);
    tcase_add_test(tests, impossible_chunks_are_refused);
    tcase_add_test(tests, frames_of_another_shape_are_refused);
    tcase_add_test(tests, skippable_and_legacy_and_wide_frames_are_refused);
    tcase_add_test(tests, no_flipped_bit_harms);
    tcase_add_test(tests, text_comes_back);
    tcase_add_test(tests, the_version_is_zstds);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
