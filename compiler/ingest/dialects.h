/* Adapters of other dialects than PEFT's: kohya-ss, diffusers and MLX (docs/INPUTS.md). */
#ifndef HILORA_COMPILER_DIALECTS_H
#define HILORA_COMPILER_DIALECTS_H

#include "compiler/ingest/adapter.h"
#include "compiler/ingest/safetensors.h"

/* What a dialect's reader is given and what it leaves. */
typedef struct hlc_dialect_reading {
    const hlc_safetensors *table;
    const hlc_ingest_options *options;
    hlc_faults *faults;
    const char *config_path;       /* the configuration file, or NULL */
    const hlc_string *config_text; /* its text; from the metadata (diffusers) without a path; bytes == NULL without one */
    /* Filled in by the reader; the caller owns them whatever it answers. */
    hlc_target *targets;
    size_t count;
    hlc_string base_model;
    size_t dropped; /* tensors left out */
    bool good;      /* no error was added */
} hlc_dialect_reading;

/* The dialect of a file by the names of its tensors. peft_config: there is a configuration with a peft_type, which makes
 * names that diffusers and PEFT share PEFT's. A file that mixes dialects is refused: false, after a fault. */
bool hlc_dialect_find(const hlc_safetensors *table, bool peft_config, hlc_dialect *out, hlc_faults *faults);

/* Each false only when memory is out, after a fault. */
bool hlc_kohya_read(hlc_dialect_reading *reading);
bool hlc_diffusers_read(hlc_dialect_reading *reading);
bool hlc_mlx_read(hlc_dialect_reading *reading);

/* The reader for any dialect but PEFT's. */
bool hlc_dialect_read(hlc_dialect dialect, hlc_dialect_reading *reading);

/* A tensor that is no part of an update: an error, or with --drop-extras a warning. */
void hlc_dialect_extra(hlc_dialect_reading *reading, const hlc_tensor *tensor, const char *reason);
/* A tensor that makes the adapter another thing than the dialect's LoRA. */
void hlc_dialect_refuse(hlc_dialect_reading *reading, const hlc_tensor *tensor, hlc_fault_kind kind, const char *remedy,
                        const char *reason);

#endif
