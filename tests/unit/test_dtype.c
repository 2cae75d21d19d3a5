/* Element types: every 16-bit pattern, rounding against an oracle in double arithmetic and vectors from NumPy and
 * ml_dtypes, and the narrowest type bit for bit. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "format/dtype.h"

/* For loops of millions: ck_assert() writes to a pipe each time it passes. */
#define REQUIRE(condition, ...)                                                                                        \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            ck_abort_msg(__VA_ARGS__);                                                                                 \
        }                                                                                                              \
    } while (0)

/* A binary format: its fraction bits and its smallest and largest normal exponents. */
typedef struct layout {
    int fraction_bits, min_exponent, max_exponent;
} layout;

static const layout F16 = {10, -14, 15};
static const layout BF16 = {7, -126, 127};
static const hlf_dtype DTYPES[] = {HLF_DTYPE_F16, HLF_DTYPE_BF16, HLF_DTYPE_F32, HLF_DTYPE_F64};

static uint32_t bits_of_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float f32_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double f64_of_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t random_u64(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* The value of a 16-bit pattern, from its fields. */
static double oracle_value(layout f, uint16_t bits) {
    int exponent_mask = (1 << (15 - f.fraction_bits)) - 1;
    int exponent = bits >> f.fraction_bits & exponent_mask, fraction = bits & ((1 << f.fraction_bits) - 1);
    double magnitude;
    if (exponent == exponent_mask) {
        magnitude = fraction == 0 ? (double)INFINITY : (double)NAN;
    } else if (exponent == 0) {
        magnitude = ldexp(fraction, f.min_exponent - f.fraction_bits);
    } else {
        magnitude = ldexp(fraction + (1 << f.fraction_bits), exponent - 1 + f.min_exponent - f.fraction_bits);
    }
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* The 16-bit pattern nearest to a value, ties to even, by scaling to the format's spacing and rint(). */
static uint16_t oracle_round(layout f, double value) {
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double magnitude = fabs(value);
    uint16_t infinity = (uint16_t)(((1 << (15 - f.fraction_bits)) - 1) << f.fraction_bits);
    if (isnan(value)) {
        return (uint16_t)(sign | infinity | 1);
    }
    if (magnitude == 0.0 || isinf(magnitude)) {
        return magnitude == 0.0 ? sign : (uint16_t)(sign | infinity);
    }
    int exponent;
    frexp(magnitude, &exponent); /* magnitude in [2^(exponent-1), 2^exponent) */
    exponent = exponent - 1 < f.min_exponent ? f.min_exponent : exponent - 1;
    double steps = rint(ldexp(magnitude, f.fraction_bits - exponent)); /* exact: a power of two, then few bits */
    double rounded = ldexp(steps, exponent - f.fraction_bits);
    if (rounded >= ldexp(1.0, f.max_exponent + 1)) {
        return (uint16_t)(sign | infinity);
    }
    /* Patterns grow with the value: count the steps below this binade, then those inside it. */
    int binade = (exponent - f.min_exponent) << f.fraction_bits;
    return (uint16_t)(sign | (binade + (int)steps));
}

static bool is_nan16(layout f, uint16_t bits) {
    int infinity = ((1 << (15 - f.fraction_bits)) - 1) << f.fraction_bits;
    return (bits & 0x7FFF) > infinity;
}

static void assert_rounds(layout f, uint16_t got, double value) {
    uint16_t want = oracle_round(f, value);
    if (isnan(value)) {
        REQUIRE(is_nan16(f, got) && (got & 0x8000) == (want & 0x8000), "NaN became %04x", (unsigned)got);
        REQUIRE(got >> (f.fraction_bits - 1) & 1, "NaN is signalling: %04x", (unsigned)got);
    } else {
        REQUIRE(got == want, "%a became %04x, not %04x", value, (unsigned)got, (unsigned)want);
    }
}

static void assert_narrowing(float value) {
    assert_rounds(F16, hlf_f32_to_f16(value), (double)value);
    assert_rounds(BF16, hlf_f32_to_bf16(value), (double)value);
#if defined(__FLT16_MANT_DIG__)
    if (!isnan(value)) {
        _Float16 half = (_Float16)value;
        uint16_t bits;
        memcpy(&bits, &half, sizeof bits);
        REQUIRE(hlf_f32_to_f16(value) == bits, "%a differs from the compiler's", (double)value);
    }
#endif
}

START_TEST(names_and_sizes) {
    const char *names[] = {"f16", "bf16", "f32", "f64"};
    const size_t sizes[] = {2, 2, 4, 8};
    for (int i = 0; i < 4; i++) {
        ck_assert_str_eq(hlf_dtype_name(DTYPES[i]), names[i]);
        ck_assert_uint_eq(hlf_dtype_size(DTYPES[i]), sizes[i]);
    }
    ck_assert_str_eq(hlf_dtype_name(HLF_DTYPE_NONE), "?");
    ck_assert_str_eq(hlf_dtype_name((hlf_dtype)9), "?");
    ck_assert_uint_eq(hlf_dtype_size(HLF_DTYPE_NONE), 0);
    ck_assert_uint_eq(hlf_dtype_size((hlf_dtype)9), 0);
}
END_TEST

START_TEST(widening_gives_every_pattern_its_value) {
    for (uint32_t i = 0; i < 0x10000; i++) {
        uint16_t bits = (uint16_t)i;
        double f16 = oracle_value(F16, bits), bf16 = oracle_value(BF16, bits);
        float got_f16 = hlf_f16_to_f32(bits), got_bf16 = hlf_bf16_to_f32(bits);
        if (isnan(f16)) {
            REQUIRE(bits_of_f32(got_f16) == ((i & 0x8000) << 16 | 0x7F800000 | (i & 0x3FF) << 13), "f16 %04x", i);
        } else {
            REQUIRE((double)got_f16 == f16 && !signbit(got_f16) == !signbit(f16), "f16 %04x", i);
        }
        REQUIRE(bits_of_f32(got_bf16) == i << 16, "bf16 %04x", i);
        REQUIRE(isnan(bf16) ? isnan(got_bf16) : (double)got_bf16 == bf16, "bf16 %04x", i);
    }
}
END_TEST

START_TEST(narrowing_rounds_to_nearest_even_around_every_pattern) {
    for (uint32_t i = 0; i < 0x10000; i++) {
        for (int kind = 0; kind < 2; kind++) {
            layout f = kind == 0 ? F16 : BF16;
            if (is_nan16(f, (uint16_t)i) || is_nan16(f, (uint16_t)(i + 1))) {
                continue;
            }
            double low = oracle_value(f, (uint16_t)i), high = oracle_value(f, (uint16_t)(i + 1));
            if (isinf(high)) {
                high = copysign(ldexp(1.0, f.max_exponent + 1), low);
            }
            if (isinf(low)) {
                assert_narrowing((float)low);
                continue;
            }
            const double between[] = {low, low + (high - low) / 4, low + (high - low) / 2, high - (high - low) / 4};
            for (int k = 0; k < 4; k++) {
                float value = (float)between[k];
                assert_narrowing(value);
                assert_narrowing(nextafterf(value, INFINITY));
                assert_narrowing(nextafterf(value, -INFINITY));
            }
        }
    }
}
END_TEST

START_TEST(narrowing_matches_the_oracle_over_all_exponents) {
    for (uint64_t bits = 0; bits < UINT64_C(0x100000000); bits += 4093) {
        assert_narrowing(f32_of_bits((uint32_t)bits));
    }
}
END_TEST

/* numpy 2.x astype(float16) and ml_dtypes astype(bfloat16). */
START_TEST(narrowing_matches_numpy) {
    static const struct {
        uint32_t f32;
        uint16_t f16, bf16;
    } cases[] = {{0x00000000, 0x0000, 0x0000}, {0x80000000, 0x8000, 0x8000}, {0x00000001, 0x0000, 0x0000},
                 {0x807fffff, 0x8000, 0x8080}, {0x33000000, 0x0000, 0x3300}, {0x33000001, 0x0001, 0x3300},
                 {0x32ffffff, 0x0000, 0x3300}, {0x33800000, 0x0001, 0x3380}, {0x33c00000, 0x0002, 0x33c0},
                 {0x387fc000, 0x03ff, 0x3880}, {0x387fe000, 0x0400, 0x3880}, {0x387fffff, 0x0400, 0x3880},
                 {0x38800000, 0x0400, 0x3880}, {0x3f800000, 0x3c00, 0x3f80}, {0xbf800000, 0xbc00, 0xbf80},
                 {0x3f801000, 0x3c00, 0x3f80}, {0x3f801001, 0x3c01, 0x3f80}, {0x3f803000, 0x3c02, 0x3f80},
                 {0x3f808000, 0x3c04, 0x3f80}, {0x3f808001, 0x3c04, 0x3f81}, {0x3f818000, 0x3c0c, 0x3f82},
                 {0x3eaaaaab, 0x3555, 0x3eab}, {0x40490fdb, 0x4248, 0x4049}, {0x477fdfff, 0x7bff, 0x4780},
                 {0x477fe000, 0x7bff, 0x4780}, {0x477ff000, 0x7c00, 0x4780}, {0x47800000, 0x7c00, 0x4780},
                 {0x7f7f7fff, 0x7c00, 0x7f7f}, {0x7f7f8000, 0x7c00, 0x7f80}, {0x7f7fffff, 0x7c00, 0x7f80},
                 {0x7f800000, 0x7c00, 0x7f80}, {0xff800000, 0xfc00, 0xff80}, {0x00007fff, 0x0000, 0x0000},
                 {0x00008000, 0x0000, 0x0000}, {0x00008001, 0x0000, 0x0001}, {0x00018000, 0x0000, 0x0002},
                 {0x80018001, 0x8000, 0x8002}, {0x3dcccccd, 0x2e66, 0x3dcd}, {0xc2f6e979, 0xd7b7, 0xc2f7},
                 {0x3a83126f, 0x1419, 0x3a83}, {0x358637bd, 0x0011, 0x3586}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_uint_eq(hlf_f32_to_f16(f32_of_bits(cases[i].f32)), cases[i].f16);
        ck_assert_uint_eq(hlf_f32_to_bf16(f32_of_bits(cases[i].f32)), cases[i].bf16);
    }
}
END_TEST

START_TEST(widening_and_back_keeps_every_bit) {
    enum { N = 0x10000 };
    uint16_t *patterns = malloc(N * sizeof *patterns), *back = malloc(N * sizeof *back);
    uint64_t *wide = malloc(N * sizeof *wide);
    ck_assert(patterns != NULL && back != NULL && wide != NULL);
    for (int i = 0; i < N; i++) {
        patterns[i] = (uint16_t)i;
    }
    for (int narrow = 0; narrow < 2; narrow++) {
        for (int target = 2; target < 4; target++) {
            hlf_convert(wide, DTYPES[target], patterns, DTYPES[narrow], N);
            hlf_convert(back, DTYPES[narrow], wide, DTYPES[target], N);
            ck_assert_mem_eq(back, patterns, N * sizeof *patterns);
        }
    }
    free(patterns);
    free(back);
    free(wide);
}
END_TEST

/* Single elements go through portable C, arrays through the processor's instructions where it has them. */
static void assert_array_equals_elements(hlf_dtype to, const void *src, hlf_dtype from, size_t n) {
    size_t to_size = hlf_dtype_size(to), from_size = hlf_dtype_size(from);
    uint8_t array[1024 * 8], element[8];
    hlf_convert(array, to, src, from, n);
    for (size_t i = 0; i < n; i++) {
        hlf_convert(element, to, (const uint8_t *)src + i * from_size, from, 1);
        REQUIRE(memcmp(array + i * to_size, element, to_size) == 0, "%s to %s, element %zu", hlf_dtype_name(from),
                hlf_dtype_name(to), i);
    }
}

START_TEST(arrays_convert_as_their_elements_do) {
    enum { N = 1024 };
    uint64_t state = 99, values[N];
    for (int round = 0; round < 300; round++) {
        for (size_t i = 0; i < N; i++) {
            values[i] = random_u64(&state); /* one in 128 to 4,096 is a NaN, by type; in some rounds none */
            uint32_t *halves = (uint32_t *)&values[i];
            for (int k = 0; k < 2 && round % 3 == 0; k++) {
                halves[k] = (halves[k] & UINT32_C(0x8FFF8FFF)) | UINT32_C(0x30003000); /* moderate exponents */
            }
        }
        for (int from = 0; from < 4; from++) {
            for (int to = 0; to < 4; to++) {
                assert_array_equals_elements(DTYPES[to], values, DTYPES[from], N - (size_t)(round % 9));
            }
        }
    }
    uint16_t patterns[N];
    for (uint32_t first = 0; first < 0x10000; first += N) {
        for (uint32_t i = 0; i < N; i++) {
            patterns[i] = (uint16_t)(first + i);
        }
        assert_array_equals_elements(HLF_DTYPE_F32, patterns, HLF_DTYPE_F16, N);
        assert_array_equals_elements(HLF_DTYPE_F16, patterns, HLF_DTYPE_BF16, N);
    }
}
END_TEST

START_TEST(float32_through_float64_keeps_every_bit) {
    for (uint64_t i = 0; i < UINT64_C(0x100000000); i += 4093) {
        uint32_t bits = (uint32_t)i, back;
        uint64_t wide;
        hlf_convert(&wide, HLF_DTYPE_F64, &bits, HLF_DTYPE_F32, 1);
        hlf_convert(&back, HLF_DTYPE_F32, &wide, HLF_DTYPE_F64, 1);
        double value = f64_of_bits(wide);
        float source = f32_of_bits(bits);
        REQUIRE(back == bits, "%08x came back as %08x", bits, back);
        REQUIRE(isnan(source) ? isnan(value) : value == (double)source, "%08x became %a", bits, value);
    }
}
END_TEST

static void assert_converts_f64(double value) {
    uint16_t f16, bf16;
    float f32;
    hlf_convert(&f16, HLF_DTYPE_F16, &value, HLF_DTYPE_F64, 1);
    hlf_convert(&bf16, HLF_DTYPE_BF16, &value, HLF_DTYPE_F64, 1);
    hlf_convert(&f32, HLF_DTYPE_F32, &value, HLF_DTYPE_F64, 1);
    REQUIRE(f16 == oracle_round(F16, value), "%a became f16 %04x", value, (unsigned)f16);
    REQUIRE(bf16 == oracle_round(BF16, value), "%a became bf16 %04x", value, (unsigned)bf16);
    REQUIRE(bits_of_f32(f32) == bits_of_f32((float)value), "%a became f32 %a", value, (double)f32);
}

START_TEST(float64_narrows_with_one_rounding) {
    for (uint32_t i = 0; i < 0xFFFF; i++) {
        for (int kind = 0; kind < 2; kind++) {
            layout f = kind == 0 ? F16 : BF16;
            double low = oracle_value(f, (uint16_t)i), high = oracle_value(f, (uint16_t)(i + 1));
            if (isnan(low) || isnan(high) || isinf(low)) {
                continue;
            }
            high = isinf(high) ? copysign(ldexp(1.0, f.max_exponent + 1), low) : high;
            double middle = low + (high - low) / 2; /* a float32 value: rounding twice would lose what follows */
            assert_converts_f64(middle);
            assert_converts_f64(nextafter(middle, INFINITY));
            assert_converts_f64(nextafter(middle, -INFINITY));
        }
    }
    uint64_t state = 1;
    for (int i = 0; i < 200000; i++) {
        double value = f64_of_bits(random_u64(&state));
        if (!isnan(value)) {
            assert_converts_f64(value);
            assert_converts_f64(ldexp(value, -ilogb(value) + (int)(random_u64(&state) % 320) - 160));
        }
    }
}
END_TEST

START_TEST(sixteen_bit_types_convert_into_each_other) {
    for (uint32_t i = 0; i < 0x10000; i++) {
        uint16_t bits = (uint16_t)i, to_bf16, to_f16;
        hlf_convert(&to_bf16, HLF_DTYPE_BF16, &bits, HLF_DTYPE_F16, 1);
        hlf_convert(&to_f16, HLF_DTYPE_F16, &bits, HLF_DTYPE_BF16, 1);
        REQUIRE(is_nan16(F16, bits) ? is_nan16(BF16, to_bf16) : to_bf16 == oracle_round(BF16, oracle_value(F16, bits)),
                "f16 %04x became bf16 %04x", i, (unsigned)to_bf16);
        REQUIRE(is_nan16(BF16, bits) ? is_nan16(F16, to_f16) : to_f16 == oracle_round(F16, oracle_value(BF16, bits)),
                "bf16 %04x became f16 %04x", i, (unsigned)to_f16);
    }
}
END_TEST

START_TEST(nan_that_does_not_fit_stays_nan) {
    const uint64_t f64_nans[] = {UINT64_C(0x7FF0000000000001), UINT64_C(0xFFF0000000000001),
                                 UINT64_C(0x7FF8000000000000), UINT64_C(0x7FFFFFFFFFFFFFFF),
                                 UINT64_C(0x7FF4000000000000)};
    for (size_t i = 0; i < sizeof f64_nans / sizeof *f64_nans; i++) {
        uint16_t f16, bf16;
        uint32_t f32;
        hlf_convert(&f16, HLF_DTYPE_F16, &f64_nans[i], HLF_DTYPE_F64, 1);
        hlf_convert(&bf16, HLF_DTYPE_BF16, &f64_nans[i], HLF_DTYPE_F64, 1);
        hlf_convert(&f32, HLF_DTYPE_F32, &f64_nans[i], HLF_DTYPE_F64, 1);
        uint64_t sign = f64_nans[i] >> 63;
        ck_assert(is_nan16(F16, f16) && f16 >> 15 == sign);
        ck_assert(is_nan16(BF16, bf16) && bf16 >> 15 == sign);
        ck_assert((f32 & 0x7FFFFFFF) > 0x7F800000 && f32 >> 31 == sign);
    }
    uint16_t low_f16, low_bf16;
    const uint32_t low_payload = 0x7F800001;
    hlf_convert(&low_f16, HLF_DTYPE_F16, &low_payload, HLF_DTYPE_F32, 1);
    hlf_convert(&low_bf16, HLF_DTYPE_BF16, &low_payload, HLF_DTYPE_F32, 1);
    ck_assert(is_nan16(F16, low_f16) && is_nan16(BF16, low_bf16));
    /* Signalling, and exact in 16 bits: the value functions quiet it, hlf_convert keeps it. */
    const uint32_t signalling = 0x7FA00000;
    uint16_t f16, bf16;
    hlf_convert(&f16, HLF_DTYPE_F16, &signalling, HLF_DTYPE_F32, 1);
    hlf_convert(&bf16, HLF_DTYPE_BF16, &signalling, HLF_DTYPE_F32, 1);
    ck_assert_uint_eq(f16, 0x7D00);
    ck_assert_uint_eq(bf16, 0x7FA0);
    ck_assert_uint_eq(hlf_f32_to_f16(f32_of_bits(signalling)), 0x7F00);
    ck_assert_uint_eq(hlf_f32_to_bf16(f32_of_bits(signalling)), 0x7FE0);
}
END_TEST

START_TEST(to_float_and_to_double_read_any_alignment) {
    uint64_t state = 7;
    for (int k = 0; k < 4; k++) {
        for (size_t n = 0; n < 600; n += 37) {
            double source[600], as_f64[601];
            float as_f32[601];
            uint8_t packed[600 * 8 + 1];
            for (size_t i = 0; i < n; i++) {
                source[i] = (double)(int64_t)(random_u64(&state) % 4096) / 64.0 - 32.0; /* 12 bits: f16 holds it */
                source[i] = DTYPES[k] == HLF_DTYPE_BF16 ? rint(source[i]) : source[i];
            }
            hlf_convert(packed + 1, DTYPES[k], source, HLF_DTYPE_F64, n);
            as_f64[n] = 1234.0;
            as_f32[n] = 1234.0f;
            hlf_to_f64(as_f64, packed + 1, DTYPES[k], n);
            hlf_to_f32(as_f32, packed + 1, DTYPES[k], n);
            for (size_t i = 0; i < n; i++) {
                REQUIRE(as_f64[i] == source[i] && as_f32[i] == (float)source[i], "%s %g", hlf_dtype_name(DTYPES[k]),
                        source[i]);
            }
            ck_assert(as_f64[n] == 1234.0 && as_f32[n] == 1234.0f);
        }
    }
}
END_TEST

static void assert_narrowest(const void *values, hlf_dtype dtype, size_t n, hlf_dtype want) {
    hlf_dtype got = hlf_narrowest(values, dtype, n);
    REQUIRE(got == want, "%s, not %s", hlf_dtype_name(got), hlf_dtype_name(want));
    if (want != dtype) {
        uint8_t narrow[8 * 1024], back[8 * 1024];
        REQUIRE(n <= 1024, "%zu", n);
        hlf_convert(narrow, want, values, dtype, n);
        hlf_convert(back, dtype, narrow, want, n);
        REQUIRE(memcmp(back, values, n * hlf_dtype_size(dtype)) == 0, "%s lost bits", hlf_dtype_name(want));
    }
}

/* One pattern decides for its whole array: the answer must equal the one read off its bits. */
static hlf_dtype oracle_narrowest_f32(uint32_t bits) {
    if ((bits & 0xFFFF) == 0) {
        return HLF_DTYPE_BF16;
    }
    if ((bits & 0x7FFFFFFF) > 0x7F800000) {
        return (bits & 0x1FFF) == 0 ? HLF_DTYPE_F16 : HLF_DTYPE_F32;
    }
    double value = (double)f32_of_bits(bits);
    return oracle_value(F16, oracle_round(F16, value)) == value ? HLF_DTYPE_F16 : HLF_DTYPE_F32;
}

START_TEST(narrowest_of_single_values) {
    for (uint32_t i = 0; i < 0x10000; i++) {
        uint16_t bits = (uint16_t)i;
        for (int kind = 0; kind < 2; kind++) {
            uint32_t f32;
            uint64_t f64;
            hlf_convert(&f32, HLF_DTYPE_F32, &bits, DTYPES[kind], 1);
            hlf_convert(&f64, HLF_DTYPE_F64, &bits, DTYPES[kind], 1);
            hlf_dtype want = oracle_narrowest_f32(f32);
            REQUIRE(kind == 0 ? want != HLF_DTYPE_F32 : want == HLF_DTYPE_BF16, "the oracle fails at %04x", i);
            assert_narrowest(&f32, HLF_DTYPE_F32, 1, want);
            assert_narrowest(&f64, HLF_DTYPE_F64, 1, want);
            uint32_t disturbed = f32 ^ 1;
            assert_narrowest(&disturbed, HLF_DTYPE_F32, 1, HLF_DTYPE_F32);
            hlf_convert(&f64, HLF_DTYPE_F64, &disturbed, HLF_DTYPE_F32, 1);
            assert_narrowest(&f64, HLF_DTYPE_F64, 1, HLF_DTYPE_F32);
            f64 ^= 1;
            assert_narrowest(&f64, HLF_DTYPE_F64, 1, HLF_DTYPE_F64);
            assert_narrowest(&bits, DTYPES[kind], 1, DTYPES[kind]);
        }
    }
}
END_TEST

START_TEST(narrowest_of_every_kind_of_float32) {
    for (uint64_t i = 0; i < UINT64_C(0x100000000); i += 4099) {
        for (int low_zeros = 0; low_zeros <= 16; low_zeros += 1 + (low_zeros == 0) * 11) {
            uint32_t bits = (uint32_t)i & ~((UINT32_C(1) << low_zeros) - 1);
            REQUIRE(hlf_narrowest(&bits, HLF_DTYPE_F32, 1) == oracle_narrowest_f32(bits), "%08x", bits);
        }
    }
}
END_TEST

START_TEST(narrowest_needs_every_element) {
    enum { N = 1024 };
    float f32[N];
    double f64[N];
    for (size_t i = 0; i < N; i++) {
        f32[i] = (float)(i % 100) - 0.0f;
        f64[i] = -(double)f32[i];
    }
    assert_narrowest(f32, HLF_DTYPE_F32, N, HLF_DTYPE_BF16);
    assert_narrowest(f64, HLF_DTYPE_F64, N, HLF_DTYPE_BF16);
    for (size_t at = 0; at < N; at += 341) {
        float kept = f32[at];
        f32[at] = 0x1.ff8p+3f; /* 10 fraction bits */
        assert_narrowest(f32, HLF_DTYPE_F32, N, HLF_DTYPE_F16);
        f32[(at + 500) % N] = 0x1p+80f; /* beyond float16 */
        assert_narrowest(f32, HLF_DTYPE_F32, N, HLF_DTYPE_F32);
        for (size_t i = 0; i < N; i++) {
            f64[i] = (double)f32[i];
        }
        assert_narrowest(f64, HLF_DTYPE_F64, N, HLF_DTYPE_F32);
        f64[at] = 0.1;
        assert_narrowest(f64, HLF_DTYPE_F64, N, HLF_DTYPE_F64);
        f32[at] = kept;
        f32[(at + 500) % N] = 1.0f;
    }
    ck_assert_int_eq(hlf_narrowest(NULL, HLF_DTYPE_F32, 0), HLF_DTYPE_BF16);
    ck_assert_int_eq(hlf_narrowest(NULL, HLF_DTYPE_F64, 0), HLF_DTYPE_BF16);
    ck_assert_int_eq(hlf_narrowest(NULL, HLF_DTYPE_F16, 0), HLF_DTYPE_F16);
}
END_TEST

/* The second page may not be read: a fault ends the test. */
START_TEST(narrowest_stops_at_the_first_answer_and_never_reads_past_the_end) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(pages != MAP_FAILED);
    for (size_t i = 0; i < page; i += 4) {
        float value = 0.1f + (float)i;
        memcpy(pages + i, &value, sizeof value);
    }
    ck_assert_int_eq(mprotect(pages + page, page, PROT_NONE), 0);
    ck_assert_int_eq(hlf_narrowest(pages, HLF_DTYPE_F32, page / 2), HLF_DTYPE_F32);
    ck_assert_int_eq(hlf_narrowest(pages, HLF_DTYPE_F64, page / 4), HLF_DTYPE_F64);
    memset(pages, 0, page);
    for (size_t n = 0; n < 300; n += 7) {
        double wide[300];
        ck_assert_int_eq(hlf_narrowest(pages + page - 4 * n, HLF_DTYPE_F32, n), HLF_DTYPE_BF16);
        for (int k = 0; k < 4; k++) {
            hlf_to_f64(wide, pages + page - hlf_dtype_size(DTYPES[k]) * n, DTYPES[k], n);
            hlf_convert(pages + page - hlf_dtype_size(DTYPES[k]) * n, DTYPES[k], wide, HLF_DTYPE_F64, n);
        }
    }
    munmap(pages, 2 * page);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dtype");
    TCase *exact = tcase_create("conversions");
    tcase_set_timeout(exact, 120);
    tcase_add_test(exact, names_and_sizes);
    tcase_add_test(exact, widening_gives_every_pattern_its_value);
    tcase_add_test(exact, narrowing_rounds_to_nearest_even_around_every_pattern);
    tcase_add_test(exact, narrowing_matches_the_oracle_over_all_exponents);
    tcase_add_test(exact, narrowing_matches_numpy);
    tcase_add_test(exact, widening_and_back_keeps_every_bit);
    tcase_add_test(exact, arrays_convert_as_their_elements_do);
    tcase_add_test(exact, float32_through_float64_keeps_every_bit);
    tcase_add_test(exact, float64_narrows_with_one_rounding);
    tcase_add_test(exact, sixteen_bit_types_convert_into_each_other);
    tcase_add_test(exact, nan_that_does_not_fit_stays_nan);
    tcase_add_test(exact, to_float_and_to_double_read_any_alignment);
    suite_add_tcase(suite, exact);
    TCase *narrowest = tcase_create("narrowest");
    tcase_set_timeout(narrowest, 120);
    tcase_add_test(narrowest, narrowest_of_single_values);
    tcase_add_test(narrowest, narrowest_of_every_kind_of_float32);
    tcase_add_test(narrowest, narrowest_needs_every_element);
    tcase_add_test(narrowest, narrowest_stops_at_the_first_answer_and_never_reads_past_the_end);
    suite_add_tcase(suite, narrowest);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
