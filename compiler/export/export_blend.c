#include "compiler/export/export_blend.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"
#include "compiler/export/output_folder.h"
#include "format/bytes.h"

typedef struct blend_job {
    const hlc_lora *lora;
    uint32_t rank; /* of every module */
    hlc_output_folder folder;
    size_t weights, config; /* files */
    hlc_lora_report *report;
    hlc_faults *faults;
} blend_job;

uint32_t hlc_blend_rank(uint32_t rank) {
    static const uint32_t allowed[] = {1, 8, 16, 32, 64, 128, 256, 320, 512};
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
        if (rank <= allowed[i]) {
            return allowed[i];
        }
    }
    return rank;
}

static bool out_of_memory(const blend_job *job, uint64_t bytes) {
    hlc_out_of_memory(job->faults, job->lora->file, bytes);
    return false;
}

static bool check_modules(blend_job *job) {
    bool good = true;
    uint32_t rank = 0;
    for (size_t i = 0; i < job->lora->count; i++) {
        const hlc_lora_module *module = &job->lora->modules[i];
        char place[HLC_PLACE_SIZE];
        rank = module->rank > rank ? module->rank : rank;
        if (module->kind != HL_MODULE_LINEAR && module->kind != HL_MODULE_EMBEDDING) {
            hlc_bad_input(job->faults, job->lora->file, hlc_place(place, "module", module->name.data, module->name.size),
                          "a blend of linear modules and embeddings can be exported; this one is of another kind");
            good = false;
        }
    }
    job->rank = hlc_blend_rank(rank);
    if (job->rank > 512) {
        hlc_fault(job->faults, HLC_WARNING, HLC_FAULT_INPUT, job->lora->file, NULL, "lower --gamma or --max-adapters",
                  "the blend has rank %u; vLLM takes at most 512", job->rank);
    }
    return good;
}

/* ---- The header of the weights ---- */

static hlc_text key_of(const hlc_lora_module *module, hl_side side) {
    const bool embedding = module->kind == HL_MODULE_EMBEDDING;
    hlc_text key = {0};
    hlc_text_printf(&key, "base_model.model.");
    hlc_text_append(&key, module->name.data, module->name.size);
    hlc_text_printf(&key, embedding ? ".lora_embedding_%c" : ".lora_%c.weight", side == HL_SIDE_A ? 'A' : 'B');
    return key;
}

static uint64_t padded_bytes(const blend_job *job, const hlc_lora_module *module, hl_side side) {
    return sizeof(float) * job->rank * (side == HL_SIDE_A ? module->d_in : module->d_out);
}

static bool add_tensor(const blend_job *job, json_t *header, const hlc_lora_module *module, hl_side side, uint64_t *end) {
    const uint64_t begin = *end;
    const json_int_t rank = job->rank, width = (json_int_t)(side == HL_SIDE_A ? module->d_in : module->d_out);
    *end = begin + padded_bytes(job, module, side);
    json_t *tensor = json_pack("{s:s, s:[I, I], s:[I, I]}", "dtype", "F32", "shape", side == HL_SIDE_A ? rank : width,
                               side == HL_SIDE_A ? width : rank, "data_offsets", (json_int_t)begin, (json_int_t)*end);
    hlc_text key = key_of(module, side);
    bool good = !key.failed && json_object_setn_new(header, key.bytes, key.length, tensor) == 0;
    hlc_text_free(&key);
    return good;
}

static json_t *header_json(const blend_job *job) {
    uint64_t end = 0;
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    bool good = header && (!job->lora->digest ||
                           json_object_set_new(json_object_get(header, "__metadata__"), "hilora_route_digest",
                                               json_string(job->lora->digest)) == 0);
    for (size_t i = 0; good && i < job->lora->count; i++) {
        good = add_tensor(job, header, &job->lora->modules[i], HL_SIDE_A, &end) &&
               add_tensor(job, header, &job->lora->modules[i], HL_SIDE_B, &end);
    }
    if (!good) {
        json_decref(header);
    }
    return good ? header : NULL;
}

static bool write_weights(blend_job *job, const void *bytes, size_t size) {
    job->report->bytes += size;
    return hlc_folder_write(&job->folder, job->weights, bytes, size, job->faults);
}

static bool write_header(blend_job *job) {
    static const char spaces[8] = "        ";
    json_t *header = header_json(job);
    char *text = header ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (!text) {
        return out_of_memory(job, job->lora->count * 200);
    }
    const size_t length = strlen(text), padding = (8 - length % 8) % 8;
    uint8_t size[8];
    hlf_store_u64(size, length + padding);
    bool good = write_weights(job, size, sizeof size) && write_weights(job, text, length) &&
                write_weights(job, spaces, padding);
    free(text);
    return good;
}

/* ---- The tensors ---- */

/* B transposed (rank rows) to B (d_out rows of the padded rank). */
static void turn_rows(const blend_job *job, const hlc_lora_module *module, const float *rows, float *out) {
    for (uint64_t o = 0; o < module->d_out; o++) {
        for (uint32_t j = 0; j < job->rank; j++) {
            out[o * job->rank + j] = j < module->rank ? (float)(module->scale * rows[j * module->d_out + o]) : 0;
        }
    }
}

static bool write_tensor(blend_job *job, size_t i, hl_side side) {
    const hlc_lora_module *module = &job->lora->modules[i];
    const uint64_t width = side == HL_SIDE_A ? module->d_in : module->d_out;
    const size_t size = padded_bytes(job, module, side);
    float *rows = calloc(1, size), *turned = side == HL_SIDE_B ? malloc(size) : NULL;
    bool good = rows && (side == HL_SIDE_A || turned);
    if (!good) {
        out_of_memory(job, size);
    } else {
        good = job->lora->read(job->lora->user, i, side, HL_DTYPE_F32, rows, sizeof(float) * module->rank * width, job->faults);
    }
    if (good && turned) {
        turn_rows(job, module, rows, turned);
    }
    good = good && write_weights(job, turned ? turned : rows, size);
    job->report->tensors++;
    free(turned);
    free(rows);
    return good;
}

/* ---- The configuration ---- */

/* Whole paths: PEFT then adapts these modules and no others. */
static json_t *targets_json(const blend_job *job) {
    json_t *targets = json_array();
    for (size_t i = 0; targets && i < job->lora->count; i++) {
        const hl_string name = job->lora->modules[i].name;
        if (json_array_append_new(targets, json_stringn(name.data, name.size)) != 0) {
            json_decref(targets);
            return NULL;
        }
    }
    return targets;
}

static bool write_config(blend_job *job) {
    const hl_string base = job->lora->base_model;
    json_t *name = base.size ? json_stringn(base.data, base.size) : json_null();
    json_t *config = json_pack("{s:o, s:s, s:b, s:s, s:i, s:i, s:f, s:b, s:b, s:o}", "base_model_name_or_path",
                               name ? name : json_null(), "bias", "none", "inference_mode", 1, "peft_type", "LORA", "r",
                               (int)job->rank, "lora_alpha", (int)job->rank, "lora_dropout", 0.0, "use_dora", 0,
                               "use_rslora", 0, "target_modules", targets_json(job));
    char *text = config ? json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(config);
    if (!text) {
        return out_of_memory(job, job->lora->count * 100);
    }
    bool good = hlc_folder_write(&job->folder, job->config, text, strlen(text), job->faults) &&
                hlc_folder_write(&job->folder, job->config, "\n", 1, job->faults);
    free(text);
    return good;
}

bool hlc_export_blend(const hlc_lora *lora, const char *target, hlc_lora_report *report, hlc_faults *faults) {
    *report = (hlc_lora_report){.bytes = 0};
    blend_job job = {.lora = lora, .report = report, .faults = faults};
    if (!check_modules(&job)) {
        return false;
    }
    report->rank = job.rank;
    report->alpha = job.rank;
    bool good = hlc_folder_begin(&job.folder, target, faults) &&
                hlc_folder_add(&job.folder, "adapter_model.safetensors", &job.weights, faults) &&
                hlc_folder_add(&job.folder, "adapter_config.json", &job.config, faults) && write_header(&job);
    for (size_t i = 0; good && i < lora->count; i++) {
        good = write_tensor(&job, i, HL_SIDE_A) && write_tensor(&job, i, HL_SIDE_B);
    }
    good = good && write_config(&job) && hlc_folder_commit(&job.folder, faults);
    hlc_folder_abandon(&job.folder);
    return good;
}
