#include "compiler/emit/writer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/base/hdf5_file.h"
#include "compiler/base/mapped_file.h"
#include "compiler/base/output_file.h"
#include "compiler/base/workers.h"
#include "compiler/emit/tables.h"
#include "compiler/pool/content.h"
#include "compiler/pool/verify.h"
#include "compiler/version.h"
#include "format/bytes.h"
#include "format/checksum.h"
#include "format/index.h"
#include "format/sha256.h"

typedef struct write_job {
    const hlc_compile_options *options;
    const hlc_inputs *inputs;
    const hlc_plan *plan;
    hlc_faults *faults;
    hlc_compile_report *report;
    hlc_h5_writer *writer;
    hlc_tables tables;
    uint32_t *datasets;     /* HDF5 handles of the plan's datasets */
    hlc_encoder **encoders; /* one per worker */
    hlc_tensor_cache *caches; /* likewise */
    hlf_sha256 content;     /* of the adapter whose entries are being taken */
    uint64_t done;
} write_job;

/* ---- Layout ---- */

static bool add_meta(const hlc_inputs *inputs, const hlc_compile_options *options, const hlc_pool_stats *stats, hlc_h5_writer *writer,
                     hlc_faults *faults) {
    static const char *const shrinkages[] = {"pool", "oas", "ledoit-wolf", "number"};
    static const char *const normalized[] = {"no", "yes", "unknown"};
    const struct {
        const char *name, *text;
    } texts[] = {{"tool", "hilora-compile " HLC_VERSION},
                 {"base_model", inputs->base},
                 {"base_revision", inputs->base_revision},
                 {"encoder", inputs->encoder},
                 {"encoder_revision", inputs->revision},
                 {"prefix", inputs->prefix},
                 {"normalized", normalized[inputs->normalized]},
                 {"codec", options->codec == HLF_CODEC_ZSTD ? "zstd" : "store"},
                 {"decompose", options->decomposition == HLC_DECOMPOSE_SVD ? "svd" : "raw"},
                 {"shrinkage", shrinkages[stats->shrinkage]},
                 {"whiten", stats->whitened ? "pool" : "none"}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (!hlc_h5_add_text(writer, texts[i].name, texts[i].text, strlen(texts[i].text), faults)) {
            return false;
        }
    }
    return hlc_h5_add_integer(writer, "adapters", (int64_t)inputs->count, faults) &&
           hlc_h5_add_integer(writer, "modules", (int64_t)inputs->module_count, faults) &&
           hlc_h5_add_integer(writer, "dim", (int64_t)stats->d, faults) && hlc_h5_add_number(writer, "rho", stats->rho, faults) &&
           hlc_h5_add_number(writer, "temperature", stats->temperature, faults);
}

static bool lay_out(write_job *job, const hlc_pool_stats *stats, hlf_header *header) {
    for (int id = 1; id <= HLF_SECTION_LAST; id++) {
        const hlc_section_bytes *section = &job->tables.sections[id];
        header->sections[id].length = section->size;
        if (!hlc_h5_add_section(job->writer, (hlf_section_id)id, section->rows, section->columns, &header->sections[id].offset, job->faults)) {
            return false;
        }
    }
    const bool coded = job->options->codec == HLF_CODEC_ZSTD;
    if (!add_meta(job->inputs, job->options, stats, job->writer, job->faults) ||
        !hlc_h5_begin_chunks(job->writer, coded ? 1 : HLF_ALIGN, job->faults)) {
        return false;
    }
    for (uint32_t i = 0; i < job->plan->dataset_count; i++) {
        const hlc_plan_dataset *dataset = &job->plan->datasets[i];
        if (!hlc_h5_add_dataset(job->writer, dataset->path, dataset->rows, dataset->height, dataset->width, dataset->dtype, coded,
                                &job->datasets[i], job->faults)) {
            return false;
        }
    }
    return true;
}

/* ---- Chunks ---- */

static void *make_entry(void *context, size_t i, size_t worker) {
    write_job *job = context;
    return hlc_code_entry(job->options, job->inputs, &job->plan->entries[i], job->encoders[worker], &job->caches[worker]);
}

static void drop_entry(void *context, void *made) {
    (void)context;
    hlc_coded_entry_free(made);
}

static void hash_entry(write_job *job, const hlc_plan_entry *entry, const hlc_coded_entry *coded) {
    const hlc_target *target = entry->target;
    const bool squeezed = entry->squeezed;
    hlc_content_add(&job->content, &(hlc_content_entry){.module = target->module.bytes,
                                                        .module_length = target->module.length,
                                                        .kind = (uint32_t)target->kind,
                                                        .rank = entry->rank,
                                                        .d_in = target->d_in,
                                                        .d_out = target->d_out,
                                                        .scale = squeezed ? 1 : target->scale,
                                                        .dtype_a = squeezed ? entry->stored_a : target->a.dtype,
                                                        .dtype_b = squeezed ? entry->stored_b : target->b.dtype,
                                                        .sha256_a = coded->sha256_a,
                                                        .sha256_b = coded->sha256_b,
                                                        .sha256_e = target->e.key.bytes && !squeezed ? coded->sha256_e : NULL});
}

static bool write_chunk(write_job *job, const hlc_coded_chunk *chunk, uint32_t dataset, uint32_t row, uint32_t *number) {
    uint64_t offset = 0;
    if (!hlc_h5_write_chunk(job->writer, job->datasets[dataset], row, chunk->bytes, chunk->size, &offset, job->faults)) {
        return false;
    }
    *number = hlc_tables_add_chunk(&job->tables, offset, chunk, row, job->options->codec == HLF_CODEC_ZSTD);
    return true;
}

static bool write_entry(write_job *job, size_t i, const hlc_coded_entry *coded) {
    const hlc_plan_entry *entry = &job->plan->entries[i];
    hlf_entry_record *record = &job->tables.entries[i];
    if (!write_chunk(job, &coded->a, entry->dataset_a, entry->row_a, &record->chunk_a) ||
        !write_chunk(job, &coded->b, entry->dataset_b, entry->row_b, &record->chunk_b) ||
        (coded->gauge.bytes && !write_chunk(job, &coded->gauge, entry->dataset_gauge, entry->row_gauge, &record->chunk_gauge))) {
        return false;
    }
    memcpy(job->tables.sections[HLF_SECTION_IMPORTANCE].bytes + entry->first_roc * sizeof(float), coded->importance,
           entry->rank * sizeof(float));
    hlf_adapter_record *adapter = &job->tables.adapters[entry->adapter];
    record->squeeze_error = coded->squeeze_error;
    adapter->squeeze_error = fmax(adapter->squeeze_error, coded->squeeze_error);
    adapter->stored_size += coded->a.size + coded->b.size + coded->gauge.size;
    job->report->weight_bytes += coded->a.size + coded->b.size;
    job->report->gauge_bytes += coded->gauge.size;
    return true;
}

static bool take_entry(void *context, size_t i, void *made) {
    write_job *job = context;
    hlc_coded_entry *coded = made;
    const hlc_plan_entry *entry = &job->plan->entries[i];
    const hlc_adapter *adapter = job->inputs->adapters[entry->adapter];
    const size_t position = i - job->plan->adapters[entry->adapter].first_entry;
    bool good = true;
    hlc_faults_take(job->faults, coded->faults);
    coded->faults = NULL;
    if (position == 0) {
        hlc_content_begin(&job->content);
    }
    if (!coded->failed && !hlc_faults_errors(job->faults)) { /* after a fault the rest is only looked at */
        good = write_entry(job, i, coded);
        hash_entry(job, entry, coded);
    }
    if (coded->non_finite) {
        char place[HLC_PLACE_SIZE];
        hlc_fault(job->faults, HLC_WARNING, HLC_FAULT_INPUT, adapter->path,
                  hlc_place(place, "module", entry->target->module.bytes, entry->target->module.length), NULL,
                  "a weight is NaN or infinite");
    }
    if (position + 1 == adapter->target_count) {
        hlf_sha256_final(&job->content, job->tables.adapters[entry->adapter].content_sha256);
        good = hlc_adapter_unchanged(adapter, job->faults) && good;
    }
    job->done += hlc_source_bytes(&entry->target->a) + hlc_source_bytes(&entry->target->b);
    if (job->options->progress.report) {
        job->options->progress.report(job->options->progress.user, "compressing", job->done, job->plan->tensor_bytes);
    }
    hlc_coded_entry_free(coded);
    return good;
}

static bool make_encoders(write_job *job) {
    job->encoders = calloc(job->options->threads, sizeof *job->encoders);
    job->caches = calloc(job->options->threads, sizeof *job->caches);
    bool good = job->encoders && job->caches;
    for (size_t i = 0; good && i < job->options->threads; i++) {
        good = (job->encoders[i] = hlc_encoder_create()) != NULL;
    }
    if (!good) {
        hlc_out_of_memory(job->faults, job->options->output, 0);
    }
    return good;
}

static bool write_chunks(write_job *job) {
    const hlc_pipeline pipeline = {make_entry, take_entry, drop_entry, job};
    if (!make_encoders(job)) {
        return false;
    }
    if (!hlc_ordered(job->options->threads, job->plan->entry_count, &pipeline)) {
        if (!hlc_faults_errors(job->faults)) {
            hlc_out_of_memory(job->faults, job->options->output, 0);
        }
        return false;
    }
    return hlc_faults_errors(job->faults) == 0;
}

/* ---- Sections, header, verification ---- */

static bool read_superblock(const hlc_output *output, uint8_t out[HLF_SUPERBLOCK_SIZE], hlc_faults *faults) {
    hlc_mapped_file file;
    if (!hlc_map_descriptor(&file, output->fd, output->target, faults)) {
        return false;
    }
    bool good = file.size >= HLF_HEADER_SIZE + HLF_SUPERBLOCK_SIZE;
    if (good) {
        memcpy(out, file.bytes + HLF_HEADER_SIZE, HLF_SUPERBLOCK_SIZE);
    } else {
        hlc_bad_io(faults, output->target, "cannot read the superblock back", EIO);
    }
    hlc_unmap_file(&file);
    return good;
}

static bool write_sections(write_job *job, hlc_output *output, hlf_header *header) {
    if (!hlc_tables_finish(&job->tables, job->inputs->count, job->plan->entry_count)) {
        hlc_out_of_memory(job->faults, output->target, 0);
        return false;
    }
    for (int id = 1; id <= HLF_SECTION_LAST; id++) {
        const hlc_section_bytes *section = &job->tables.sections[id];
        header->sections[id].checksum = hlf_checksum(section->bytes, section->size);
        if (section->size && !hlc_output_write(output, section->bytes, section->size, header->sections[id].offset, job->faults)) {
            return false;
        }
        const bool route = (id >= HLF_SECTION_MEAN && id <= HLF_SECTION_LEVERAGE) || id == HLF_SECTION_WHITEN ||
                           id == HLF_SECTION_RIVALS;
        *(route ? &job->report->route_bytes : &job->report->index_bytes) += section->size;
    }
    return true;
}

/* The digest of the sections, from memory: the same that hlf_index_digest takes from a file. */
static void digest_sections(const hlc_tables *tables, uint8_t out[HLF_SHA256_SIZE]) {
    hlf_sha256 sha;
    hlf_sha256_init(&sha);
    for (uint32_t id = 1; id <= HLF_SECTION_LAST; id++) {
        uint8_t prefix[12];
        hlf_store_u32(prefix, id);
        hlf_store_u64(prefix + 4, tables->sections[id].size);
        hlf_sha256_update(&sha, prefix, sizeof prefix);
        hlf_sha256_update(&sha, tables->sections[id].bytes, tables->sections[id].size);
    }
    hlf_sha256_final(&sha, out);
}

static bool write_header(write_job *job, hlc_output *output, hlf_header *header) {
    struct stat status;
    uint8_t bytes[HLF_HEADER_SIZE];
    if (fstat(output->fd, &status) != 0) {
        hlc_bad_io(job->faults, output->target, "cannot examine", errno);
        return false;
    }
    header->major = HLF_VERSION_MAJOR;
    header->minor = HLF_VERSION_MINOR;
    header->file_size = (uint64_t)status.st_size;
    header->codec = job->options->codec;
    header->codec_version = job->options->codec == HLF_CODEC_ZSTD ? hlc_zstd_version() : 0;
    digest_sections(&job->tables, header->digest);
    if (!read_superblock(output, header->superblock, job->faults)) {
        return false;
    }
    hlf_header_encode(header, bytes);
    memcpy(job->report->digest, header->digest, sizeof header->digest);
    job->report->pool_bytes = header->file_size;
    return hlc_output_write(output, bytes, sizeof bytes, 0, job->faults);
}

static bool verify(const write_job *job, const hlc_output *output) {
    hlc_mapped_file file;
    if (!hlc_map_descriptor(&file, output->fd, output->target, job->faults)) {
        return false;
    }
    bool good = hlc_verify_pool(&file, HLC_VERIFY_CHECKSUMS, 0, output->target, job->options->threads, job->faults);
    hlc_unmap_file(&file);
    return good;
}

static void free_job(write_job *job) {
    for (size_t i = 0; job->encoders && i < job->options->threads; i++) {
        hlc_encoder_destroy(job->encoders[i]);
    }
    for (size_t i = 0; job->caches && i < job->options->threads; i++) {
        hlc_tensor_cache_free(&job->caches[i]);
    }
    free(job->encoders);
    free(job->caches);
    free(job->datasets);
    hlc_tables_free(&job->tables);
}

bool hlc_write_pool(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_plan *plan, const hlc_pool_stats *stats,
                    const hlc_rivals *rivals, hlc_compile_report *report, hlc_faults *faults) {
    write_job job = {.options = options, .inputs = inputs, .plan = plan, .faults = faults, .report = report};
    hlf_header header = {0};
    hlc_output output;
    if (!hlc_output_begin(&output, options->output, faults)) {
        return false;
    }
    job.datasets = calloc(plan->dataset_count, sizeof *job.datasets);
    bool good = job.datasets && hlc_tables_begin(options, inputs, plan, stats, rivals, &job.tables);
    if (!good) {
        hlc_out_of_memory(faults, options->output, 0);
    }
    good = good && (job.writer = hlc_h5_create(output.fd, options->output, faults)) != NULL;
    good = good && lay_out(&job, stats, &header) && write_chunks(&job);
    if (job.writer) {
        good = hlc_h5_close(job.writer, faults) && good;
    }
    good = good && write_sections(&job, &output, &header) && write_header(&job, &output, &header) && verify(&job, &output) &&
           hlc_output_commit(&output, faults);
    hlc_output_abandon(&output);
    free_job(&job);
    return good;
}
