/* Whether the modules of a PEFT file are those that its configuration says were adapted. The file counts; differences
 * are warned about, as they hint at a mix-up of files. */
#ifndef HILORA_COMPILER_PEFT_COVERAGE_H
#define HILORA_COMPILER_PEFT_COVERAGE_H

#include "compiler/ingest/adapter.h"
#include "compiler/ingest/peft_config.h"

/* Compares target_modules, exclude_modules and layers_to_transform with the targets. False only when memory is out. */
bool hlc_peft_check_coverage(hlc_peft_config *config, const hlc_target *targets, size_t count, hlc_faults *faults);

#endif
