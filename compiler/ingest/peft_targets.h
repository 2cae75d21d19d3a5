/* From the modules of a PEFT file and its configuration to targets: ranks, scales, and the experts of fused parameters.
 */
#ifndef HILORA_COMPILER_PEFT_TARGETS_H
#define HILORA_COMPILER_PEFT_TARGETS_H

#include "compiler/ingest/peft_tensors.h"

typedef struct hlc_peft_targets {
    hlc_target *targets; /* sorted by module name */
    size_t count;
    hlc_expert_layout expert_layout; /* of the fused experts; unknown without any */
    bool good;                       /* no error was added */
} hlc_peft_targets;

/* weights: the path of the file, for the faults. False only when memory is out. */
bool hlc_peft_targets_make(const hlc_peft_tensors *tensors, hlc_peft_config *config, const hlc_ingest_options *options,
                           const char *weights, hlc_peft_targets *out, hlc_faults *faults);

#endif
