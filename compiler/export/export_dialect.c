#include "compiler/export/export_dialect.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/emit/transpose.h"
#include "compiler/export/dialect_config.h"
#include "compiler/export/output_folder.h"
#include "format/bytes.h"
#include "format/sha256.h"

typedef struct dialect_export {
    const hlc_pool_file *pool;
    hlf_adapter_record adapter;
    hlc_encoder *coder;
    hlc_output_folder folder;
    size_t weights_file;
    hlf_sha256 hash;
    hlc_progress progress;
    hlc_export_report *report;
    hlc_faults *faults;
} dialect_export;

/* A module of the adapter with its entry. */
typedef struct part {
    hlf_entry_record entry;
    hlf_module_record module;
} part;

static part part_at(const dialect_export *job, uint32_t i) {
    part p;
    hlf_index_entry(&job->pool->index, (uint32_t)job->adapter.first_entry + i, &p.entry);
    hlf_index_module(&job->pool->index, p.entry.module, &p.module);
    return p;
}

static uint32_t kernel_dims(const part *p) {
    return p->module.kind >= HLF_MODULE_CONV1D && p->module.kind <= HLF_MODULE_CONV3D
               ? p->module.kind - HLF_MODULE_CONV1D + 1
               : 0;
}

static bool squeezed(const part *p) {
    return p->entry.flags & HLF_ENTRY_SQUEEZED;
}

/* The source's, or that of the components which took the place of its weights. */
static hlf_dtype dtype_of(const part *p, hlf_side side) {
    if (squeezed(p)) {
        return (hlf_dtype)(side == HLF_SIDE_A ? p->entry.stored_dtype_a : p->entry.stored_dtype_b);
    }
    return (hlf_dtype)(side == HLF_SIDE_A ? p->entry.source_dtype_a : p->entry.source_dtype_b);
}

static size_t tensor_bytes(const part *p, hlf_side side) {
    const uint64_t width = side == HLF_SIDE_A ? p->module.d_in : p->module.d_out;
    return (size_t)(width * p->entry.rank) * hlf_dtype_size(dtype_of(p, side));
}

/* PEFT's tensors of these kinds hold several modules, or a part of B, and cannot say what components of each module
 * say. */
static bool check_kinds(const dialect_export *job) {
    bool good = true;
    for (uint32_t i = 0; i < job->adapter.entries; i++) {
        const part p = part_at(job, i);
        const bool grouped = kernel_dims(&p) && p.module.geometry[4] > 1;
        if (squeezed(&p) &&
            (grouped || p.module.kind == HLF_MODULE_ATTENTION_QKV || p.module.kind == HLF_MODULE_EXPERTS)) {
            char place[HLC_PLACE_SIZE];
            hlc_bad_input(
                job->faults, job->pool->path,
                hlc_place(place, "module", hlf_index_string(&job->pool->index, p.module.name), p.module.name.length),
                "squeezed components of %s cannot be said in PEFT's form",
                grouped                               ? "a convolution in groups"
                : p.module.kind == HLF_MODULE_EXPERTS ? "fused experts"
                                                      : "a packed attention projection");
            good = false;
        }
    }
    return good;
}

/* ---- The header ---- */

static const char *dtype_name(hlf_dtype dtype) {
    static const char *const names[] = {[HLF_DTYPE_F16] = "F16", [HLF_DTYPE_BF16] = "BF16", [HLF_DTYPE_F32] = "F32", [HLF_DTYPE_F64] = "F64"};
    return names[dtype];
}

/* [rank, d_in] or [rank, channels, kernel...]; [d_out, rank] or [d_out, rank, 1...]. */
static void append_shape(hlc_text *text, const part *p, hlf_side side) {
    const uint32_t dims = kernel_dims(p);
    if (side == HLF_SIDE_B) {
        hlc_text_printf(text, "%llu,%u", (unsigned long long)p->module.d_out, p->entry.rank);
    } else {
        hlc_text_printf(text, "%u,%llu", p->entry.rank,
                        dims ? (unsigned long long)p->module.geometry[0] : (unsigned long long)p->module.d_in);
    }
    for (uint32_t i = 0; i < dims; i++) {
        hlc_text_printf(text, ",%u", side == HLF_SIDE_A ? p->module.geometry[1 + i] : 1u);
    }
}

static void append_name(hlc_text *text, const char *name, size_t length) {
    for (size_t i = 0; i < length; i++) {
        const unsigned char byte = (unsigned char)name[i];
        if (byte < 0x20 || byte == '"' || byte == '\\') {
            hlc_text_printf(text, "\\u%04x", byte);
        } else {
            hlc_text_append(text, name + i, 1);
        }
    }
}

static void append_tensor(const dialect_export *job, hlc_text *text, const part *p, hlf_side side, uint64_t *end) {
    const bool embedding = p->module.kind == HLF_MODULE_EMBEDDING;
    const uint64_t begin = *end;
    *end += tensor_bytes(p, side);
    hlc_text_printf(text, ",\"base_model.model.");
    append_name(text, hlf_index_string(&job->pool->index, p->module.name), p->module.name.length);
    hlc_text_printf(text, ".lora_%s%s%s\":{\"dtype\":\"%s\",\"shape\":[", embedding ? "embedding_" : "",
                    side == HLF_SIDE_A ? "A" : "B", embedding ? "" : ".weight", dtype_name(dtype_of(p, side)));
    append_shape(text, p, side);
    hlc_text_printf(text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin, (unsigned long long)*end);
}

static bool write_weights(dialect_export *job, const void *bytes, size_t size) {
    hlf_sha256_update(&job->hash, bytes, size);
    job->report->weights_bytes += size;
    return hlc_folder_write(&job->folder, job->weights_file, bytes, size, job->faults);
}

static bool write_header(dialect_export *job) {
    hlc_text text = {0};
    uint8_t length[8];
    uint64_t end = 0;
    hlc_text_printf(&text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint32_t i = 0; i < job->adapter.entries; i++) {
        const part p = part_at(job, i);
        append_tensor(job, &text, &p, HLF_SIDE_A, &end);
        append_tensor(job, &text, &p, HLF_SIDE_B, &end);
    }
    hlc_text_append(&text, "}", 1);
    while (text.length % 8 && hlc_text_append(&text, " ", 1)) {
    }
    bool good = !text.failed;
    if (!good) {
        hlc_out_of_memory(job->faults, job->pool->path, text.length);
    }
    hlf_store_u64(length, text.length);
    good = good && write_weights(job, length, sizeof length) && write_weights(job, text.bytes, text.length);
    hlc_text_free(&text);
    return good;
}

/* ---- The tensors ---- */

static bool write_tensor(dialect_export *job, const part *p, hlf_side side) {
    const size_t size = tensor_bytes(p, side);
    const bool turn = side == HLF_SIDE_B;
    uint8_t *rows = malloc(size), *turned = turn ? malloc(size) : NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    bool good = rows && (!turn || turned);
    if (!good) {
        hlc_out_of_memory(job->faults, job->pool->path, size);
    } else if (!(squeezed(p) ? hlc_decode_side : hlc_decode_source)(&job->pool->index, &p->entry, side, job->coder,
                                                                    rows, &diag)) {
        hlc_fault_from_diag(job->faults, job->pool->path, &diag);
        good = false;
    } else if (turn) {
        hlc_transpose(turned, rows, p->entry.rank, p->module.d_out, hlf_dtype_size(dtype_of(p, side)));
    }
    good = good && write_weights(job, turn ? turned : rows, size);
    job->report->tensors++;
    free(turned);
    free(rows);
    return good;
}

static bool write_tensors(dialect_export *job) {
    bool good = true;
    for (uint32_t i = 0; good && i < job->adapter.entries; i++) {
        const part p = part_at(job, i);
        good = write_tensor(job, &p, HLF_SIDE_A) && write_tensor(job, &p, HLF_SIDE_B);
        if (job->progress.report) {
            job->progress.report(job->progress.user, "exporting", job->report->weights_bytes, job->adapter.source_size);
        }
    }
    return good;
}

static bool write_config(dialect_export *job, size_t file) {
    hlc_string config = {0};
    bool good = hlc_dialect_config(&job->pool->index, &job->adapter, &config);
    if (!good) {
        hlc_out_of_memory(job->faults, job->pool->path, 0);
    }
    job->report->config_bytes = config.length;
    good = good && hlc_folder_write(&job->folder, file, config.bytes, config.length, job->faults);
    hlc_string_free(&config);
    return good;
}

bool hlc_export_dialect(const hlc_pool_file *pool, uint32_t adapter, const char *target, hlc_progress progress,
                        hlc_export_report *report, hlc_faults *faults) {
    dialect_export job = {
        .pool = pool, .coder = hlc_encoder_create(), .progress = progress, .report = report, .faults = faults};
    size_t config_file;
    *report = (hlc_export_report){.converted = true};
    hlf_index_adapter(&pool->index, adapter, &job.adapter);
    report->squeezed = job.adapter.flags & HLF_ADAPTER_SQUEEZED;
    hlf_sha256_init(&job.hash);
    bool good = job.coder != NULL;
    if (!good) {
        hlc_out_of_memory(faults, pool->path, 0);
    }
    good = good && check_kinds(&job) && hlc_folder_begin(&job.folder, target, faults) &&
           hlc_folder_add(&job.folder, "adapter_model.safetensors", &job.weights_file, faults) &&
           hlc_folder_add(&job.folder, "adapter_config.json", &config_file, faults);
    good = good && write_header(&job) && write_tensors(&job) && write_config(&job, config_file) &&
           hlc_folder_commit(&job.folder, faults);
    hlf_sha256_final(&job.hash, report->weights_sha256);
    hlc_folder_abandon(&job.folder);
    hlc_encoder_destroy(job.coder);
    return good;
}
