#include "compiler/rules/rule_table.h"

#include <string.h>

const hlc_rule hlc_rules[] = {
    {"HL0011", HLC_FAULT_UNUSED_EXCEPTION, HLC_NOTE, false, "an exception of the rules file matches no finding",
     "take the exception out of the rules file", {{0}}},
    {"HL0012", HLC_FAULT_EXPIRED_EXCEPTION, HLC_WARNING, false,
     "an exception of the rules file has expired and is not applied",
     "mend what it excused, or give it a new date", {{0}}},

    {"HL0101", HLC_FAULT_RESOURCE, HLC_ERROR, false,
     "a path is missing, cannot be read, or the system refused something",
     "name a path that exists and may be read", {{0}}},
    {"HL0102", HLC_FAULT_CHANGED, HLC_ERROR, false, "a file was changed or replaced during the run",
     "run again once the file is complete", {{0}}},
    {"HL0103", HLC_FAULT_NO_ADAPTER, HLC_ERROR, false, "there is neither a pool nor an adapter at the path",
     "name the .safetensors file, the folder of the adapter, or the pool", {{0}}},
    {"HL0104", HLC_FAULT_FOREIGN_FILE, HLC_ERROR, false,
     "a file of another kind (a pickle, a web page, a git-LFS pointer) stands where a safetensors file should",
     "fetch the file itself, or save its tensors as safetensors", {{0}}},
    {"HL0105", HLC_FAULT_HEADER, HLC_ERROR, false, "the header of a safetensors file is damaged or forged",
     "fetch or save the file again", {{0}}},
    {"HL0106", HLC_FAULT_LAYOUT, HLC_ERROR, false,
     "the tensors of a safetensors file overlap, leave holes, or do not fill it",
     "fetch or save the file again", {{0}}},
    {"HL0107", HLC_FAULT_AMBIGUOUS, HLC_ERROR, false, "two files could be meant", "name or keep one of them", {{0}}},
    {"HL0108", HLC_FAULT_SHARED_CONFIG, HLC_WARNING, false,
     "several adapters of a folder share one adapter_config.json",
     "give each its own as STEM.adapter_config.json", {{0}}},

    {"HL0201", HLC_FAULT_NO_CONFIG, HLC_ERROR, false, "there is no configuration, so the scale is not known",
     "put the adapter_config.json that PEFT saved beside the weights", {{0}}},
    {"HL0202", HLC_FAULT_CONFIG_JSON, HLC_ERROR, false,
     "the configuration is not readable JSON", "save the adapter again", {{0}}},
    {"HL0203", HLC_FAULT_CONFIG, HLC_ERROR, false, "the configuration holds a value that cannot be read",
     "correct the value that is named", {{0}}},
    {"HL0204", HLC_FAULT_METHOD, HLC_ERROR, false, "the configuration is that of another method or dialect",
     "convert the adapter to a plain LoRA of PEFT's form", {{0}}},
    {"HL0205", HLC_FAULT_FEATURE, HLC_ERROR, false,
     "the configuration asks for a variant of LoRA that a pool cannot hold",
     "train or save the adapter without it", {{0}}},
    {"HL0206", HLC_FAULT_DORA, HLC_ERROR, false,
     "the adapter is a DoRA, which is not low-rank without the base model's weights",
     "train it without use_dora", {{0}}},
    {"HL0207", HLC_FAULT_CONFIG_EXTRAS, HLC_ERROR, false,
     "the configuration names modules saved whole, biases or tokens, which are no low-rank update",
     "--drop-extras leaves them out", {{0}}},
    {"HL0208", HLC_FAULT_CHANGED_BASE, HLC_ERROR, false,
     "the initialisation changed the base model, so that A and B do not fit the original",
     "save it with PEFT's path_initial_model_for_weight_conversion", {{0}}},
    {"HL0209", HLC_FAULT_UNKNOWN_KEY, HLC_WARNING, false, "the configuration holds a key that is not known",
     "look whether it changes the update; if not, take it out", {{0}}},
    {"HL0210", HLC_FAULT_COVERAGE, HLC_WARNING, false,
     "the modules of the file are not those that the configuration names",
     "look whether weights and configuration belong together", {{0}}},
    {"HL0211", HLC_FAULT_RSLORA, HLC_NOTE, false,
     "rsLoRA's scale, which llama.cpp's converter reads as alpha / r and so applies too weakly",
     "serve it from a pool, or save it with use_rslora false and lora_alpha times the root of r", {{0}}},
    {"HL0212", HLC_FAULT_PATTERNS, HLC_NOTE, false,
     "rank_pattern or alpha_pattern give modules scales that vLLM, LoRAX or llama.cpp read differently",
     "serve it from a pool, or bake each module's scale into lora_B", {{0}}},
    {"HL0213", HLC_FAULT_ZERO_SCALE, HLC_WARNING, false,
     "lora_alpha is 0, so that the update is zero (llama.cpp takes it for a scale of 1)",
     "set the alpha that it was trained with",
     {{0}}},

    {"HL0301", HLC_FAULT_NO_LORA, HLC_ERROR, false, "the file holds no LoRA weight: a whole model, or nothing",
     "give the adapter, not the model", {{0}}},
    {"HL0302", HLC_FAULT_HALF, HLC_ERROR, false, "a module has lora_A without lora_B, or the reverse",
     "save the adapter again: it is not complete", {{0}}},
    {"HL0303", HLC_FAULT_RANKS_DIFFER, HLC_ERROR, false, "the rows of lora_A are not as many as the columns of lora_B",
     "save the adapter again: the two are of different adapters", {{0}}},
    {"HL0304", HLC_FAULT_RANK_CONFIG, HLC_ERROR, false, "the rank of the tensors is not that of the configuration",
     "put the configuration beside the weights that it was saved with", {{0}}},
    {"HL0305", HLC_FAULT_TENSOR, HLC_ERROR, false, "a tensor has a shape, type or name that no LoRA weight has",
     "save the adapter again with PEFT's save_pretrained, in a floating-point type", {{0}}},
    {"HL0306", HLC_FAULT_TWICE, HLC_ERROR, false, "a module stands in the file twice", "save the adapter again", {{0}}},
    {"HL0307", HLC_FAULT_EXTRAS, HLC_ERROR, false, "the file holds tensors that are no low-rank update",
     "--drop-extras leaves them out", {{0}}},
    {"HL0308", HLC_FAULT_OTHER_METHOD, HLC_ERROR, false, "the tensors are those of another method or dialect",
     "convert the adapter to a plain LoRA of PEFT's form", {{0}}},
    {"HL0309", HLC_FAULT_VOCABULARY, HLC_ERROR, false,
     "an embedding is saved whole, as PEFT does when the vocabulary was resized",
     "train on the base model's own vocabulary, or --drop-extras", {{0}}},
    {"HL0310", HLC_FAULT_MIXED_TYPES, HLC_NOTE, false, "the weights are of more than one element type",
     "save the adapter in one type, or leave it: a pool keeps each as it is", {{0}}},
    {"HL0311", HLC_FAULT_UNSUPPORTED, HLC_ERROR, false,
     "the adapter holds parts of an update that cannot be read, or in two ways between which an option must decide",
     "name the way that the reason says (--expert-layout), or train the adapter without them", {{0}}},
    {"HL0312", HLC_FAULT_NOT_IN_BASE, HLC_ERROR, false,
     "no module of the adapter is in the base model of --base-model: it would load, and change nothing",
     "give the base model that the adapter was trained on", {{0}}},
    {"HL0313", HLC_FAULT_PARTLY_IN_BASE, HLC_ERROR, false,
     "a module of the adapter is not in the base model of --base-model",
     "give the base model that the adapter was trained on", {{0}}},
    {"HL0314", HLC_FAULT_BASE_SHAPE, HLC_ERROR, false,
     "a module has another shape in the base model of --base-model: another model, or a resized vocabulary",
     "give the base model that the adapter was trained on", {{0}}},
    {"HL0315", HLC_FAULT_BASE_MODEL, HLC_ERROR, false,
     "what --base-model names cannot be read as a base model, or not whole",
     "name the folder with the base model's safetensors files and config.json", {{0}}},

    {"HL0401", HLC_FAULT_NOT_FINITE, HLC_ERROR, true,
     "a weight is NaN or infinite", "train again: the run has diverged", {{0}}},
    {"HL0402", HLC_FAULT_F16_OVERFLOW, HLC_WARNING, true, "a weight overflows when an engine casts it to float16",
     "serve it in bfloat16 or float32, or scale A down and B up", {{0}}},
    {"HL0403", HLC_FAULT_ZERO_UPDATE, HLC_WARNING, true,
     "the update of a module is zero: the adapter does nothing there",
     "look whether the adapter was trained and saved after training", {{0}}},
    {"HL0404", HLC_FAULT_DEAD_COMPONENTS, HLC_WARNING, true, "rank-one components of a module are zero",
     "squeeze the adapter, or leave it: the zeros cost space only", {{0}}},

    {"HL0501", HLC_FAULT_SAME_NAME, HLC_ERROR, false, "two adapters have one name", "rename one of them", {{0}}},
    {"HL0502", HLC_FAULT_SAME_BYTES, HLC_WARNING, false, "two adapters of different names have the same weights",
     "keep one of them", {{0}}},
    {"HL0503", HLC_FAULT_NEAR_DUPLICATE, HLC_WARNING, true, "the updates of two adapters are nearly the same",
     "keep the better of the two: the router cannot gain from both",
     {{"cosine", 0.999, 0.5, 1, "least cosine of the two updates"}}},
    {"HL0504", HLC_FAULT_HIGH_RANK, HLC_WARNING, false,
     "the rank is far above that of the other adapters, and engines size every slot by the largest",
     "squeeze it (hilora-compile --max-rank), or keep it out of the pool",
     {{"factor", 4, 1, 65535, "times the median rank"}, {"adapters", 4, 2, 1e6, "least number of adapters"}}},
    {"HL0505", HLC_FAULT_OTHER_SHAPE, HLC_ERROR, false,
     "a module has another shape than in the other adapters: another base model",
     "keep adapters of one base model together", {{0}}},
    {"HL0506", HLC_FAULT_OTHER_BASE, HLC_WARNING, false, "the adapter names another base model than the others",
     "look whether it is the same model by another name", {{0}}},
    {"HL0507", HLC_FAULT_NOTHING_SHARED, HLC_NOTE, false, "the adapter has no module in common with most of the others",
     "look whether it is for the same base model", {{0}}},

    {"HL0601", HLC_FAULT_NO_SAMPLES, HLC_WARNING, false,
     "there are no sample embeddings: the router cannot find the adapter",
     "hilora-embed, or hilora-compile --no-stats=allow", {{0}}},
    {"HL0602", HLC_FAULT_EMBEDDINGS, HLC_ERROR, false,
     "the file of sample embeddings cannot be read", "make the embeddings again", {{0}}},
    {"HL0603", HLC_FAULT_SAMPLE_NOT_FINITE, HLC_ERROR, false, "a sample embedding is NaN, infinite, or beyond float32",
     "make the embeddings again", {{0}}},
    {"HL0604", HLC_FAULT_TOO_FEW_SAMPLES, HLC_ERROR, false, "there is one sample: no Gaussian can be fitted to it",
     "embed about 20 prompts of the adapter's task", {{0}}},
    {"HL0605", HLC_FAULT_FEW_SAMPLES, HLC_WARNING, false,
     "there are few samples: the router will often miss the adapter",
     "embed about 20 prompts of the adapter's task", {{"samples", 5, 2, 1e6, "least number of samples"}}},
    {"HL0606", HLC_FAULT_SAME_SAMPLES, HLC_WARNING, false,
     "samples are repeated, so that the fit is surer than it should be",
     "embed different prompts", {{"share", 0.1, 0, 1, "greatest share of repeated samples"}}},
    {"HL0607", HLC_FAULT_DIMENSION, HLC_ERROR, false,
     "the embeddings have another dimension than those of the other adapters",
     "make all embeddings with one encoder", {{0}}},
    {"HL0608", HLC_FAULT_ENCODER, HLC_ERROR, false,
     "the embeddings are of another encoder, revision or prefix than the others",
     "make all embeddings with one encoder and one prefix", {{0}}},
    {"HL0609", HLC_FAULT_NORMALIZATION, HLC_ERROR, false,
     "embeddings that are called L2-normalised are not, or others are mixed in",
     "make all embeddings alike", {{0}}},

    {"HL0701", HLC_FAULT_RIVALS, HLC_WARNING, false, "the router cannot tell two adapters apart",
     "merge the two, or embed prompts that set them apart",
     {{"distance", 0.5, 0, 1e6, "least Bhattacharyya distance, nats"}}},
    {"HL0702", HLC_FAULT_CERTIFICATE, HLC_NOTE, false, "the certificate allows the router to miss the adapter often",
     "embed more prompts, or look at its nearest rivals (hilora-inspect --rivals)",
     {{"miss", 0.5, 0, 1, "greatest bound on the chance that it is not among the best three"}}},
    {"HL0703", HLC_FAULT_UNCALIBRATED, HLC_WARNING, false,
     "the samples are two, or all equal: nothing says when a prompt is foreign",
     "embed about 20 different prompts of the adapter's task", {{0}}},

    {"HL0801", HLC_FAULT_SPECTRUM, HLC_WARNING, true,
     "the spectrum of the update stands out from the other adapters, as that of a backdoored one may",
     "look where the adapter comes from, and test it before it is served",
     {{"score", 6, 1, 1e6, "greatest robust z-score"}, {"adapters", 20, 5, 1e6, "least number of adapters to compare with"}}},

    {"HL0901", HLC_FAULT_POOL_STRUCTURE, HLC_ERROR, false, "the header or a table of the pool is damaged or forged",
     "fetch or compile the pool again", {{0}}},
    {"HL0902", HLC_FAULT_POOL_CONTENT, HLC_ERROR, false, "a checksum, statistic or total of the pool does not hold",
     "fetch or compile the pool again", {{0}}},
    {"HL0903", HLC_FAULT_CHUNK, HLC_ERROR, true,
     "weights of the pool do not decode", "fetch or compile the pool again", {{0}}},
    {"HL0904", HLC_FAULT_CONTENT_HASH, HLC_ERROR, true, "weights of the pool are not those that its content hash names",
     "fetch or compile the pool again", {{0}}},
    {"HL0905", HLC_FAULT_SOURCE_DIFFERS, HLC_ERROR, false,
     "the source of an adapter is not the file that the pool was made of",
     "compile the pool again, or give the sources that it was made of", {{0}}},
    {"HL0906", HLC_FAULT_NO_SOURCE, HLC_NOTE, false, "the source of an adapter of the pool is not among those given",
     "name it with --sources", {{0}}},
};

size_t hlc_rule_count(void) {
    return sizeof hlc_rules / sizeof hlc_rules[0];
}

const char *hlc_rule_group(const hlc_rule *rule) {
    static const char *const groups[] = {
        "00xx: the rules file",    "01xx: files",           "02xx: configuration",
        "03xx: tensors",           "04xx: numbers",         "05xx: adapters of one pool",
        "06xx: sample embeddings", "07xx: routing",         "08xx: spectral screen",
        "09xx: pools"};
    return groups[(rule->id[3] - '0') % 10];
}

size_t hlc_rule_of_kind(hlc_fault_kind kind) {
    size_t fallback = 0;
    for (size_t i = 0; i < hlc_rule_count(); i++) {
        if (hlc_rules[i].kind == kind) {
            return i;
        }
        fallback = hlc_rules[i].kind == HLC_FAULT_NO_ADAPTER ? i : fallback;
    }
    return fallback;
}

size_t hlc_rule_find(const char *id) {
    size_t i = 0;
    while (i < hlc_rule_count() && strcmp(hlc_rules[i].id, id) != 0) {
        i++;
    }
    return i;
}
