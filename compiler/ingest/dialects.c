#include "compiler/ingest/dialects.h"

#include <string.h>

#include "compiler/base/text.h"
#include "compiler/ingest/peft_keys.h"

enum { DIALECTS = HLC_DIALECT_MLX + 1 };

static const char *const names[DIALECTS] = {"PEFT", "kohya-ss", "diffusers", "MLX"};

/* The parts of pipelines that diffusers trains. */
static bool is_component(const char *name, size_t length) {
    static const char *const components[] = {"unet.",           "transformer.",    "transformer_2.", "text_encoder.",
                                             "text_encoder_2.", "text_encoder_3.", "prior.",         "controlnet."};
    for (size_t i = 0; i < sizeof components / sizeof *components; i++)
        if (hlc_bytes_start(name, length, components[i]))
            return true;
    return false;
}

/* False for tensors that tell nothing. */
static bool dialect_of(const hlc_tensor *tensor, bool peft_config, hlc_dialect *out) {
    switch (hlc_peft_key(tensor->name, tensor->name_length).part) {
    case HLC_PART_KOHYA:
        *out = HLC_DIALECT_KOHYA;
        return true;
    case HLC_PART_DIFFUSERS:
        *out = HLC_DIALECT_DIFFUSERS;
        return true;
    case HLC_PART_MLX:
        *out = HLC_DIALECT_MLX;
        return true;
    case HLC_PART_A:
    case HLC_PART_B:
        *out = !peft_config && is_component(tensor->name, tensor->name_length) ? HLC_DIALECT_DIFFUSERS
                                                                               : HLC_DIALECT_PEFT;
        return true;
    case HLC_PART_EMBEDDING_A:
    case HLC_PART_EMBEDDING_B:
    case HLC_PART_DIAGONAL:
        *out = HLC_DIALECT_PEFT;
        return true;
    default:
        return false;
    }
}

bool hlc_dialect_find(const hlc_safetensors *table, bool peft_config, hlc_dialect *out, hlc_faults *faults) {
    const hlc_tensor *first = NULL;
    hlc_dialect dialect;
    *out = HLC_DIALECT_PEFT;
    for (size_t i = 0; i < table->count; i++) {
        const hlc_tensor *tensor = &table->tensors[table->by_name[i]];
        if (!dialect_of(tensor, peft_config, &dialect))
            continue;
        if (!first) {
            first = tensor;
            *out = dialect;
        } else if (dialect != *out) {
            char place[HLC_PLACE_SIZE], other[HLC_PLACE_SIZE];
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_OTHER_METHOD, table->path,
                      hlc_place(place, "tensor", tensor->name, tensor->name_length), "save one adapter to a file",
                      "the file mixes dialects: this name is %s's, %s is %s's", names[dialect],
                      hlc_place(other, "tensor", first->name, first->name_length), names[*out]);
            return false;
        }
    }
    return true;
}

static void warn_of_config(const hlc_dialect_reading *reading, const char *dialect) {
    if (reading->config_path)
        hlc_fault(reading->faults, HLC_WARNING, HLC_FAULT_CONFIG, reading->config_path, NULL, NULL,
                  "it is not used: the adapter's file is %s's, which says itself what its scale is", dialect);
}

bool hlc_dialect_read(hlc_dialect dialect, hlc_dialect_reading *reading) {
    bool ok = true;
    reading->good = true;
    if (dialect != HLC_DIALECT_MLX)
        warn_of_config(reading, names[dialect]);
    switch (dialect) {
    case HLC_DIALECT_KOHYA:
        ok = hlc_kohya_read(reading);
        break;
    case HLC_DIALECT_DIFFUSERS:
        ok = hlc_diffusers_read(reading);
        break;
    case HLC_DIALECT_MLX:
        ok = hlc_mlx_read(reading);
        break;
    case HLC_DIALECT_PEFT:
        break;
    }
    if (!ok)
        hlc_out_of_memory(reading->faults, reading->table->path, reading->table->count * sizeof(hlc_target));
    return ok;
}

void hlc_dialect_extra(hlc_dialect_reading *reading, const hlc_tensor *tensor, const char *reason) {
    char place[HLC_PLACE_SIZE];
    hlc_place(place, "tensor", tensor->name, tensor->name_length);
    reading->dropped++;
    if (reading->options->drop_extras) {
        hlc_fault(reading->faults, HLC_WARNING, HLC_FAULT_EXTRAS, reading->table->path, place, NULL, "left out: %s",
                  reason);
        return;
    }
    reading->good = false;
    hlc_fault(reading->faults, HLC_ERROR, HLC_FAULT_EXTRAS, reading->table->path, place,
              "--drop-extras leaves it out", "%s", reason);
}

void hlc_dialect_refuse(hlc_dialect_reading *reading, const hlc_tensor *tensor, hlc_fault_kind kind, const char *remedy,
                        const char *reason) {
    char place[HLC_PLACE_SIZE];
    reading->good = false;
    hlc_fault(reading->faults, HLC_ERROR, kind, reading->table->path,
              hlc_place(place, "tensor", tensor->name, tensor->name_length), remedy, "%s", reason);
}
