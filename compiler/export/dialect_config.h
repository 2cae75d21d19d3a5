/* A PEFT configuration for an adapter of a pool, such that PEFT finds the ranks and the scales that the pool holds. */
#ifndef HILORA_COMPILER_DIALECT_CONFIG_H
#define HILORA_COMPILER_DIALECT_CONFIG_H

#include "compiler/base/text.h"
#include "format/index.h"

/* False when memory is out. */
bool hlc_dialect_config(const hlf_index *index, const hlf_adapter_record *adapter, hlc_string *out);

#endif
