#include "compiler/rules/findings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/ingest/order.h"

typedef struct weighing {
    const hlc_validation *validation;
    hlc_policy *policy;
    hlc_findings *out;
    size_t capacity;
    size_t kept_errors, kept_others;
} weighing;

static hlc_severity severity_of(const hlc_policy *policy, size_t rule, hlc_severity found) {
    switch (policy->levels[rule]) {
    case HLC_LEVEL_NOTE:
        return HLC_NOTE;
    case HLC_LEVEL_WARNING:
        return HLC_WARNING;
    case HLC_LEVEL_ERROR:
        return HLC_ERROR;
    case HLC_LEVEL_AS_FOUND:
    case HLC_LEVEL_OFF:
        break;
    }
    return found;
}

static void raise_status(hlc_findings *out, hlc_fault_kind kind) {
    const int status = kind == HLC_FAULT_RESOURCE ? 3 : 1;
    out->exit_status = status > out->exit_status ? status : out->exit_status;
}

static void count(hlc_counts *counts, const hlc_finding *finding) {
    counts->excused += finding->excused;
    counts->errors += !finding->excused && finding->severity == HLC_ERROR;
    counts->warnings += !finding->excused && finding->severity == HLC_WARNING;
    counts->notes += !finding->excused && finding->severity == HLC_NOTE;
}

/* The adapter that a fault concerns: the subject itself, or the one that its place names. NULL for none, or without
 * memory. */
static char *adapter_of(const hlc_subject *subject, const char *place) {
    static const char start[] = "adapter '";
    if (subject && subject->files) {
        return strdup(subject->files->name.bytes);
    }
    if (!place || strncmp(place, start, sizeof start - 1) != 0) {
        return NULL;
    }
    const char *name = place + sizeof start - 1, *end = strstr(name, "': ");
    end = end ? end : strrchr(name, '\'');
    return end ? strndup(name, (size_t)(end - name)) : NULL;
}

/* False when memory is out. */
static bool keep(weighing *w, const hlc_finding *finding) {
    hlc_findings *out = w->out;
    const bool error = finding->severity == HLC_ERROR && !finding->excused;
    size_t *kept = error ? &w->kept_errors : &w->kept_others;
    if (*kept == HLC_MOST_FINDINGS) {
        out->omitted++;
        free(finding->adapter);
        return true;
    }
    if (out->count == w->capacity) {
        const size_t capacity = w->capacity ? 2 * w->capacity : 64;
        hlc_finding *larger = realloc(out->items, capacity * sizeof *larger);
        if (!larger) {
            free(finding->adapter);
            return false;
        }
        out->items = larger;
        w->capacity = capacity;
    }
    out->items[out->count++] = *finding;
    (*kept)++;
    return true;
}

static bool weigh(weighing *w, ptrdiff_t subject, const char *code, const hlc_fault_view *fault) {
    const size_t rule = hlc_rule_of_kind(fault->kind);
    hlc_finding finding = {.rule = rule,
                           .severity = severity_of(w->policy, rule, fault->severity),
                           .subject = subject,
                           .code = code,
                           .adapter = adapter_of(subject < 0 ? NULL : &w->validation->subjects[subject], fault->place),
                           .fault = *fault};
    if (w->policy->levels[rule] == HLC_LEVEL_OFF) {
        free(finding.adapter);
        return true;
    }
    finding.exception = hlc_policy_excuse(w->policy, rule, finding.adapter, fault->place);
    finding.excused = finding.exception < w->policy->exception_count && fault->kind != HLC_FAULT_RESOURCE;
    if (finding.excused) {
        w->policy->exceptions[finding.exception].used++;
    } else if (finding.severity == HLC_ERROR) {
        raise_status(w->out, fault->kind);
    }
    count(&w->out->all, &finding);
    if (subject >= 0) {
        count(&w->out->subject[subject], &finding);
    }
    return keep(w, &finding);
}

/* By file, in order of arrival within it, as they are printed elsewhere: arrival alone depends on the threads. */
static int compare_by_file(uint32_t a, uint32_t b, const void *context) {
    hlc_fault_view x, y;
    hlc_faults_get(context, a, &x);
    hlc_faults_get(context, b, &y);
    return strcmp(x.file ? x.file : "", y.file ? y.file : "");
}

/* Faults that a list has only counted keep the severity that they were found with. */
static void add_uncounted(weighing *w, ptrdiff_t subject, const hlc_faults *found) {
    size_t errors = hlc_faults_errors(found), warnings = hlc_faults_warnings(found);
    for (size_t i = 0; i < hlc_faults_count(found); i++) {
        hlc_fault_view fault;
        hlc_faults_get(found, i, &fault);
        errors -= fault.severity == HLC_ERROR;
        warnings -= fault.severity == HLC_WARNING;
    }
    if (subject >= 0) {
        w->out->subject[subject].errors += errors;
        w->out->subject[subject].warnings += warnings;
    }
    w->out->all.errors += errors;
    w->out->all.warnings += warnings;
    w->out->omitted += hlc_faults_omitted(found);
    if (errors && hlc_faults_exit_status(found) > w->out->exit_status) {
        w->out->exit_status = hlc_faults_exit_status(found);
    }
}

static bool weigh_list(weighing *w, ptrdiff_t subject, const char *code, const hlc_faults *found) {
    const size_t n = hlc_faults_count(found);
    uint32_t *order = hlc_sorted_numbers(n, compare_by_file, found);
    bool good = order || n == 0;
    for (size_t i = 0; good && i < n; i++) {
        hlc_fault_view fault;
        hlc_faults_get(found, order[i], &fault);
        good = weigh(w, subject, code, &fault);
    }
    free(order);
    if (good) {
        add_uncounted(w, subject, found);
    }
    return good;
}

/* ---- The exceptions themselves ---- */

static void report_exceptions(const weighing *w, const char *path) {
    for (size_t i = 0; i < w->policy->exception_count; i++) {
        const hlc_exception *exception = &w->policy->exceptions[i];
        const hlc_rule *rule = &hlc_rules[exception->rule];
        char place[64];
        const hlc_fault_kind kind = exception->expired ? HLC_FAULT_EXPIRED_EXCEPTION : HLC_FAULT_UNUSED_EXCEPTION;
        const hlc_rule *own = &hlc_rules[hlc_rule_of_kind(kind)];
        snprintf(place, sizeof place, "exceptions: number %zu", i);
        if (exception->expired) {
            hlc_fault(w->out->own, own->severity, kind, path, place, own->remedy, "the exception from %s has expired",
                      rule->id);
        } else if (!exception->used && (w->validation->deep || !rule->deep)) {
            hlc_fault(w->out->own, own->severity, kind, path, place, own->remedy,
                      "the exception from %s matches no finding", rule->id);
        }
    }
}

/* ---- Order ---- */

static int compare_subjects(uint32_t a, uint32_t b, const void *context) {
    const hlc_counts *x = (const hlc_counts *)context + a, *y = (const hlc_counts *)context + b;
    if (x->errors != y->errors) {
        return x->errors > y->errors ? -1 : 1;
    }
    return (x->warnings < y->warnings) - (x->warnings > y->warnings);
}

typedef struct ranking {
    const hlc_findings *findings;
    const size_t *place; /* of each subject in the order */
} ranking;

static int compare_findings(uint32_t a, uint32_t b, const void *context) {
    const ranking *r = context;
    const hlc_finding *x = &r->findings->items[a], *y = &r->findings->items[b];
    const size_t px = x->subject < 0 ? SIZE_MAX : r->place[x->subject],
                 py = y->subject < 0 ? SIZE_MAX : r->place[y->subject];
    if (px != py) {
        return px < py ? -1 : 1;
    }
    if (x->excused != y->excused) {
        return x->excused ? 1 : -1;
    }
    return (int)y->severity - (int)x->severity;
}

static bool to_sizes(uint32_t *numbers, size_t n, size_t **out) {
    *out = malloc((n + 1) * sizeof **out);
    for (size_t i = 0; numbers && *out && i < n; i++) {
        (*out)[i] = numbers[i];
    }
    free(numbers);
    return *out != NULL;
}

static bool rank(hlc_findings *findings, size_t subjects) {
    uint32_t *order = hlc_sorted_numbers(subjects, compare_subjects, findings->subject);
    size_t *place = malloc((subjects + 1) * sizeof *place);
    bool good = order && place && to_sizes(order, subjects, &findings->order);
    for (size_t i = 0; good && i < subjects; i++) {
        place[findings->order[i]] = i;
    }
    if (good) {
        const ranking context = {findings, place};
        uint32_t *ranked = hlc_sorted_numbers(findings->count, compare_findings, &context);
        good = (ranked || !findings->count) && to_sizes(ranked, findings->count, &findings->ranked);
    }
    free(place);
    return good;
}

bool hlc_findings_make(const hlc_validation *validation, hlc_policy *policy, const char *rules_path,
                       hlc_findings *out) {
    *out = (hlc_findings){.subject = calloc(validation->count + 1, sizeof *out->subject), .own = hlc_faults_create()};
    weighing w = {.validation = validation, .policy = policy, .out = out};
    bool good = out->subject && out->own;
    for (size_t i = 0; good && i < validation->count; i++) {
        for (int check = 0; good && check < HLC_CHECKS; check++) {
            const hlc_faults *found = validation->subjects[i].found[check];
            good = !found || weigh_list(&w, (ptrdiff_t)i, hlc_check_code((hlc_check)check), found);
        }
    }
    good = good && weigh_list(&w, HLC_NO_SUBJECT, "base-model", validation->found);
    if (good && rules_path) {
        report_exceptions(&w, rules_path);
        good = weigh_list(&w, HLC_NO_SUBJECT, "rules", out->own);
    }
    return good && rank(out, validation->count);
}

void hlc_findings_free(hlc_findings *findings) {
    for (size_t i = 0; i < findings->count; i++) {
        free(findings->items[i].adapter);
    }
    free(findings->items);
    free(findings->subject);
    free(findings->order);
    free(findings->ranked);
    hlc_faults_destroy(findings->own);
    *findings = (hlc_findings){0};
}
