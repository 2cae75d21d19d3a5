/* seed_pools FOLDER: small pools of every kind, for fuzz_pool to start from. */
#include <stdio.h>

#include "tests/support/pool_builder.h"

int main(int argc, char **argv) {
    if (argc != 2) {
        fputs("usage: seed_pools FOLDER\n", stderr);
        return 2;
    }
    for (uint64_t kind = 0; kind < 16; kind++) {
        const hlt_pool_spec spec = {.seed = kind,
                                    .adapters = 2,
                                    .modules = 2,
                                    .min_rank = 1,
                                    .max_rank = 3,
                                    .min_width = 4,
                                    .max_width = 12,
                                    .dim = kind & 8 ? 0 : 8,
                                    .min_samples = 3,
                                    .max_samples = 4,
                                    .zstd = kind & 1,
                                    .svd = kind & 2,
                                    .squeezed = (kind & 6) == 6,
                                    .mixed_dtypes = kind & 4,
                                    .whiten = (kind & 3) == 3,
                                    .normalized = (kind & 5) == 5,
                                    .rivals = kind & 1};
        char path[4096];
        snprintf(path, sizeof path, "%s/pool-%02u.hlp", argv[1], (unsigned)kind);
        hlt_pool pool = hlt_pool_build(&spec);
        hlt_pool_write(&pool, path);
        hlt_pool_free(&pool);
    }
    return 0;
}
