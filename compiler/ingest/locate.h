/* From command-line operands to files: where an adapter's weights, configuration and embeddings are (docs/INPUTS.md). */
#ifndef HILORA_COMPILER_LOCATE_H
#define HILORA_COMPILER_LOCATE_H

#include "compiler/ingest/adapter.h"

/* operands: .safetensors files or folders. embeddings: the value of --embeddings (a folder, or one file with a tensor per adapter
 * name), or NULL. Results are sorted by name, bytewise; two equal names are a fault that names both files. A missing path is a RESOURCE
 * fault, two candidate embeddings files for one adapter an INPUT fault that names both. The array has one element for each operand that
 * could be located; the caller frees it with hlc_adapter_files_free. An adapter without embeddings has NULL there and no fault:
 * the caller decides. False only when memory is out. */
bool hlc_locate(const char *const *operands, size_t operand_count, const char *embeddings, hlc_faults *faults,
                hlc_adapter_files **out, size_t *out_count);
void hlc_adapter_files_free(hlc_adapter_files *files, size_t count);

#endif
