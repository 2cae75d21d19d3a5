/* The second pass and the file: chunks through HDF5, sections and header at their places, the whole verified. */
#ifndef HILORA_COMPILER_WRITER_H
#define HILORA_COMPILER_WRITER_H

#include "compiler/emit/plan.h"
#include "compiler/stats/rivals.h"

/* Writes the pool to options->output, or leaves what stands there. Adds the sizes to the report. */
bool hlc_write_pool(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_plan *plan, const hlc_pool_stats *stats,
                    const hlc_rivals *rivals, hlc_compile_report *report, hlc_faults *faults);

#endif
