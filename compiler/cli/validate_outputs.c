#include "compiler/cli/validate_outputs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/base/files.h"
#include "compiler/base/output_file.h"
#include "compiler/ingest/base_model.h"
#include "compiler/rules/company_rules.h"

static bool is_stdout(const char *path) {
    return path && strcmp(path, "-") == 0;
}

bool hlc_reports_on_stdout(const hlc_report_paths *paths) {
    bool found = false;
    for (int i = 0; i < HLC_REPORT_FORMATS; i++) {
        found |= is_stdout(paths->path[i]);
    }
    return found;
}

/* ---- No input may be written over ---- */

static bool is_file(const char *path, const void *context) {
    const struct stat *output = context;
    struct stat input;
    return path && stat(path, &input) == 0 && input.st_dev == output->st_dev && input.st_ino == output->st_ino;
}

static bool is_input(const hlc_validation *validation, const char *rules_path, const char *path, const struct stat *output) {
    bool found = is_file(rules_path, output) || is_file(validation->embeddings, output) ||
                 (validation->base_model && hlc_base_model_reads(validation->base_model, path)) ||
                 hlc_is_source(validation, is_file, output);
    for (size_t i = 0; i < validation->count; i++) {
        const hlc_adapter_files *files = validation->subjects ? validation->subjects[i].files : NULL;
        found |= is_file(validation->paths[i], output);
        found |= files && (is_file(files->weights, output) || is_file(files->config, output) ||
                           is_file(files->embeddings, output));
    }
    return found;
}

void hlc_reports_refuse_inputs(const hlc_report_paths *paths, const hlc_validation *validation, const char *rules_path,
                               hlc_faults *faults) {
    for (int i = 0; i < HLC_REPORT_FORMATS; i++) {
        const char *path = paths->path[i];
        struct stat output;
        if (path && !is_stdout(path) && stat(path, &output) == 0 && is_input(validation, rules_path, path, &output)) {
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_MISUSE, path, NULL, "name another output", "the output is an input");
        }
    }
}

/* ---- No report may be written over another ---- */

/* Whether two paths lead to one file, which may not be there yet. */
static bool is_one_place(const char *a, const char *b) {
    struct stat x, y;
    if (stat(a, &x) == 0) {
        return is_file(b, &x);
    }
    char *folder_a = hlc_path_folder(a), *folder_b = hlc_path_folder(b);
    const bool one = folder_a && folder_b && strcmp(hlc_path_last(a), hlc_path_last(b)) == 0 &&
                     stat(folder_a[0] ? folder_a : ".", &x) == 0 && stat(folder_b[0] ? folder_b : ".", &y) == 0 &&
                     x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    free(folder_b);
    free(folder_a);
    return one;
}

const char *hlc_reports_clash(const hlc_report_paths *paths) {
    for (int i = 0; i < HLC_REPORT_FORMATS; i++) {
        for (int k = 0; k < i; k++) {
            const char *a = paths->path[k], *b = paths->path[i];
            if (a && b && !is_stdout(a) && !is_stdout(b) && is_one_place(a, b)) {
                return b;
            }
        }
    }
    return NULL;
}

/* ---- Writing ---- */

static bool write_format(hlc_report_format format, const hlc_outcome *outcome, FILE *stream) {
    bool good = true;
    if (format == HLC_REPORT_TEXT) {
        hlc_outcome_print_report(outcome, stream);
    } else if (format == HLC_REPORT_JUNIT) {
        good = hlc_outcome_junit(outcome, stream);
    } else {
        json_t *document = hlc_outcome_sarif(outcome);
        good = document && json_dumpf(document, stream, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) == 0;
        json_decref(document);
        fputc('\n', stream);
    }
    return good && !ferror(stream);
}

/* The whole text in memory; the caller frees it. NULL when memory is out. */
static char *make_text(hlc_report_format format, const hlc_outcome *outcome, size_t *size) {
    char *text = NULL;
    FILE *stream = open_memstream(&text, size);
    bool good = stream && write_format(format, outcome, stream);
    if (stream) {
        good = fclose(stream) == 0 && good;
    }
    if (!good) {
        free(text);
        text = NULL;
    }
    return text;
}

static void write_report(const char *path, const char *text, size_t size, hlc_faults *faults) {
    hlc_output output = {0};
    if (is_stdout(path)) {
        fwrite(text, 1, size, stdout);
        return;
    }
    if (!hlc_output_begin(&output, path, faults)) {
        return;
    }
    if (!hlc_output_write(&output, text, size, 0, faults) || !hlc_output_commit(&output, faults)) {
        hlc_output_abandon(&output);
    }
}

void hlc_reports_write(const hlc_report_paths *paths, const hlc_outcome *outcome, hlc_faults *faults) {
    for (int i = 0; i < HLC_REPORT_FORMATS; i++) {
        if (!paths->path[i]) {
            continue;
        }
        size_t size = 0;
        char *text = make_text((hlc_report_format)i, outcome, &size);
        if (text) {
            write_report(paths->path[i], text, size, faults);
        } else {
            hlc_out_of_memory(faults, paths->path[i], size);
        }
        free(text);
    }
}
