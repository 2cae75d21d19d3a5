/* The first pass over the weights: what must be known before the file can be laid out.
 *
 * Each source file is read once for its SHA-256; float32 and float64 tensors are looked at for a narrower type that
 * holds every value exactly. With --energy or --max-rank each pair is decomposed to see how many components it keeps;
 * an adapter that would lose none is stored as trained. The result fixes the datasets, their sizes and the place of
 * every chunk's row. */
#ifndef HILORA_COMPILER_PLAN_H
#define HILORA_COMPILER_PLAN_H

#include "compiler/emit/inputs.h"

/* One (adapter, module) pair. */
typedef struct hlc_plan_entry {
    const hlc_target *target;
    uint32_t adapter, module;
    uint32_t rank; /* components to store; the target's unless squeezed */
    bool squeezed; /* all of an adapter's entries, or none */
    hlf_dtype stored_a, stored_b;
    uint64_t first_roc;
    uint32_t dataset_a, dataset_b, dataset_gauge; /* of hlc_plan.datasets; gauge: HLF_NONE without one */
    uint32_t row_a, row_b, row_gauge;
} hlc_plan_entry;

typedef struct hlc_plan_dataset {
    char path[64];
    uint64_t rows, height, width;
    hlf_dtype dtype;
} hlc_plan_dataset;

typedef struct hlc_plan_adapter {
    uint8_t source_sha256[HLF_SHA256_SIZE];
    void *config, *header; /* zstd frames, malloc'd; NULL for an empty text */
    size_t config_size, header_size;
    void *diagonals; /* likewise, of AdaLoRA's; NULL without */
    size_t diagonals_size, diagonals_plain;
    uint64_t first_entry;
    uint64_t tensor_bytes;
    double threshold; /* least score; NaN: none (hlc_thresholds_resolve) */
} hlc_plan_adapter;

typedef struct hlc_plan {
    hlc_plan_adapter *adapters;
    hlc_plan_entry *entries; /* adapter-major, modules ascending within an adapter */
    size_t entry_count;
    hlc_plan_dataset *datasets;
    uint32_t dataset_count;
    uint64_t rocs, tensor_bytes;
} hlc_plan;

bool hlc_plan_make(const hlc_compile_options *options, const hlc_inputs *inputs, hlc_plan *plan, hlc_faults *faults);
void hlc_plan_free(const hlc_inputs *inputs, hlc_plan *plan);

#endif
