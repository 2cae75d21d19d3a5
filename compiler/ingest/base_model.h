/* The base model of a pool: whether the modules that adapters change are in it, with their shapes.
 *
 * Read are the headers of its safetensors files, and config.json; never its weights, but for the embeddings that an
 * adapter has saved along. Without safetensors files config.json alone says what it can. */
#ifndef HILORA_COMPILER_BASE_MODEL_H
#define HILORA_COMPILER_BASE_MODEL_H

#include "compiler/ingest/adapter.h"
#include "compiler/ingest/safetensors.h"

/* folder: with model.safetensors, or model.safetensors.index.json and its files, or config.json alone. NULL after a
 * fault. Immutable once opened: any thread. */
hlc_base_model *hlc_base_model_open(const char *folder, hlc_faults *faults);
void hlc_base_model_close(hlc_base_model *base);
/* Whether a path leads to one of the files there that are read, or may be: no output may take its place. */
bool hlc_base_model_reads(const char *folder, const char *path);

/* Adds a fault for each module that the base does not have, or has with another shape; one for all when it has none.
 * path: the adapter's file. */
void hlc_base_model_check(const hlc_base_model *base, const hlc_target *targets, size_t count, const char *path,
                          hlc_faults *faults);

/* Whether a whole weight that an adapter has saved along is the base's own, number for number. False also when it
 * cannot be read. */
bool hlc_base_model_holds(const hlc_base_model *base, const hlc_safetensors *table, const hlc_tensor *tensor);

#endif
