/* From adapters to a pool: what hilora-compile does, as a function. */
#ifndef HILORA_COMPILER_COMPILE_H
#define HILORA_COMPILER_COMPILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler/base/faults.h"
#include "compiler/decompose/decompose.h"
#include "compiler/ingest/adapter.h"
#include "compiler/stats/gaussian.h"
#include "format/layout.h"

/* How far a run is, in bytes of weights. Called from the compiling thread. */
typedef struct hlc_progress {
    void (*report)(void *user, const char *phase, uint64_t done, uint64_t total);
    void *user;
} hlc_progress;

/* The least score at which a prompt may use an adapter. */
typedef struct hlc_threshold {
    const char *adapter;
    bool by_quantile;
    double score; /* log-likelihood over the number of dimensions, in nats */
    double level; /* by_quantile: of the adapter's own left-out samples, in [0, 0.5] */
} hlc_threshold;

typedef struct hlc_compile_options {
    const char *const *operands; /* adapters: .safetensors files or folders */
    size_t operand_count;
    const char *output;
    const char *embeddings; /* folder or file, or NULL */
    hlc_decomposition decomposition;
    double energy;     /* svd only: the share of each module's energy to keep, in (0, 1]; 0: not given */
    uint32_t max_rank; /* svd only: the most components of a module; 0: not given */
    hlf_codec codec;
    hlc_stats_options stats; /* threads is taken from below */
    bool allow_no_stats, drop_extras;
    hlc_mlx_alpha mlx_alpha;
    hlc_expert_layout expert_layout; /* of fused experts, where an adapter does not say */
    const char *base_model; /* folder of the base model that adapters are checked against, or NULL */
    const char *base, *encoder, *revision, *prefix; /* NULL: as the files say */
    int normalized;                                 /* 0 no, 1 yes, -1 as the files say */
    const hlc_threshold *thresholds;                /* each of another adapter */
    size_t threshold_count;
    size_t threads;        /* >= 1 */
    hlc_progress progress; /* report may be NULL */
} hlc_compile_options;

typedef struct hlc_compile_report {
    uint32_t adapters, modules, routable;
    uint32_t conditional; /* adapters with a threshold */
    uint64_t rocs, parameters;
    uint64_t source_bytes; /* of the weight files */
    uint64_t tensor_bytes; /* of the tensors in them */
    uint64_t weight_bytes, gauge_bytes; /* of their chunks in the pool */
    uint64_t index_bytes, route_bytes;  /* of the sections in the pool */
    uint64_t pool_bytes;
    uint8_t digest[HLF_SHA256_SIZE];
} hlc_compile_report;

/* Compiles a pool and makes it appear at options->output, verified and synced, or adds every fault found and leaves whatever
 * stood there. Equal inputs and options give equal bytes, whatever the thread count. Memory: the tables and statistics of the pool (about 80 KB
 * per adapter), and per thread the weights of a few modules. */
bool hlc_compile(const hlc_compile_options *options, hlc_faults *faults, hlc_compile_report *report);

#endif
