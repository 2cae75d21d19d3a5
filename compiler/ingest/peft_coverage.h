/* Whether the modules of a PEFT file are those that its configuration says were adapted. The file counts; differences
 * are warned about, as they hint at a mix-up of files. */
#ifndef HILORA_COMPILER_PEFT_COVERAGE_H
#define HILORA_COMPILER_PEFT_COVERAGE_H

#include "compiler/ingest/peft_tensors.h"

/* Compares target_modules, exclude_modules and layers_to_transform with the modules. False only when memory is out. */
bool hlc_peft_check_coverage(hlc_peft_config *config, const hlc_peft_tensors *tensors, hlc_faults *faults);

#endif
