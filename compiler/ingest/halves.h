/* From the matrices that a dialect's file names to the modules that it adapts.
 *
 * Dialects differ in how tensors are called and in what tells the scale; that a module has an A and a B that fit each other
 * they share. A dialect's reader adds what it recognises and has it paired. */
#ifndef HILORA_COMPILER_HALVES_H
#define HILORA_COMPILER_HALVES_H

#include "compiler/ingest/adapter.h"
#include "compiler/ingest/safetensors.h"

typedef enum hlc_half_role { HLC_HALF_A, HLC_HALF_B, HLC_HALF_ALPHA } hlc_half_role;

typedef struct hlc_half {
    hlc_string module; /* owned */
    hlc_half_role role;
    uint32_t tensor; /* its number in the table */
} hlc_half;

typedef struct hlc_halves {
    const hlc_safetensors *table;
    hlc_faults *faults;
    hlc_half *items;
    size_t count;
    const char *names[3]; /* of the roles in messages: "lora_down", "lora_up", "alpha" */
    bool transposed;      /* A is d_in x rank, B rank x d_out in the file */
    bool good;            /* no error was added */
} hlc_halves;

/* False when memory is out. */
bool hlc_halves_init(hlc_halves *halves, const hlc_safetensors *table, hlc_faults *faults);
void hlc_halves_free(hlc_halves *halves);
/* At most one half for each tensor of the table. False when memory is out. */
bool hlc_halves_add(hlc_halves *halves, hlc_half_role role, const char *module, size_t length, uint32_t tensor);

/* An error about a tensor; halves->good is false from then on. */
void hlc_halves_fault(hlc_halves *halves, hlc_fault_kind kind, uint32_t tensor, const char *remedy, const char *format,
                      ...) __attribute__((format(printf, 5, 6)));

/* The sound modules, sorted by name: linear ones, and convolutions of one to three dimensions whose B has a kernel of
 * one point. The scale is alpha / rank, and 1 without an alpha or with one of 0. The caller frees them with
 * hlc_targets_free. False when memory is out. */
bool hlc_halves_pair(hlc_halves *halves, hlc_target **targets, size_t *count);

#endif
