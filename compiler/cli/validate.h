/* What hilora-validate checks and what it found: subjects (pools and adapters), and the faults of each check in each of
 * them. */
#ifndef HILORA_CLI_VALIDATE_H
#define HILORA_CLI_VALIDATE_H

#include <stdbool.h>
#include <stddef.h>

#include "compiler/cli/common.h"
#include "compiler/ingest/adapter.h"

/* The order in which the faults of a subject are shown. */
typedef enum hlc_check {
    HLC_CHECK_PATH,           /* there is something to check at the path */
    HLC_CHECK_NAME,           /* no other adapter has its name */
    HLC_CHECK_POOL_STRUCTURE, /* header and tables */
    HLC_CHECK_POOL_CONTENT,   /* checksums, statistics, digest; deep: every chunk */
    HLC_CHECK_ADAPTER,        /* weight file and configuration */
    HLC_CHECK_WEIGHTS,        /* deep: finite weights */
    HLC_CHECK_EMBEDDINGS,     /* the file of sample embeddings */
    HLC_CHECK_SAMPLES,        /* enough of them for statistics */
    HLC_CHECKS
} hlc_check;

/* A stable name for machines: "pool-structure". Static storage. */
const char *hlc_check_code(hlc_check check);

typedef enum hlc_subject_kind { HLC_SUBJECT_POOL, HLC_SUBJECT_ADAPTER, HLC_SUBJECT_UNKNOWN } hlc_subject_kind;

typedef struct hlc_subject {
    const char *path; /* the operand */
    hlc_subject_kind kind;
    hlc_adapter_files *files;      /* of an adapter that was found; else NULL */
    hlc_faults *found[HLC_CHECKS]; /* NULL where a check found nothing */
    size_t adapters;               /* in a pool whose structure is good */
    uint8_t digest[HLF_SHA256_SIZE];
    size_t errors, warnings; /* sums over the checks */
} hlc_subject;

typedef struct hlc_validation {
    const char *const *paths;
    size_t count;
    const char *embeddings; /* folder or file, or NULL */
    bool deep, drop_extras;
    size_t threads;
    hlc_progress progress;
    hlc_subject *subjects; /* count, in the order of the paths */
} hlc_validation;

/* Checks everything and fills `subjects`; false when memory is out. hlc_validation_free in either case. */
bool hlc_validate(hlc_validation *validation);
void hlc_validation_free(hlc_validation *validation);

/* 0 without errors, else the exit status of the gravest fault. */
int hlc_validation_exit_status(const hlc_validation *validation);
/* Every fault, a line each. */
void hlc_validation_print_faults(const hlc_validation *validation, FILE *stream);
/* A line per subject, worst first, and the counts. */
void hlc_validation_print_summary(const hlc_validation *validation);
/* NULL when memory is out. */
json_t *hlc_validation_json(const hlc_validation *validation);

#endif
