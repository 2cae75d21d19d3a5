/* MLX (mlx-lm): adapters.safetensors with X.lora_a (inputs x rank) and X.lora_b (rank x outputs), transposed with respect
 * to PEFT's, and an adapter_config.json with the scale: y += scale (x lora_a) lora_b (LoRALinear of
 * mlx_lm/tuner/lora.py). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"
#include "compiler/ingest/dialects.h"
#include "compiler/ingest/halves.h"
#include "compiler/ingest/json_scan.h"

static const char dora_reason[] = "DoRA's update is not low-rank without the base model's weights";

/* A member that may be given once. */
typedef struct mlx_number {
    bool given;
    double value;
} mlx_number;

typedef struct mlx_config {
    hlc_dialect_reading *reading;
    hlc_json_scan scan;
    mlx_number rank, scale, alpha;
    bool has_parameters, has_type;
} mlx_config;

static void config_fault(mlx_config *config, hlc_fault_kind kind, const char *key, const char *remedy,
                         const char *reason) {
    char place[HLC_PLACE_SIZE];
    config->reading->good = false;
    hlc_fault(config->reading->faults, HLC_ERROR, kind, config->reading->config_path,
              key ? hlc_place(place, "key", key, strlen(key)) : NULL, remedy, "%s", reason);
}

/* ---- The configuration ---- */

/* The value just scanned; false when memory is out. */
static bool read_number(mlx_config *config, hlc_json_token token, const char *key, mlx_number *out) {
    const hlc_json_scan *scan = &config->scan;
    hlc_string text;
    if (token == HLC_JSON_ERROR) /* told at the end */
        return true;
    if (out->given)
        config_fault(config, HLC_FAULT_CONFIG, key, NULL, "it stands twice");
    out->given = true;
    if (token != HLC_JSON_NUMBER) {
        config_fault(config, HLC_FAULT_CONFIG, key, NULL, "the value must be a number");
        return true;
    }
    if (!hlc_string_copy(&text, scan->text + scan->begin, scan->end - scan->begin))
        return false;
    out->value = strtod(text.bytes, NULL);
    hlc_string_free(&text);
    return true;
}

static void read_type(mlx_config *config, hlc_json_token token) {
    const hlc_json_scan *scan = &config->scan;
    const char *text = scan->text + scan->begin;
    const size_t length = scan->end - scan->begin;
    config->has_type = true;
    if (token == HLC_JSON_STRING && hlc_bytes_equal(text, length, "lora"))
        return;
    if (token == HLC_JSON_STRING && hlc_bytes_equal(text, length, "dora"))
        config_fault(config, HLC_FAULT_DORA, "fine_tune_type", "train it with --fine-tune-type lora", dora_reason);
    else if (token == HLC_JSON_STRING && hlc_bytes_equal(text, length, "full"))
        config_fault(config, HLC_FAULT_METHOD, "fine_tune_type", "train it with --fine-tune-type lora",
                     "a fully trained model is no low-rank update");
    else
        config_fault(config, HLC_FAULT_METHOD, "fine_tune_type", NULL, "the value must be \"lora\"");
}

static bool read_model(mlx_config *config, hlc_json_token token) {
    const hlc_json_scan *scan = &config->scan;
    hlc_string *out = &config->reading->base_model;
    if (token != HLC_JSON_STRING || out->bytes)
        return true;
    if (!hlc_string_copy(out, scan->text + scan->begin, scan->end - scan->begin))
        return false;
    if (scan->escaped) {
        out->length = hlc_json_unescape(scan->text + scan->begin, scan->end - scan->begin, out->bytes);
        out->bytes[out->length] = '\0';
    }
    if (strlen(out->bytes) != out->length)
        hlc_string_free(out);
    return true;
}

static bool key_is(const hlc_json_scan *scan, const char *key) {
    char name[128]; /* room for each name that is asked for with all of it escaped */
    const char *text = scan->text + scan->begin;
    const size_t length = scan->end - scan->begin;
    if (!scan->escaped || length > sizeof name)
        return hlc_bytes_equal(text, length, key);
    return hlc_bytes_equal(name, hlc_json_unescape(text, length, name), key);
}

/* The members of lora_parameters. False when memory is out. */
static bool read_parameters(mlx_config *config, hlc_json_token token) {
    hlc_json_scan *scan = &config->scan;
    bool ok = true;
    if (config->has_parameters)
        config_fault(config, HLC_FAULT_CONFIG, "lora_parameters", NULL, "it stands twice");
    config->has_parameters = true;
    if (token != HLC_JSON_OBJECT_BEGIN) {
        config_fault(config, HLC_FAULT_CONFIG, "lora_parameters", NULL, "the value must be an object");
        hlc_json_skip(scan, token);
        return true;
    }
    while (ok && hlc_json_next(scan) == HLC_JSON_KEY) {
        const bool rank = key_is(scan, "rank"), scale = key_is(scan, "scale"), alpha = key_is(scan, "alpha");
        token = hlc_json_next(scan);
        if (rank)
            ok = read_number(config, token, "rank", &config->rank);
        else if (scale)
            ok = read_number(config, token, "scale", &config->scale);
        else if (alpha)
            ok = read_number(config, token, "alpha", &config->alpha);
        hlc_json_skip(scan, token);
    }
    return ok;
}

static bool read_members(mlx_config *config) {
    hlc_json_scan *scan = &config->scan;
    bool ok = true;
    if (hlc_json_next(scan) != HLC_JSON_OBJECT_BEGIN && !scan->error) {
        config_fault(config, HLC_FAULT_CONFIG_JSON, NULL, NULL, "the configuration is not a JSON object");
        return true;
    }
    while (ok && hlc_json_next(scan) == HLC_JSON_KEY) {
        const bool type = key_is(scan, "fine_tune_type"), parameters = key_is(scan, "lora_parameters"),
                   model = key_is(scan, "model"), dora = key_is(scan, "use_dora");
        hlc_json_token token = hlc_json_next(scan);
        if (parameters) {
            ok = read_parameters(config, token);
            continue;
        }
        if (type)
            read_type(config, token);
        else if (dora && token != HLC_JSON_FALSE && token != HLC_JSON_NULL)
            config_fault(config, HLC_FAULT_DORA, "use_dora", "train it with --fine-tune-type lora", dora_reason);
        else if (model)
            ok = read_model(config, token);
        hlc_json_skip(scan, token);
    }
    if (ok && !scan->error)
        hlc_json_next(scan); /* nothing may follow */
    if (scan->error) {
        char place[32];
        snprintf(place, sizeof place, "byte %zu", scan->error_at);
        config->reading->good = false;
        hlc_error(config->reading->faults, HLC_FAULT_CONFIG_JSON, config->reading->config_path, place,
                  "the configuration is not readable JSON: %s", scan->error);
    }
    return ok;
}

/* Early versions of mlx-lm scaled by scale * alpha / rank, later ones write and read scale alone. A file does not say
 * which of them trained it. */
static double scale_of(mlx_config *config) {
    if (!config->alpha.given || config->reading->options->mlx_alpha == HLC_MLX_ALPHA_IGNORE)
        return config->scale.value;
    if (config->reading->options->mlx_alpha == HLC_MLX_ALPHA_APPLY)
        return config->scale.value * (config->alpha.value / config->rank.value);
    config_fault(config, HLC_FAULT_CONFIG, "alpha", "--mlx-alpha ignore or --mlx-alpha apply says which",
                 "it stands beside scale: early versions of mlx-lm scaled by scale x alpha / rank, later ones by scale");
    return config->scale.value;
}

static void check_config(mlx_config *config) {
    if (!config->reading->good)
        return;
    if (!config->has_parameters)
        config_fault(config, HLC_FAULT_CONFIG, "lora_parameters", NULL,
                     "the key is missing: this is no adapter_config.json of MLX");
    else if (!config->scale.given)
        config_fault(config, HLC_FAULT_CONFIG, "scale", NULL, "lora_parameters has no scale");
    else if (!config->rank.given || !(config->rank.value >= 1))
        config_fault(config, HLC_FAULT_CONFIG, "rank", NULL, "lora_parameters has no rank of 1 or more");
}

/* ---- The tensors ---- */

static bool is_embedding(const hlc_string *module) {
    static const char *const ends[] = {"embed_tokens", "wte", "tok_embeddings", "word_embeddings"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t length = strlen(ends[i]);
        if (hlc_bytes_end(module->bytes, module->length, ends[i]) &&
            (module->length == length || module->bytes[module->length - length - 1] == '.'))
            return true;
    }
    return false;
}

static bool read_key(hlc_dialect_reading *reading, hlc_halves *halves, uint32_t number) {
    const hlc_tensor *tensor = &reading->table->tensors[number];
    const bool a = hlc_bytes_end(tensor->name, tensor->name_length, ".lora_a"),
               b = hlc_bytes_end(tensor->name, tensor->name_length, ".lora_b");
    if ((a || b) && tensor->dims == 3)
        hlc_dialect_refuse(reading, tensor, HLC_FAULT_UNSUPPORTED, NULL,
                           "LoRA on MLX's layers of switched experts is not supported");
    else if (a || b)
        return hlc_halves_add(halves, a ? HLC_HALF_A : HLC_HALF_B, tensor->name, tensor->name_length - 7, number);
    else if (hlc_bytes_end(tensor->name, tensor->name_length, ".m"))
        hlc_dialect_refuse(reading, tensor, HLC_FAULT_DORA, "train it with --fine-tune-type lora", dora_reason);
    else
        hlc_dialect_extra(reading, tensor, "the tensor is no LoRA weight of MLX");
    return true;
}

static void finish_targets(hlc_dialect_reading *reading, mlx_config *config, hlc_halves *halves) {
    const double scale = scale_of(config);
    for (size_t i = 0; i < reading->count; i++) {
        hlc_target *target = &reading->targets[i];
        target->scale = scale;
        if (is_embedding(&target->module))
            target->kind = HLC_MODULE_EMBEDDING;
        if ((double)target->rank == config->rank.value)
            continue;
        char place[HLC_PLACE_SIZE];
        halves->good = false;
        hlc_error(reading->faults, HLC_FAULT_RANK_CONFIG, reading->table->path,
                  hlc_place(place, "tensor", target->a.key.bytes, target->a.key.length),
                  "the rank is %u, but the configuration says %g", target->rank, config->rank.value);
    }
    if (!isfinite(scale))
        config_fault(config, HLC_FAULT_CONFIG, "scale", NULL, "the scale is not finite");
    else if (scale == 0)
        hlc_fault(reading->faults, HLC_WARNING, HLC_FAULT_ZERO_SCALE, reading->config_path, NULL, NULL,
                  "the scale is 0, so the adapter's update is zero");
}

bool hlc_mlx_read(hlc_dialect_reading *reading) {
    if (!reading->config_path) {
        reading->good = false;
        hlc_fault(reading->faults, HLC_ERROR, HLC_FAULT_NO_CONFIG, reading->table->path, NULL,
                  "put the adapter_config.json that mlx-lm saved beside it",
                  "there is no configuration, so the scale of this MLX adapter is not known");
        return true;
    }
    mlx_config config = {.reading = reading};
    hlc_halves halves;
    reading->good = reading->config_text->bytes != NULL; /* else it could not be read, which was said */
    hlc_json_start(&config.scan, reading->good ? reading->config_text->bytes : "", reading->config_text->length);
    bool ok = hlc_halves_init(&halves, reading->table, reading->faults) && (!reading->good || read_members(&config));
    halves.transposed = true;
    halves.names[HLC_HALF_A] = "lora_a";
    halves.names[HLC_HALF_B] = "lora_b";
    if (ok)
        check_config(&config);
    for (uint32_t i = 0; ok && i < reading->table->count; i++)
        ok = read_key(reading, &halves, reading->table->by_name[i]);
    ok = ok && hlc_halves_pair(&halves, &reading->targets, &reading->count);
    if (ok && reading->good)
        finish_targets(reading, &config, &halves);
    reading->good = reading->good && halves.good;
    hlc_halves_free(&halves);
    return ok;
}
