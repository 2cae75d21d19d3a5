/* Conditions of adapters on a command line: NAME=SCORE, or NAME=qLEVEL for a quantile of the adapter's own samples. */
#ifndef HILORA_CLI_THRESHOLD_H
#define HILORA_CLI_THRESHOLD_H

#include "compiler/cli/common.h"
#include "compiler/emit/thresholds.h"

typedef struct hlc_cli_thresholds {
    hlc_threshold *list; /* names point into the command line */
    size_t count;
} hlc_cli_thresholds;

/* Adds what the text says, which is cut at its last "="; a score is finite, or "none" (-INFINITY: no condition) where
 * that is allowed. Answers -1, or the exit status of a misuse, a name that is there already included. */
int hlc_cli_add_threshold(const hlc_program *program, char *text, bool none_allowed, hlc_cli_thresholds *thresholds);
void hlc_cli_free_thresholds(hlc_cli_thresholds *thresholds);

#endif
