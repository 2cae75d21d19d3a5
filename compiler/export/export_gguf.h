/* A LoRA as a GGUF file that llama.cpp loads with --lora. */
#ifndef HILORA_COMPILER_EXPORT_GGUF_H
#define HILORA_COMPILER_EXPORT_GGUF_H

#include "compiler/export/gguf_names.h"
#include "compiler/export/lora.h"

/* Reads the architecture and its heads from the config.json of a Hugging Face model: its folder, or the file. False
 * after a fault. */
bool hlc_gguf_base_read(const char *path, hlc_gguf_base *out, hlc_faults *faults);

/* Writes the file `target`, whole or not at all. A module that llama.cpp cannot adapt, or that the architecture does not
 * have, is a fault that names it.
 *
 * llama.cpp multiplies each update by alpha / (rank of the tensor), with one alpha for the file, and takes an alpha of 0
 * for a scale of 1. Where the modules agree on scale * rank, that is alpha and the weights keep their bits; else alpha is
 * the largest rank and what differs is multiplied into B, in float32. Memory: one tensor. */
bool hlc_export_gguf(const hlc_lora *lora, const hlc_gguf_base *base, const char *target, hlc_lora_report *report,
                     hlc_faults *faults);

#endif
