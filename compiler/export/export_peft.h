/* Taking an adapter out of a pool: a PEFT folder, bit for bit as it went in. */
#ifndef HILORA_COMPILER_EXPORT_PEFT_H
#define HILORA_COMPILER_EXPORT_PEFT_H

#include "compiler/compile.h"
#include "compiler/pool/pool_file.h"

typedef struct hlc_export_report {
    uint64_t weights_bytes, config_bytes;
    uint8_t weights_sha256[HLF_SHA256_SIZE];
    size_t tensors;
    size_t dropped; /* tensors of the source that the pool does not hold, as --drop-extras left them out */
    bool converted; /* it came in another dialect or is squeezed: PEFT's names and configuration were made for it */
    bool squeezed;  /* the weights are components of a truncated decomposition */
} hlc_export_report;

/* Writes the folder `target` with adapter_model.safetensors and adapter_config.json, synced, or adds the faults found
 * and leaves nothing. Without dropped tensors the weight file is the one that was compiled, byte for byte: its SHA-256
 * is compared. Otherwise the header is a new one, with the tensors that are left in the file's order; each dropped one
 * is warned about. An adapter of another dialect, or a squeezed one, gets PEFT's names and a configuration. Memory: the
 * header, and one tensor. */
bool hlc_export_peft(const hlc_pool_file *pool, uint32_t adapter, const char *target, hlc_progress progress,
                     hlc_export_report *report, hlc_faults *faults);

#endif
