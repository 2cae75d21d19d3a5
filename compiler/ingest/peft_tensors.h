/* From the tensors of a PEFT checkpoint to the modules that it adapts. */
#ifndef HILORA_COMPILER_PEFT_TENSORS_H
#define HILORA_COMPILER_PEFT_TENSORS_H

#include "compiler/ingest/adapter.h"
#include "compiler/ingest/safetensors.h"

typedef struct hlc_peft_tensors {
    hlc_target
        *targets; /* the sound ones, sorted by module name; rank is that of the tensors, scale is not known yet */
    size_t count;
    bool good;    /* no error was added */
    bool foreign; /* the file is of another dialect or another kind of adapter: its PEFT configuration says nothing */
} hlc_peft_tensors;

/* Adds every fault found in the names, shapes and types. False only when memory is out. */
bool hlc_peft_tensors_read(const hlc_safetensors *table, bool drop_extras, hlc_peft_tensors *out, hlc_faults *faults);
void hlc_targets_free(hlc_target *targets, size_t count);

#endif
