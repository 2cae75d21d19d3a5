/* Files that hilora-validate writes: each appears whole or not at all. */
#ifndef HILORA_CLI_VALIDATE_OUTPUTS_H
#define HILORA_CLI_VALIDATE_OUTPUTS_H

#include "compiler/cli/validate.h"

typedef enum hlc_report_format {
    HLC_REPORT_TEXT,
    HLC_REPORT_JUNIT,
    HLC_REPORT_SARIF,
    HLC_REPORT_FORMATS
} hlc_report_format;

typedef struct hlc_report_paths {
    const char *path[HLC_REPORT_FORMATS]; /* NULL: not asked for; "-": standard output */
} hlc_report_paths;

/* Whether standard output is one of them. */
bool hlc_reports_on_stdout(const hlc_report_paths *paths);
/* Adds a fault of kind MISUSE for each that is one of the files that the run reads or is to read. */
void hlc_reports_refuse_inputs(const hlc_report_paths *paths, const hlc_validation *validation, const char *rules_path,
                               hlc_faults *faults);
/* One that would be written over another of them, or NULL. */
const char *hlc_reports_clash(const hlc_report_paths *paths);
/* Writes all that were asked for. Failures are added to the faults. */
void hlc_reports_write(const hlc_report_paths *paths, const hlc_outcome *outcome, hlc_faults *faults);

#endif
