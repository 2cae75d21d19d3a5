#include "compiler/export/export_gguf.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/base/output_file.h"
#include "compiler/base/text.h"
#include "format/bytes.h"
#include "format/dtype.h"

/* The GGUF layout, version 3: ggml's docs/gguf.md. All integers are little-endian. */
enum { GGUF_VERSION = 3, GGUF_ALIGNMENT = 32, GGUF_FLOAT32 = 6, GGUF_STRING = 8, GGUF_DIMS = 2 };
enum { GGML_F32 = 0, GGML_F16 = 1, GGML_BF16 = 30 };

typedef struct gguf_job {
    const hlc_lora *lora;
    hlc_gguf_target *targets; /* of each module */
    double alpha;
    bool folded; /* B takes what alpha cannot say */
    hlc_output output;
    uint64_t end; /* of what is written */
    hlc_lora_report *report;
    hlc_faults *faults;
} gguf_job;

/* ---- The base model ---- */

static bool config_count(json_t *config, const char *key, uint32_t missing, uint32_t *out) {
    const json_t *value = json_object_get(config, key);
    if (!value || json_is_null(value)) {
        *out = missing;
        return missing != 0;
    }
    *out = json_is_integer(value) && json_integer_value(value) > 0 && json_integer_value(value) <= 65536
               ? (uint32_t)json_integer_value(value)
               : 0;
    return *out != 0;
}

static bool read_config(json_t *config, const char *file, hlc_gguf_base *out, hlc_faults *faults) {
    char place[HLC_PLACE_SIZE];
    const char *type = json_string_value(json_object_get(config, "model_type"));
    json_t *text = json_object_get(config, "text_config"); /* of models that see as well as read */
    json_t *counts = json_is_object(text) ? text : config;
    out->architecture = type ? hlc_gguf_architecture_of_model_type(type) : NULL;
    if (!out->architecture) {
        hlc_bad_input(faults, file, hlc_place(place, "model_type", type ? type : "", type ? strlen(type) : 0),
                      "no model type whose names in llama.cpp are known");
        return false;
    }
    if (!hlc_gguf_regroups(out->architecture)) {
        return true;
    }
    if (!config_count(counts, "num_attention_heads", 0, &out->heads) ||
        !config_count(counts, "num_key_value_heads", out->heads, &out->kv_heads)) {
        hlc_bad_input(faults, file, "num_attention_heads, num_key_value_heads", "no such numbers of heads");
        return false;
    }
    return true;
}

bool hlc_gguf_base_read(const char *path, hlc_gguf_base *out, hlc_faults *faults) {
    struct stat status;
    json_error_t error;
    hlc_text file = {0};
    *out = (hlc_gguf_base){.architecture = NULL};
    const bool folder = stat(path, &status) == 0 && S_ISDIR(status.st_mode);
    if (!hlc_text_printf(&file, folder ? "%s/config.json" : "%s", path)) {
        hlc_out_of_memory(faults, path, strlen(path));
        return false;
    }
    json_t *config = NULL;
    bool good = false;
    if (stat(file.bytes, &status) != 0) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, file.bytes, NULL, NULL, "cannot read the base model's configuration");
    } else if (status.st_size > 1 << 24 || !(config = json_load_file(file.bytes, 0, &error))) {
        hlc_bad_input(faults, file.bytes, NULL, "not the configuration of a model, in JSON");
    } else {
        good = read_config(config, file.bytes, out, faults);
    }
    json_decref(config);
    hlc_text_free(&file);
    return good;
}

/* ---- What goes where ---- */

static bool refuse_module(const gguf_job *job, const hlc_lora_module *module, const char *reason) {
    char place[HLC_PLACE_SIZE];
    hlc_bad_input(job->faults, job->lora->file, hlc_place(place, "module", module->name.data, module->name.size), "%s", reason);
    return false;
}

static bool find_target(gguf_job *job, size_t i, const hlc_gguf_base *base) {
    const hlc_lora_module *module = &job->lora->modules[i];
    if (module->kind != HL_MODULE_LINEAR) {
        return refuse_module(job, module, "llama.cpp applies LoRAs to linear modules; this one is of another kind");
    }
    if (!hlc_gguf_find_target(base, module->name.data, module->name.size, &job->targets[i])) {
        return refuse_module(job, module, "its name in llama.cpp is not known for this architecture");
    }
    const uint32_t heads = job->targets[i].heads;
    if (heads && module->d_out % (2 * (uint64_t)heads)) {
        return refuse_module(job, module, "its rows cannot be divided among the base model's heads");
    }
    return true;
}

static bool find_targets(gguf_job *job, const hlc_gguf_base *base) {
    bool good = true;
    job->targets = calloc(job->lora->count ? job->lora->count : 1, sizeof *job->targets);
    if (!job->targets) {
        hlc_out_of_memory(job->faults, job->lora->file, job->lora->count * sizeof *job->targets);
        return false;
    }
    for (size_t i = 0; i < job->lora->count; i++) {
        good = find_target(job, i, base) && good;
    }
    return good;
}

static void choose_alpha(gguf_job *job) {
    const hlc_lora *lora = job->lora;
    double common = lora->count ? lora->modules[0].scale * lora->modules[0].rank : 1;
    for (size_t i = 0; i < lora->count; i++) {
        const hlc_lora_module *module = &lora->modules[i];
        job->report->rank = module->rank > job->report->rank ? module->rank : job->report->rank;
        if (fabs(module->scale * module->rank - common) > 1e-15 * fabs(common)) { /* a rounding of alpha / r * r */
            common = 0;
        }
    }
    const double nearest = nearbyint(common);
    common = fabs(common - nearest) <= 1e-15 * fabs(nearest) ? nearest : common;
    job->folded = common == 0 || (double)(float)common != common;
    job->alpha = job->folded ? job->report->rank : common;
    job->report->alpha = job->alpha;
}

/* What B is multiplied by, as alpha / rank is left to llama.cpp. */
static double factor_of(const gguf_job *job, const hlc_lora_module *module) {
    return job->folded ? module->scale * module->rank / job->alpha : 1;
}

static hl_dtype dtype_of(const gguf_job *job, size_t i, hl_side side) {
    const hlc_lora_module *module = &job->lora->modules[i];
    const bool keep = module->dtype[side] != HL_DTYPE_F64 && (side == HL_SIDE_A || factor_of(job, module) == 1);
    return keep ? module->dtype[side] : HL_DTYPE_F32;
}

/* ---- The head of the file ---- */

static void append_u32(hlc_text *text, uint32_t value) {
    uint8_t bytes[4];
    hlf_store_u32(bytes, value);
    hlc_text_append(text, (const char *)bytes, sizeof bytes);
}

static void append_u64(hlc_text *text, uint64_t value) {
    uint8_t bytes[8];
    hlf_store_u64(bytes, value);
    hlc_text_append(text, (const char *)bytes, sizeof bytes);
}

static void append_string(hlc_text *text, const char *bytes, size_t length) {
    append_u64(text, length);
    hlc_text_append(text, bytes, length);
}

static void append_pair(hlc_text *text, const char *key, const char *value, size_t length) {
    append_string(text, key, strlen(key));
    append_u32(text, GGUF_STRING);
    append_string(text, value, length);
}

static void append_float(hlc_text *text, const char *key, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    append_string(text, key, strlen(key));
    append_u32(text, GGUF_FLOAT32);
    append_u32(text, bits);
}

static void append_keys(hlc_text *text, const gguf_job *job, const hlc_gguf_base *base) {
    const hlc_lora *lora = job->lora;
    append_u64(text, 5U + (lora->base_model.size > 0) + (lora->digest != NULL)); /* pairs to come */
    append_pair(text, "general.architecture", base->architecture, strlen(base->architecture));
    append_pair(text, "general.type", "adapter", 7);
    append_pair(text, "general.name", lora->name.data, hlc_utf8_prefix(lora->name.data, lora->name.size));
    if (lora->base_model.size) {
        append_pair(text, "general.base_model.0.name", lora->base_model.data,
                    hlc_utf8_prefix(lora->base_model.data, lora->base_model.size));
    }
    append_pair(text, "adapter.type", "lora", 4);
    append_float(text, "adapter.lora.alpha", (float)job->alpha);
    if (lora->digest) {
        append_pair(text, "hilora.route_digest", lora->digest, strlen(lora->digest));
    }
}

static uint64_t aligned(uint64_t size) {
    return (size + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
}

static uint64_t width_of(const hlc_lora_module *module, hl_side side) {
    return side == HL_SIDE_A ? module->d_in : module->d_out;
}

static uint64_t tensor_bytes(const gguf_job *job, size_t i, hl_side side) {
    const hlc_lora_module *module = &job->lora->modules[i];
    return module->rank * width_of(module, side) * hlf_dtype_size((hlf_dtype)dtype_of(job, i, side));
}

static uint32_t ggml_type(hl_dtype dtype) {
    return dtype == HL_DTYPE_F32 ? GGML_F32 : dtype == HL_DTYPE_F16 ? GGML_F16 : GGML_BF16;
}

/* Dimensions go from the fastest: A is rank rows of d_in, B is d_out rows of rank. */
static void append_tensor(hlc_text *text, const gguf_job *job, size_t i, hl_side side, uint64_t offset) {
    const hlc_lora_module *module = &job->lora->modules[i];
    char name[HLC_GGUF_NAME_SIZE + 8];
    snprintf(name, sizeof name, "%s.lora_%c", job->targets[i].tensor, side == HL_SIDE_A ? 'a' : 'b');
    append_string(text, name, strlen(name));
    append_u32(text, GGUF_DIMS);
    append_u64(text, side == HL_SIDE_A ? module->d_in : module->rank);
    append_u64(text, side == HL_SIDE_A ? module->rank : module->d_out);
    append_u32(text, ggml_type(dtype_of(job, i, side)));
    append_u64(text, offset);
}

static bool append_bytes(gguf_job *job, const void *bytes, size_t size) {
    static const char zeros[GGUF_ALIGNMENT];
    const uint64_t end = job->end + size;
    bool good = hlc_output_write(&job->output, bytes, size, job->end, job->faults) &&
                hlc_output_write(&job->output, zeros, aligned(end) - end, end, job->faults);
    job->end = aligned(end);
    return good;
}

static bool write_head(gguf_job *job, const hlc_gguf_base *base) {
    hlc_text text = {0};
    uint64_t offset = 0;
    hlc_text_append(&text, "GGUF", 4);
    append_u32(&text, GGUF_VERSION);
    append_u64(&text, 2 * job->lora->count);
    append_keys(&text, job, base);
    for (size_t i = 0; i < job->lora->count; i++) {
        for (hl_side side = HL_SIDE_A; side <= HL_SIDE_B; side++) {
            append_tensor(&text, job, i, side, offset);
            offset += aligned(tensor_bytes(job, i, side));
        }
    }
    if (text.failed) {
        hlc_out_of_memory(job->faults, job->lora->file, text.length);
    }
    bool good = !text.failed && append_bytes(job, text.bytes, text.length);
    hlc_text_free(&text);
    return good;
}

/* ---- The tensors ---- */

/* B transposed (rank rows) to B (d_out rows of rank), at llama.cpp's places. */
static void turn_rows(const gguf_job *job, size_t i, const uint8_t *rows, size_t element, uint8_t *out) {
    const hlc_lora_module *module = &job->lora->modules[i];
    for (uint64_t o = 0; o < module->d_out; o++) {
        uint8_t *row = out + hlc_gguf_row(job->targets[i].heads, module->d_out, o) * module->rank * element;
        for (uint32_t j = 0; j < module->rank; j++) {
            memcpy(row + j * element, rows + (j * module->d_out + o) * element, element);
        }
    }
}

static void multiply(float *values, uint64_t count, double factor) {
    for (uint64_t i = 0; i < count; i++) {
        values[i] = (float)(values[i] * factor);
    }
}

static bool write_tensor(gguf_job *job, size_t i, hl_side side) {
    const hlc_lora_module *module = &job->lora->modules[i];
    const hl_dtype dtype = dtype_of(job, i, side);
    const size_t size = tensor_bytes(job, i, side);
    const double factor = side == HL_SIDE_B ? factor_of(job, module) : 1;
    void *rows = malloc(size);
    uint8_t *turned = side == HL_SIDE_B ? malloc(size) : NULL;
    bool good = rows && (side == HL_SIDE_A || turned);
    if (!good) {
        hlc_out_of_memory(job->faults, job->lora->file, size);
    } else if ((good = job->lora->read(job->lora->user, i, side, dtype, rows, size, job->faults)) && turned) {
        if (factor != 1) {
            multiply(rows, size / sizeof(float), factor);
        }
        turn_rows(job, i, rows, hlf_dtype_size((hlf_dtype)dtype), turned);
    }
    good = good && append_bytes(job, turned ? turned : rows, size);
    job->report->tensors++;
    free(turned);
    free(rows);
    return good;
}

static bool write_file(gguf_job *job, const hlc_gguf_base *base) {
    bool good = write_head(job, base);
    for (size_t i = 0; good && i < job->lora->count; i++) {
        good = write_tensor(job, i, HL_SIDE_A) && write_tensor(job, i, HL_SIDE_B);
    }
    job->report->bytes = job->end;
    return good;
}

bool hlc_export_gguf(const hlc_lora *lora, const hlc_gguf_base *base, const char *target, hlc_lora_report *report,
                     hlc_faults *faults) {
    *report = (hlc_lora_report){.bytes = 0};
    gguf_job job = {.lora = lora, .report = report, .faults = faults};
    bool good = find_targets(&job, base);
    if (good) {
        choose_alpha(&job);
        good = hlc_output_begin(&job.output, target, faults) && write_file(&job, base) &&
               hlc_output_commit(&job.output, faults);
        hlc_output_abandon(&job.output);
    }
    free(job.targets);
    return good;
}
