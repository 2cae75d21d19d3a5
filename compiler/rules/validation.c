#include "compiler/rules/validation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compiler/base/files.h"
#include "compiler/base/workers.h"
#include "compiler/ingest/base_model.h"
#include "compiler/ingest/locate.h"
#include "compiler/pool/verify.h"
#include "compiler/rules/adapter_rules.h"
#include "compiler/rules/company_rules.h"
#include "compiler/rules/rule_table.h"
#include "compiler/rules/weight_rules.h"

/* The name of each check, and the kind of its faults that do not say more. */
static const struct {
    const char *code;
    hlc_fault_kind kind;
} checks[HLC_CHECKS] = {[HLC_CHECK_PATH] = {"path", HLC_FAULT_NO_ADAPTER},
                        [HLC_CHECK_NAME] = {"name", HLC_FAULT_SAME_NAME},
                        [HLC_CHECK_POOL_STRUCTURE] = {"pool-structure", HLC_FAULT_POOL_STRUCTURE},
                        [HLC_CHECK_POOL_CONTENT] = {"pool-content", HLC_FAULT_POOL_CONTENT},
                        [HLC_CHECK_SOURCES] = {"sources", HLC_FAULT_NO_SOURCE},
                        [HLC_CHECK_ADAPTER] = {"adapter", HLC_FAULT_TENSOR},
                        [HLC_CHECK_WEIGHTS] = {"weights", HLC_FAULT_NOT_FINITE},
                        [HLC_CHECK_EMBEDDINGS] = {"embeddings", HLC_FAULT_EMBEDDINGS},
                        [HLC_CHECK_SAMPLES] = {"samples", HLC_FAULT_EMBEDDINGS},
                        [HLC_CHECK_POOL_WIDE] = {"pool-wide", HLC_FAULT_OTHER_SHAPE},
                        [HLC_CHECK_ROUTING] = {"routing", HLC_FAULT_RIVALS},
                        [HLC_CHECK_SPECTRUM] = {"spectrum", HLC_FAULT_SPECTRUM}};

const char *hlc_check_code(hlc_check check) {
    return checks[check].code;
}

/* The list that a check of a subject adds to; hlc_validate made room for each. */
static hlc_faults *list_of(hlc_subject *subject, hlc_check check) {
    return subject->found[check];
}

static void report_progress(const hlc_validation *validation, size_t done) {
    if (validation->progress.report) {
        validation->progress.report(validation->progress.user, "checking", done, validation->count);
    }
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
    hlc_subject **adapters = malloc((validation->count + 1) * sizeof *adapters);
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

/* ---- Each pool, each adapter ---- */

static void check_pool(const hlc_validation *validation, hlc_subject *subject) {
    if (!hlc_pool_file_open(&subject->pool, subject->path, list_of(subject, HLC_CHECK_POOL_STRUCTURE))) {
        return;
    }
    subject->adapters = subject->pool.index.adapters;
    memcpy(subject->digest, subject->pool.index.header.digest, sizeof subject->digest);
    hlc_verify_pool(&subject->pool.file, validation->deep ? HLC_VERIFY_DECODE : HLC_VERIFY_CHECKSUMS,
                    validation->decode_limit, subject->path, validation->threads,
                    list_of(subject, HLC_CHECK_POOL_CONTENT));
}

static void check_samples(const hlc_adapter_files *files, hlc_subject *subject) {
    hlc_faults *faults = list_of(subject, HLC_CHECK_SAMPLES);
    if (!files->embeddings && !subject->adapter) {
        return; /* what is no adapter needs none */
    }
    if (!files->embeddings) {
        hlc_fault(faults, HLC_WARNING, HLC_FAULT_NO_SAMPLES, files->weights, NULL,
                  "hilora-embed, or hilora-compile --no-stats=allow",
                  "no embeddings: the router could not find this adapter");
        return;
    }
    subject->embeddings =
        hlc_embeddings_read(files->embeddings, files->embeddings_key, list_of(subject, HLC_CHECK_EMBEDDINGS));
    if (subject->embeddings && subject->embeddings->samples < 2) {
        hlc_error(faults, HLC_FAULT_TOO_FEW_SAMPLES, files->embeddings, NULL,
                  "%zu sample: at least two are needed, about 20 are advised", subject->embeddings->samples);
    }
}

static void check_one_adapter(void *context, size_t i, size_t worker) {
    const hlc_validation *validation = context;
    hlc_subject *subject = &validation->subjects[i];
    if (subject->files) {
        hlc_faults *faults = list_of(subject, HLC_CHECK_ADAPTER);
        subject->adapter = hlc_adapter_open(subject->files, &validation->ingest, faults);
        if (subject->adapter && !hlc_check_adapter_rules(subject->adapter, faults)) {
            hlc_out_of_memory(faults, subject->path, 0);
        }
        check_samples(subject->files, subject);
    }
    if (worker == 0) {
        report_progress(validation, i + 1);
    }
}

/* ---- All together ---- */

static bool check_deeply(hlc_company *company) {
    const hlc_policy *policy = company->validation->policy;
    return hlc_check_weights(company) &&
           (!hlc_policy_wants(policy, HLC_FAULT_NEAR_DUPLICATE) || hlc_check_near_duplicates(company)) &&
           hlc_check_spectra(company);
}

static bool check_company(hlc_company *company) {
    const hlc_policy *policy = company->validation->policy;
    bool good = hlc_check_families(company) && hlc_check_shapes(company) && hlc_check_bases(company) &&
                hlc_check_ranks(company) && hlc_check_samples(company) && hlc_check_agreement(company) &&
                hlc_check_routing(company) && hlc_check_sources(company);
    if (good && hlc_policy_wants(policy, HLC_FAULT_SAME_BYTES)) {
        good = hlc_check_same_bytes(company);
    }
    return good && (!company->validation->deep || check_deeply(company));
}

/* The adapters of each pool whose bytes can be trusted, then those with files of their own. */
static bool check_companies(const hlc_validation *validation) {
    hlc_company company;
    bool good = true;
    for (size_t i = 0; good && i < validation->count; i++) {
        hlc_subject *subject = &validation->subjects[i];
        if (subject->adapters && hlc_faults_errors(list_of(subject, HLC_CHECK_POOL_CONTENT)) == 0) {
            good = hlc_company_of_pool(validation, subject, &company) && check_company(&company);
            hlc_company_free(&company);
        }
    }
    if (good) {
        good = hlc_company_of_adapters(validation, &company) && (!company.count || check_company(&company));
        hlc_company_free(&company);
    }
    return good;
}

/* A list per check is there while the checks run; those that stay empty go. */
static bool make_lists(hlc_subject *subject) {
    for (int check = 0; check < HLC_CHECKS; check++) {
        subject->found[check] = hlc_faults_create();
        if (!subject->found[check]) {
            return false;
        }
        hlc_faults_scope(subject->found[check], checks[check].kind);
    }
    return true;
}

static void drop_empty_lists(hlc_subject *subject) {
    for (int check = 0; check < HLC_CHECKS; check++) {
        hlc_faults *found = subject->found[check];
        if (!hlc_faults_count(found) && !hlc_faults_errors(found)) {
            hlc_faults_destroy(found);
            subject->found[check] = NULL;
        }
    }
}

bool hlc_validate(hlc_validation *validation) {
    hlc_base_model *base = NULL;
    validation->subjects = calloc(validation->count, sizeof *validation->subjects);
    validation->found = hlc_faults_create();
    bool good = validation->subjects && validation->found;
    if (good && validation->base_model) { /* without it the adapters' own faults are still told */
        hlc_faults_scope(validation->found, HLC_FAULT_BASE_MODEL);
        base = hlc_base_model_open(validation->base_model, validation->found);
        validation->ingest.base = base;
    }
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
    good = good && hlc_parallel(validation->threads, validation->count, check_one_adapter, validation) &&
           check_companies(validation);
    for (size_t i = 0; good && i < validation->count; i++) {
        drop_empty_lists(&validation->subjects[i]);
    }
    validation->ingest.base = NULL;
    hlc_base_model_close(base);
    return good;
}

void hlc_validation_free(hlc_validation *validation) {
    for (size_t i = 0; validation->subjects && i < validation->count; i++) {
        hlc_subject *subject = &validation->subjects[i];
        for (int check = 0; check < HLC_CHECKS; check++) {
            hlc_faults_destroy(subject->found[check]);
        }
        hlc_adapter_close(subject->adapter);
        hlc_embeddings_free(subject->embeddings);
        if (subject->adapters) {
            hlc_pool_file_close(&subject->pool);
        }
        if (subject->files) {
            hlc_adapter_files_free(subject->files, 1);
        }
    }
    free(validation->subjects);
    hlc_faults_destroy(validation->found);
    validation->subjects = NULL;
    validation->found = NULL;
}
