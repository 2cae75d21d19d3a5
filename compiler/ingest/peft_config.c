#include "compiler/ingest/peft_config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "compiler/ingest/json_scan.h"

enum {
    MOST_VALUES = 500000,  /* JSON values of a configuration, which bounds the memory of its tree */
    MOST_PATTERNS = 65536, /* of one map */
    MOST_PATTERN_BYTES = 64 << 20,
    MOST_UNKNOWN = 20 /* unknown keys that are named */
};

static const char drop_remedy[] = "--drop-extras leaves it out";

/* What the readers of fields share. */
typedef struct config_reader {
    hlc_peft_config *config;
    hlc_faults *faults;
    bool drop_extras;
    size_t unknown, refusals;
    size_t pattern_bytes; /* of all compiled patterns */
} config_reader;

void hlc_peft_config_fault(const hlc_peft_config *config, hlc_faults *faults, hlc_severity severity, hlc_fault_kind kind,
                           const char *key, const char *remedy, const char *reason) {
    char place[2 * HLC_PLACE_SIZE], key_place[HLC_PLACE_SIZE] = "";
    if (key)
        hlc_place(key_place, "key", key, strlen(key));
    snprintf(place, sizeof place, "%s%s%s", config->within ? config->within : "", config->within && key ? ", " : "",
             key_place);
    hlc_fault(faults, severity, kind, config->path, place[0] ? place : NULL, remedy, "%s", reason);
}

static void refuse_as(config_reader *reader, hlc_fault_kind kind, const char *key, const char *remedy,
                      const char *format, ...) __attribute__((format(printf, 5, 6)));
static void refuse_as(config_reader *reader, hlc_fault_kind kind, const char *key, const char *remedy,
                      const char *format, ...) {
    char reason[512];
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(reason, sizeof reason, format, arguments) < 0)
        reason[0] = '\0';
    va_end(arguments);
    hlc_peft_config_fault(reader->config, reader->faults, HLC_ERROR, kind, key, remedy, reason);
    reader->config->state = HLC_CONFIG_FAULTY;
    reader->refusals++;
}

#define refuse(reader, ...) refuse_as(reader, HLC_FAULT_CONFIG, __VA_ARGS__)

/* Something that is no low-rank update: an error, or a warning where it is dropped. */
static void extra(config_reader *reader, const char *key, const char *what) {
    if (!reader->drop_extras)
        refuse_as(reader, HLC_FAULT_CONFIG_EXTRAS, key, drop_remedy, "%s", what);
    else
        hlc_peft_config_fault(reader->config, reader->faults, HLC_WARNING, HLC_FAULT_CONFIG_EXTRAS, key, NULL, what);
}

/* Null, false, and what is empty say that a feature is not used. */
static bool is_set(const json_t *value) {
    if (json_is_object(value) || json_is_array(value))
        return json_object_size(value) + json_array_size(value) > 0;
    if (json_is_string(value))
        return json_string_length(value) > 0;
    return !json_is_null(value) && !json_is_false(value);
}

/* ---- The fields ---- */

typedef void field_reader(config_reader *reader, const char *key, const json_t *value);

/* True for a boolean, or for null, which PEFT takes for false; else a fault is added. */
static bool read_flag(config_reader *reader, const char *key, const json_t *value) {
    if (!json_is_boolean(value) && !json_is_null(value))
        refuse(reader, key, NULL, "the value must be true or false");
    return json_is_true(value);
}

static bool rank_is_good(const json_t *value) {
    return json_is_integer(value) && json_integer_value(value) >= 1 && json_integer_value(value) <= HLC_MOST_RANK;
}

static void read_rank(config_reader *reader, const char *key, const json_t *value) {
    if (reader->config->adalora) /* whose rank is init_r */
        return;
    if (rank_is_good(value)) {
        reader->config->rank = (double)json_integer_value(value);
    } else {
        refuse(reader, key, NULL, "the rank must be an integer from 1 to %d", HLC_MOST_RANK);
        reader->config->rank_known = false;
    }
}

static void read_alpha(config_reader *reader, const char *key, const json_t *value) {
    if (json_is_number(value)) {
        reader->config->alpha = json_number_value(value);
        return;
    }
    refuse(reader, key, NULL, "the value must be a number");
    reader->config->alpha_known = false;
}

static void read_fan_in(config_reader *reader, const char *key, const json_t *value) {
    reader->config->fan_in_fan_out = read_flag(reader, key, value);
}

static void read_expert_layout(config_reader *reader, const char *key, const json_t *value) {
    const char *name = json_is_string(value) ? json_string_value(value) : "";
    if (strcmp(name, "rank_major") == 0)
        reader->config->expert_layout = HLC_EXPERTS_RANK_MAJOR;
    else if (strcmp(name, "grouped_by_expert") == 0)
        reader->config->expert_layout = HLC_EXPERTS_GROUPED;
    else if (!json_is_null(value))
        refuse(reader, key, NULL, "the value must be \"rank_major\" or \"grouped_by_expert\"");
}

static void read_parameters(config_reader *reader, const char *key, const json_t *value) {
    enum { MOST_PARAMETERS = 10000 };
    size_t i;
    const json_t *name;
    bool good = json_is_null(value) || (json_is_array(value) && json_array_size(value) <= MOST_PARAMETERS);
    json_array_foreach(value, i, name) good = good && json_is_string(name);
    if (!good)
        refuse(reader, key, NULL, "the value must be a list of at most %d names", MOST_PARAMETERS);
    else if (reader->config->adalora && json_array_size(value) > 0)
        refuse(reader, key, NULL, "AdaLoRA on parameters is none that PEFT makes");
    reader->config->parameters = good ? value : NULL;
}

static void read_rslora(config_reader *reader, const char *key, const json_t *value) {
    reader->config->rslora = read_flag(reader, key, value);
}

static void read_pattern(config_reader *reader, const char *map_key, const char *text, size_t length,
                         const json_t *value, bool ranks, hlc_pattern_map *map) {
    char error[HLC_PATTERN_ERROR_SIZE], place[HLC_PLACE_SIZE];
    hlc_pattern_value *entry = &map->entries[map->count];
    hlc_place(place, "pattern", text, length);
    if (ranks ? !rank_is_good(value) : !json_is_number(value)) {
        if (ranks)
            refuse(reader, map_key, NULL, "%s: the rank must be an integer from 1 to %d", place, HLC_MOST_RANK);
        else
            refuse(reader, map_key, NULL, "%s: the value must be a number", place);
    } else if (!hlc_key_pattern_compile(&entry->pattern, HLC_PATTERN_KEY, text, length, error)) {
        refuse(reader, map_key, NULL, "%s: it is %s", place, error);
    } else {
        entry->value = json_number_value(value);
        map->count++;
        reader->pattern_bytes += hlc_key_pattern_size(&entry->pattern);
    }
}

/* On a fault the map's ranks or alphas are not known, as a later pattern must not take the place of the one that
 * failed. */
static bool read_patterns(config_reader *reader, const char *key, const json_t *value, bool ranks,
                          hlc_pattern_map *map) {
    size_t refusals = reader->refusals;
    if (json_is_null(value))
        return true;
    if (!json_is_object(value) || json_object_size(value) > MOST_PATTERNS) {
        refuse(reader, key, NULL, "the value must be an object of at most %d patterns", MOST_PATTERNS);
        return false;
    }
    map->entries = calloc(json_object_size(value) + 1, sizeof *map->entries);
    if (!map->entries) {
        hlc_out_of_memory(reader->faults, reader->config->path, (json_object_size(value) + 1) * sizeof *map->entries);
        reader->config->state = HLC_CONFIG_FAULTY;
        return false;
    }
    union {
        const json_t *constant;
        json_t *iterated;
    } object = {value};
    void *at = json_object_iter(object.iterated);
    for (; at && reader->pattern_bytes <= MOST_PATTERN_BYTES; at = json_object_iter_next(object.iterated, at))
        read_pattern(reader, key, json_object_iter_key(at), json_object_iter_key_len(at), json_object_iter_value(at),
                     ranks, map);
    if (at)
        refuse(reader, key, "write simpler patterns", "the patterns need more than %d MiB of memory",
               MOST_PATTERN_BYTES >> 20);
    return reader->refusals == refusals;
}

/* AdaLoRA's: "MODULE.lora_E" to a boolean per trained rank. */
static bool read_allocation(config_reader *reader, const char *key, const json_t *value) {
    const size_t length = (size_t)reader->config->init_rank;
    const char *module;
    const json_t *list, *kept;
    size_t i, refusals = reader->refusals;
    if (!json_is_object(value) && !json_is_null(value))
        refuse(reader, key, NULL, "the value must be an object of lists");
    json_object_foreach((json_t *)(uintptr_t)value, module, list) {
        bool good = json_is_array(list) && json_array_size(list) == length;
        json_array_foreach(list, i, kept) good = good && json_is_boolean(kept);
        if (!good && reader->refusals == refusals)
            refuse(reader, key, NULL, "each value must be a list of %zu booleans, as init_r says", length);
    }
    return reader->refusals == refusals;
}

static void read_rank_pattern(config_reader *reader, const char *key, const json_t *value) {
    if (reader->config->adalora) {
        reader->config->rank_known = read_allocation(reader, key, value) && reader->config->rank_known;
        return;
    }
    if (!read_patterns(reader, key, value, true, &reader->config->ranks))
        reader->config->rank_known = false;
}

static void read_alpha_pattern(config_reader *reader, const char *key, const json_t *value) {
    if (reader->config->adalora) /* which has no use for it */
        return;
    if (!read_patterns(reader, key, value, false, &reader->config->alphas))
        reader->config->alpha_known = false;
}

static void read_name(config_reader *reader, const char *key, const json_t *value, hlc_string *out) {
    if (json_is_null(value))
        return;
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
        refuse(reader, key, NULL, "the value must be a string without NUL, or null");
    else if (!hlc_string_copy(out, json_string_value(value), json_string_length(value)))
        hlc_out_of_memory(reader->faults, reader->config->path, json_string_length(value) + 1);
}

static void read_base_model(config_reader *reader, const char *key, const json_t *value) {
    read_name(reader, key, value, &reader->config->base_model);
}

static void read_revision(config_reader *reader, const char *key, const json_t *value) {
    read_name(reader, key, value, &reader->config->revision);
}

static void read_initialisation(config_reader *reader, const char *key, const json_t *value) {
    static const char *const plain[] = {"gaussian", "eva", "orthogonal", "mica"};
    static const char *const mutating[] = {"pissa", "olora", "corda", "lora_ga", "loftq"};
    if (json_is_boolean(value) || json_is_null(value))
        return;
    if (!json_is_string(value)) {
        refuse(reader, key, NULL, "the value must be true, false or a string");
        return;
    }
    const char *name = json_string_value(value);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcasecmp(name, plain[i]) == 0)
            return;
    for (size_t i = 0; i < sizeof mutating / sizeof *mutating; i++)
        if (strncasecmp(name, mutating[i], strlen(mutating[i])) == 0) {
            refuse_as(
                reader, HLC_FAULT_CHANGED_BASE, key,
                "save it with PEFT's path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
                "the initialisation '%s' changes the base model's weights, so these A and B do not fit the original",
                mutating[i]);
            return;
        }
    char place[HLC_PLACE_SIZE];
    refuse_as(reader, HLC_FAULT_CHANGED_BASE, key, NULL, "the %s is not known; it may change the base model's weights",
           hlc_place(place, "initialisation", name, json_string_length(value)));
}

static void read_bias(config_reader *reader, const char *key, const json_t *value) {
    const char *name = json_is_string(value) ? json_string_value(value) : json_is_null(value) ? "none" : "";
    reader->config->biases = strcmp(name, "all") == 0 || strcmp(name, "lora_only") == 0;
    if (reader->config->biases)
        extra(reader, key, "trained biases are no low-rank update");
    else if (strcmp(name, "none") != 0)
        refuse(reader, key, NULL, "the value must be \"none\", \"all\" or \"lora_only\"");
}

static void read_modules_to_save(config_reader *reader, const char *key, const json_t *value) {
    if (!json_is_null(value) && !json_is_array(value)) {
        refuse(reader, key, NULL, "the value must be a list of names");
        return;
    }
    hlc_text names = {0};
    hlc_text_printf(&names, "modules saved whole are no low-rank update:");
    size_t i;
    const json_t *name;
    json_array_foreach(value, i, name) {
        if (!json_is_string(name)) {
            refuse(reader, key, NULL, "the value must be a list of names");
            hlc_text_free(&names);
            return;
        }
        if (names.length < 400)
            hlc_text_printf(&names, "%s %s", i > 0 ? "," : "", json_string_value(name));
    }
    if (json_array_size(value) > 0)
        extra(reader, key, names.failed ? "modules saved whole are no low-rank update" : names.bytes);
    hlc_text_free(&names);
}

static void read_token_indices(config_reader *reader, const char *key, const json_t *value) {
    if (is_set(value))
        extra(reader, key, "trained tokens are no low-rank update");
}

static void read_lora_bias(config_reader *reader, const char *key, const json_t *value) {
    if (read_flag(reader, key, value))
        extra(reader, key, "a bias of lora_B is no low-rank update");
}

/* Features that make the update something else than s B A, or say that it is stored in another way. */
static const struct {
    hlc_fault_kind kind;
    const char *key, *reason, *remedy;
} refused[] = {
    {HLC_FAULT_DORA, "use_dora", "DoRA's update is not low-rank without the base model's weights",
     "train it without use_dora"},
    {HLC_FAULT_FEATURE, "layer_replication", "layers of the base model are replicated, which a pool cannot say", NULL},
    {HLC_FAULT_FEATURE, "alora_invocation_tokens", "an activated LoRA acts on some tokens only, which a pool cannot say",
     NULL},
    {HLC_FAULT_FEATURE, "kasa_config", "KaSA's update is not s B A", NULL},
    {HLC_FAULT_FEATURE, "arrow_config", "this is a router over other adapters", "compile those adapters"},
    {HLC_FAULT_FEATURE, "enable_lora", "adapters with enable_lora, of PEFT before 0.3, are not supported",
     "load and save it with a newer PEFT"},
    {HLC_FAULT_FEATURE, "megatron_config", "adapters of Megatron's parallel layers are not supported", NULL},
    {HLC_FAULT_FEATURE, "use_qalora", "QA-LoRA's A acts on groups of inputs; this is not supported yet", NULL},
    {HLC_FAULT_FEATURE, "use_bdlora", "block-diagonal LoRA is not supported yet", NULL},
    {HLC_FAULT_FEATURE, "velora_config", "VeLoRA is not supported yet", NULL},
    {HLC_FAULT_FEATURE, "monteclora_config", "MonteCLoRA is not supported yet", NULL},
};

static bool refuse_feature(config_reader *reader, const char *key, const json_t *value) {
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strcmp(key, refused[i].key) == 0) {
            if (is_set(value))
                refuse_as(reader, refused[i].kind, key, refused[i].remedy, "%s", refused[i].reason);
            return true;
        }
    return false;
}

/* Keys that PEFT writes, or wrote, and that say nothing about the update. target_modules and its kin: see
 * peft_targets.h. */
static const char *const ignored[] = {
    "peft_type",      "peft_version",          "auto_mapping",    "task_type",           "inference_mode",
    "lora_dropout",   "target_modules",  "exclude_modules",     "layers_to_transform",
    "layers_pattern", "megatron_core",         "loftq_config",    "eva_config",          "corda_config",
    "lora_ga_config", "qalora_group_size",     "runtime_config",  "ensure_weight_tying", "merge_weights",
    "ephemeral_gpu_offload", "unsloth_version", "unsloth_fixed"};

/* Of AdaLoRA's training. */
static const char *const ignored_adalora[] = {"target_r", "init_r",          "tinit",     "tfinal", "deltaT", "beta1",
                                              "beta2",    "orth_reg_weight", "total_step"};

static bool is_listed(const char *key, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(key, list[i]) == 0)
            return true;
    return false;
}

static const struct {
    const char *key;
    field_reader *read;
} fields[] = {
    {"r", read_rank},
    {"lora_alpha", read_alpha},
    {"use_rslora", read_rslora},
    {"rank_pattern", read_rank_pattern},
    {"alpha_pattern", read_alpha_pattern},
    {"base_model_name_or_path", read_base_model},
    {"revision", read_revision},
    {"init_lora_weights", read_initialisation},
    {"bias", read_bias},
    {"modules_to_save", read_modules_to_save},
    {"trainable_token_indices", read_token_indices},
    {"lora_bias", read_lora_bias},
    {"fan_in_fan_out", read_fan_in},
    {"lora_B_layout", read_expert_layout},
    {"target_parameters", read_parameters},
};

static void read_field(config_reader *reader, const char *key, const json_t *value) {
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strcmp(key, fields[i].key) == 0) {
            fields[i].read(reader, key, value);
            return;
        }
    if (refuse_feature(reader, key, value))
        return;
    if (is_listed(key, ignored, sizeof ignored / sizeof *ignored) ||
        (reader->config->adalora && is_listed(key, ignored_adalora, sizeof ignored_adalora / sizeof *ignored_adalora)))
        return;
    if (reader->unknown++ < MOST_UNKNOWN)
        hlc_peft_config_fault(reader->config, reader->faults, HLC_WARNING, HLC_FAULT_UNKNOWN_KEY, key, NULL,
                  "the key is not known and ignored");
}

/* ---- The whole ---- */

static bool fail_as_foreign(config_reader *reader) {
    reader->config->state = HLC_CONFIG_FOREIGN;
    return false;
}

/* PEFT's other methods. `converts`: its convert_to_lora makes a plain LoRA of it. */
static const struct {
    const char *type, *name;
    bool converts;
} methods[] = {{"ADAMSS", "AdaMSS", false},
               {"ADAPTION_PROMPT", "LLaMA-Adapter", false},
               {"BEFT", "BEFT", false},
               {"BOFT", "BOFT", false},
               {"C3A", "C3A", true},
               {"CARTRIDGE", "Cartridge", false},
               {"CPT", "context-aware prompt tuning", false},
               {"DEFT", "DEFT", false},
               {"DELORA", "DeLoRA", true},
               {"FOURIERFT", "FourierFT", true},
               {"FROD", "FRoD", false},
               {"GLORA", "GLoRA", false},
               {"GRALORA", "GraLoRA", true},
               {"HIRA", "HiRA", false},
               {"HRA", "HRA", false},
               {"IA3", "IA3", false},
               {"LILY", "Lily", false},
               {"LN_TUNING", "LayerNorm tuning", false},
               {"LOHA", "LoHa", true},
               {"LOKR", "LoKr", true},
               {"MISS", "MiSS", true},
               {"BONE", "Bone", false},
               {"MULTITASK_PROMPT_TUNING", "prompt tuning", false},
               {"OFT", "OFT", false},
               {"OSF", "OSF", false},
               {"PEANUT", "PEANuT", false},
               {"POLY", "Poly", false},
               {"PREFIX_TUNING", "prefix tuning", false},
               {"PROMPT_TUNING", "prompt tuning", false},
               {"PSOFT", "PSOFT", true},
               {"PVERA", "PVeRA", false},
               {"P_TUNING", "P-tuning", false},
               {"RANDLORA", "RandLora", true},
               {"ROAD", "RoAd", false},
               {"SHADOW", "Shadow", false},
               {"SHIRA", "SHiRA", false},
               {"SUPERTUNING", "SuperTuning", false},
               {"TINYLORA", "TinyLoRA", true},
               {"TRAINABLE_TOKENS", "trained tokens", false},
               {"UNILORA", "UniLoRA", true},
               {"VBLORA", "VB-LoRA", true},
               {"VERA", "VeRA", true},
               {"WAVEFT", "WaveFT", true}};

static void refuse_method(config_reader *reader, const char *type, size_t length) {
    char place[HLC_PLACE_SIZE];
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(type, methods[i].type) == 0) {
            refuse_as(reader, HLC_FAULT_METHOD, "peft_type",
                   methods[i].converts ? "make a plain LoRA of it with PEFT's convert_to_lora, and compile that" : NULL,
                   "the adapter's type '%s' is not LoRA but %s", type, methods[i].name);
            return;
        }
    refuse_as(reader, HLC_FAULT_METHOD, "peft_type", NULL, "the adapter's %s is not LoRA", hlc_place(place, "type", type, length));
}

static bool check_type(config_reader *reader) {
    const json_t *type = json_object_get(reader->config->root, "peft_type");
    const char *name = json_is_string(type) ? json_string_value(type) : "";
    reader->config->adalora = strcmp(name, "ADALORA") == 0;
    if (reader->config->adalora || strcmp(name, "LORA") == 0)
        return true;
    if (json_object_get(reader->config->root, "fine_tune_type") ||
        json_object_get(reader->config->root, "lora_parameters"))
        refuse_as(reader, HLC_FAULT_METHOD, NULL, "put the configuration beside the weights that it was saved with",
                  "this is the configuration of an MLX adapter, but the tensors are not named as MLX names them");
    else if (!type)
        refuse_as(reader, HLC_FAULT_METHOD, "peft_type", NULL, "the key is missing: this is no adapter_config.json of PEFT");
    else if (!json_is_string(type))
        refuse_as(reader, HLC_FAULT_METHOD, "peft_type", NULL, "the value must be a string");
    else if (strcmp(name, "XLORA") == 0)
        refuse_as(reader, HLC_FAULT_METHOD, "peft_type", "compile the adapters that it mixes", "X-LoRA is a mixture of other adapters");
    else
        refuse_method(reader, name, json_string_length(type));
    return fail_as_foreign(reader);
}

/* What the readers of other keys depend on. */
static void read_first(config_reader *reader) {
    hlc_peft_config *config = reader->config;
    const json_t *rank = json_object_get(config->root, "init_r"), *version = json_object_get(config->root, "peft_version");
    unsigned major = 0, minor = 0;
    if (json_is_string(version) && sscanf(json_string_value(version), "%3u.%3u", &major, &minor) == 2)
        config->swaps_experts = major > 0 || minor >= 19;
    config->init_rank = 12; /* PEFT's default */
    if (!config->adalora || !rank)
        return;
    if (rank_is_good(rank)) {
        config->init_rank = (double)json_integer_value(rank);
        return;
    }
    refuse(reader, "init_r", NULL, "the rank must be an integer from 1 to %d", HLC_MOST_RANK);
    config->rank_known = false;
}

static void json_refuse(config_reader *reader, size_t at, const char *reason) {
    char place[2 * HLC_PLACE_SIZE];
    snprintf(place, sizeof place, "%s%sbyte %zu", reader->config->within ? reader->config->within : "",
             reader->config->within ? ", " : "", at);
    hlc_error(reader->faults, HLC_FAULT_CONFIG_JSON, reader->config->path, place,
              "the configuration is not readable JSON: %s", reason);
    fail_as_foreign(reader);
}

/* Strictness, depth and size are checked before a tree is built. */
static bool check_text(config_reader *reader, const hlc_string *text) {
    hlc_json_scan scan;
    hlc_json_start(&scan, text->bytes, text->length);
    size_t values = 0;
    hlc_json_token token = hlc_json_next(&scan);
    for (; token != HLC_JSON_END && token != HLC_JSON_ERROR && values <= MOST_VALUES; values++)
        token = hlc_json_next(&scan);
    if (token == HLC_JSON_ERROR)
        json_refuse(reader, scan.error_at, scan.error);
    else if (values > MOST_VALUES)
        json_refuse(reader, scan.at, "it holds too many values");
    return reader->config->state == HLC_CONFIG_GOOD;
}

static bool load_tree(config_reader *reader, const hlc_string *text) {
    if (text->length > HLC_CONFIG_MOST_BYTES) {
        json_refuse(reader, HLC_CONFIG_MOST_BYTES, "it is longer than the 16 MiB that are read");
        return false;
    }
    if (!check_text(reader, text))
        return false;
    json_error_t error;
    reader->config->root = json_loadb(text->bytes, text->length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!reader->config->root && error.text[0] == '\0') { /* what Jansson says when memory is out */
        hlc_out_of_memory(reader->faults, reader->config->path, text->length);
        return fail_as_foreign(reader);
    }
    if (!reader->config->root) {
        json_refuse(reader, (size_t)(error.position < 0 ? 0 : error.position), error.text);
        return false;
    }
    if (!json_is_object(reader->config->root)) {
        json_refuse(reader, 0, "it is not an object");
        return false;
    }
    return true;
}

static void read_all(config_reader *reader, const hlc_string *text) {
    hlc_peft_config *config = reader->config;
    if (!load_tree(reader, text) || !check_type(reader))
        return;
    read_first(reader);
    for (void *at = json_object_iter(config->root); at; at = json_object_iter_next(config->root, at))
        read_field(reader, json_object_iter_key(at), json_object_iter_value(at));
    if (reader->unknown > MOST_UNKNOWN) {
        char reason[64];
        snprintf(reason, sizeof reason, "and %zu more unknown keys", reader->unknown - MOST_UNKNOWN);
        hlc_peft_config_fault(config, reader->faults, HLC_WARNING, HLC_FAULT_UNKNOWN_KEY, NULL, NULL, reason);
    }
}

hlc_peft_config *hlc_peft_config_read(const char *path, const char *within, const hlc_string *text, bool drop_extras,
                                      hlc_faults *faults) {
    hlc_peft_config *config = calloc(1, sizeof *config);
    if (!config || !hlc_matcher_init(&config->matcher)) {
        hlc_out_of_memory(faults, path, sizeof *config);
        free(config);
        return NULL;
    }
    config->path = path;
    config->within = within;
    config->rank = config->alpha = 8; /* PEFT's defaults */
    config->rank_known = config->alpha_known = true;
    config_reader reader = {.config = config, .faults = faults, .drop_extras = drop_extras};
    read_all(&reader, text);
    return config;
}

static void free_map(hlc_pattern_map *map) {
    for (size_t i = 0; i < map->count; i++)
        hlc_key_pattern_free(&map->entries[i].pattern);
    free(map->entries);
}

void hlc_peft_config_free(hlc_peft_config *config) {
    if (!config)
        return;
    free_map(&config->ranks);
    free_map(&config->alphas);
    hlc_matcher_free(&config->matcher);
    json_decref(config->root);
    hlc_string_free(&config->base_model);
    hlc_string_free(&config->revision);
    free(config);
}

bool hlc_json_has_key(const char *text, size_t length, const char *key) {
    hlc_json_scan scan;
    hlc_json_start(&scan, text, length);
    bool found = false;
    hlc_json_token token = hlc_json_next(&scan);
    if (token != HLC_JSON_OBJECT_BEGIN)
        return false;
    while ((token = hlc_json_next(&scan)) == HLC_JSON_KEY) {
        found |= hlc_bytes_equal(text + scan.begin, scan.end - scan.begin, key);
        if (!hlc_json_skip(&scan, hlc_json_next(&scan)))
            return false;
    }
    return found && token == HLC_JSON_OBJECT_END && hlc_json_next(&scan) == HLC_JSON_END;
}
