/* diffusers: pytorch_lora_weights.safetensors of unet., transformer. and text_encoder. modules.
 *
 * The forms of names that its loaders know (loaders/peft.py, utils/state_dict_utils.py of 0.42), from the newest to the
 * oldest:
 *
 *     unet.X.lora_A.weight                    unet.X.lora_B.weight
 *     unet.X.lora.down.weight                 unet.X.lora.up.weight
 *     text_encoder.X.lora_linear_layer.down.weight      ... .up.weight
 *     unet.X.processor.to_q_lora.down.weight  the attention's to_q; to_out is to_out.0 there
 *
 * The scale: by the LoraConfig that the metadata may hold for each component, else alpha / rank where the file has an
 * alpha, else 1. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "compiler/base/text.h"
#include "compiler/ingest/dialects.h"
#include "compiler/ingest/halves.h"
#include "compiler/ingest/json_scan.h"
#include "compiler/ingest/peft_config.h"

typedef struct view {
    const char *bytes;
    size_t length;
} view;

static bool take_end(view *text, const char *end) {
    if (!hlc_bytes_end(text->bytes, text->length, end))
        return false;
    text->length -= strlen(end);
    return true;
}

/* ---- Names ---- */

static const struct {
    const char *end;
    hlc_half_role role;
} half_ends[] = {{".lora_A", HLC_HALF_A},
                 {".lora_B", HLC_HALF_B},
                 {".lora.down", HLC_HALF_A},
                 {".lora.up", HLC_HALF_B},
                 {".lora_linear_layer.down", HLC_HALF_A},
                 {".lora_linear_layer.up", HLC_HALF_B}};

/* The projections of the oldest form, and what they are called in the model. */
static const struct {
    const char *old, *attention, *text_encoder;
} projections[] = {{".to_q_lora", ".to_q", ".q_proj"},
                   {".to_k_lora", ".to_k", ".k_proj"},
                   {".to_v_lora", ".to_v", ".v_proj"},
                   {".to_out_lora", ".to_out.0", ".out_proj"}};

/* Takes the end that makes a name that of a half off; what it stands for goes to *behind. */
static bool take_half(view *name, hlc_half_role *role, const char **behind) {
    *behind = "";
    for (size_t i = 0; i < sizeof half_ends / sizeof *half_ends; i++)
        if (take_end(name, half_ends[i].end)) {
            *role = half_ends[i].role;
            return true;
        }
    view old = *name;
    *role = take_end(&old, ".down") ? HLC_HALF_A : HLC_HALF_B;
    if (*role == HLC_HALF_B && !take_end(&old, ".up"))
        return false;
    for (size_t i = 0; i < sizeof projections / sizeof *projections; i++)
        if (take_end(&old, projections[i].old)) {
            bool text = hlc_bytes_start(name->bytes, name->length, "text_encoder");
            *behind = text ? projections[i].text_encoder : projections[i].attention;
            *name = old;
            return true;
        }
    return false;
}

/* The module of a name without its end: its "processor" segments go. False when memory is out. */
static bool add_half(hlc_halves *halves, hlc_half_role role, view module, const char *behind, uint32_t number) {
    static const char infix[] = ".processor.";
    hlc_text path = {0};
    hlc_text_append(&path, module.bytes, module.length);
    hlc_text_append(&path, behind, strlen(behind));
    size_t kept = 0;
    for (size_t at = 0; !path.failed && at < path.length;) {
        bool skipped = hlc_bytes_start(path.bytes + at, path.length - at, infix);
        at += skipped ? sizeof infix - 2 : 0; /* its second dot stays */
        path.bytes[kept++] = path.bytes[at++];
    }
    bool ok = !path.failed && hlc_halves_add(halves, role, path.bytes, kept, number);
    hlc_text_free(&path);
    return ok;
}

static bool read_key(hlc_dialect_reading *reading, hlc_halves *halves, uint32_t number) {
    const hlc_tensor *tensor = &reading->table->tensors[number];
    view name = {tensor->name, tensor->name_length};
    hlc_half_role role;
    const char *behind;
    if (take_end(&name, ".alpha")) { /* X.alpha, or that of a half's name */
        take_end(&name, ".weight");
        take_half(&name, &role, &behind);
        return add_half(halves, HLC_HALF_ALPHA, name, behind, number);
    }
    if (take_end(&name, ".weight") && take_half(&name, &role, &behind))
        return add_half(halves, role, name, behind, number);
    if (memmem(tensor->name, tensor->name_length, "lora_magnitude_vector", 21))
        hlc_dialect_refuse(reading, tensor, HLC_FAULT_DORA, "train it without DoRA",
                           "DoRA's update is not low-rank without the base model's weights");
    else if (memmem(tensor->name, tensor->name_length, ".lokr_", 6))
        hlc_dialect_refuse(reading, tensor, HLC_FAULT_OTHER_METHOD, NULL, "LoKr is no LoRA");
    else if (hlc_bytes_end(tensor->name, tensor->name_length, ".lora_B.bias"))
        hlc_dialect_extra(reading, tensor, "a bias of lora_B is no low-rank update");
    else if (memmem(tensor->name, tensor->name_length, "lora", 4))
        hlc_dialect_refuse(reading, tensor, HLC_FAULT_UNSUPPORTED, NULL,
                           "the name is none of the LoRA weights that diffusers loads");
    else
        hlc_dialect_extra(reading, tensor, "the tensor is no LoRA weight");
    return true;
}

/* ---- Scales by the metadata ---- */

static view component_of(const hlc_target *target) {
    const char *dot = memchr(target->module.bytes, '.', target->module.length);
    return (view){target->module.bytes, dot ? (size_t)(dot - target->module.bytes) : 0};
}

static bool same(view a, view b) {
    return hlc_bytes_compare(a.bytes, a.length, b.bytes, b.length) == 0;
}

/* The members whose names start with "COMPONENT.", without that, as an object of their own; empty when there is none.
 * *escaped: a name is written with escapes, so that it is not known whose it is. False when memory is out; text that is
 * no JSON is copied as it is, for the reader of configurations to refuse. */
static bool cut_out(const hlc_string *text, view component, hlc_string *out, bool *escaped) {
    hlc_json_scan scan;
    hlc_text object = {0};
    hlc_json_start(&scan, text->bytes, text->length);
    hlc_json_token token = hlc_json_next(&scan);
    bool object_follows = token == HLC_JSON_OBJECT_BEGIN;
    while (object_follows && (token = hlc_json_next(&scan)) == HLC_JSON_KEY) {
        view key = {text->bytes + scan.begin, scan.end - scan.begin};
        *escaped |= scan.escaped;
        bool mine = key.length > component.length && key.bytes[component.length] == '.' &&
                    same((view){key.bytes, component.length}, component);
        token = hlc_json_next(&scan);
        const bool string = token == HLC_JSON_STRING;
        const size_t begin = scan.begin - string;
        if (!hlc_json_skip(&scan, token))
            break;
        if (!mine)
            continue;
        hlc_text_printf(&object, "%s\"", object.length > 0 ? "," : "{");
        hlc_text_append(&object, key.bytes + component.length + 1, key.length - component.length - 1);
        hlc_text_append(&object, "\":", 2);
        hlc_text_append(&object, text->bytes + begin, scan.at - begin);
    }
    *out = (hlc_string){0};
    bool ok = true;
    if (!object_follows || token != HLC_JSON_OBJECT_END || hlc_json_next(&scan) != HLC_JSON_END) {
        ok = hlc_string_copy(out, text->bytes, text->length);
    } else if (object.length > 0) {
        hlc_text_append(&object, "}", 1);
        ok = !object.failed && hlc_string_copy(out, object.bytes, object.length);
    }
    hlc_text_free(&object);
    return ok && !object.failed;
}

static bool resolve(hlc_dialect_reading *reading, hlc_peft_config *config, view component, hlc_target *target) {
    const size_t skipped = component.length + 1;
    uint32_t rank;
    if (!hlc_peft_config_resolve(config, target->module.bytes + skipped, target->module.length - skipped, &rank,
                                 &target->scale, reading->faults))
        return false;
    if (rank == target->rank)
        return true;
    char place[HLC_PLACE_SIZE];
    hlc_error(reading->faults, HLC_FAULT_RANK_CONFIG, reading->table->path,
              hlc_place(place, "tensor", target->a.key.bytes, target->a.key.length),
              "the rank is %" PRIu32 ", but the metadata say %" PRIu32 " for this module", target->rank, rank);
    return false;
}

/* targets: those of one component. False when memory is out. */
static bool resolve_component(hlc_dialect_reading *reading, hlc_target *targets, size_t count) {
    const view component = component_of(targets);
    hlc_string text;
    char within[2 * HLC_PLACE_SIZE];
    bool escaped = false;
    if (component.length == 0)
        return true;
    if (!cut_out(reading->config_text, component, &text, &escaped))
        return false;
    if (escaped) {
        hlc_string_free(&text);
        reading->good = false;
        hlc_error(reading->faults, HLC_FAULT_CONFIG, reading->table->path, "metadata key 'lora_adapter_metadata'",
                  "the name of a member is written with escapes, which no program does; it is not read");
        return true;
    }
    if (!text.bytes)
        return true;
    snprintf(within, sizeof within, "metadata key 'lora_adapter_metadata', %.*s",
             (int)(component.length < 64 ? component.length : 64), component.bytes);
    hlc_peft_config *config =
        hlc_peft_config_read(reading->table->path, within, &text, reading->options->drop_extras, reading->faults);
    bool good = config && config->state == HLC_CONFIG_GOOD;
    for (size_t i = 0; good && i < count; i++)
        good = resolve(reading, config, component, &targets[i]);
    reading->good = reading->good && good;
    hlc_peft_config_free(config);
    hlc_string_free(&text);
    return true;
}

static bool resolve_all(hlc_dialect_reading *reading, const hlc_halves *halves) {
    if (!reading->config_text->bytes || reading->config_path)
        return true;
    for (size_t i = 0; i < halves->count; i++)
        if (halves->items[i].role == HLC_HALF_ALPHA) {
            hlc_dialect_refuse(reading, &reading->table->tensors[halves->items[i].tensor], HLC_FAULT_CONFIG, NULL,
                               "the file has an alpha and a configuration in its metadata, too; diffusers takes one");
            return true;
        }
    bool ok = true;
    for (size_t i = 0; ok && i < reading->count;) {
        size_t end = i + 1;
        while (end < reading->count && same(component_of(&reading->targets[i]), component_of(&reading->targets[end])))
            end++;
        ok = resolve_component(reading, &reading->targets[i], end - i);
        i = end;
    }
    return ok;
}

bool hlc_diffusers_read(hlc_dialect_reading *reading) {
    hlc_halves halves;
    bool ok = hlc_halves_init(&halves, reading->table, reading->faults);
    for (uint32_t i = 0; ok && i < reading->table->count; i++)
        ok = read_key(reading, &halves, reading->table->by_name[i]);
    ok = ok && hlc_halves_pair(&halves, &reading->targets, &reading->count) && resolve_all(reading, &halves);
    reading->good = reading->good && halves.good;
    hlc_halves_free(&halves);
    return ok;
}
