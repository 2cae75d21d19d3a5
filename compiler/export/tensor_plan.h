/* Which parts of a pool fill which tensor of the safetensors file that an adapter came from. */
#ifndef HILORA_COMPILER_TENSOR_PLAN_H
#define HILORA_COMPILER_TENSOR_PLAN_H

#include "compiler/ingest/adapter.h"
#include "compiler/ingest/safetensors.h"
#include "compiler/pool/pool_file.h"

typedef enum hlc_part_side { HLC_PART_SIDE_A, HLC_PART_SIDE_B, HLC_PART_SIDE_E } hlc_part_side;

/* A matrix of the pool and its place in a tensor. */
typedef struct hlc_tensor_part {
    uint32_t tensor; /* number in the table */
    uint32_t entry;
    hlc_part_side side;
    const hlc_matrix_source *source;
} hlc_tensor_part;

typedef struct hlc_planned_tensor {
    const hlc_tensor *tensor;
    const hlc_tensor_part *parts;
    size_t part_count;
    bool dropped; /* left out when the pool was compiled */
} hlc_planned_tensor;

typedef struct hlc_tensor_plan {
    hlc_safetensors *table;
    hlc_adapter *adapter; /* the source again, by its header and configuration */
    hlc_tensor_part *parts;
    size_t part_count;
    hlc_planned_tensor *tensors; /* in the order of their data */
    size_t dropped;
    double *diagonals; /* AdaLoRA's, of all entries in order; NULL without */
} hlc_tensor_plan;

/* header, config: the texts that the pool keeps. False after a fault: every weight of the header must be in the pool,
 * with its shape and type, and every one of the pool in the header. hlc_tensor_plan_free in either case. */
bool hlc_plan_tensors(const hlc_pool_file *pool, uint32_t adapter, const hlc_string *header, const hlc_string *config,
                      hlc_tensor_plan *plan, hlc_faults *faults);
void hlc_tensor_plan_free(hlc_tensor_plan *plan);

#endif
