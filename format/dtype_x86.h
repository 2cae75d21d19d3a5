/* float16 conversions with F16C (format/dtype_x86.c). Both handle a leading part of the n elements, bit for bit as the
 * portable code, and return how many: up to the first NaN, whose signalling bit the instructions would lose, or to the
 * last few elements; 0 without HLF_CPU_FMA. float32 values are given as their bits; any alignment. */
#ifndef HILORA_FORMAT_DTYPE_X86_H
#define HILORA_FORMAT_DTYPE_X86_H

#include <stddef.h>
#include <stdint.h>

size_t hlf_widen_f16_x86(unsigned cpu_features, uint32_t *dst, const uint8_t *src, size_t n);
size_t hlf_narrow_f16_x86(unsigned cpu_features, uint8_t *dst, const uint32_t *src, size_t n);

#endif
