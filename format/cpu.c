#include "format/cpu.h"

#include <stdatomic.h>

#if defined(__x86_64__)
#include <cpuid.h>

static unsigned detect(void) {
    unsigned a, b, c, d, features = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) {
        features |= HLF_CPU_AVX2;
    }
    const unsigned leaf1_ecx_fma_f16c = 1u << 12 | 1u << 29;
    if ((features & HLF_CPU_AVX2) != 0 && __get_cpuid(1, &a, &b, &c, &d) && (c & leaf1_ecx_fma_f16c) == leaf1_ecx_fma_f16c) {
        features |= HLF_CPU_FMA;
    }
    const unsigned leaf7_ebx_sha = 1u << 29;
    if (__builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1") &&
        __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & leaf7_ebx_sha) != 0) {
        features |= HLF_CPU_SHA;
    }
    return features;
}
#else
static unsigned detect(void) {
    return 0;
}
#endif

unsigned hlf_cpu_features(void) {
    /* Every thread that races here finds and stores the same value. CPUID is slow inside virtual machines. */
    static atomic_uint known;
    const unsigned found = 1u << 31;
    unsigned features = atomic_load_explicit(&known, memory_order_relaxed);
    if ((features & found) == 0) {
        features = detect() | found;
        atomic_store_explicit(&known, features, memory_order_relaxed);
    }
    return features & ~found;
}
