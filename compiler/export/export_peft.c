#include "compiler/export/export_peft.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/emit/transpose.h"
#include "compiler/export/export_dialect.h"
#include "compiler/export/output_folder.h"
#include "compiler/export/tensor_plan.h"
#include "compiler/ingest/adapter.h"
#include "format/bytes.h"
#include "format/sha256.h"

typedef struct export_job {
    const hlc_pool_file *pool;
    hlf_adapter_record adapter;
    uint32_t number; /* of the adapter */
    hlc_string header, config; /* as the pool keeps them */
    hlc_tensor_plan plan;
    hlc_encoder *coder;
    hlc_output_folder folder;
    size_t weights_file;
    hlf_sha256 hash; /* of the weight file so far */
    hlc_progress progress;
    hlc_export_report *report;
    hlc_faults *faults;
} export_job;

static const char *name_of(const export_job *job, char place[HLC_PLACE_SIZE]) {
    return hlc_place(place, "adapter", hlf_index_string(&job->pool->index, job->adapter.name),
                     job->adapter.name.length);
}

static bool refuse(const export_job *job, const char *reason) {
    char place[HLC_PLACE_SIZE];
    hlc_bad_input(job->faults, job->pool->path, name_of(job, place), "%s", reason);
    return false;
}

static bool load_text(const export_job *job, const hlf_blob_ref *blob, const char *what, hlc_string *out) {
    hl_diag diag;
    hl_diag_clear(&diag);
    if (!hlc_decode_blob(&job->pool->index, blob, out, &diag)) {
        hlc_fault_from_diag(job->faults, job->pool->path, &diag);
        return false;
    }
    return out->length || refuse(job, what);
}

static bool load(export_job *job) {
    bool header =
        load_text(job, &job->adapter.header, "the pool does not keep the header of its weight file", &job->header);
    bool config = load_text(job, &job->adapter.config, "the pool does not keep its configuration", &job->config);
    return header && config &&
           hlc_plan_tensors(job->pool, job->number, &job->header, &job->config, &job->plan, job->faults);
}

/* ---- The header ---- */

/* A name as a JSON string: quotes, backslashes and control characters escaped. */
static void append_quoted(hlc_text *text, const char *name, size_t length) {
    hlc_text_append(text, "\"", 1);
    for (size_t i = 0; i < length; i++) {
        const unsigned char byte = (unsigned char)name[i];
        if (byte < 0x20) {
            hlc_text_printf(text, "\\u%04x", byte);
        } else {
            if (byte == '"' || byte == '\\') {
                hlc_text_append(text, "\\", 1);
            }
            hlc_text_append(text, name + i, 1);
        }
    }
    hlc_text_append(text, "\"", 1);
}

static void append_tensor(hlc_text *text, const hlc_safetensors *table, const hlc_tensor *tensor, uint64_t begin) {
    enum { MOST_DIMENSIONS = 8 }; /* weights have five at most */
    uint64_t shape[MOST_DIMENSIONS];
    const size_t dims = hlc_tensor_shape(table, tensor, shape, MOST_DIMENSIONS);
    append_quoted(text, tensor->name, tensor->name_length);
    hlc_text_printf(text, ":{\"dtype\":\"%s\",\"shape\":[", hlc_tensor_dtype_name((hlc_tensor_dtype)tensor->dtype));
    for (size_t i = 0; i < dims && i < MOST_DIMENSIONS; i++) {
        hlc_text_printf(text, "%s%llu", i ? "," : "", (unsigned long long)shape[i]);
    }
    hlc_text_printf(text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin,
                    (unsigned long long)(begin + (tensor->end - tensor->begin)));
}

/* The metadata as it was, and the tensors that the pool holds, without gaps; padded with spaces as the reference does.
 */
static void append_new_header(hlc_text *text, const hlc_tensor_plan *plan) {
    const hlc_safetensors *table = plan->table;
    uint64_t end = 0;
    const char *comma = "";
    hlc_text_append(text, "{", 1);
    if (table->metadata_end) {
        hlc_text_printf(text, "\"__metadata__\":");
        hlc_text_append(text, table->header.bytes + table->metadata_at, table->metadata_end - table->metadata_at);
        comma = ",";
    }
    for (size_t i = 0; i < table->count; i++) {
        const hlc_tensor *tensor = plan->tensors[i].tensor;
        if (!plan->tensors[i].dropped) {
            hlc_text_printf(text, "%s", comma);
            append_tensor(text, table, tensor, end);
            end += tensor->end - tensor->begin;
            comma = ",";
        }
    }
    hlc_text_append(text, "}", 1);
    while (text->length % 8 && hlc_text_append(text, " ", 1)) {
    }
}

static bool write_weights(export_job *job, const void *bytes, size_t size) {
    hlf_sha256_update(&job->hash, bytes, size);
    job->report->weights_bytes += size;
    return hlc_folder_write(&job->folder, job->weights_file, bytes, size, job->faults);
}

static bool write_header(export_job *job) {
    uint8_t length[8];
    hlc_text fresh = {0};
    const char *bytes = job->header.bytes;
    size_t size = job->header.length;
    if (job->plan.dropped) {
        append_new_header(&fresh, &job->plan);
        bytes = fresh.bytes;
        size = fresh.length;
    }
    if (fresh.failed) {
        hlc_out_of_memory(job->faults, job->pool->path, size);
        hlc_text_free(&fresh);
        return false;
    }
    hlf_store_u64(length, size);
    bool good = write_weights(job, length, sizeof length) && write_weights(job, bytes, size);
    hlc_text_free(&fresh);
    return good;
}

/* ---- The tensors ---- */

/* Rows of A or of B transposed, turned to where the file has them. */
static bool place_rows(const export_job *job, const hlc_tensor_part *part, const hlf_entry_record *entry, void *rows,
                       void *turned, uint64_t tensor, uint8_t *bytes) {
    const hlf_side side = part->side == HLC_PART_SIDE_A ? HLF_SIDE_A : HLF_SIDE_B;
    const hlc_matrix_source *source = part->source;
    const bool turn = (side == HLF_SIDE_B) != source->transposed;
    hl_diag diag;
    hl_diag_clear(&diag);
    if (!hlc_decode_source(&job->pool->index, entry, side, job->coder, rows, &diag)) {
        hlc_fault_from_diag(job->faults, job->pool->path, &diag);
        return false;
    }
    if (turn) {
        hlc_transpose(turned, rows, source->cols, source->rows, hlf_dtype_size(source->dtype));
    }
    hlc_source_scatter(source, turn ? turned : rows, tensor, bytes);
    return true;
}

/* AdaLoRA's lora_E: the pool keeps it as float64, which holds the source's numbers. */
static void place_diagonal(const export_job *job, const hlc_tensor_part *part, const hlf_entry_record *entry, uint8_t *bytes) {
    const hlf_index *index = &job->pool->index;
    uint64_t first = 0;
    for (uint32_t i = (uint32_t)job->adapter.first_entry; i < part->entry; i++) {
        hlf_entry_record before;
        hlf_index_entry(index, i, &before);
        first += before.rank;
    }
    hlf_convert(bytes, part->source->dtype, job->plan.diagonals + first, HLF_DTYPE_F64, entry->rank);
}

static bool place_part(const export_job *job, const hlc_tensor_part *part, uint64_t tensor, uint8_t *bytes) {
    hlf_entry_record entry;
    hlf_index_entry(&job->pool->index, part->entry, &entry);
    if (part->side == HLC_PART_SIDE_E) {
        place_diagonal(job, part, &entry, bytes);
        return true;
    }
    const size_t size = (size_t)(part->source->rows * part->source->cols) * hlf_dtype_size(part->source->dtype);
    void *rows = malloc(size), *turned = malloc(size);
    bool good = rows && turned;
    if (good) {
        good = place_rows(job, part, &entry, rows, turned, tensor, bytes);
    } else {
        hlc_out_of_memory(job->faults, job->pool->path, size);
    }
    free(turned);
    free(rows);
    return good;
}

static bool write_tensor(export_job *job, const hlc_planned_tensor *planned) {
    const uint64_t tensor = job->plan.table->data_at + planned->tensor->begin;
    const size_t size = (size_t)(planned->tensor->end - planned->tensor->begin);
    uint8_t *bytes = calloc(1, size + 1);
    bool good = bytes != NULL;
    if (!good) {
        hlc_out_of_memory(job->faults, job->pool->path, size);
    }
    for (size_t i = 0; good && i < planned->part_count; i++) {
        good = place_part(job, &planned->parts[i], tensor, bytes);
    }
    good = good && write_weights(job, bytes, size);
    free(bytes);
    return good;
}

static void warn_dropped(const export_job *job, const hlc_tensor *tensor) {
    char place[HLC_PLACE_SIZE];
    hlc_fault(job->faults, HLC_WARNING, HLC_FAULT_INPUT, job->pool->path,
              hlc_place(place, "tensor", tensor->name, tensor->name_length), NULL,
              "it was left out when the pool was compiled");
}

static bool write_tensors(export_job *job) {
    const uint64_t total = job->adapter.source_size;
    bool good = true;
    for (size_t i = 0; good && i < job->plan.table->count; i++) {
        const hlc_planned_tensor *planned = &job->plan.tensors[i];
        if (planned->dropped) {
            warn_dropped(job, planned->tensor);
            continue;
        }
        good = write_tensor(job, planned);
        job->report->tensors++;
        if (job->progress.report) {
            job->progress.report(job->progress.user, "exporting", job->report->weights_bytes, total);
        }
    }
    return good;
}

/* ---- The folder ---- */

static bool finish_weights(export_job *job) {
    hlf_sha256_final(&job->hash, job->report->weights_sha256);
    if (job->plan.dropped || memcmp(job->report->weights_sha256, job->adapter.source_sha256, HLF_SHA256_SIZE) == 0) {
        return true;
    }
    return refuse(job, "the weight file's SHA-256 is not the one that the pool recorded");
}

static bool write_folder(export_job *job, const char *target) {
    size_t config_file;
    hlf_sha256_init(&job->hash);
    if (!hlc_folder_begin(&job->folder, target, job->faults) ||
        !hlc_folder_add(&job->folder, "adapter_model.safetensors", &job->weights_file, job->faults) ||
        !hlc_folder_add(&job->folder, "adapter_config.json", &config_file, job->faults)) {
        return false;
    }
    job->report->config_bytes = job->config.length;
    return write_header(job) && write_tensors(job) && finish_weights(job) &&
           hlc_folder_write(&job->folder, config_file, job->config.bytes, job->config.length, job->faults) &&
           hlc_folder_commit(&job->folder, job->faults);
}

bool hlc_export_peft(const hlc_pool_file *pool, uint32_t adapter, const char *target, hlc_progress progress,
                     hlc_export_report *report, hlc_faults *faults) {
    export_job job = {
        .pool = pool, .progress = progress, .report = report, .faults = faults, .coder = hlc_encoder_create()};
    *report = (hlc_export_report){0};
    job.number = adapter;
    hlf_index_adapter(&pool->index, adapter, &job.adapter);
    if (job.adapter.dialect != HLC_DIALECT_PEFT || job.adapter.flags & HLF_ADAPTER_SQUEEZED) {
        hlc_encoder_destroy(job.coder);
        return hlc_export_dialect(pool, adapter, target, progress, report, faults);
    }
    bool good = job.coder != NULL;
    if (!good) {
        hlc_out_of_memory(faults, pool->path, 0);
    }
    good = good && load(&job);
    report->dropped = job.plan.dropped;
    good = good && write_folder(&job, target);
    hlc_folder_abandon(&job.folder);
    hlc_tensor_plan_free(&job.plan);
    hlc_string_free(&job.header);
    hlc_string_free(&job.config);
    hlc_encoder_destroy(job.coder);
    return good;
}
