#include "compiler/ingest/adapter.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/base/files.h"
#include "compiler/ingest/base_model.h"
#include "compiler/ingest/dialects.h"
#include "compiler/ingest/metadata_config.h"
#include "compiler/ingest/peft_config.h"
#include "compiler/ingest/peft_coverage.h"
#include "compiler/ingest/peft_targets.h"
#include "compiler/ingest/safetensors.h"

/* What is read on the way to an adapter. */
typedef struct opening {
    const hlc_adapter_files *files;
    hlc_faults *faults;
    const hlc_ingest_options *options;
    hlc_safetensors *table;             /* NULL when the file is refused */
    bool has_config;                    /* there is one, readable or not */
    bool config_lost;                   /* it could not be read; the fault was added */
    hlc_string config_text, config_key; /* the key: where the text is from the metadata */
    char config_within[HLC_PLACE_SIZE];
    hlc_peft_config *config; /* NULL without a text, or without memory, or in another dialect */
    hlc_peft_tensors tensors; /* PEFT alone */
    hlc_target *targets;
    size_t target_count;
    hlc_expert_layout expert_layout;
    hlc_dialect dialect;
    hlc_string base_model, base_revision;
    bool extras_dropped;
} opening;

/* False after a fault; true without a text when there is none to be found. */
static bool load_config_text(opening *o) {
    if (o->files->config) {
        o->has_config = true;
        return hlc_file_load(o->files->config, HLC_CONFIG_MOST_BYTES, &o->config_text, o->faults);
    }
    if (!o->table)
        return true;
    bool ok = hlc_metadata_config(o->table, &o->config_text, &o->config_key, o->faults);
    o->has_config = !ok || o->config_text.bytes;
    return ok;
}

static bool read_config(opening *o) {
    if (o->config_lost)
        return false;
    if (!o->has_config)
        return true;
    const char *path = o->files->config, *within = NULL;
    if (!path) {
        path = o->files->weights;
        within = hlc_place(o->config_within, "metadata key", o->config_key.bytes, o->config_key.length);
    }
    o->config = hlc_peft_config_read(path, within, &o->config_text, o->options->drop_extras, o->faults);
    return o->config && o->config->state == HLC_CONFIG_GOOD;
}

static bool is_of_base(void *user, const hlc_tensor *tensor) {
    const opening *o = user;
    return hlc_base_model_holds(o->options->base, o->table, tensor);
}

static bool read_tensors(opening *o) {
    if (!o->table)
        return false;
    if (o->config && o->config->state == HLC_CONFIG_FOREIGN)
        return false;
    const hlc_peft_reading reading = {.table = o->table,
                                      .config = o->config,
                                      .drop_extras = o->options->drop_extras,
                                      .known = o->options->base ? is_of_base : NULL,
                                      .user = o};
    return hlc_peft_tensors_read(&reading, &o->tensors, o->faults) && o->tensors.good;
}

static bool refuse_missing_config(const opening *o) {
    if (o->has_config)
        return true;
    if (o->table && !o->tensors.foreign)
        hlc_fault(o->faults, HLC_ERROR, HLC_FAULT_NO_CONFIG, o->files->weights, NULL,
                  "put the adapter_config.json that PEFT saved beside it",
                  "there is no configuration, neither a file nor in the metadata, so the scale is not known");
    return false;
}

static void swap_string(hlc_string *a, hlc_string *b) {
    hlc_string kept = *a;
    *a = *b;
    *b = kept;
}

static bool make_targets(opening *o) {
    hlc_peft_targets made;
    bool good = o->config &&
                hlc_peft_targets_make(&o->tensors, o->config, o->options, o->files->weights, &made, o->faults);
    if (!good)
        return false;
    o->targets = made.targets;
    o->target_count = made.count;
    o->expert_layout = made.expert_layout;
    return made.good;
}

/* Moves what was read into an adapter. NULL when memory is out. */
static hlc_adapter *assemble(opening *o) {
    hlc_adapter *adapter = calloc(1, sizeof *adapter);
    if (!adapter)
        return NULL;
    adapter->dialect = o->dialect;
    adapter->path = strdup(o->files->weights);
    adapter->config_path = o->files->config ? strdup(o->files->config) : NULL;
    if (!adapter->path || (o->files->config && !adapter->config_path) ||
        !hlc_string_copy(&adapter->name, o->files->name.bytes, o->files->name.length)) {
        hlc_adapter_close(adapter);
        return NULL;
    }
    swap_string(&adapter->config_text, &o->config_text);
    swap_string(&adapter->header_text, &o->table->header);
    swap_string(&adapter->base_model, &o->base_model);
    swap_string(&adapter->base_revision, &o->base_revision);
    adapter->targets = o->targets;
    adapter->target_count = o->target_count;
    adapter->expert_layout = o->expert_layout;
    adapter->extras_dropped = o->extras_dropped;
    o->targets = NULL;
    o->target_count = 0;
    for (size_t i = 0; i < adapter->target_count; i++)
        if (adapter->targets[i].rank > adapter->rank)
            adapter->rank = adapter->targets[i].rank;
    adapter->file = o->table->file;
    adapter->file.fd = -1;
    adapter->file_size = adapter->file.size;
    return adapter;
}

static bool open_peft(opening *o) {
    const hlc_fault_kind before = hlc_faults_scope(o->faults, HLC_FAULT_CONFIG);
    bool config_good = read_config(o);
    hlc_faults_scope(o->faults, HLC_FAULT_TENSOR);
    bool tensors_good = read_tensors(o);
    hlc_faults_scope(o->faults, before);
    bool good = refuse_missing_config(o) && config_good && tensors_good;
    good = make_targets(o) && good;
    if (!good)
        return false;
    swap_string(&o->base_model, &o->config->base_model);
    swap_string(&o->base_revision, &o->config->revision);
    o->extras_dropped = o->tensors.extras > 0;
    if (hlc_peft_check_coverage(o->config, &o->tensors, o->faults))
        return true;
    hlc_out_of_memory(o->faults, o->files->weights, sizeof *o->targets);
    return false;
}

static bool open_other(opening *o) {
    hlc_dialect_reading reading = {.table = o->table,
                                   .options = o->options,
                                   .faults = o->faults,
                                   .config_path = o->files->config,
                                   .config_text = &o->config_text};
    if (o->dialect == HLC_DIALECT_DIFFUSERS && !o->has_config &&
        !hlc_metadata_find(o->table, "lora_adapter_metadata", &o->config_text, o->faults))
        return false;
    const hlc_fault_kind before = hlc_faults_scope(o->faults, HLC_FAULT_TENSOR);
    bool good = hlc_dialect_read(o->dialect, &reading) && reading.good;
    hlc_faults_scope(o->faults, before);
    o->targets = reading.targets;
    o->target_count = reading.count;
    o->extras_dropped = reading.dropped > 0;
    swap_string(&o->base_model, &reading.base_model);
    if (good && reading.count > 0)
        return !o->config_lost;
    if (good)
        hlc_error(o->faults, HLC_FAULT_NO_LORA, o->files->weights, NULL, "the file holds no LoRA weight");
    return false;
}

/* From the table and the configuration's text on; both are freed. */
static hlc_adapter *open_table(opening *o) {
    hlc_adapter *adapter = NULL;
    bool good = !o->table || hlc_dialect_find(o->table, o->has_config, &o->dialect, o->faults);
    if (good)
        good = o->dialect == HLC_DIALECT_PEFT ? open_peft(o) : open_other(o);
    if (good && o->options->base) {
        const size_t errors = hlc_faults_errors(o->faults);
        hlc_base_model_check(o->options->base, o->targets, o->target_count, o->files->weights, o->faults);
        good = hlc_faults_errors(o->faults) == errors;
    }
    adapter = good ? assemble(o) : NULL;
    if (good && !adapter)
        hlc_out_of_memory(o->faults, o->files->weights, sizeof *adapter);
    hlc_targets_free(o->targets, o->target_count);
    hlc_peft_tensors_free(&o->tensors);
    hlc_peft_config_free(o->config);
    hlc_string_free(&o->config_text);
    hlc_string_free(&o->config_key);
    hlc_string_free(&o->base_model);
    hlc_string_free(&o->base_revision);
    hlc_safetensors_close(o->table);
    return adapter;
}

hlc_adapter *hlc_adapter_open(const hlc_adapter_files *files, const hlc_ingest_options *options, hlc_faults *faults) {
    opening o = {.files = files, .faults = faults, .options = options};
    o.table = hlc_safetensors_open(files->weights, faults);
    const hlc_fault_kind before = hlc_faults_scope(faults, HLC_FAULT_CONFIG);
    o.config_lost = !load_config_text(&o);
    hlc_faults_scope(faults, before);
    return open_table(&o);
}

hlc_adapter *hlc_adapter_of_texts(const char *path, const hlc_string *header, const hlc_string *config,
                                  uint64_t file_size, const hlc_ingest_options *options, hlc_faults *faults) {
    char *file = strdup(path), name[] = "kept";
    const hlc_adapter_files files = {.name = {name, sizeof name - 1}, .weights = file};
    opening o = {.files = &files, .faults = faults, .options = options, .has_config = config->length > 0};
    o.table = file ? hlc_safetensors_of_header(path, header, file_size, faults) : NULL;
    if (!file || !hlc_string_copy(&o.config_text, config->bytes, config->length)) {
        hlc_out_of_memory(faults, path, config->length);
        o.config_lost = true;
    }
    hlc_adapter *adapter = open_table(&o);
    free(file);
    return adapter;
}

void hlc_targets_free(hlc_target *targets, size_t count) {
    for (size_t i = 0; i < count; i++) {
        hlc_string_free(&targets[i].module);
        hlc_string_free(&targets[i].a.key);
        hlc_string_free(&targets[i].b.key);
        hlc_string_free(&targets[i].e.key);
    }
    free(targets);
}

void hlc_adapter_close(hlc_adapter *adapter) {
    if (!adapter)
        return;
    hlc_targets_free(adapter->targets, adapter->target_count);
    hlc_string_free(&adapter->name);
    free(adapter->path);
    free(adapter->config_path);
    hlc_string_free(&adapter->config_text);
    hlc_string_free(&adapter->header_text);
    hlc_string_free(&adapter->base_model);
    hlc_string_free(&adapter->base_revision);
    free(adapter);
}

static bool is_same(const hlc_file *a, const hlc_file *b) {
    return a->size == b->size && a->device == b->device && a->inode == b->inode &&
           a->mtime_seconds == b->mtime_seconds && a->mtime_nanoseconds == b->mtime_nanoseconds &&
           a->ctime_seconds == b->ctime_seconds && a->ctime_nanoseconds == b->ctime_nanoseconds;
}

/* Opens the file again; the caller closes file->fd. */
static bool reopen(const hlc_adapter *adapter, hlc_file *file, hlc_faults *faults) {
    if (!hlc_file_open(adapter->path, file, faults))
        return false;
    if (is_same(&adapter->file, file))
        return true;
    close(file->fd);
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_CHANGED, adapter->path, NULL, "run again once the file is complete",
              "the file was changed or replaced during the run");
    return false;
}

bool hlc_adapter_read_bytes(const hlc_adapter *adapter, uint64_t offset, void *buffer, size_t size, hlc_faults *faults) {
    hlc_file file;
    if (!reopen(adapter, &file, faults))
        return false;
    bool good = hlc_file_read(file.fd, adapter->path, offset, buffer, size, faults);
    close(file.fd);
    return good;
}

bool hlc_adapter_unchanged(const hlc_adapter *adapter, hlc_faults *faults) {
    hlc_file file;
    if (!reopen(adapter, &file, faults))
        return false;
    close(file.fd);
    return true;
}
