/* hilora-export's other outputs: GGUF files, and routes blended into one LoRA. */
#ifndef HILORA_CLI_EXPORT_LORA_H
#define HILORA_CLI_EXPORT_LORA_H

#include "compiler/cli/route.h"
#include "compiler/export/export_gguf.h"

typedef struct hlc_export_settings {
    hlc_route_settings route; /* pool, adapters, embedding, routing options */
    const char *output, *base_model;
    hlc_gguf_base base; /* of --architecture, --heads, --kv-heads, or of --base-model once read */
    bool gguf;
} hlc_export_settings;

typedef struct hlc_lora_outcome {
    hlc_lora_report report;
    char digest[33];    /* of the route in hex; empty for an adapter */
    json_t *adapters;   /* [{"adapter","rocs","weight"}] of a route; NULL for an adapter */
    uint32_t modules;
} hlc_lora_outcome;

/* Writes what the settings ask for: the adapter named, when it is one alone without routing options, as GGUF; else the
 * route's blend. False after faults. Free outcome->adapters with json_decref in either case. */
bool hlc_export_lora(hlc_export_settings *settings, hlc_lora_outcome *outcome, hlc_faults *faults);

/* True when one adapter is to be taken out as it is: no embedding, no routing option. A weight alone would be scaled to 1,
 * so "=" then belongs to the name. */
bool hlc_export_is_plain(const hlc_export_settings *settings);

#endif
