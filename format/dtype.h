/* Element types of tensors and their conversions. Pure; no allocation. */
#ifndef HILORA_FORMAT_DTYPE_H
#define HILORA_FORMAT_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The numbers are stored in .hlp files (docs/FORMAT.md) and never change. */
typedef enum hlf_dtype {
    HLF_DTYPE_NONE = 0,
    HLF_DTYPE_F16 = 1,
    HLF_DTYPE_BF16 = 2,
    HLF_DTYPE_F32 = 3,
    HLF_DTYPE_F64 = 4
} hlf_dtype;

/* Bytes per element; 0 for a value that is no dtype. */
size_t hlf_dtype_size(hlf_dtype dtype);
/* "f16", "bf16", "f32", "f64" (as in dataset names); "?" for a value that is no dtype. */
const char *hlf_dtype_name(hlf_dtype dtype);

float hlf_f16_to_f32(uint16_t bits);
float hlf_bf16_to_f32(uint16_t bits);
/* Round to nearest, ties to even; overflow gives infinity; NaN stays NaN (quiet). */
uint16_t hlf_f32_to_f16(float value);
uint16_t hlf_f32_to_bf16(float value);

/* Converts n little-endian elements at src (any alignment) to double or float, exactly where the target holds
 * the value, else rounded to nearest. dtype must be one of the four. */
void hlf_to_f64(double *dst, const void *src, hlf_dtype dtype, size_t n);
void hlf_to_f32(float *dst, const void *src, hlf_dtype dtype, size_t n);

/* Rewrites n little-endian elements from one dtype to another (any alignment, no overlap).
 * Widening and every narrowing for which hlf_narrowest answered are exact to the bit, NaN payloads included. */
void hlf_convert(void *dst, hlf_dtype dst_dtype, const void *src, hlf_dtype src_dtype, size_t n);

/* The narrowest dtype that holds all n elements so that widening gives every bit back: f64 -> f32 -> bf16 (tried
 * before f16) -> f16; 16-bit types stay. Stops reading as soon as no narrower type is possible. */
hlf_dtype hlf_narrowest(const void *src, hlf_dtype dtype, size_t n);

#endif
