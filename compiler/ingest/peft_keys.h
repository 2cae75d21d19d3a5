/* What a tensor's name says in a PEFT checkpoint, or in a file of another dialect given in its place. Pure. */
#ifndef HILORA_COMPILER_PEFT_KEYS_H
#define HILORA_COMPILER_PEFT_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "compiler/base/fault_kinds.h"

typedef enum hlc_key_part {
    /* X.lora_A[.weight], X.lora_B[.weight]; X.lora_embedding_A, _B; AdaLoRA's X.lora_E. */
    HLC_PART_A,
    HLC_PART_B,
    HLC_PART_EMBEDDING_A,
    HLC_PART_EMBEDDING_B,
    HLC_PART_DIAGONAL,
    /* No low-rank updates: these may be dropped. */
    HLC_PART_LORA_BIAS,
    HLC_PART_SAVED_EMBEDDING,
    HLC_PART_SAVED_MODULE,
    HLC_PART_BIAS,
    HLC_PART_TOKENS,
    HLC_PART_UNKNOWN,
    /* Parts of updates that are not supported: without them the adapter would be another one. */
    HLC_PART_NAMELESS,
    HLC_PART_NAMED,
    HLC_PART_DORA,
    /* Other adapters and dialects altogether. */
    HLC_PART_OTHER_TUNER,
    HLC_PART_LYCORIS,
    HLC_PART_KOHYA,
    HLC_PART_DIFFUSERS,
    HLC_PART_MLX,
    HLC_PARTS
} hlc_key_part;

typedef struct hlc_key {
    hlc_key_part part;
    const char *module; /* of a part of an update: inside the name, without "base_model.model." */
    size_t module_length;
    bool weight; /* ".weight" follows */
    const char *tuner; /* HLC_PART_OTHER_TUNER: its name; static storage */
} hlc_key;

hlc_key hlc_peft_key(const char *name, size_t length);

static inline bool hlc_part_is_update(hlc_key_part part) {
    return part <= HLC_PART_DIAGONAL;
}

static inline bool hlc_part_is_extra(hlc_key_part part) {
    return part >= HLC_PART_LORA_BIAS && part <= HLC_PART_UNKNOWN;
}

static inline bool hlc_part_is_foreign(hlc_key_part part) {
    return part >= HLC_PART_OTHER_TUNER;
}

/* What it is and why it is refused: a sentence about tensors of this part. Static storage. */
const char *hlc_part_reason(hlc_key_part part);
/* What a fault of such a tensor is. */
hlc_fault_kind hlc_part_kind(hlc_key_part part);
/* NULL where there is none. */
const char *hlc_part_remedy(hlc_key_part part);

#endif
