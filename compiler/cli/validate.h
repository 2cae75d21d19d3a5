/* How hilora-validate tells what it found: to people, and in the formats of pipelines. */
#ifndef HILORA_CLI_VALIDATE_H
#define HILORA_CLI_VALIDATE_H

#include "compiler/cli/common.h"
#include "compiler/rules/findings.h"

/* What the writers write about. */
typedef struct hlc_outcome {
    const hlc_validation *validation;
    const hlc_policy *policy;
    const hlc_findings *findings;
    int exit_status;
} hlc_outcome;

/* "error", "warning", "note"; static storage. */
const char *hlc_severity_name(hlc_severity severity);

/* Errors and warnings, and notes where they are asked for, a line each. */
void hlc_outcome_print_faults(const hlc_outcome *outcome, bool notes, FILE *stream);
/* A line per subject, worst first, and the counts. */
void hlc_outcome_print_summary(const hlc_outcome *outcome, FILE *stream);
/* Everything in 80 columns: by subject, worst first, each finding with its rule and remedy, and the counts. */
void hlc_outcome_print_report(const hlc_outcome *outcome, FILE *stream);

/* NULL when memory is out. */
json_t *hlc_outcome_json(const hlc_outcome *outcome);
/* SARIF 2.1.0. NULL when memory is out. */
json_t *hlc_outcome_sarif(const hlc_outcome *outcome);
/* JUnit's XML: a suite for each subject, a case for each rule that has findings there. False when memory is out. */
bool hlc_outcome_junit(const hlc_outcome *outcome, FILE *stream);

/* --list-rules and --explain: answer the exit status. */
int hlc_rules_list(const hlc_program *program, bool as_json);
int hlc_rules_explain(const hlc_program *program, const char *id);

#endif
