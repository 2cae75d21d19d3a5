/* Flat pools in memory for tests: a header with a made-up HDF5 superblock, the tables, statistics and chunks, without
 * HDF5.
 *
 * They pass every check of the runtime, but there is no HDF5 file behind them. Statistics are made up (a random mean,
 * an orthonormal basis, random singular values), not fitted; weights come from hlt_fill, so that a test can make them
 * again. */
#ifndef HILORA_TESTS_POOL_BUILDER_H
#define HILORA_TESTS_POOL_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hlt_pool_spec {
    uint64_t seed;
    uint32_t adapters;                 /* >= 1; named "adapter-0000000" and so on */
    uint32_t modules;                  /* >= 1; named "layers.0000000" */
    uint32_t modules_per_adapter;      /* 0: all; else so many, at random */
    uint32_t min_rank, max_rank;       /* of an entry */
    uint32_t min_width, max_width;     /* d_in and d_out */
    uint32_t dim;                      /* of the embeddings; 0: no statistics at all */
    uint32_t min_samples, max_samples; /* m, >= 2 */
    bool zstd;                         /* else `store` */
    bool svd;                          /* entries have a gauge */
    bool squeezed;                     /* entries are squeezed; with svd only */
    bool mixed_dtypes;                 /* any source and stored type; else float32 */
    bool normalized;                   /* embeddings of length 1 */
    bool whiten;
    bool lattice;        /* statistics are small binary fractions, so that equal scores are common and exact */
    double duplicate;    /* chance that an adapter repeats the statistics of the one before */
    double unroutable;   /* chance of no statistics */
    double conditional;  /* chance of a threshold */
    double uncalibrated; /* chance of no quantiles */
    uint32_t rivals;     /* places per adapter */
    uint32_t gate;       /* the pool's default, 0 to 2 */
    double temperature;  /* 0: made up */
    bool coarse;         /* weights are small whole numbers, so that equal magnitudes and zero rows are common */
} hlt_pool_spec;

typedef struct hlt_pool {
    uint8_t *bytes; /* page-aligned */
    size_t size;
} hlt_pool;

/* Aborts when memory is out: tests have no use for less. */
hlt_pool hlt_pool_build(const hlt_pool_spec *spec);
void hlt_pool_free(hlt_pool *pool);

/* Writes the pool to a file; aborts on failure. */
void hlt_pool_write(const hlt_pool *pool, const char *path);

/* Makes every checksum and the digest right again after a change of the bytes, as far as the tables can be followed. */
void hlt_pool_seal(uint8_t *bytes, size_t size);

/* A prompt for a pool of this spec: near the mean of some adapter, or far from all; `dim` floats. */
void hlt_embedding(const hlt_pool_spec *spec, const hlt_pool *pool, uint64_t seed, float *z);

/* What the factors hold: n elements of `dtype` (HL_DTYPE_*) for an adapter, a module and a side (0 A, 1 B transposed, 2
 * gauge). Values are normal deviates, rounded to `grid` (a dtype) first, so that narrower storage is lossless. */
void hlt_fill(void *dst, int dtype, int grid, size_t n, uint64_t seed, uint32_t adapter, uint32_t module, int side);

#ifdef __cplusplus
}
#endif
#endif
