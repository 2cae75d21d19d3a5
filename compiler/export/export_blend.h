/* A blended route as a PEFT folder. */
#ifndef HILORA_COMPILER_EXPORT_BLEND_H
#define HILORA_COMPILER_EXPORT_BLEND_H

#include "compiler/export/lora.h"

/* The least rank of those that vLLM allows (1, 8, 16, 32, 64, 128, 256, 320, 512) that holds `rank`; `rank` itself
 * beyond 512. */
uint32_t hlc_blend_rank(uint32_t rank);

/* Writes the folder `target`: adapter_model.safetensors in float32, and adapter_config.json. All modules get one rank,
 * hlc_blend_rank of the largest, by rows and columns of zeros, and lora_alpha is that rank: so the scale is 1 for
 * readers that know a rank per module and for those that know one per file. Linear modules and embeddings; others are
 * faults that name the module. Memory: one tensor. */
bool hlc_export_blend(const hlc_lora *lora, const char *target, hlc_lora_report *report, hlc_faults *faults);

#endif
