/* SHA-256: NIST's published examples, every split of the input, and the x86 version against portable C. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/cpu.h"
#include "format/sha256.h"

static void assert_digest(const uint8_t digest[32], const char *hex) {
    char text[65];
    for (int i = 0; i < 32; i++) {
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    }
    ck_assert_str_eq(text, hex);
}

static void hash_with(unsigned features, const void *bytes, size_t size, uint8_t out[32]) {
    hlf_sha256 hash;
    hlf_sha256_init_for(&hash, features);
    hlf_sha256_update(&hash, bytes, size);
    hlf_sha256_final(&hash, out);
}

/* One byte, repeated. */
static const struct {
    uint8_t byte;
    size_t count;
    const char *digest;
} REPEATED[] = {{0x61, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
                {0x00, 55, "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7"},
                {0x00, 56, "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb"},
                {0x00, 57, "65a16cb7861335d5ace3c60718b5052e44660726da4cd13bb745381b235a1785"},
                {0x00, 64, "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b"},
                {0x00, 1000, "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53"},
                {0x41, 1000, "c2e686823489ced2017f6059b8b239318b6364f6dcd835d0a519105a1eadd6e4"},
                {0x55, 1005, "f4d62ddec0f3dd90ea1380fa16a5ff8dc4c54b21740650f24afc4120903552b0"},
                {0x00, 1000000, "d29751f2649b32ff572b5e0a9f541ea660a50f94ff0beedfb0b692b924cc8025"}};

/* _i: 0 portable C, 1 the processor's best. */
static unsigned features_of(int run) {
    return run == 0 ? 0 : hlf_cpu_features();
}

START_TEST(published_examples) {
    static const struct {
        const char *text, *digest;
    } cases[] = {{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
                 {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
                 {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
                 {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnop"
                  "qrstnopqrstu",
                  "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
                 {"\xbd", "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b"}};
    uint8_t digest[32];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hash_with(features_of(_i), cases[i].text, strlen(cases[i].text), digest);
        assert_digest(digest, cases[i].digest);
        hlf_sha256_bytes(cases[i].text, strlen(cases[i].text), digest);
        assert_digest(digest, cases[i].digest);
    }
    for (size_t i = 0; i < sizeof REPEATED / sizeof *REPEATED; i++) {
        uint8_t *bytes = malloc(REPEATED[i].count);
        ck_assert(bytes != NULL);
        memset(bytes, REPEATED[i].byte, REPEATED[i].count);
        hash_with(features_of(_i), bytes, REPEATED[i].count, digest);
        assert_digest(digest, REPEATED[i].digest);
        free(bytes);
    }
}
END_TEST

/* The digest of the digests of the first n bytes 0, 1, 2, ... for n = 0..299 covers every padding length. */
START_TEST(every_length_of_padding) {
    uint8_t bytes[300], digest[32];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)i;
    }
    hlf_sha256 all;
    hlf_sha256_init_for(&all, features_of(_i));
    for (size_t n = 0; n < sizeof bytes; n++) {
        hash_with(features_of(_i), bytes, n, digest);
        hlf_sha256_update(&all, digest, sizeof digest);
    }
    hlf_sha256_final(&all, digest);
    assert_digest(digest, "df90175783c44235cf6aefd935a2c2747f42399416d16789ece339f1fd26d835");
}
END_TEST

START_TEST(any_split_gives_the_same_digest) {
    uint8_t bytes[257], whole[32], parts[32];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 151 + 7);
    }
    hash_with(features_of(_i), bytes, sizeof bytes, whole);
    for (size_t first = 0; first <= sizeof bytes; first++) {
        for (size_t second = 0; second <= sizeof bytes - first; second += 13) {
            hlf_sha256 hash;
            hlf_sha256_init_for(&hash, features_of(_i));
            hlf_sha256_update(&hash, bytes, first);
            hlf_sha256_update(&hash, bytes + first, second);
            hlf_sha256 fork = hash;
            hlf_sha256_update(&fork, bytes + first + second, sizeof bytes - first - second);
            hlf_sha256_final(&fork, parts);
            ck_assert_mem_eq(parts, whole, sizeof whole);
        }
    }
    hlf_sha256 hash;
    hlf_sha256_init_for(&hash, features_of(_i));
    for (size_t i = 0; i < sizeof bytes; i++) {
        hlf_sha256_update(&hash, bytes + i, 1);
        hlf_sha256_update(&hash, NULL, 0);
    }
    hlf_sha256_final(&hash, parts);
    ck_assert_mem_eq(parts, whole, sizeof whole);
}
END_TEST

/* NIST's example of 0x20000000 bytes: a length in bits that needs more than 32. */
START_TEST(half_a_gibibyte) {
    enum { STEP = 1 << 20 };
    uint8_t *bytes = malloc(STEP), digest[32];
    ck_assert(bytes != NULL);
    memset(bytes, 0x5a, STEP);
    hlf_sha256 hash;
    hlf_sha256_init(&hash);
    for (int i = 0; i < 0x20000000 / STEP; i++) {
        hlf_sha256_update(&hash, bytes, STEP);
    }
    hlf_sha256_final(&hash, digest);
    assert_digest(digest, "15a1868c12cc53951e182344277447cd0979536badcc512ad24c67e9b2d4f3dd");
    free(bytes);
}
END_TEST

START_TEST(x86_equals_portable_at_every_alignment) {
    enum { N = 40000 };
    if (hlf_sha256_compress_x86(hlf_cpu_features()) == NULL) {
        puts("this processor has no SHA extensions: portable C alone was tested");
        return;
    }
    uint8_t *bytes = malloc(N + 16), fast[32], slow[32];
    ck_assert(bytes != NULL);
    uint32_t state = 12345;
    for (size_t i = 0; i < N + 16; i++) {
        state = state * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(state >> 24);
    }
    for (size_t offset = 0; offset < 16; offset++) {
        for (size_t n = offset; n < N; n = n * 2 + 1) {
            hash_with(hlf_cpu_features(), bytes + offset, n, fast);
            hash_with(0, bytes + offset, n, slow);
            ck_assert_mem_eq(fast, slow, sizeof fast);
        }
    }
    free(bytes);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sha256");
    TCase *tests = tcase_create("sha256");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, published_examples, 0, 2);
    tcase_add_loop_test(tests, every_length_of_padding, 0, 2);
    tcase_add_loop_test(tests, any_split_gives_the_same_digest, 0, 2);
    tcase_add_test(tests, half_a_gibibyte);
    tcase_add_test(tests, x86_equals_portable_at_every_alignment);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
