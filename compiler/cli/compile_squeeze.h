/* What --energy and --max-rank dropped, read from the pool that was written: for the report of hilora-compile. */
#ifndef HILORA_CLI_COMPILE_SQUEEZE_H
#define HILORA_CLI_COMPILE_SQUEEZE_H

#include "compiler/cli/common.h"
#include "format/index.h"

/* Every module with its ranks, element types and relative Frobenius error; NULL when memory is out. */
json_t *hlc_squeeze_json(const hlf_index *index);
/* The same as a table of 80 columns. */
void hlc_squeeze_print(const hlf_index *index);

#endif
