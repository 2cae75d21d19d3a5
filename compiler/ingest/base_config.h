/* What a base model's config.json says about the shapes of its modules. */
#ifndef HILORA_COMPILER_BASE_CONFIG_H
#define HILORA_COMPILER_BASE_CONFIG_H

#include "compiler/ingest/adapter.h"

/* 0 where it does not say. Of a model of several parts: its language model's. */
typedef struct hlc_base_config {
    uint64_t vocabulary, hidden, intermediate, layers;
    bool tied; /* the output layer has the embeddings' weights */
} hlc_base_config;

/* False after a fault: no JSON object, or too large. */
bool hlc_base_config_read(const char *path, hlc_base_config *out, hlc_faults *faults);

/* Modules that hold the vocabulary: token embeddings and output layers, by the last segment of their path. */
bool hlc_is_vocabulary(const char *path, size_t length);

/* What is wrong with a module by these numbers alone, as a sentence in `reason`; false when nothing is. */
bool hlc_base_config_refutes(const hlc_base_config *config, const hlc_target *target, char *reason, size_t size);

#endif
