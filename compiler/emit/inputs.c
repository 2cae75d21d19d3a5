#include "compiler/emit/inputs.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/base/text.h"
#include "compiler/base/workers.h"
#include "compiler/emit/families.h"
#include "compiler/ingest/base_model.h"
#include "compiler/ingest/locate.h"

typedef struct open_job {
    const hlc_compile_options *options;
    hlc_inputs *inputs;
    hlc_faults **found; /* per adapter: some share files */
    const char *shared; /* the embeddings file of several adapters, or NULL */
    hlc_safetensors *shared_table; /* NULL when it is refused */
} open_job;

/* The file that --embeddings names, where it is a safetensors file: its header is parsed once, not for each adapter. */
static void open_shared(open_job *job, hlc_faults *faults) {
    const char *path = job->options->embeddings;
    size_t users = 0;
    for (size_t i = 0; path && i < job->inputs->count; i++) {
        const char *embeddings = job->inputs->files[i].embeddings;
        users += embeddings && strcmp(embeddings, path) == 0;
    }
    if (users > 1 && hlc_bytes_end(path, strlen(path), ".safetensors")) {
        job->shared = path;
        job->shared_table = hlc_safetensors_open(path, faults);
    }
}

static hlc_embeddings *read_embeddings(const open_job *job, const hlc_adapter_files *files, hlc_faults *faults) {
    if (!job->shared || strcmp(files->embeddings, job->shared) != 0) {
        return hlc_embeddings_read(files->embeddings, files->embeddings_key, faults);
    }
    return job->shared_table ? hlc_embeddings_of_table(job->shared_table, files->embeddings_key, faults) : NULL;
}

static void open_one(void *context, size_t i, size_t worker) {
    (void)worker;
    const open_job *job = context;
    hlc_inputs *inputs = job->inputs;
    const hlc_adapter_files *files = &inputs->files[i];
    const hlc_ingest_options ingest = {.drop_extras = job->options->drop_extras,
                                       .expert_layout = job->options->expert_layout,
                                       .mlx_alpha = job->options->mlx_alpha,
                                       .base = inputs->base_weights};
    inputs->adapters[i] = hlc_adapter_open(files, &ingest, job->found[i]);
    if (files->embeddings) {
        inputs->embeddings[i] = read_embeddings(job, files, job->found[i]);
    }
    if (job->options->progress.report && worker == 0) {
        job->options->progress.report(job->options->progress.user, "reading headers", i + 1, inputs->count);
    }
}

/* False when memory is out. */
static bool open_all(const hlc_compile_options *options, hlc_inputs *inputs, hlc_faults *faults) {
    const size_t room = inputs->count ? inputs->count : 1;
    inputs->adapters = calloc(room, sizeof *inputs->adapters);
    inputs->embeddings = calloc(room, sizeof *inputs->embeddings);
    inputs->target_modules = calloc(room, sizeof *inputs->target_modules);
    open_job job = {.options = options, .inputs = inputs, .found = calloc(room, sizeof *job.found)};
    bool good = inputs->adapters && inputs->embeddings && inputs->target_modules && job.found;
    for (size_t i = 0; good && i < inputs->count; i++) {
        good = (job.found[i] = hlc_faults_create()) != NULL;
    }
    if (good) {
        open_shared(&job, faults);
        good = hlc_parallel(options->threads, inputs->count, open_one, &job);
    }
    for (size_t i = 0; job.found && i < inputs->count; i++) {
        hlc_faults_take(faults, job.found[i]);
    }
    free(job.found);
    hlc_safetensors_close(job.shared_table);
    return good;
}

/* ---- Modules: one list for the pool; every adapter must agree on the shapes. ---- */

typedef struct named_target {
    const hlc_target *target;
    uint32_t adapter, position;
} named_target;

static int compare_named(const void *a, const void *b) {
    const named_target *x = a, *y = b;
    int order = hlc_bytes_compare(x->target->module.bytes, x->target->module.length, y->target->module.bytes,
                                  y->target->module.length);
    return order ? order : (x->adapter > y->adapter) - (x->adapter < y->adapter);
}

static bool same_module(const hlc_module *module, const hlc_target *target) {
    return module->name.length == target->module.length &&
           memcmp(module->name.bytes, target->module.bytes, target->module.length) == 0;
}

static bool same_form(const hlc_module *module, const hlc_target *target) {
    return module->d_in == target->d_in && module->d_out == target->d_out && module->kind == target->kind &&
           memcmp(module->geometry, target->geometry, sizeof module->geometry) == 0;
}

/* "a convolution [3, 3, 3, 0, 1] of 27 -> 8"; kinds without a geometry: "a linear layer of 4 -> 8". */
enum { FORM_SIZE = 192 };
static const char *form_text(hlc_module_kind kind, const uint32_t *geometry, uint64_t d_in, uint64_t d_out, char buffer[FORM_SIZE]) {
    static const char *const names[] = {"a linear layer",   "an embedding",     "a 1-D convolution", "a 2-D convolution",
                                        "a 3-D convolution", "packed attention", "an expert"};
    static const int used[] = {0, 0, 5, 5, 5, 1, 2};
    int at = snprintf(buffer, FORM_SIZE, "%s", names[kind]);
    for (int i = 0; i < used[kind]; i++) {
        at += snprintf(buffer + at, FORM_SIZE - (size_t)at, "%s%u%s", i ? ", " : " [", geometry[i], i + 1 == used[kind] ? "]" : "");
    }
    snprintf(buffer + at, FORM_SIZE - (size_t)at, " of %llu -> %llu", (unsigned long long)d_in, (unsigned long long)d_out);
    return buffer;
}

static void report_form(const hlc_inputs *inputs, const hlc_module *module, const named_target *named, hlc_faults *faults) {
    char place[HLC_PLACE_SIZE], here[FORM_SIZE], there[FORM_SIZE];
    const hlc_target *target = named->target;
    const char *path = inputs->adapters[named->adapter]->path, *other = inputs->adapters[module->first_adapter]->path;
    hlc_place(place, "module", target->module.bytes, target->module.length);
    if (module->kind == target->kind && (module->d_in != target->d_in || module->d_out != target->d_out)) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, path, place, "a pool holds adapters of one base model",
                  "the shape %llu -> %llu differs from %llu -> %llu in %s", (unsigned long long)target->d_in,
                  (unsigned long long)target->d_out, (unsigned long long)module->d_in, (unsigned long long)module->d_out, other);
    } else {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, path, place, "a pool holds adapters of one base model", "%s differs from %s in %s",
                  form_text(target->kind, target->geometry, target->d_in, target->d_out, here),
                  form_text(module->kind, module->geometry, module->d_in, module->d_out, there), other);
    }
}

/* 0 for an adapter that could not be opened. */
static size_t target_count(const hlc_inputs *inputs, size_t adapter) {
    return inputs->adapters[adapter] ? inputs->adapters[adapter]->target_count : 0;
}

static bool collect_targets(const hlc_inputs *inputs, named_target **out, size_t *out_count) {
    size_t count = 0, at = 0;
    for (size_t i = 0; i < inputs->count; i++) {
        count += target_count(inputs, i);
    }
    named_target *named = malloc((count ? count : 1) * sizeof *named);
    if (!named) {
        return false;
    }
    for (size_t i = 0; i < inputs->count; i++) {
        for (size_t k = 0; k < target_count(inputs, i); k++) {
            named[at++] = (named_target){&inputs->adapters[i]->targets[k], (uint32_t)i, (uint32_t)k};
        }
    }
    qsort(named, count, sizeof *named, compare_named);
    *out = named;
    *out_count = count;
    return true;
}

static bool merge_modules(hlc_inputs *inputs, hlc_faults *faults) {
    named_target *named;
    size_t count;
    if (!collect_targets(inputs, &named, &count)) {
        return false;
    }
    inputs->modules = calloc(count + 1, sizeof *inputs->modules);
    bool good = inputs->modules != NULL;
    for (size_t i = 0; good && i < inputs->count; i++) {
        inputs->target_modules[i] = malloc((target_count(inputs, i) + 1) * sizeof(uint32_t));
        good = inputs->target_modules[i] != NULL;
    }
    for (size_t i = 0; good && i < count; i++) {
        const hlc_target *target = named[i].target;
        hlc_module *last = inputs->module_count ? &inputs->modules[inputs->module_count - 1] : NULL;
        if (!last || !same_module(last, target)) {
            last = &inputs->modules[inputs->module_count++];
            *last = (hlc_module){.name = target->module,
                                 .kind = target->kind,
                                 .d_in = target->d_in,
                                 .d_out = target->d_out,
                                 .first_adapter = named[i].adapter};
            memcpy(last->geometry, target->geometry, sizeof last->geometry);
        } else if (!same_form(last, target)) {
            report_form(inputs, last, &named[i], faults);
        }
        last->adapters++;
        inputs->target_modules[named[i].adapter][named[i].position] = (uint32_t)(inputs->module_count - 1);
    }
    free(named);
    return good;
}

/* ---- What all adapters must agree on ---- */

static bool differ(const char *a, const char *b) {
    return strcmp(a, b) != 0;
}

static void agree_on_base(const hlc_compile_options *options, hlc_inputs *inputs, hlc_faults *faults) {
    size_t first = inputs->count;
    inputs->base = options->base ? options->base : "";
    inputs->base_revision = "";
    for (size_t i = 0; i < inputs->count; i++) {
        const hlc_adapter *adapter = inputs->adapters[i];
        if (!adapter || !adapter->base_model.length) {
            continue;
        }
        if (first == inputs->count) {
            first = i;
            if (!options->base) {
                inputs->base = adapter->base_model.bytes;
                inputs->base_revision = adapter->base_revision.length ? adapter->base_revision.bytes : "";
            }
        }
        if (differ(adapter->base_model.bytes, inputs->adapters[first]->base_model.bytes)) {
            hlc_fault(faults, HLC_WARNING, HLC_FAULT_INPUT, adapter->path, "base_model_name_or_path",
                      options->base ? NULL : "name the base with --base", "the base model \"%s\" differs from \"%s\" in %s",
                      adapter->base_model.bytes, inputs->adapters[first]->base_model.bytes, inputs->adapters[first]->path);
        }
    }
}

/* One text for the pool: the command line's, else the one that every embeddings file gives. */
static const char *agree_on_text(const hlc_inputs *inputs, const char *option, const char *what, size_t member, hlc_faults *faults) {
    if (option) {
        return option;
    }
    const char *agreed = NULL, *agreed_file = NULL, *silent_file = NULL;
    for (size_t i = 0; i < inputs->count; i++) {
        const hlc_embeddings *embeddings = inputs->embeddings[i];
        if (!embeddings) {
            continue;
        }
        const char *own = *(char *const *)((const char *)embeddings + member);
        if (!own) {
            silent_file = inputs->files[i].embeddings;
        } else if (!agreed) {
            agreed = own;
            agreed_file = inputs->files[i].embeddings;
        } else if (differ(own, agreed)) {
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, inputs->files[i].embeddings, what,
                      "make all embeddings with one encoder and one prefix", "the %s \"%s\" differs from \"%s\" in %s", what, own,
                      agreed, agreed_file);
        }
    }
    if (agreed && silent_file) {
        hlc_fault(faults, HLC_WARNING, HLC_FAULT_INPUT, silent_file, what, NULL, "no %s is recorded; taken to be \"%s\" as in %s", what,
                  agreed, agreed_file);
    }
    return agreed ? agreed : "";
}

static void agree_on_normalization(const hlc_compile_options *options, hlc_inputs *inputs, hlc_faults *faults) {
    const char *agreed_file = NULL;
    inputs->normalized = options->normalized < 0 ? HLC_NORMALIZED_UNKNOWN : (hlc_normalized)options->normalized;
    for (size_t i = 0; options->normalized < 0 && i < inputs->count; i++) {
        const hlc_embeddings *embeddings = inputs->embeddings[i];
        if (!embeddings || embeddings->normalized == HLC_NORMALIZED_UNKNOWN) {
            continue;
        }
        if (!agreed_file) {
            inputs->normalized = embeddings->normalized;
            agreed_file = inputs->files[i].embeddings;
        } else if (embeddings->normalized != inputs->normalized) {
            hlc_bad_input(faults, inputs->files[i].embeddings, "normalized", "L2-normalised embeddings and others cannot share a pool (see %s)",
                          agreed_file);
        }
    }
    for (size_t i = 0; inputs->normalized == HLC_NORMALIZED_YES && i < inputs->count; i++) {
        const hlc_embeddings *embeddings = inputs->embeddings[i];
        for (size_t k = 0; embeddings && k < embeddings->samples; k++) {
            double square = 0;
            for (size_t j = 0; j < embeddings->dim; j++) {
                square += (double)embeddings->values[k * embeddings->dim + j] * embeddings->values[k * embeddings->dim + j];
            }
            if (fabs(sqrt(square) - 1) > 1e-3) {
                hlc_bad_input(faults, inputs->files[i].embeddings, "normalized", "sample %zu has length %.6g in a pool of L2-normalised embeddings",
                              k, sqrt(square));
                break;
            }
        }
    }
}

static void agree_on_dimension(hlc_inputs *inputs, hlc_faults *faults) {
    const char *first = NULL;
    for (size_t i = 0; i < inputs->count; i++) {
        const hlc_embeddings *embeddings = inputs->embeddings[i];
        if (!embeddings) {
            continue;
        }
        if (!first) {
            inputs->dim = embeddings->dim;
            first = inputs->files[i].embeddings;
        } else if (embeddings->dim != inputs->dim) {
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, inputs->files[i].embeddings, NULL, "make all embeddings with one encoder",
                      "embeddings of dimension %zu, not %zu as in %s", embeddings->dim, inputs->dim, first);
        }
    }
}

static void check_samples(const hlc_compile_options *options, hlc_inputs *inputs, hlc_faults *faults) {
    for (size_t i = 0; i < inputs->count; i++) {
        const hlc_adapter_files *files = &inputs->files[i];
        if (!files->embeddings && !options->allow_no_stats) {
            const char *slash = strrchr(files->weights, '/');
            int folder = slash ? (int)(slash - files->weights) : 1;
            char remedy[1024];
            snprintf(remedy, sizeof remedy, "hilora-embed %.*s   (needs samples.txt or samples.jsonl there), or --no-stats=allow",
                     folder > 0 ? folder : 1, slash ? files->weights : ".");
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, files->weights, NULL, remedy, "no embeddings: the router could not find this adapter");
        } else if (inputs->embeddings[i] && inputs->embeddings[i]->samples < 2) {
            hlc_bad_input(faults, files->embeddings, NULL, "%zu sample: at least two are needed, about 20 are advised",
                          inputs->embeddings[i]->samples);
        }
    }
}

/* ---- The output must not be one of the files ---- */

static bool is_file(const char *path, const struct stat *output) {
    struct stat input;
    return path && stat(path, &input) == 0 && input.st_dev == output->st_dev && input.st_ino == output->st_ino;
}

/* An operand may be a folder, so that only now all input files are known. */
static bool refuse_output_among(const hlc_compile_options *options, const hlc_inputs *inputs, hlc_faults *faults) {
    struct stat output;
    bool refused = false;
    if (stat(options->output, &output) != 0) {
        return false;
    }
    for (size_t i = 0; i < inputs->count; i++) {
        const hlc_adapter_files *files = &inputs->files[i];
        if (is_file(files->weights, &output) || is_file(files->config, &output) || is_file(files->embeddings, &output)) {
            char place[HLC_PLACE_SIZE];
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_MISUSE, options->output,
                      hlc_place(place, "adapter", files->name.bytes, files->name.length), "name another output", "the output is an input");
            refused = true;
        }
    }
    return refused;
}

bool hlc_inputs_open(const hlc_compile_options *options, hlc_inputs *inputs, hlc_faults *faults) {
    *inputs = (hlc_inputs){.normalized = HLC_NORMALIZED_UNKNOWN};
    if (!hlc_locate(options->operands, options->operand_count, options->embeddings, faults, &inputs->files, &inputs->count)) {
        hlc_out_of_memory(faults, NULL, 0);
        return false;
    }
    if (refuse_output_among(options, inputs, faults)) {
        return false;
    }
    if (options->base_model) { /* without it the adapters' own faults are still told */
        inputs->base_weights = hlc_base_model_open(options->base_model, faults);
    }
    if (!open_all(options, inputs, faults)) {
        hlc_out_of_memory(faults, NULL, 0);
        return false;
    }
    check_samples(options, inputs, faults);
    agree_on_dimension(inputs, faults);
    inputs->encoder = agree_on_text(inputs, options->encoder, "encoder", offsetof(hlc_embeddings, encoder), faults);
    inputs->revision = agree_on_text(inputs, options->revision, "revision", offsetof(hlc_embeddings, revision), faults);
    inputs->prefix = agree_on_text(inputs, options->prefix, "prefix", offsetof(hlc_embeddings, prefix), faults);
    agree_on_normalization(options, inputs, faults);
    agree_on_base(options, inputs, faults);
    if (inputs->count && !(merge_modules(inputs, faults) && hlc_warn_of_other_families(inputs, faults))) {
        hlc_out_of_memory(faults, NULL, 0);
    }
    return inputs->count > 0 && hlc_faults_errors(faults) == 0;
}

void hlc_inputs_free(hlc_inputs *inputs) {
    hlc_base_model_close(inputs->base_weights);
    for (size_t i = 0; i < inputs->count; i++) {
        if (inputs->adapters) {
            hlc_adapter_close(inputs->adapters[i]);
        }
        if (inputs->embeddings) {
            hlc_embeddings_free(inputs->embeddings[i]);
        }
        if (inputs->target_modules) {
            free(inputs->target_modules[i]);
        }
    }
    free(inputs->target_modules);
    free(inputs->modules);
    free(inputs->embeddings);
    free(inputs->adapters);
    hlc_adapter_files_free(inputs->files, inputs->count);
    *inputs = (hlc_inputs){0};
}
