/* What a run found, as a rules file weighs it: every fault with its rule, its severity, and the exception that excuses
 * it. */
#ifndef HILORA_RULES_FINDINGS_H
#define HILORA_RULES_FINDINGS_H

#include "compiler/rules/rule_table.h"
#include "compiler/rules/rules_file.h"
#include "compiler/rules/validation.h"

enum {
    HLC_MOST_FINDINGS = 10000, /* errors that are kept, and as many others; the rest is counted */
    HLC_NO_SUBJECT = -1
};

typedef struct hlc_finding {
    size_t rule; /* position in the table */
    hlc_severity severity;
    bool excused;
    size_t exception;     /* of the policy, where it is excused */
    ptrdiff_t subject;    /* HLC_NO_SUBJECT for those on the rules file and the base model */
    const char *code;     /* of its check */
    char *adapter;        /* its name, NULL where it concerns no single one */
    hlc_fault_view fault; /* strings of the subjects' lists; of a finding without a subject its own */
} hlc_finding;

typedef struct hlc_counts {
    size_t errors, warnings, notes, excused;
} hlc_counts;

typedef struct hlc_findings {
    hlc_finding *items; /* by subject in the order of the paths, then by check */
    size_t count;
    size_t omitted; /* counted, not kept */
    hlc_counts all;
    hlc_counts *subject; /* of each */
    size_t *order;       /* subjects, the worst first */
    size_t *ranked;      /* findings, by subject in this order, then the gravest first; those without a subject last */
    hlc_faults *own;     /* the faults of the rules file's exceptions */
    int exit_status;     /* 0 without errors that count, else that of the gravest */
} hlc_findings;

/* Weighs what the validation has found; counts in the policy which exceptions were used. rules_path: NULL without a
 * rules file. False when memory is out. The validation must outlive it; hlc_findings_free in either case. */
bool hlc_findings_make(const hlc_validation *validation, hlc_policy *policy, const char *rules_path, hlc_findings *out);
void hlc_findings_free(hlc_findings *findings);

#endif
