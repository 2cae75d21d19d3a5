/* What hilora-validate checks and what it found: subjects (pools and adapters), the faults of each check in each of
 * them, and the adapters that the pool-wide rules compare (docs/VALIDATE.md). */
#ifndef HILORA_RULES_VALIDATION_H
#define HILORA_RULES_VALIDATION_H

#include <stdbool.h>
#include <stddef.h>

#include "compiler/compile.h"
#include "compiler/ingest/adapter.h"
#include "compiler/ingest/embeddings.h"
#include "compiler/pool/pool_file.h"
#include "compiler/rules/rules_file.h"

/* The order in which the faults of a subject are kept. */
typedef enum hlc_check {
    HLC_CHECK_PATH,           /* there is something to check at the path */
    HLC_CHECK_NAME,           /* no other adapter has its name */
    HLC_CHECK_POOL_STRUCTURE, /* header and tables */
    HLC_CHECK_POOL_CONTENT,   /* checksums, statistics, digest; deep: every chunk */
    HLC_CHECK_SOURCES,        /* the files that a pool was made of */
    HLC_CHECK_ADAPTER,        /* weight file and configuration */
    HLC_CHECK_WEIGHTS,        /* deep: the numbers */
    HLC_CHECK_EMBEDDINGS,     /* the file of sample embeddings */
    HLC_CHECK_SAMPLES,        /* enough of them for statistics */
    HLC_CHECK_POOL_WIDE,      /* beside the other adapters */
    HLC_CHECK_ROUTING,        /* beside the other adapters' samples */
    HLC_CHECK_SPECTRUM,       /* deep: beside the other adapters' spectra */
    HLC_CHECKS
} hlc_check;

/* A stable name for machines: "pool-structure". Static storage. */
const char *hlc_check_code(hlc_check check);

typedef enum hlc_subject_kind { HLC_SUBJECT_POOL, HLC_SUBJECT_ADAPTER, HLC_SUBJECT_UNKNOWN } hlc_subject_kind;

typedef struct hlc_subject {
    const char *path; /* the operand */
    hlc_subject_kind kind;
    hlc_adapter_files *files;      /* of an adapter that was found; else NULL */
    hlc_adapter *adapter;          /* NULL where it could not be opened */
    hlc_embeddings *embeddings;    /* NULL where there are none */
    hlc_pool_file pool;            /* open where `adapters` is not 0 */
    hlc_faults *found[HLC_CHECKS]; /* NULL where a check found nothing */
    size_t adapters;               /* in a pool whose structure is good */
    uint8_t digest[HLF_SHA256_SIZE];
} hlc_subject;

typedef struct hlc_validation {
    const char *const *paths;
    size_t count;
    const char *embeddings;     /* folder or file, or NULL */
    const char *const *sources; /* adapters' files or folders, or folders of these */
    size_t source_count;
    const char *base_model;    /* folder, or NULL */
    hlc_ingest_options ingest; /* but for its base */
    bool deep;
    uint64_t decode_limit; /* bytes to which a pool's weights may decode; 0: by its size (verify.h) */
    size_t threads;
    const hlc_policy *policy;
    hlc_progress progress;
    hlc_faults *found;     /* that belong to no subject */
    hlc_subject *subjects; /* count, in the order of the paths */
} hlc_validation;

/* Checks everything and fills `subjects`; false when memory is out. hlc_validation_free in either case. */
bool hlc_validate(hlc_validation *validation);
void hlc_validation_free(hlc_validation *validation);

#endif
