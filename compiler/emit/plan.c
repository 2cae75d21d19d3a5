#include "compiler/emit/plan.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/workers.h"
#include "compiler/emit/codec.h"
#include "compiler/emit/factors.h"
#include "compiler/emit/squeezed.h"
#include "format/bytes.h"
#include "format/sha256.h"

enum { READ_BLOCK = 1 << 20, PROBE_ELEMENTS = 16384 };

typedef struct plan_job {
    const hlc_compile_options *options;
    const hlc_inputs *inputs;
    hlc_plan *plan;
    hlc_faults *faults;
    atomic_uint_fast64_t done;
    uint64_t total;
} plan_job;

static bool hash_file(const hlc_adapter *adapter, uint8_t out[HLF_SHA256_SIZE], hlc_faults *faults) {
    uint8_t *block = malloc(READ_BLOCK);
    if (!block) {
        hlc_out_of_memory(faults, adapter->path, READ_BLOCK);
        return false;
    }
    hlf_sha256 hash;
    hlf_sha256_init(&hash);
    bool good = true;
    for (uint64_t at = 0; good && at < adapter->file_size;) {
        uint64_t left = adapter->file_size - at;
        size_t n = left < READ_BLOCK ? (size_t)left : READ_BLOCK;
        good = hlc_adapter_read_bytes(adapter, at, block, n, faults);
        if (good) {
            hlf_sha256_update(&hash, block, n);
        }
        at += n;
    }
    hlf_sha256_final(&hash, out);
    free(block);
    return good;
}

/* The narrowest type that holds the first elements. */
static bool narrow_start(const hlc_adapter *adapter, const hlc_matrix_source *source, hlf_dtype *out, hlc_faults *faults) {
    const size_t size = PROBE_ELEMENTS * hlf_dtype_size(source->dtype);
    uint8_t *values = malloc(size);
    if (!values) {
        hlc_out_of_memory(faults, adapter->path, size);
        return false;
    }
    bool good = hlc_adapter_read_bytes(adapter, source->offset, values, size, faults);
    *out = good ? hlf_narrowest(values, source->dtype, PROBE_ELEMENTS) : source->dtype;
    free(values);
    return good;
}

/* The narrowest type that holds the tensor exactly. A look at its beginning settles nearly all that cannot be narrowed. */
static bool narrow(const hlc_adapter *adapter, const hlc_matrix_source *source, hlc_tensor_cache *cache, hlf_dtype *out,
                   hlc_faults *faults) {
    const uint64_t n = source->rows * source->cols, size = hlf_dtype_size(source->dtype);
    *out = source->dtype;
    if (source->dtype != HLF_DTYPE_F32 && source->dtype != HLF_DTYPE_F64) {
        return true;
    }
    if (hlc_source_bytes(source) > PROBE_ELEMENTS * size && !source->tensor_bytes) {
        if (!narrow_start(adapter, source, out, faults)) {
            return false;
        }
        if (*out == source->dtype) {
            return true;
        }
    }
    uint8_t *values = malloc(n * size);
    if (!values) {
        hlc_out_of_memory(faults, adapter->path, n * size);
        return false;
    }
    bool good = hlc_adapter_read(adapter, source, cache, values, faults);
    *out = good ? hlf_narrowest(values, source->dtype, n) : source->dtype;
    free(values);
    return good;
}

static bool compress_texts(const hlc_adapter *adapter, hlc_plan_adapter *plan, hlc_faults *faults) {
    bool good = true;
    if (adapter->config_text.length) {
        plan->config = hlc_compress_text(adapter->config_text.bytes, adapter->config_text.length, &plan->config_size);
        good = plan->config != NULL;
    }
    if (adapter->header_text.length) {
        plan->header = hlc_compress_text(adapter->header_text.bytes, adapter->header_text.length, &plan->header_size);
        good = good && plan->header != NULL;
    }
    if (!good) {
        hlc_out_of_memory(faults, adapter->path, 0);
    }
    return good;
}

/* AdaLoRA's diagonals, entry after entry, as float64. */
static bool keep_diagonals(const hlc_adapter *adapter, hlc_plan_adapter *plan, hlc_faults *faults) {
    size_t count = 0, at = 0;
    for (size_t k = 0; k < adapter->target_count; k++) {
        count += adapter->targets[k].e.key.bytes ? adapter->targets[k].rank : 0;
    }
    if (count == 0) {
        return true;
    }
    uint8_t *bytes = malloc(8 * count);
    bool good = bytes != NULL;
    for (size_t k = 0; good && k < adapter->target_count; k++) {
        double *values = hlc_read_diagonal(adapter, &adapter->targets[k], faults);
        good = values != NULL;
        for (size_t j = 0; good && j < adapter->targets[k].rank; j++, at++) {
            hlf_store_f64(bytes + 8 * at, values[j]);
        }
        free(values);
    }
    if (good) {
        plan->diagonals = hlc_compress_text(bytes, 8 * count, &plan->diagonals_size);
        plan->diagonals_plain = 8 * count;
        good = plan->diagonals != NULL;
    }
    if (!good) {
        hlc_out_of_memory(faults, adapter->path, 8 * count);
    }
    free(bytes);
    return good;
}

/* Decomposes all modules, so that each tells its faults, and takes the result if any of them loses a component. */
static void squeeze_adapter(const plan_job *job, const hlc_adapter *adapter, hlc_plan_entry *entries,
                            hlc_tensor_cache *cache) {
    hlc_squeeze *chosen = calloc(adapter->target_count, sizeof *chosen);
    bool good = chosen != NULL, loses = false;
    if (!good) {
        hlc_out_of_memory(job->faults, adapter->path, 0);
        return;
    }
    for (size_t k = 0; k < adapter->target_count; k++) {
        good = hlc_squeeze_choose(job->options, adapter, entries[k].target, cache, &chosen[k], job->faults) && good;
        loses = loses || chosen[k].rank < entries[k].target->rank;
    }
    for (size_t k = 0; good && loses && k < adapter->target_count; k++) {
        entries[k].squeezed = true;
        entries[k].rank = chosen[k].rank;
        entries[k].stored_a = chosen[k].a;
        entries[k].stored_b = chosen[k].b;
    }
    free(chosen);
}

static void plan_adapter(void *context, size_t i, size_t worker) {
    plan_job *job = context;
    const hlc_adapter *adapter = job->inputs->adapters[i];
    hlc_plan_adapter *plan = &job->plan->adapters[i];
    bool good = hash_file(adapter, plan->source_sha256, job->faults) && compress_texts(adapter, plan, job->faults);
    hlc_tensor_cache cache = {0};
    for (size_t k = 0; good && k < adapter->target_count; k++) {
        hlc_plan_entry *entry = &job->plan->entries[plan->first_entry + k];
        const hlc_target *target = entry->target;
        good = narrow(adapter, &target->a, &cache, &entry->stored_a, job->faults) &&
               narrow(adapter, &target->b, &cache, &entry->stored_b, job->faults);
        plan->tensor_bytes += hlc_source_bytes(&target->a) + hlc_source_bytes(&target->b);
    }
    good = good && keep_diagonals(adapter, plan, job->faults);
    if (good && hlc_squeezes(job->options)) {
        squeeze_adapter(job, adapter, &job->plan->entries[plan->first_entry], &cache);
    }
    hlc_tensor_cache_free(&cache);
    uint64_t done = atomic_fetch_add(&job->done, adapter->file_size) + adapter->file_size;
    if (job->options->progress.report && worker == 0) {
        job->options->progress.report(job->options->progress.user, "hashing sources", done, job->total);
    }
}

/* ---- Datasets: one per (module, side, rank, stored type), a row per adapter ---- */

typedef struct placement {
    uint32_t module; /* UINT32_MAX for gauges: they are kept by rank alone */
    uint32_t rank, side;
    hlf_dtype dtype;
    uint32_t entry;
} placement;

static int compare_placements(const void *a, const void *b) {
    const placement *x = a, *y = b;
    const uint32_t left[] = {x->module, x->side, x->rank, (uint32_t)x->dtype, x->entry};
    const uint32_t right[] = {y->module, y->side, y->rank, (uint32_t)y->dtype, y->entry};
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        if (left[i] != right[i]) {
            return left[i] < right[i] ? -1 : 1;
        }
    }
    return 0;
}

static bool same_dataset(const placement *a, const placement *b) {
    return a->module == b->module && a->side == b->side && a->rank == b->rank && a->dtype == b->dtype;
}

enum { SIDE_A = 0, SIDE_B = 1, SIDE_GAUGE = 2 };

static void name_dataset(hlc_plan_dataset *dataset, const placement *placed, const hlc_target *target) {
    dataset->dtype = placed->dtype;
    dataset->height = placed->side == SIDE_GAUGE ? 2 * (uint64_t)placed->rank : placed->rank;
    dataset->width = placed->side == SIDE_A ? target->d_in : placed->side == SIDE_B ? target->d_out : placed->rank;
    if (placed->side == SIDE_GAUGE) {
        snprintf(dataset->path, sizeof dataset->path, "/gauge/r%u", placed->rank);
    } else {
        snprintf(dataset->path, sizeof dataset->path, "/w/%u/%s_r%u_%s", placed->module, placed->side == SIDE_A ? "A" : "Bt", placed->rank,
                 hlf_dtype_name(placed->dtype));
    }
}

static void assign(hlc_plan_entry *entry, uint32_t side, uint32_t dataset, uint32_t row) {
    if (side == SIDE_A) {
        entry->dataset_a = dataset;
        entry->row_a = row;
    } else if (side == SIDE_B) {
        entry->dataset_b = dataset;
        entry->row_b = row;
    } else {
        entry->dataset_gauge = dataset;
        entry->row_gauge = row;
    }
}

static bool has_gauge(const hlc_plan_entry *entry, bool svd) {
    return !entry->squeezed && (svd || entry->target->e.key.bytes);
}

static bool place_chunks(hlc_plan *plan, bool svd) {
    const size_t most = plan->entry_count * 3;
    size_t count = 0;
    placement *places = malloc(most * sizeof *places);
    plan->datasets = calloc(most, sizeof *plan->datasets);
    if (!places || !plan->datasets) {
        free(places);
        return false;
    }
    for (size_t i = 0; i < plan->entry_count; i++) {
        const hlc_plan_entry *entry = &plan->entries[i];
        const uint32_t rank = entry->rank, number = (uint32_t)i;
        places[count++] = (placement){entry->module, rank, SIDE_A, entry->stored_a, number};
        places[count++] = (placement){entry->module, rank, SIDE_B, entry->stored_b, number};
        if (has_gauge(entry, svd)) {
            places[count++] = (placement){UINT32_MAX, rank, SIDE_GAUGE, HLF_DTYPE_F32, number};
        }
    }
    qsort(places, count, sizeof *places, compare_placements);
    for (size_t i = 0; i < count; i++) {
        hlc_plan_entry *entry = &plan->entries[places[i].entry];
        if (i == 0 || !same_dataset(&places[i - 1], &places[i])) {
            name_dataset(&plan->datasets[plan->dataset_count++], &places[i], entry->target);
        }
        uint32_t dataset = plan->dataset_count - 1;
        assign(entry, places[i].side, dataset, (uint32_t)plan->datasets[dataset].rows++);
    }
    free(places);
    hlc_plan_dataset *fitted = realloc(plan->datasets, plan->dataset_count * sizeof *fitted);
    plan->datasets = fitted ? fitted : plan->datasets;
    return true;
}

static bool list_entries(const hlc_inputs *inputs, hlc_plan *plan) {
    for (size_t i = 0; i < inputs->count; i++) {
        plan->adapters[i].first_entry = plan->entry_count;
        plan->entry_count += inputs->adapters[i]->target_count;
    }
    plan->entries = calloc(plan->entry_count, sizeof *plan->entries);
    if (!plan->entries) {
        return false;
    }
    for (size_t i = 0, at = 0; i < inputs->count; i++) {
        for (size_t k = 0; k < inputs->adapters[i]->target_count; k++, at++) {
            const hlc_target *target = &inputs->adapters[i]->targets[k];
            plan->entries[at] = (hlc_plan_entry){.target = target,
                                                 .adapter = (uint32_t)i,
                                                 .module = inputs->target_modules[i][k],
                                                 .rank = target->rank,
                                                 .dataset_gauge = HLF_NONE};
        }
    }
    return true;
}

/* HDF5 takes chunks of less than 4 GiB; room is left for what cannot be compressed. */
static bool fits_chunk(uint64_t rows, uint64_t width, hlf_dtype dtype) {
    const size_t bound = hlc_encode_bound(hlf_dtype_size(dtype), rows * width);
    return bound > 0 && bound <= UINT32_MAX;
}

static void check_sizes(const hlc_inputs *inputs, const hlc_plan *plan, bool svd, hlc_faults *faults) {
    for (size_t i = 0; i < plan->entry_count; i++) {
        const hlc_target *target = plan->entries[i].target;
        const char *path = inputs->adapters[plan->entries[i].adapter]->path;
        char place[HLC_PLACE_SIZE];
        hlc_place(place, "module", target->module.bytes, target->module.length);
        if (!fits_chunk(target->rank, target->d_in, target->a.dtype) || !fits_chunk(target->rank, target->d_out, target->b.dtype)) {
            hlc_bad_input(faults, path, place, "a matrix of rank %u takes 4 GiB or more", target->rank);
        } else if (has_gauge(&plan->entries[i], svd) && !fits_chunk(2 * (uint64_t)target->rank, target->rank, HLF_DTYPE_F32)) {
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, path, place, "--decompose raw",
                      "the singular value decomposition of rank %u takes 4 GiB or more", target->rank);
        }
    }
}

bool hlc_plan_make(const hlc_compile_options *options, const hlc_inputs *inputs, hlc_plan *plan, hlc_faults *faults) {
    *plan = (hlc_plan){.adapters = calloc(inputs->count, sizeof *plan->adapters)};
    plan_job job = {.options = options, .inputs = inputs, .plan = plan, .faults = faults};
    if (!plan->adapters || !list_entries(inputs, plan)) {
        hlc_out_of_memory(faults, NULL, 0);
        return false;
    }
    const bool svd = options->decomposition == HLC_DECOMPOSE_SVD;
    check_sizes(inputs, plan, svd, faults);
    for (size_t i = 0; i < inputs->count; i++) {
        job.total += inputs->adapters[i]->file_size;
    }
    if (hlc_faults_errors(faults) || !hlc_parallel(options->threads, inputs->count, plan_adapter, &job) || hlc_faults_errors(faults)) {
        return false;
    }
    for (size_t i = 0; i < inputs->count; i++) {
        plan->tensor_bytes += plan->adapters[i].tensor_bytes;
    }
    for (size_t i = 0; i < plan->entry_count; i++) {
        plan->entries[i].first_roc = plan->rocs;
        plan->rocs += plan->entries[i].rank;
    }
    if (!place_chunks(plan, svd)) {
        hlc_out_of_memory(faults, NULL, 0);
        return false;
    }
    return true;
}

void hlc_plan_free(const hlc_inputs *inputs, hlc_plan *plan) {
    for (size_t i = 0; plan->adapters && i < inputs->count; i++) {
        free(plan->adapters[i].config);
        free(plan->adapters[i].header);
        free(plan->adapters[i].diagonals);
    }
    free(plan->adapters);
    free(plan->entries);
    free(plan->datasets);
    *plan = (hlc_plan){0};
}
