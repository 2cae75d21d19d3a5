/* From the tensors of a PEFT checkpoint to the modules that it adapts. */
#ifndef HILORA_COMPILER_PEFT_TENSORS_H
#define HILORA_COMPILER_PEFT_TENSORS_H

#include "compiler/ingest/adapter.h"
#include "compiler/ingest/peft_config.h"
#include "compiler/ingest/safetensors.h"

/* A module as its tensors say. */
typedef struct hlc_peft_module {
    hlc_string path; /* without "base_model.model." and the "base_layer" of modules around it */
    size_t config_length; /* so many first bytes of the path name the module whose rank and scale it has */
    hlc_module_kind kind; /* never experts: that is the configuration's to say */
    uint32_t geometry[HLF_GEOMETRY];
    uint64_t d_in, d_out;
    uint64_t rank; /* rows of A; 0 in what AdaLoRA pruned away */
    hlc_matrix_source a, b;
    hlc_matrix_source e; /* AdaLoRA's diagonal, rank x 1; else without a key */
} hlc_peft_module;

typedef struct hlc_peft_tensors {
    hlc_peft_module *modules; /* the sound ones, sorted by path */
    size_t count;
    size_t extras; /* tensors that are no part of an update */
    bool good;     /* no error was added */
    bool foreign;  /* the file is of another dialect or another kind of adapter: its PEFT configuration says nothing */
} hlc_peft_tensors;

/* What the caller wants to know of extras before they are refused: true leaves one out without a word. */
typedef bool hlc_known_extra(void *user, const hlc_tensor *tensor);

typedef struct hlc_peft_reading {
    const hlc_safetensors *table;
    const hlc_peft_config *config; /* NULL without a readable one */
    bool drop_extras;
    hlc_known_extra *known; /* NULL: none */
    void *user;
} hlc_peft_reading;

/* Adds every fault found in the names, shapes and types. False only when memory is out. */
bool hlc_peft_tensors_read(const hlc_peft_reading *reading, hlc_peft_tensors *out, hlc_faults *faults);
void hlc_peft_tensors_free(hlc_peft_tensors *tensors);

#endif
