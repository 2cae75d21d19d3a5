/* A LoRA that can be written in another program's format: an adapter of a pool, or a route blended into one. */
#ifndef HILORA_COMPILER_EXPORT_LORA_H
#define HILORA_COMPILER_EXPORT_LORA_H

#include <stddef.h>
#include <stdint.h>

#include <hilora/pool.h>

#include "compiler/base/faults.h"

/* One module: update = scale * B A. */
typedef struct hlc_lora_module {
    hl_string name; /* its path in the base model; borrowed */
    hl_module_kind kind;
    uint32_t rank;
    uint64_t d_in, d_out;
    double scale;
    hl_dtype dtype[2]; /* of A and B, by hl_side */
} hlc_lora_module;

typedef struct hlc_lora {
    const char *file;      /* where it comes from, for faults */
    hl_string base_model;  /* empty when unknown; borrowed */
    hl_string name;        /* of the adapter, or what the blend shall be called; borrowed */
    const char *digest;    /* of the route, in hex; NULL for an adapter */
    size_t count;
    const hlc_lora_module *modules;
    /* Reads rank rows of d_in (A) or d_out (B transposed) elements as `dtype`, the module's own or HL_DTYPE_F32. False
     * after a fault. */
    bool (*read)(void *user, size_t module, hl_side side, hl_dtype dtype, void *rows, size_t size, hlc_faults *faults);
    void *user;
} hlc_lora;

typedef struct hlc_lora_report {
    uint64_t bytes; /* of the weight file */
    size_t tensors;
    uint32_t rank; /* r of the configuration, or the largest of the tensors' */
    double alpha;
} hlc_lora_report;

#endif
