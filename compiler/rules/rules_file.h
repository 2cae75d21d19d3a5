/* The rules file of hilora-validate (docs/VALIDATE.md): JSON that sets severities and thresholds, and excuses findings
 * by name, each with its reason. The text may be hostile: its size, its values and the time that matching takes are
 * bounded. */
#ifndef HILORA_RULES_RULES_FILE_H
#define HILORA_RULES_RULES_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "compiler/base/faults.h"
#include "compiler/base/text.h"

enum {
    HLC_RULES_FILE_BYTES = 1 << 20,
    HLC_MOST_RULES = 96,
    HLC_MOST_EXCEPTIONS = 10000,
    HLC_MOST_PATTERN_BYTES = 1024
};

/* What a rules file makes of a rule. */
typedef enum hlc_level {
    HLC_LEVEL_AS_FOUND,
    HLC_LEVEL_OFF,
    HLC_LEVEL_NOTE,
    HLC_LEVEL_WARNING,
    HLC_LEVEL_ERROR
} hlc_level;

typedef struct hlc_exception {
    size_t rule;                /* position in the table */
    hlc_string adapter, module; /* patterns with * and ?; bytes == NULL: any */
    hlc_string reason;
    bool expired; /* not applied */
    size_t used;  /* findings that it has excused */
} hlc_exception;

typedef struct hlc_policy {
    hlc_level levels[HLC_MOST_RULES];
    double thresholds[HLC_MOST_RULES][2];
    hlc_exception *exceptions;
    size_t exception_count;
} hlc_policy;

/* As without a rules file. */
void hlc_policy_init(hlc_policy *policy);
/* Reads a rules file's text into an initialised policy. today: "2026-11-22". Adds every fault found, of kind MISUSE;
 * false when there was one. path: for the faults. */
bool hlc_policy_read(hlc_policy *policy, const char *path, const char *text, size_t length, const char *today,
                     hlc_faults *faults);
void hlc_policy_free(hlc_policy *policy);

/* A threshold of a rule by its place in the table (0 or 1). */
double hlc_policy_threshold(const hlc_policy *policy, hlc_fault_kind kind, size_t which);
/* Whether findings of the rule are to be looked for. */
bool hlc_policy_wants(const hlc_policy *policy, hlc_fault_kind kind);
/* The exception for a finding of a rule, HLC_MOST_EXCEPTIONS without one. adapter, place: NULL where there is none. An
 * exception with a pattern for modules looks at the names that stand in quotes in the place. */
size_t hlc_policy_excuse(const hlc_policy *policy, size_t rule, const char *adapter, const char *place);

/* Whether the whole of text matches: * stands for any bytes, ? for one. Time O(length of pattern x length of text). */
bool hlc_glob_match(const char *pattern, size_t pattern_length, const char *text, size_t length);

#endif
