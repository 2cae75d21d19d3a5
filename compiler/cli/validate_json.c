#include "compiler/cli/validate.h"

#include <string.h>

static json_t *text_or_null(const char *text) {
    return text ? hlc_cli_string_json(text, strlen(text)) : json_null();
}

static json_t *subject_json(const hlc_subject *subject, const hlc_counts *counts) {
    static const char *const kinds[] = {
        [HLC_SUBJECT_POOL] = "pool", [HLC_SUBJECT_ADAPTER] = "adapter", [HLC_SUBJECT_UNKNOWN] = "unknown"};
    json_t *out = json_pack(
        "{s:o, s:s, s:b, s:I, s:I, s:I, s:I}", "path", hlc_cli_string_json(subject->path, strlen(subject->path)),
        "kind", kinds[subject->kind], "valid", counts->errors == 0, "errors", (json_int_t)counts->errors, "warnings",
        (json_int_t)counts->warnings, "notes", (json_int_t)counts->notes, "excused", (json_int_t)counts->excused);
    if (subject->adapters) {
        json_object_set_new(out, "adapters", json_integer((json_int_t)subject->adapters));
        json_object_set_new(out, "digest", hlc_cli_hex_json(subject->digest, sizeof subject->digest));
    }
    if (subject->files) {
        json_object_set_new(out, "name", hlc_cli_string_json(subject->files->name.bytes, subject->files->name.length));
    }
    return out;
}

static json_t *finding_json(const hlc_outcome *outcome, const hlc_finding *finding) {
    const char *subject = finding->subject < 0 ? NULL : outcome->validation->subjects[finding->subject].path;
    json_t *out = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:s, s:o, s:o}", "rule", hlc_rules[finding->rule].id,
                            "severity", hlc_severity_name(finding->severity), "file", text_or_null(finding->fault.file),
                            "place", text_or_null(finding->fault.place), "reason", text_or_null(finding->fault.reason),
                            "remedy", text_or_null(finding->fault.remedy), "code", finding->code, "subject",
                            text_or_null(subject), "adapter", text_or_null(finding->adapter));
    if (finding->excused) {
        json_object_set_new(out, "because", text_or_null(outcome->policy->exceptions[finding->exception].reason.bytes));
    }
    return out;
}

json_t *hlc_outcome_json(const hlc_outcome *outcome) {
    const hlc_findings *findings = outcome->findings;
    json_t *subjects = json_array(), *faults = json_array(), *remarks = json_array(), *excused = json_array();
    for (size_t i = 0; i < outcome->validation->count; i++) {
        const size_t subject = findings->order[i];
        json_array_append_new(subjects,
                              subject_json(&outcome->validation->subjects[subject], &findings->subject[subject]));
    }
    for (size_t i = 0; i < findings->count; i++) {
        const hlc_finding *finding = &findings->items[i];
        json_array_append_new(finding->excused                ? excused
                              : finding->severity == HLC_NOTE ? remarks
                                                              : faults,
                              finding_json(outcome, finding));
    }
    return json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:i, s:o, s:o, s:o, s:o}", "valid", findings->all.errors == 0,
                     "errors", (json_int_t)findings->all.errors, "warnings", (json_int_t)findings->all.warnings,
                     "notes", (json_int_t)findings->all.notes, "excused", (json_int_t)findings->all.excused, "omitted",
                     (json_int_t)findings->omitted, "exit_status", outcome->exit_status, "subjects", subjects, "faults",
                     faults, "remarks", remarks, "exceptions", excused);
}
