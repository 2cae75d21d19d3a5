#include "compiler/cli/validate.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/cli/text_table.h"
#include "compiler/cli/wrapped_text.h"

const char *hlc_severity_name(hlc_severity severity) {
    static const char *const names[] = {[HLC_NOTE] = "note", [HLC_WARNING] = "warning", [HLC_ERROR] = "error"};
    return names[severity];
}

/* ---- A line each ---- */

static void print_text(FILE *stream, const char *text) {
    hlc_cli_print_text(stream, text, strlen(text), SIZE_MAX);
}

static void print_line(const hlc_finding *finding, FILE *stream) {
    const char *parts[] = {finding->fault.file, finding->fault.place};
    fprintf(stream, "%s: ", hlc_severity_name(finding->severity));
    for (size_t i = 0; i < 2; i++) {
        if (parts[i]) {
            print_text(stream, parts[i]);
            fputs(": ", stream);
        }
    }
    print_text(stream, finding->fault.reason);
    if (finding->fault.remedy) {
        fputs(" (remedy: ", stream);
        print_text(stream, finding->fault.remedy);
        fputc(')', stream);
    }
    fprintf(stream, " [%s]\n", hlc_rules[finding->rule].id);
}

static void print_count(FILE *stream, size_t count, const char *what) {
    fprintf(stream, "%zu %s%s", count, what, count == 1 ? "" : "s");
}

void hlc_outcome_print_faults(const hlc_outcome *outcome, bool notes, FILE *stream) {
    const hlc_findings *findings = outcome->findings;
    hlc_counts left = findings->all;
    for (size_t i = 0; i < findings->count; i++) {
        const hlc_finding *finding = &findings->items[findings->ranked[i]];
        left.errors -= !finding->excused && finding->severity == HLC_ERROR;
        left.warnings -= !finding->excused && finding->severity == HLC_WARNING;
        if (!finding->excused && (notes || finding->severity != HLC_NOTE)) {
            print_line(finding, stream);
        }
    }
    if (left.errors) {
        fprintf(stream, "error: and %zu more errors\n", left.errors);
    }
    if (left.warnings) {
        fprintf(stream, "warning: and %zu more warnings\n", left.warnings);
    }
}

/* ---- Subjects and counts ---- */

static void print_subject(const hlc_subject *subject, const hlc_counts *counts, FILE *stream) {
    print_text(stream, subject->path);
    if (subject->kind == HLC_SUBJECT_ADAPTER) {
        fputs(": adapter", stream);
    } else if (subject->kind == HLC_SUBJECT_POOL) {
        fputs(": pool", stream);
        if (subject->adapters) {
            fputs(" of ", stream);
            print_count(stream, subject->adapters, "adapter");
        }
    }
    fputs(": ", stream);
    if (!counts->errors && !counts->warnings) {
        fputs("good", stream);
    }
    if (counts->errors) {
        print_count(stream, counts->errors, "error");
    }
    if (counts->warnings) {
        fputs(counts->errors ? ", " : "good, ", stream);
        print_count(stream, counts->warnings, "warning");
    }
    fputc('\n', stream);
}

static size_t count_bad(const hlc_outcome *outcome) {
    size_t bad = 0;
    for (size_t i = 0; i < outcome->validation->count; i++) {
        bad += outcome->findings->subject[i].errors > 0;
    }
    return bad;
}

static void print_totals(const hlc_outcome *outcome, FILE *stream) {
    const size_t count = outcome->validation->count, bad = count_bad(outcome);
    fprintf(stream, "%zu checked: %zu good, %zu bad; ", count, count - bad, bad);
    print_count(stream, outcome->findings->all.errors, "error");
    fputs(", ", stream);
    print_count(stream, outcome->findings->all.warnings, "warning");
}

void hlc_outcome_print_summary(const hlc_outcome *outcome, FILE *stream) {
    const hlc_validation *validation = outcome->validation;
    for (size_t i = 0; i < validation->count; i++) {
        const size_t subject = outcome->findings->order[i];
        print_subject(&validation->subjects[subject], &outcome->findings->subject[subject], stream);
    }
    if (validation->count > 1) {
        print_totals(outcome, stream);
        fputc('\n', stream);
    }
}

/* ---- The report ---- */

static void print_finding(const hlc_outcome *outcome, const hlc_finding *finding, FILE *stream) {
    const hlc_rule *rule = &hlc_rules[finding->rule];
    const char *parts[] = {finding->fault.file, finding->fault.place};
    hlc_text text = {0};
    hlc_text_printf(&text, "%s %s: ", finding->excused ? "excused" : hlc_severity_name(finding->severity), rule->id);
    for (size_t i = 0; i < 2; i++) {
        if (parts[i]) {
            hlc_text_printf(&text, "%s: ", parts[i]);
        }
    }
    hlc_text_printf(&text, "%s", finding->fault.reason);
    hlc_cli_print_wrapped(stream, text.failed ? finding->fault.reason : text.bytes, 2, 4);
    hlc_text_free(&text);
    const char *label = finding->excused ? "because: " : "remedy: ";
    const char *advice = finding->excused        ? outcome->policy->exceptions[finding->exception].reason.bytes
                         : finding->fault.remedy ? finding->fault.remedy
                                                 : rule->remedy;
    hlc_text_printf(&text, "%s%s", label, advice);
    hlc_cli_print_wrapped(stream, text.bytes ? text.bytes : advice, 6, 6);
    hlc_text_free(&text);
}

void hlc_outcome_print_report(const hlc_outcome *outcome, FILE *stream) {
    const hlc_findings *findings = outcome->findings;
    size_t at = 0;
    for (size_t i = 0; i < outcome->validation->count; i++) {
        const size_t subject = findings->order[i];
        print_subject(&outcome->validation->subjects[subject], &findings->subject[subject], stream);
        for (; at < findings->count && findings->items[findings->ranked[at]].subject == (ptrdiff_t)subject; at++) {
            print_finding(outcome, &findings->items[findings->ranked[at]], stream);
        }
    }
    if (at < findings->count) {
        fputs("The run itself\n", stream);
    }
    for (; at < findings->count; at++) {
        print_finding(outcome, &findings->items[findings->ranked[at]], stream);
    }
    print_totals(outcome, stream);
    fputs(", ", stream);
    print_count(stream, findings->all.notes, "note");
    fprintf(stream, ", %zu excused", findings->all.excused);
    if (findings->omitted) {
        fprintf(stream, "; %zu not shown", findings->omitted);
    }
    fputc('\n', stream);
}
