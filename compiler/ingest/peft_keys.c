#include "compiler/ingest/peft_keys.h"

#include <string.h>

#include "compiler/base/text.h"

static const struct {
    const char *reason, *remedy;
} parts[HLC_PARTS] = {
    [HLC_PART_A] = {"a lora_A", NULL},
    [HLC_PART_B] = {"a lora_B", NULL},
    [HLC_PART_EMBEDDING_A] = {"a lora_embedding_A", NULL},
    [HLC_PART_EMBEDDING_B] = {"a lora_embedding_B", NULL},
    [HLC_PART_DIAGONAL] = {"a lora_E", NULL},
    [HLC_PART_LORA_BIAS] = {"a bias of lora_B is no low-rank update", "--drop-extras leaves it out"},
    [HLC_PART_SAVED_EMBEDDING] =
        {"a whole weight saved along (PEFT saves embeddings when they are adapted or resized) is no "
         "low-rank update",
         "--drop-extras leaves it out"},
    [HLC_PART_SAVED_MODULE] = {"a module saved whole is no low-rank update", "--drop-extras leaves it out"},
    [HLC_PART_BIAS] = {"a trained bias is no low-rank update", "--drop-extras leaves it out"},
    [HLC_PART_TOKENS] = {"trained tokens are no low-rank update", "--drop-extras leaves them out"},
    [HLC_PART_UNKNOWN] = {"the tensor is no LoRA weight that is known", "--drop-extras leaves it out"},
    [HLC_PART_NAMELESS] = {"the name has no module before lora_A or lora_B", NULL},
    [HLC_PART_NAMED] = {"the name holds an adapter's name behind lora_A or lora_B; 'default' alone is read",
                        "save the adapter with PEFT's save_pretrained"},
    [HLC_PART_DORA] = {"DoRA's update is not low-rank without the base model's weights", "train it without use_dora"},
    [HLC_PART_OTHER_TUNER] = {"this is no LoRA", NULL},
    [HLC_PART_LYCORIS] = {"LyCORIS adapters (LoHa, LoKr, ...) are not LoRA", NULL},
    [HLC_PART_KOHYA] = {"the name is kohya-ss's, in an adapter of PEFT's", "save one adapter to a file"},
    [HLC_PART_DIFFUSERS] = {"the name is diffusers', in an adapter of PEFT's", "save one adapter to a file"},
    [HLC_PART_MLX] = {"the name is MLX's, in an adapter of PEFT's", "save one adapter to a file"},
};

const char *hlc_part_reason(hlc_key_part part) {
    return parts[part].reason;
}

hlc_fault_kind hlc_part_kind(hlc_key_part part) {
    switch (part) {
    case HLC_PART_SAVED_EMBEDDING:
        return HLC_FAULT_VOCABULARY;
    case HLC_PART_DORA:
        return HLC_FAULT_DORA;
    case HLC_PART_A:
    case HLC_PART_B:
    case HLC_PART_NAMELESS:
    case HLC_PART_NAMED:
        return HLC_FAULT_TENSOR;
    default:
        return hlc_part_is_extra(part)     ? HLC_FAULT_EXTRAS
               : hlc_part_is_foreign(part) ? HLC_FAULT_OTHER_METHOD
                                           : HLC_FAULT_UNSUPPORTED;
    }
}

const char *hlc_part_remedy(hlc_key_part part) {
    return parts[part].remedy;
}

/* The starts of parameters' names. Some could start a module's name, too: those count only where no ".weight" follows.
 */
static const struct {
    const char *prefix, *tuner;
} tuners[] = {{"vera_lambda_", "VeRA"}, {"hada_", "LoHa"},         {"lokr_", "LoKr"},
              {"ia3_l", "IA3"},         {"oft_", "OFT"},           {"boft_", "BOFT"},
              {"hra_", "HRA"},          {"randlora_", "RandLora"}, {"shira_", "SHiRA"},
              {"road_", "RoAd"},        {"miss_", "MiSS"},         {"bone_", "Bone"},
              {"delora_", "DeLoRA"},    {"gralora_", "GraLoRA"},   {"fourierft_", "FourierFT"}};

typedef struct segment {
    const char *text;
    size_t length;
} segment;

static bool is(segment s, const char *literal) {
    return hlc_bytes_equal(s.text, s.length, literal);
}

static bool starts(segment s, const char *literal) {
    return hlc_bytes_start(s.text, s.length, literal);
}

/* Takes the last segment off a dotted path. */
static segment pop(segment *path) {
    size_t at = path->length;
    while (at > 0 && path->text[at - 1] != '.')
        at--;
    segment last = {path->text + at, path->length - at};
    path->length = at > 0 ? at - 1 : 0;
    return last;
}

static segment last_of(segment path) {
    return pop(&path);
}

/* A name taken apart: PATH . MARKER [. default] [. weight | bias]. */
typedef struct name_parts {
    segment whole, path, marker;
    bool weight, bias;
} name_parts;

static name_parts take_apart(segment name) {
    name_parts n = {.whole = name, .path = name};
    segment last = pop(&n.path);
    n.weight = is(last, "weight");
    n.bias = is(last, "bias");
    if (n.weight || n.bias)
        last = pop(&n.path);
    if (is(last, "default") && n.path.length > 0)
        last = pop(&n.path);
    n.marker = last;
    return n;
}

static hlc_key of_part(hlc_key_part part) {
    return (hlc_key){.part = part};
}

static hlc_key update_key(const name_parts *n, hlc_key_part part) {
    if (n->path.length == 0)
        return of_part(HLC_PART_NAMELESS);
    return (hlc_key){.part = part, .module = n->path.text, .module_length = n->path.length, .weight = n->weight};
}

static hlc_key lora_key(const name_parts *n) {
    if (n->bias)
        return of_part(HLC_PART_LORA_BIAS);
    return update_key(n, is(n->marker, "lora_A") ? HLC_PART_A : HLC_PART_B);
}

/* unet.x.lora.down.weight, x.processor.to_q_lora.up.weight, x.lora_linear_layer.down.weight */
static bool is_diffusers(const name_parts *n) {
    segment before = last_of(n->path);
    bool half = is(n->marker, "down") || is(n->marker, "up");
    return half && (is(before, "lora") || is(before, "lora_linear_layer") ||
                    hlc_bytes_end(before.text, before.length, "_lora"));
}

static bool is_lycoris(const name_parts *n) {
    static const char *const prefixes[] = {"hada_",      "lokr_", "oft_",   "lora_mid",
                                           "dora_scale", "diff",  "w_norm", "b_norm"};
    if (is(n->marker, "lora_mid") || is(n->marker, "dora_scale") || starts(n->whole, "lycoris_"))
        return true;
    if (!starts(n->whole, "lora_"))
        return false;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (starts(n->marker, prefixes[i]))
            return true;
    return false;
}

static const char *other_tuner(const name_parts *n) {
    if (is(n->marker, "oft_R") || is(n->marker, "oft_r"))
        return "OFT";
    if (n->weight || n->bias)
        return NULL;
    for (size_t i = 0; i < sizeof tuners / sizeof *tuners; i++)
        if (starts(n->marker, tuners[i].prefix))
            return tuners[i].tuner;
    return NULL;
}

/* The weight or bias of a module itself. */
static hlc_key whole_weight(const name_parts *n) {
    bool embedding = is(n->marker, "base_layer") || is(n->marker, "embed_tokens") || is(n->marker, "lm_head");
    return of_part(embedding ? HLC_PART_SAVED_EMBEDDING : n->bias ? HLC_PART_BIAS : HLC_PART_SAVED_MODULE);
}

hlc_key hlc_peft_key(const char *name, size_t length) {
    static const char prefix[] = "base_model.model.";
    segment whole = {name, length};
    if (starts(whole, prefix))
        whole = (segment){name + sizeof prefix - 1, length - (sizeof prefix - 1)};
    name_parts n = take_apart(whole);
    const char *tuner = other_tuner(&n);
    if (is_lycoris(&n))
        return of_part(HLC_PART_LYCORIS);
    if (is(n.marker, "lora_A") || is(n.marker, "lora_B"))
        return lora_key(&n);
    if (is(n.marker, "lora_embedding_A") && !n.weight && !n.bias)
        return update_key(&n, HLC_PART_EMBEDDING_A);
    if (is(n.marker, "lora_embedding_B") && !n.weight && !n.bias)
        return update_key(&n, HLC_PART_EMBEDDING_B);
    if (is(n.marker, "lora_E") && !n.weight && !n.bias)
        return update_key(&n, HLC_PART_DIAGONAL);
    if (is(n.marker, "lora_magnitude_vector"))
        return of_part(HLC_PART_DORA);
    if (is(n.marker, "trainable_tokens_delta"))
        return of_part(HLC_PART_TOKENS);
    if (is(n.marker, "lora_a") || is(n.marker, "lora_b"))
        return of_part(HLC_PART_MLX);
    if (is(n.marker, "lora_down") || is(n.marker, "lora_up"))
        return of_part(starts(whole, "lora_") ? HLC_PART_KOHYA : HLC_PART_DIFFUSERS);
    if (is(n.marker, "alpha") && starts(whole, "lora_"))
        return of_part(HLC_PART_KOHYA);
    if (is_diffusers(&n))
        return of_part(HLC_PART_DIFFUSERS);
    if (tuner)
        return (hlc_key){.part = HLC_PART_OTHER_TUNER, .tuner = tuner};
    if (is(last_of(n.path), "lora_A") || is(last_of(n.path), "lora_B"))
        return of_part(HLC_PART_NAMED);
    return n.weight || n.bias ? whole_weight(&n) : of_part(HLC_PART_UNKNOWN);
}
