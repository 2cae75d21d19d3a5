/* Optional instructions of the processor at hand, for choosing among kernels that compute the same thing. */
#ifndef HILORA_FORMAT_CPU_H
#define HILORA_FORMAT_CPU_H

enum {
    HLF_CPU_AVX2 = 1 << 0, /* x86: AVX2, and the operating system saves its registers */
    HLF_CPU_SHA = 1 << 1,  /* x86: SHA extensions, SSSE3, SSE4.1 */
    HLF_CPU_FMA = 1 << 2   /* x86: AVX2 with FMA3 and the float16 conversions of F16C */
};

/* A set of HLF_CPU_ flags; 0 on processors without any. Found at the first call; thread safe. */
unsigned hlf_cpu_features(void);

#endif
