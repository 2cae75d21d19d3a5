#include "compiler/cli/validate.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/cli/text_table.h"

const char *hlc_check_code(hlc_check check) {
    static const char *const codes[HLC_CHECKS] = {[HLC_CHECK_PATH] = "path",
                                                  [HLC_CHECK_NAME] = "name",
                                                  [HLC_CHECK_POOL_STRUCTURE] = "pool-structure",
                                                  [HLC_CHECK_POOL_CONTENT] = "pool-content",
                                                  [HLC_CHECK_ADAPTER] = "adapter",
                                                  [HLC_CHECK_WEIGHTS] = "weights",
                                                  [HLC_CHECK_EMBEDDINGS] = "embeddings",
                                                  [HLC_CHECK_SAMPLES] = "samples"};
    return codes[check];
}

int hlc_validation_exit_status(const hlc_validation *validation) {
    int status = HLC_EXIT_DONE;
    for (size_t i = 0; i < validation->count; i++) {
        for (int check = 0; check < HLC_CHECKS; check++) {
            const hlc_faults *found = validation->subjects[i].found[check];
            const int own = found ? hlc_faults_exit_status(found) : HLC_EXIT_DONE;
            status = own > status ? own : status;
        }
    }
    return status;
}

void hlc_validation_print_faults(const hlc_validation *validation, FILE *stream) {
    for (size_t i = 0; i < validation->count; i++) {
        for (int check = 0; check < HLC_CHECKS; check++) {
            if (validation->subjects[i].found[check]) {
                hlc_faults_print(validation->subjects[i].found[check], stream);
            }
        }
    }
}

static int compare_worst_first(const void *a, const void *b) {
    const hlc_subject *x = *(hlc_subject *const *)a, *y = *(hlc_subject *const *)b;
    if (x->errors != y->errors) {
        return x->errors > y->errors ? -1 : 1;
    }
    if (x->warnings != y->warnings) {
        return x->warnings > y->warnings ? -1 : 1;
    }
    return (x > y) - (x < y);
}

/* The caller frees it; NULL when memory is out. */
static hlc_subject **worst_first(const hlc_validation *validation) {
    hlc_subject **order = malloc(validation->count * sizeof *order);
    for (size_t i = 0; order && i < validation->count; i++) {
        order[i] = &validation->subjects[i];
    }
    if (order) {
        qsort(order, validation->count, sizeof *order, compare_worst_first);
    }
    return order;
}

static void print_count(size_t count, const char *what) {
    printf("%zu %s%s", count, what, count == 1 ? "" : "s");
}

static void print_subject(const hlc_subject *subject) {
    hlc_cli_print_text(stdout, subject->path, strlen(subject->path), SIZE_MAX);
    if (subject->kind == HLC_SUBJECT_ADAPTER) {
        fputs(": adapter", stdout);
    } else if (subject->kind == HLC_SUBJECT_POOL) {
        fputs(": pool", stdout);
        if (subject->adapters) {
            fputs(" of ", stdout);
            print_count(subject->adapters, "adapter");
        }
    }
    fputs(": ", stdout);
    if (!subject->errors && !subject->warnings) {
        fputs("good", stdout);
    }
    if (subject->errors) {
        print_count(subject->errors, "error");
    }
    if (subject->warnings) {
        fputs(subject->errors ? ", " : "good, ", stdout);
        print_count(subject->warnings, "warning");
    }
    putchar('\n');
}

void hlc_validation_print_summary(const hlc_validation *validation) {
    hlc_subject **order = worst_first(validation);
    size_t bad = 0, errors = 0, warnings = 0;
    for (size_t i = 0; i < validation->count; i++) {
        const hlc_subject *subject = order ? order[i] : &validation->subjects[i];
        print_subject(subject);
        bad += subject->errors > 0;
        errors += subject->errors;
        warnings += subject->warnings;
    }
    free(order);
    if (validation->count > 1) {
        printf("%zu checked: %zu good, %zu bad; ", validation->count, validation->count - bad, bad);
        print_count(errors, "error");
        fputs(", ", stdout);
        print_count(warnings, "warning");
        putchar('\n');
    }
}

/* ---- JSON ---- */

/* The faults of one check, each with the check's code, added to the list. */
static void add_faults(json_t *list, const hlc_faults *found, hlc_check check) {
    json_t *faults = hlc_cli_faults_json(found), *fault;
    size_t i;
    json_array_foreach(faults, i, fault) {
        json_object_set_new(fault, "code", json_string(hlc_check_code(check)));
    }
    json_array_extend(list, faults);
    json_decref(faults);
}

static json_t *subject_json(const hlc_subject *subject) {
    static const char *const kinds[] = {
        [HLC_SUBJECT_POOL] = "pool", [HLC_SUBJECT_ADAPTER] = "adapter", [HLC_SUBJECT_UNKNOWN] = "unknown"};
    json_t *out =
        json_pack("{s:o, s:s, s:b, s:I, s:I}", "path", hlc_cli_string_json(subject->path, strlen(subject->path)),
                  "kind", kinds[subject->kind], "valid", subject->errors == 0, "errors", (json_int_t)subject->errors,
                  "warnings", (json_int_t)subject->warnings);
    if (subject->adapters) {
        json_object_set_new(out, "adapters", json_integer((json_int_t)subject->adapters));
        json_object_set_new(out, "digest", hlc_cli_hex_json(subject->digest, sizeof subject->digest));
    }
    if (subject->files) {
        json_object_set_new(out, "name", hlc_cli_string_json(subject->files->name.bytes, subject->files->name.length));
    }
    return out;
}

json_t *hlc_validation_json(const hlc_validation *validation) {
    hlc_subject **order = worst_first(validation);
    json_t *subjects = json_array(), *faults = json_array();
    size_t errors = 0, warnings = 0, omitted = 0;
    for (size_t i = 0; i < validation->count; i++) {
        const hlc_subject *subject = order ? order[i] : &validation->subjects[i];
        json_array_append_new(subjects, subject_json(subject));
        errors += subject->errors;
        warnings += subject->warnings;
        for (int check = 0; check < HLC_CHECKS; check++) {
            const hlc_faults *found = validation->subjects[i].found[check];
            if (found) {
                add_faults(faults, found, (hlc_check)check);
                omitted += hlc_faults_omitted(found);
            }
        }
    }
    free(order);
    return json_pack("{s:b, s:I, s:I, s:I, s:o, s:o}", "valid", errors == 0, "errors", (json_int_t)errors, "warnings",
                     (json_int_t)warnings, "omitted", (json_int_t)omitted, "subjects", subjects, "faults", faults);
}
