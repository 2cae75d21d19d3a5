/* The speed of the byte loops under format/, in cache, portable C beside this processor's best: bench_kernels */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "format/cpu.h"
#include "format/dtype.h"
#include "format/planes.h"
#include "format/sha256.h"

enum { SIZE = 128 * 1024, REPEATS = 400 };

static uint8_t a[2 * SIZE], b[2 * SIZE];

static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef void kernel(unsigned cpu_features, size_t width);

/* GB of `bytes` per second of CPU time, of the fastest run. */
static double speed(kernel *run, unsigned cpu_features, size_t width, size_t bytes) {
    double best = 1e9;
    for (int i = 0; i < REPEATS; i++) {
        double start = cpu_seconds();
        run(cpu_features, width);
        double taken = cpu_seconds() - start;
        best = taken < best ? taken : best;
    }
    return (double)bytes / best / 1e9;
}

static void run_memcpy(unsigned cpu_features, size_t width) {
    (void)cpu_features, (void)width;
    memcpy(b, a, SIZE);
    __asm__ volatile("" ::: "memory"); /* the copy may not be dropped */
}

static void run_split(unsigned cpu_features, size_t width) {
    hlf_planes_split_for(cpu_features, b, a, width, SIZE / width);
}

static void run_join(unsigned cpu_features, size_t width) {
    hlf_planes_join_for(cpu_features, b, a, width, SIZE / width);
}

static void run_sha256(unsigned cpu_features, size_t width) {
    (void)width;
    hlf_sha256 hash;
    hlf_sha256_init_for(&hash, cpu_features);
    hlf_sha256_update(&hash, a, SIZE);
    hlf_sha256_final(&hash, b);
}

static void print_kernels(void) {
    const struct {
        const char *name;
        kernel *run;
        size_t width;
    } kernels[] = {{"memcpy", run_memcpy, 1},
                   {"planes split, width 2", run_split, 2},
                   {"planes join, width 2", run_join, 2},
                   {"planes split, width 4", run_split, 4},
                   {"planes join, width 4", run_join, 4},
                   {"planes split, width 8", run_split, 8},
                   {"planes join, width 8", run_join, 8},
                   {"sha256", run_sha256, 1}};
    puts("| GB/s in cache | portable C | this processor |\n|---|---|---|");
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        printf("| %s | %.2f | %.2f |\n", kernels[i].name, speed(kernels[i].run, 0, kernels[i].width, SIZE),
               speed(kernels[i].run, hlf_cpu_features(), kernels[i].width, SIZE));
    }
}

static hlf_dtype from_type, to_type;

static void run_convert(unsigned cpu_features, size_t width) {
    (void)cpu_features, (void)width;
    hlf_convert(b, to_type, a, from_type, SIZE / 8);
}

static void print_conversions(void) {
    const hlf_dtype dtypes[] = {HLF_DTYPE_F16, HLF_DTYPE_BF16, HLF_DTYPE_F32, HLF_DTYPE_F64};
    puts("\n| hlf_convert, 10^9 elements/s | f16 | bf16 | f32 | f64 |\n|---|---|---|---|---|");
    for (int from = 0; from < 4; from++) {
        printf("| from %s |", hlf_dtype_name(dtypes[from]));
        for (int to = 0; to < 4; to++) {
            from_type = dtypes[from];
            to_type = dtypes[to];
            printf(" %.2f |", speed(run_convert, 0, 0, SIZE / 8));
        }
        puts("");
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof a; i++) {
        a[i] = (uint8_t)(i * 2654435761u >> 13 & 0x3F); /* no NaN in any type */
    }
    print_kernels();
    print_conversions();
    return 0;
}
