/* The XML that JUnit's reports have: what most pipelines read. */
#include <stdlib.h>
#include <string.h>

#include "compiler/cli/validate.h"

/* Text or an attribute's value. XML 1.0 has no place for most control characters, nor for what is not UTF-8. */
static void print_escaped(FILE *stream, const char *text) {
    const size_t length = strlen(text);
    for (size_t at = 0; at < length;) {
        uint32_t code;
        const size_t n = hlc_utf8_next(text + at, length - at, &code);
        const bool allowed =
            n && (code >= 0x20 || code == '\t' || code == '\n' || code == '\r') && code != 0xFFFE && code != 0xFFFF;
        if (!allowed) {
            fputs("&#xFFFD;", stream);
        } else if (n == 1 && strchr("<>&\"'\t\n\r", text[at])) {
            fprintf(stream, "&#%u;", (unsigned)code);
        } else {
            fwrite(text + at, 1, n, stream);
        }
        at += n ? n : 1;
    }
}

static void print_attribute(FILE *stream, const char *name, const char *value) {
    fprintf(stream, " %s=\"", name);
    print_escaped(stream, value);
    fputc('"', stream);
}

static bool fails(const hlc_finding *finding) {
    return !finding->excused && finding->severity == HLC_ERROR;
}

static void print_finding(const hlc_outcome *outcome, const hlc_finding *finding, FILE *stream) {
    const hlc_fault_view *fault = &finding->fault;
    print_escaped(stream, finding->excused ? "excused" : hlc_severity_name(finding->severity));
    const char *parts[] = {fault->file, fault->place, fault->reason};
    for (size_t i = 0; i < 3; i++) {
        if (parts[i]) {
            fputs(": ", stream);
            print_escaped(stream, parts[i]);
        }
    }
    fputs(" (", stream);
    print_escaped(stream, finding->excused ? outcome->policy->exceptions[finding->exception].reason.bytes
                          : fault->remedy  ? fault->remedy
                                           : hlc_rules[finding->rule].remedy);
    fputs(")\n", stream);
}

static void print_findings(const hlc_outcome *outcome, const size_t *numbers, size_t count, bool failing,
                           FILE *stream) {
    for (size_t i = 0; i < count; i++) {
        const hlc_finding *finding = &outcome->findings->items[numbers[i]];
        if (fails(finding) == failing) {
            print_finding(outcome, finding, stream);
        }
    }
}

/* The findings of one rule in one subject. */
static void print_case(const hlc_outcome *outcome, const char *suite, const size_t *numbers, size_t count,
                       FILE *stream) {
    const hlc_finding *first = &outcome->findings->items[numbers[0]];
    const hlc_rule *rule = &hlc_rules[first->rule];
    size_t failures = 0, excused = 0;
    for (size_t i = 0; i < count; i++) {
        failures += fails(&outcome->findings->items[numbers[i]]);
        excused += outcome->findings->items[numbers[i]].excused;
    }
    char name[256];
    snprintf(name, sizeof name, "%s %s", rule->id, rule->meaning);
    fputs("    <testcase", stream);
    print_attribute(stream, "classname", suite);
    print_attribute(stream, "name", name);
    fputs(">\n", stream);
    if (failures) {
        fputs("      <failure", stream);
        print_attribute(stream, "type", rule->id);
        print_attribute(stream, "message", first->fault.reason);
        fputc('>', stream);
        print_findings(outcome, numbers, count, true, stream);
        fputs("</failure>\n", stream);
    } else if (excused == count) {
        fputs("      <skipped", stream);
        print_attribute(stream, "message", outcome->policy->exceptions[first->exception].reason.bytes);
        fputs("/>\n", stream);
    }
    if (failures < count) {
        fputs("      <system-out>", stream);
        print_findings(outcome, numbers, count, false, stream);
        fputs("</system-out>\n", stream);
    }
    fputs("    </testcase>\n", stream);
}

static int compare_numbers(const void *a, const void *b, void *context) {
    const hlc_finding *items = context, *x = &items[*(const size_t *)a], *y = &items[*(const size_t *)b];
    if (x->rule != y->rule) {
        return x->rule < y->rule ? -1 : 1;
    }
    if (fails(x) != fails(y)) {
        return fails(x) ? -1 : 1;
    }
    return (x > y) - (x < y);
}

/* numbers: findings of one subject, by rule. */
static size_t next_rule(const hlc_findings *findings, const size_t *numbers, size_t count) {
    size_t end = 1;
    while (end < count && findings->items[numbers[end]].rule == findings->items[numbers[0]].rule) {
        end++;
    }
    return end;
}

static void count_cases(const hlc_findings *findings, const size_t *numbers, size_t count, size_t *cases,
                        size_t *failures, size_t *skipped) {
    for (size_t i = 0; i < count;) {
        const size_t n = next_rule(findings, numbers + i, count - i);
        size_t excused = 0;
        for (size_t k = 0; k < n; k++) {
            excused += findings->items[numbers[i + k]].excused;
        }
        (*cases)++;
        *failures += fails(&findings->items[numbers[i]]);
        *skipped += excused == n;
        i += n;
    }
}

static void print_suite(const hlc_outcome *outcome, const char *name, const size_t *numbers, size_t count,
                        FILE *stream) {
    size_t cases = 0, failures = 0, skipped = 0;
    count_cases(outcome->findings, numbers, count, &cases, &failures, &skipped);
    const bool passed = failures == 0;
    fputs("  <testsuite", stream);
    print_attribute(stream, "name", name);
    fprintf(stream, " tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\">\n", cases + passed, failures,
            skipped);
    if (passed) {
        fputs("    <testcase", stream);
        print_attribute(stream, "classname", name);
        fputs(" name=\"no rule of severity error fails\"/>\n", stream);
    }
    for (size_t i = 0; i < count;) {
        const size_t n = next_rule(outcome->findings, numbers + i, count - i);
        print_case(outcome, name, numbers + i, n, stream);
        i += n;
    }
    fputs("  </testsuite>\n", stream);
}

bool hlc_outcome_junit(const hlc_outcome *outcome, FILE *stream) {
    const hlc_findings *findings = outcome->findings;
    size_t *numbers = malloc((findings->count + 1) * sizeof *numbers);
    if (!numbers) {
        return false;
    }
    memcpy(numbers, findings->ranked, findings->count * sizeof *numbers);
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"hilora-validate\">\n", stream);
    for (size_t i = 0, at = 0; i <= outcome->validation->count; i++) {
        const bool last = i == outcome->validation->count;
        const ptrdiff_t subject = last ? HLC_NO_SUBJECT : (ptrdiff_t)findings->order[i];
        size_t end = at;
        while (end < findings->count && findings->items[numbers[end]].subject == subject) {
            end++;
        }
        if (!last || end > at) {
            qsort_r(numbers + at, end - at, sizeof *numbers, compare_numbers, findings->items);
            print_suite(outcome, last ? "the run itself" : outcome->validation->subjects[subject].path, numbers + at,
                        end - at, stream);
        }
        at = end;
    }
    fputs("</testsuites>\n", stream);
    free(numbers);
    return true;
}
