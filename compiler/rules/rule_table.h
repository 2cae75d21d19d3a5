/* The rules of hilora-validate: what each is called, how grave it is, what it means and what to do (docs/VALIDATE.md).
 * Ids are stable: one that was given away is never given to another rule. */
#ifndef HILORA_RULES_RULE_TABLE_H
#define HILORA_RULES_RULE_TABLE_H

#include <stddef.h>

#include "compiler/base/faults.h"

enum { HLC_RULE_THRESHOLDS = 2 };

typedef struct hlc_rule_threshold {
    const char *name; /* NULL: there is none */
    double value, least, most;
    const char *meaning;
} hlc_rule_threshold;

typedef struct hlc_rule {
    const char *id; /* "HL0301" */
    hlc_fault_kind kind;
    hlc_severity severity; /* of its findings where neither the finding nor a rules file says another */
    bool deep;             /* only --deep looks for it */
    const char *meaning;   /* one sentence, without a full stop */
    const char *remedy;    /* what to do, in general: likewise */
    hlc_rule_threshold thresholds[HLC_RULE_THRESHOLDS];
} hlc_rule;

/* In the order of their ids. */
extern const hlc_rule hlc_rules[];
size_t hlc_rule_count(void);

/* "01xx: files" for the hundred that a rule is of; static storage. */
const char *hlc_rule_group(const hlc_rule *rule);
/* Position in the table of the rule whose kind this is; that of HL0103 for kinds that say too little. */
size_t hlc_rule_of_kind(hlc_fault_kind kind);
/* Position of the rule of this id, hlc_rule_count() where there is none. */
size_t hlc_rule_find(const char *id);

#endif
