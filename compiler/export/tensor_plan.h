/* Which part of a pool fills which tensor of the safetensors file that an adapter came from. */
#ifndef HILORA_COMPILER_TENSOR_PLAN_H
#define HILORA_COMPILER_TENSOR_PLAN_H

#include "compiler/ingest/safetensors.h"
#include "compiler/pool/pool_file.h"

typedef struct hlc_planned_tensor {
    const hlc_tensor *tensor;
    uint32_t entry; /* HLF_NONE for a tensor that is not in the pool */
    hlf_side side;
} hlc_planned_tensor;

typedef struct hlc_tensor_plan {
    hlc_safetensors *table;
    hlc_planned_tensor *tensors; /* in the order of their data */
    size_t dropped;
} hlc_tensor_plan;

/* header: the safetensors header that the pool keeps. False after a fault: every A and B of the header must be in the
 * pool, with its shape and type, and every A and B of the pool in the header. hlc_tensor_plan_free in either case. */
bool hlc_plan_tensors(const hlc_pool_file *pool, const hlf_adapter_record *adapter, const hlc_string *header,
                      hlc_tensor_plan *plan, hlc_faults *faults);
void hlc_tensor_plan_free(hlc_tensor_plan *plan);

#endif
