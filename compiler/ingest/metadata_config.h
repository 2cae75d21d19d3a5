/* A PEFT configuration kept as JSON text in a safetensors file's metadata. */
#ifndef HILORA_COMPILER_METADATA_CONFIG_H
#define HILORA_COMPILER_METADATA_CONFIG_H

#include "compiler/ingest/safetensors.h"

/* The metadata value, whatever its key, that is a JSON object with "peft_type" in it; bytes == NULL when there is none.
 * The caller frees both strings. False after a fault: there are two such values, or memory is out. */
bool hlc_metadata_config(const hlc_safetensors *table, hlc_string *text, hlc_string *key, hlc_faults *faults);

#endif
