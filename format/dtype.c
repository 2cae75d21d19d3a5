/* Conversions between element types.
 *
 * float32 bit patterns are the hub: every 16-bit value widens to one exactly, and every narrowing starts from one.
 * Bits are moved as integers, because a float in a register may lose a NaN's signalling bit. The arithmetic assumes the
 * default rounding mode (nearest, ties to even). Loops run over small blocks so that compilers vectorise each stage. */
#include "format/dtype.h"

#include <string.h>

#include "format/bytes.h"
#include "format/cpu.h"
#include "format/dtype_x86.h"

enum { BLOCK = 256 }; /* elements per stage: 1 KiB of float32 bits */

#define F32_SIGN UINT32_C(0x80000000)
#define F32_INFINITY UINT32_C(0x7F800000)
#define F32_QUIET UINT32_C(0x00400000)
#define F16_BIAS_GAP (UINT32_C(112) << 23) /* float32's exponent bias less float16's, in place */
#define F64_SIGN UINT64_C(0x8000000000000000)
#define F64_INFINITY UINT64_C(0x7FF0000000000000)

size_t hlf_dtype_size(hlf_dtype dtype) {
    switch (dtype) {
    case HLF_DTYPE_F16:
    case HLF_DTYPE_BF16:
        return 2;
    case HLF_DTYPE_F32:
        return 4;
    case HLF_DTYPE_F64:
        return 8;
    case HLF_DTYPE_NONE:
        break;
    }
    return 0;
}

const char *hlf_dtype_name(hlf_dtype dtype) {
    switch (dtype) {
    case HLF_DTYPE_F16:
        return "f16";
    case HLF_DTYPE_BF16:
        return "bf16";
    case HLF_DTYPE_F32:
        return "f32";
    case HLF_DTYPE_F64:
        return "f64";
    case HLF_DTYPE_NONE:
        break;
    }
    return "?";
}

static inline float f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t f32_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- 16 bits to 32, always exact ---- */

static inline uint32_t widen_bf16(uint16_t bits) {
    return (uint32_t)bits << 16;
}

static inline uint32_t widen_f16(uint16_t bits) {
    uint32_t magnitude = bits & 0x7FFFu;
    uint32_t normal = (magnitude << 13) + F16_BIAS_GAP;
    uint32_t special = (magnitude << 13) | F32_INFINITY;
    uint32_t subnormal = f32_to_bits((float)(int32_t)magnitude * 0x1p-24f);
    uint32_t wide = magnitude < 0x0400u ? subnormal : magnitude < 0x7C00u ? normal : special;
    return wide | (uint32_t)(bits & 0x8000u) << 16;
}

/* ---- 32 bits to 16, to nearest; a NaN keeps its high payload bits, and all of its bits when the rest are zero ---- */

static inline uint16_t narrow_bf16(uint32_t bits) {
    uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    uint32_t nan = bits >> 16 | ((bits & 0xFFFFu) != 0 ? 0x0040u : 0);
    return (uint16_t)((bits & ~F32_SIGN) > F32_INFINITY ? nan : rounded);
}

static inline uint16_t narrow_f16(uint32_t bits) {
    uint32_t magnitude = bits & ~F32_SIGN;
    uint32_t normal = (magnitude - F16_BIAS_GAP + 0x0FFFu + (magnitude >> 13 & 1u)) >> 13;
    /* A float32 next to 0.5 has the spacing of float16's subnormals, 2^-24: the addition rounds. */
    uint32_t subnormal = f32_to_bits(f32_from_bits(magnitude) + 0.5f) - UINT32_C(0x3F000000);
    uint32_t nan = 0x7C00u | (magnitude >> 13 & 0x03FFu) | ((magnitude & 0x1FFFu) != 0 ? 0x0200u : 0);
    uint32_t finite = magnitude < UINT32_C(0x38800000) ? subnormal : normal; /* below 2^-14 */
    uint32_t large = magnitude > F32_INFINITY ? nan : 0x7C00u;
    uint32_t narrow = magnitude < UINT32_C(0x47800000) ? finite : large; /* below 2^16 */
    return (uint16_t)(narrow | (bits >> 16 & 0x8000u));
}

float hlf_f16_to_f32(uint16_t bits) {
    return f32_from_bits(widen_f16(bits));
}

float hlf_bf16_to_f32(uint16_t bits) {
    return f32_from_bits(widen_bf16(bits));
}

static inline uint32_t quieted(uint32_t bits) {
    return (bits & ~F32_SIGN) > F32_INFINITY ? bits | F32_QUIET : bits;
}

uint16_t hlf_f32_to_f16(float value) {
    return narrow_f16(quieted(f32_to_bits(value)));
}

uint16_t hlf_f32_to_bf16(float value) {
    return narrow_bf16(quieted(f32_to_bits(value)));
}

/* ---- 64 bits ---- */

static inline uint64_t widen_f32(uint32_t bits) {
    double value = (double)f32_from_bits(bits);
    uint64_t wide;
    memcpy(&wide, &value, sizeof wide);
    uint64_t nan = F64_INFINITY | (uint64_t)(bits & UINT32_C(0x007FFFFF)) << 29 | (uint64_t)(bits & F32_SIGN) << 32;
    return (bits & ~F32_SIGN) > F32_INFINITY ? nan : wide;
}

static inline uint32_t narrow_f64_nan(uint64_t bits) {
    uint32_t lost = (bits & UINT32_C(0x1FFFFFFF)) != 0 ? F32_QUIET : 0;
    return (uint32_t)(bits >> 32 & F32_SIGN) | F32_INFINITY | (uint32_t)(bits >> 29 & UINT32_C(0x007FFFFF)) | lost;
}

static inline bool is_f64_nan(uint64_t bits) {
    return (bits & ~F64_SIGN) > F64_INFINITY;
}

static inline uint32_t narrow_f32(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    uint32_t narrow = f32_to_bits((float)value);
    return is_f64_nan(bits) ? narrow_f64_nan(bits) : narrow;
}

/* float64 to float32 rounded to odd: truncated, with the last bit set when anything was lost. A second rounding to a
 * type at least two bits shorter then equals one rounding of the float64 value (Boldo and Melquiond, 2008). */
static inline uint32_t narrow_f32_to_odd(uint64_t bits) {
    uint32_t nearest = narrow_f32(bits);
    uint64_t back = widen_f32(nearest);
    if (back == bits || is_f64_nan(bits)) {
        return nearest;
    }
    bool too_large = (back & ~F64_SIGN) > (bits & ~F64_SIGN);
    return (nearest - (too_large ? 1u : 0u)) | 1u;
}

/* ---- arrays, through float32 bits ---- */

static void load_f32_bits(uint32_t *restrict dst, const uint8_t *restrict src, hlf_dtype dtype, size_t n) {
    if (dtype == HLF_DTYPE_F16) {
        for (size_t i = hlf_widen_f16_x86(hlf_cpu_features(), dst, src, n); i < n; i++) {
            dst[i] = widen_f16(hlf_load_u16(src + 2 * i));
        }
    } else if (dtype == HLF_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++) {
            dst[i] = widen_bf16(hlf_load_u16(src + 2 * i));
        }
    } else {
        memcpy(dst, src, 4 * n);
    }
}

static void load_f64_as_f32_bits(uint32_t *restrict dst, const uint8_t *restrict src, bool to_odd, size_t n) {
    if (to_odd) {
        for (size_t i = 0; i < n; i++) {
            dst[i] = narrow_f32_to_odd(hlf_load_u64(src + 8 * i));
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            dst[i] = narrow_f32(hlf_load_u64(src + 8 * i));
        }
    }
}

static void store_f32_bits(uint8_t *restrict dst, hlf_dtype dtype, const uint32_t *restrict src, size_t n) {
    if (dtype == HLF_DTYPE_F16) {
        for (size_t i = hlf_narrow_f16_x86(hlf_cpu_features(), dst, src, n); i < n; i++) {
            hlf_store_u16(dst + 2 * i, narrow_f16(src[i]));
        }
    } else if (dtype == HLF_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++) {
            hlf_store_u16(dst + 2 * i, narrow_bf16(src[i]));
        }
    } else if (dtype == HLF_DTYPE_F32) {
        memcpy(dst, src, 4 * n);
    } else {
        for (size_t i = 0; i < n; i++) {
            hlf_store_u64(dst + 8 * i, widen_f32(src[i]));
        }
    }
}

void hlf_convert(void *dst, hlf_dtype dst_dtype, const void *src, hlf_dtype src_dtype, size_t n) {
    size_t dst_size = hlf_dtype_size(dst_dtype), src_size = hlf_dtype_size(src_dtype);
    if (n == 0) {
        return;
    }
    if (dst_dtype == src_dtype) {
        memcpy(dst, src, n * src_size);
        return;
    }
    uint32_t bits[BLOCK];
    const uint8_t *from = src;
    uint8_t *to = dst;
    while (n > 0) {
        size_t count = n < BLOCK ? n : BLOCK;
        if (src_dtype == HLF_DTYPE_F64) {
            load_f64_as_f32_bits(bits, from, dst_size == 2, count);
        } else {
            load_f32_bits(bits, from, src_dtype, count);
        }
        store_f32_bits(to, dst_dtype, bits, count);
        from += count * src_size;
        to += count * dst_size;
        n -= count;
    }
}

void hlf_to_f64(double *dst, const void *src, hlf_dtype dtype, size_t n) {
    hlf_convert(dst, HLF_DTYPE_F64, src, dtype, n);
}

void hlf_to_f32(float *dst, const void *src, hlf_dtype dtype, size_t n) {
    hlf_convert(dst, HLF_DTYPE_F32, src, dtype, n);
}

/* ---- the narrowest type ---- */

static bool all_fit_bf16(const uint32_t *bits, size_t n) {
    uint32_t lost = 0;
    for (size_t i = 0; i < n; i++) {
        lost |= bits[i] & 0xFFFFu;
    }
    return lost == 0;
}

static bool all_fit_f16(const uint32_t *bits, size_t n) {
    uint32_t lost = 0;
    for (size_t i = 0; i < n; i++) {
        lost |= widen_f16(narrow_f16(bits[i])) ^ bits[i];
    }
    return lost == 0;
}

static bool all_fit_f32(uint32_t *restrict bits, const uint8_t *restrict src, size_t n) {
    uint64_t lost = 0;
    load_f64_as_f32_bits(bits, src, false, n);
    for (size_t i = 0; i < n; i++) {
        lost |= widen_f32(bits[i]) ^ hlf_load_u64(src + 8 * i);
    }
    return lost == 0;
}

hlf_dtype hlf_narrowest(const void *src, hlf_dtype dtype, size_t n) {
    size_t size = hlf_dtype_size(dtype);
    if (size <= 2) {
        return dtype;
    }
    uint32_t bits[BLOCK];
    bool fits_bf16 = true, fits_f16 = true;
    const uint8_t *at = src;
    while (n > 0) {
        size_t count = n < BLOCK ? n : BLOCK;
        if (dtype == HLF_DTYPE_F64) {
            if (!all_fit_f32(bits, at, count)) {
                return HLF_DTYPE_F64;
            }
        } else {
            load_f32_bits(bits, at, dtype, count);
        }
        fits_bf16 = fits_bf16 && all_fit_bf16(bits, count);
        fits_f16 = fits_f16 && all_fit_f16(bits, count);
        if (!fits_bf16 && !fits_f16 && dtype == HLF_DTYPE_F32) {
            return HLF_DTYPE_F32;
        }
        at += count * size;
        n -= count;
    }
    return fits_bf16 ? HLF_DTYPE_BF16 : fits_f16 ? HLF_DTYPE_F16 : HLF_DTYPE_F32;
}
