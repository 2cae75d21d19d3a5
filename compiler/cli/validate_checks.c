#include "compiler/cli/validate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compiler/base/files.h"
#include "compiler/base/workers.h"
#include "compiler/ingest/embeddings.h"
#include "compiler/ingest/locate.h"
#include "compiler/pool/finite.h"
#include "compiler/pool/pool_file.h"
#include "compiler/pool/verify.h"

/* The list that a check of a subject adds to; hlc_validate made room for each. */
static hlc_faults *list_of(hlc_subject *subject, hlc_check check) {
    return subject->found[check];
}

/* ---- What a path is ---- */

static bool ends_with(const char *text, const char *ending) {
    const size_t length = strlen(text), n = strlen(ending);
    return length >= n && strcmp(text + length - n, ending) == 0;
}

/* By content; a name that ends in .hlp settles it for files that are empty or damaged at their start. */
static hlc_subject_kind kind_of_file(const char *path, hlc_faults *faults) {
    static const char hdf5[] = "\x89HDF\r\n\x1a\n";
    char head[HLF_MAGIC_SIZE] = {0};
    hlc_file file;
    if (!hlc_file_open(path, &file, faults)) {
        return HLC_SUBJECT_UNKNOWN;
    }
    const size_t n = file.size < sizeof head ? (size_t)file.size : sizeof head;
    bool good = hlc_file_read(file.fd, path, 0, head, n, faults);
    close(file.fd);
    if (!good) {
        return HLC_SUBJECT_UNKNOWN;
    }
    return memcmp(head, HLF_MAGIC, sizeof head) == 0 || memcmp(head, hdf5, sizeof head) == 0 || ends_with(path, ".hlp")
               ? HLC_SUBJECT_POOL
               : HLC_SUBJECT_ADAPTER;
}

static hlc_subject_kind kind_of(const char *path, hlc_faults *faults) {
    switch (hlc_path_look(path)) {
    case HLC_PATH_FOLDER:
        return HLC_SUBJECT_ADAPTER;
    case HLC_PATH_FILE:
        return kind_of_file(path, faults);
    case HLC_PATH_OTHER:
        hlc_bad_input(faults, path, NULL, "neither a file nor a folder");
        break;
    case HLC_PATH_MISSING:
    case HLC_PATH_ERROR:
        hlc_bad_io(faults, path, "cannot open", errno);
        break;
    }
    return HLC_SUBJECT_UNKNOWN;
}

static bool find_subject(const hlc_validation *validation, hlc_subject *subject) {
    hlc_faults *faults = list_of(subject, HLC_CHECK_PATH);
    size_t found = 0;
    subject->kind = kind_of(subject->path, faults);
    if (subject->kind != HLC_SUBJECT_ADAPTER) {
        return true;
    }
    if (!hlc_locate(&subject->path, 1, validation->embeddings, faults, &subject->files, &found)) {
        return false;
    }
    if (!found) {
        hlc_adapter_files_free(subject->files, 0);
        subject->files = NULL;
    }
    return true;
}

/* ---- Names ---- */

static int compare_names(const void *a, const void *b) {
    const hlc_subject *x = *(hlc_subject *const *)a, *y = *(hlc_subject *const *)b;
    int order =
        hlc_bytes_compare(x->files->name.bytes, x->files->name.length, y->files->name.bytes, y->files->name.length);
    return order ? order : (x > y) - (x < y);
}

static bool check_names(const hlc_validation *validation) {
    hlc_subject **adapters = malloc(validation->count * sizeof *adapters);
    size_t count = 0;
    if (!adapters) {
        return false;
    }
    for (size_t i = 0; i < validation->count; i++) {
        if (validation->subjects[i].files) {
            adapters[count++] = &validation->subjects[i];
        }
    }
    qsort(adapters, count, sizeof *adapters, compare_names);
    for (size_t i = 1; i < count; i++) {
        const hlc_string *before = &adapters[i - 1]->files->name, *own = &adapters[i]->files->name;
        if (hlc_bytes_compare(before->bytes, before->length, own->bytes, own->length) == 0) {
            char place[HLC_PLACE_SIZE];
            hlc_bad_input(list_of(adapters[i], HLC_CHECK_NAME), adapters[i]->path,
                          hlc_place(place, "adapter", own->bytes, own->length),
                          "%s has the same name: a pool takes one of them", adapters[i - 1]->path);
        }
    }
    free(adapters);
    return true;
}

/* ---- Pools ---- */

static void check_pool(const hlc_validation *validation, hlc_subject *subject) {
    hlc_pool_file pool;
    if (!hlc_pool_file_open(&pool, subject->path, list_of(subject, HLC_CHECK_POOL_STRUCTURE))) {
        return;
    }
    subject->adapters = pool.index.adapters;
    memcpy(subject->digest, pool.index.header.digest, sizeof subject->digest);
    hlc_verify_pool(&pool.file, validation->deep ? HLC_VERIFY_DECODE : HLC_VERIFY_CHECKSUMS, subject->path,
                    validation->threads, list_of(subject, HLC_CHECK_POOL_CONTENT));
    hlc_pool_file_close(&pool);
}

/* ---- Adapters ---- */

/* Reads the matrix in blocks; reports its first element that is NaN or infinite, and how many are. */
static bool check_matrix(const hlc_adapter *adapter, const hlc_matrix_source *source, void *block, size_t block_size,
                         hlc_faults *faults) {
    const size_t element = hlf_dtype_size(source->dtype);
    const uint64_t n = source->rows * source->cols;
    uint64_t bad = 0, first = n;
    for (uint64_t at = 0; at < n;) {
        const uint64_t left = n - at, room = block_size / element, take = left < room ? left : room;
        uint64_t first_here;
        if (!hlc_adapter_read_bytes(adapter, source->offset + at * element, block, take * element, faults)) {
            return false;
        }
        const uint64_t bad_here = hlc_count_non_finite(block, source->dtype, take, &first_here);
        first = bad_here && !bad ? at + first_here : first;
        bad += bad_here;
        at += take;
    }
    if (bad) {
        char place[HLC_PLACE_SIZE];
        hlc_bad_input(faults, adapter->path, hlc_place(place, "tensor", source->key.bytes, source->key.length),
                      "NaN or infinity in %llu of %llu elements, the first in row %llu, column %llu",
                      (unsigned long long)bad, (unsigned long long)n, (unsigned long long)(first / source->cols),
                      (unsigned long long)(first % source->cols));
    }
    return true;
}

static void check_weights(const hlc_adapter *adapter, hlc_faults *faults) {
    enum { BLOCK = 1 << 20 };
    void *block = malloc(BLOCK);
    if (!block) {
        hlc_out_of_memory(faults, adapter->path, BLOCK);
    }
    for (size_t i = 0; block && i < adapter->target_count; i++) {
        const hlc_target *target = &adapter->targets[i];
        if (!check_matrix(adapter, &target->a, block, BLOCK, faults) ||
            !check_matrix(adapter, &target->b, block, BLOCK, faults)) {
            break;
        }
    }
    free(block);
}

static void check_samples(const hlc_adapter_files *files, bool adapter_good, hlc_subject *subject) {
    hlc_faults *faults = list_of(subject, HLC_CHECK_SAMPLES);
    if (!files->embeddings && !adapter_good) {
        return; /* what is no adapter needs none */
    }
    if (!files->embeddings) {
        hlc_fault(faults, HLC_WARNING, HLC_FAULT_INPUT, files->weights, NULL,
                  "hilora-embed, or hilora-compile --no-stats=allow",
                  "no embeddings: the router could not find this adapter");
        return;
    }
    hlc_embeddings *embeddings =
        hlc_embeddings_read(files->embeddings, files->embeddings_key, list_of(subject, HLC_CHECK_EMBEDDINGS));
    if (embeddings && embeddings->samples < 2) {
        hlc_bad_input(faults, files->embeddings, NULL, "%zu sample: at least two are needed, about 20 are advised",
                      embeddings->samples);
    }
    hlc_embeddings_free(embeddings);
}

static void check_adapter(const hlc_validation *validation, hlc_subject *subject) {
    const hlc_ingest_options ingest = {.drop_extras = validation->drop_extras};
    hlc_adapter *adapter = hlc_adapter_open(subject->files, &ingest, list_of(subject, HLC_CHECK_ADAPTER));
    if (adapter && validation->deep) {
        check_weights(adapter, list_of(subject, HLC_CHECK_WEIGHTS));
    }
    check_samples(subject->files, adapter != NULL, subject);
    hlc_adapter_close(adapter);
}

/* ---- The run ---- */

static void report_progress(const hlc_validation *validation, size_t done) {
    if (validation->progress.report) {
        validation->progress.report(validation->progress.user, "checking", done, validation->count);
    }
}

static void check_one_adapter(void *context, size_t i, size_t worker) {
    const hlc_validation *validation = context;
    hlc_subject *subject = &validation->subjects[i];
    if (subject->files) {
        check_adapter(validation, subject);
    }
    if (worker == 0) {
        report_progress(validation, i + 1);
    }
}

/* A list per check is there while the checks run; those that stay empty go. */
static bool make_lists(hlc_subject *subject) {
    for (int check = 0; check < HLC_CHECKS; check++) {
        subject->found[check] = hlc_faults_create();
        if (!subject->found[check]) {
            return false;
        }
    }
    return true;
}

static void sum_lists(hlc_subject *subject) {
    for (int check = 0; check < HLC_CHECKS; check++) {
        subject->errors += hlc_faults_errors(subject->found[check]);
        subject->warnings += hlc_faults_warnings(subject->found[check]);
        if (!hlc_faults_count(subject->found[check]) && !hlc_faults_errors(subject->found[check])) {
            hlc_faults_destroy(subject->found[check]);
            subject->found[check] = NULL;
        }
    }
}

bool hlc_validate(hlc_validation *validation) {
    validation->subjects = calloc(validation->count, sizeof *validation->subjects);
    bool good = validation->subjects != NULL;
    for (size_t i = 0; good && i < validation->count; i++) {
        validation->subjects[i].path = validation->paths[i];
        good = make_lists(&validation->subjects[i]) && find_subject(validation, &validation->subjects[i]);
    }
    good = good && check_names(validation);
    for (size_t i = 0; good && i < validation->count; i++) { /* a pool at a time: each is checked on all threads */
        if (validation->subjects[i].kind == HLC_SUBJECT_POOL) {
            check_pool(validation, &validation->subjects[i]);
            report_progress(validation, i + 1);
        }
    }
    good = good && hlc_parallel(validation->threads, validation->count, check_one_adapter, validation);
    for (size_t i = 0; good && i < validation->count; i++) {
        sum_lists(&validation->subjects[i]);
    }
    return good;
}

void hlc_validation_free(hlc_validation *validation) {
    for (size_t i = 0; validation->subjects && i < validation->count; i++) {
        hlc_subject *subject = &validation->subjects[i];
        for (int check = 0; check < HLC_CHECKS; check++) {
            hlc_faults_destroy(subject->found[check]);
        }
        if (subject->files) {
            hlc_adapter_files_free(subject->files, 1);
        }
    }
    free(validation->subjects);
    validation->subjects = NULL;
}
