/* Everything a run compiles, opened and checked against each other; the weights stay in their files. */
#ifndef HILORA_COMPILER_INPUTS_H
#define HILORA_COMPILER_INPUTS_H

#include "compiler/compile.h"
#include "compiler/ingest/adapter.h"
#include "compiler/ingest/embeddings.h"

/* A module of the pool. The name is the first adapter's that has it. */
typedef struct hlc_module {
    hlc_string name;
    hlc_module_kind kind;
    uint32_t geometry[HLF_GEOMETRY];
    uint64_t d_in, d_out;
    uint32_t adapters;      /* how many adapt it */
    uint32_t first_adapter; /* the one that set the shape */
} hlc_module;

typedef struct hlc_inputs {
    hlc_adapter_files *files;
    hlc_adapter **adapters;      /* in the order of names */
    hlc_embeddings **embeddings; /* NULL for an adapter without */
    size_t count;
    hlc_module *modules; /* in the order of names */
    size_t module_count;
    uint32_t **target_modules; /* per adapter: the module of each target */
    size_t dim;                /* of the embeddings; 0 without any */
    hlc_base_model *base_weights; /* of --base-model; NULL without */
    const char *base, *base_revision, *encoder, *revision, *prefix; /* "" where nobody says; owned by options or the parts above */
    hlc_normalized normalized;
} hlc_inputs;

/* False after adding the faults of all adapters; hlc_inputs_free in either case. */
bool hlc_inputs_open(const hlc_compile_options *options, hlc_inputs *inputs, hlc_faults *faults);
void hlc_inputs_free(hlc_inputs *inputs);

#endif
