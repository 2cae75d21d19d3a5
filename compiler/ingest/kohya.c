/* kohya-ss (sd-scripts): lora_unet_..., lora_te_..., each with .lora_down.weight, .lora_up.weight and .alpha.
 *
 * Names are the module's path with dots turned into underscores, which cannot be undone, so they stay as they are.
 * y += (alpha / rank) up(down(x)); without an alpha, or with one of 0, alpha is the rank (LoRAModule of
 * networks/lora.py). */
#include <string.h>

#include "compiler/base/text.h"
#include "compiler/ingest/dialects.h"
#include "compiler/ingest/halves.h"

/* What LyCORIS and relatives put in place of lora_down and lora_up; beginnings. */
static const struct {
    const char *prefix, *method;
} others[] = {
    {"hada_", "LoHa of LyCORIS is no LoRA"},
    {"lokr_", "LoKr of LyCORIS is no LoRA"},
    {"lora_mid", "LoCon with a middle matrix (lora_mid, of LyCORIS) is no product of two"},
    {"dora_scale", "DoRA's update is not low-rank without the base model's weights"},
    {"oft_", "OFT is no LoRA"},
    {"diff", "a whole difference of weights (LyCORIS) is no low-rank update"},
    {"w_norm", "a trained norm (LyCORIS) is no low-rank update"},
    {"b_norm", "a trained norm (LyCORIS) is no low-rank update"},
    {"on_input", "IA3 of LyCORIS is no LoRA"},
    {"a1", "GLoRA of LyCORIS is no LoRA"},
    {"a2", "GLoRA of LyCORIS is no LoRA"},
    {"b1", "GLoRA of LyCORIS is no LoRA"},
    {"b2", "GLoRA of LyCORIS is no LoRA"},
};

static const char *other_method(const char *suffix, size_t length) {
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (hlc_bytes_start(suffix, length, others[i].prefix))
            return others[i].method;
    return NULL;
}

/* False only when memory is out. */
static bool read_key(hlc_dialect_reading *reading, hlc_halves *halves, uint32_t number) {
    const hlc_tensor *tensor = &reading->table->tensors[number];
    const char *name = tensor->name, *dot = memchr(name, '.', tensor->name_length);
    const size_t module = dot ? (size_t)(dot - name) : tensor->name_length;
    const char *suffix = name + module + (dot ? 1 : 0);
    const size_t length = tensor->name_length - module - (dot ? 1 : 0);
    const bool ours = hlc_bytes_start(name, module, "lora_");
    const char *method = other_method(suffix, length);
    if (ours && hlc_bytes_equal(suffix, length, "lora_down.weight"))
        return hlc_halves_add(halves, HLC_HALF_A, name, module, number);
    if (ours && hlc_bytes_equal(suffix, length, "lora_up.weight"))
        return hlc_halves_add(halves, HLC_HALF_B, name, module, number);
    if (ours && hlc_bytes_equal(suffix, length, "alpha"))
        return hlc_halves_add(halves, HLC_HALF_ALPHA, name, module, number);
    if (method)
        hlc_dialect_refuse(reading, tensor, HLC_FAULT_OTHER_METHOD, NULL, method);
    else
        hlc_dialect_extra(reading, tensor, "the tensor is no LoRA weight of kohya-ss that is known");
    return true;
}

bool hlc_kohya_read(hlc_dialect_reading *reading) {
    hlc_halves halves;
    bool ok = hlc_halves_init(&halves, reading->table, reading->faults);
    halves.names[HLC_HALF_A] = "lora_down";
    halves.names[HLC_HALF_B] = "lora_up";
    for (uint32_t i = 0; ok && i < reading->table->count; i++)
        ok = read_key(reading, &halves, reading->table->by_name[i]);
    /* Of a file of another method the alphas alone are left: what is wrong has been said. */
    if (ok && reading->good)
        ok = hlc_halves_pair(&halves, &reading->targets, &reading->count);
    reading->good = reading->good && halves.good;
    hlc_halves_free(&halves);
    return ok;
}
