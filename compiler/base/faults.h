/* The list of everything that is wrong with a run's inputs.
 *
 * A run reports all faults, not the first: functions add to the list and go on where they can. Adding is safe from several
 * threads; printing sorts by subject. Where several threads find faults of one subject, each piece of work has a list of its own, taken in
 * order (hlc_faults_take), so that the order does not depend on the threads. An allocation failure inside
 * the list is itself counted (hlc_faults_exit_status then answers 3). */
#ifndef HILORA_COMPILER_FAULTS_H
#define HILORA_COMPILER_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "compiler/base/fault_kinds.h"

typedef enum hlc_severity { HLC_NOTE, HLC_WARNING, HLC_ERROR } hlc_severity;

typedef struct hlc_faults hlc_faults;

/* NULL when memory is out. */
hlc_faults *hlc_faults_create(void);
void hlc_faults_destroy(hlc_faults *faults);

/* file: the path as the user gave it, or NULL; place: where in it ("tensor 'x'", "byte 17", "key 'r'"), or NULL;
 * remedy: what to do, or NULL; reason: a printf format. All are copied. Control bytes in any of them are
 * printed escaped (\n as \x0A), so hostile names cannot forge lines. */
void hlc_fault(hlc_faults *faults, hlc_severity severity, hlc_fault_kind kind, const char *file, const char *place,
               const char *remedy, const char *reason, ...) __attribute__((format(printf, 7, 8)));

/* An error of some kind without a remedy. */
void hlc_error(hlc_faults *faults, hlc_fault_kind kind, const char *file, const char *place, const char *reason, ...)
    __attribute__((format(printf, 5, 6)));
/* Short form of the commonest case: an input error without a remedy. */
void hlc_bad_input(hlc_faults *faults, const char *file, const char *place, const char *reason, ...)
    __attribute__((format(printf, 4, 5)));
/* An operating-system error: adds strerror(error_number) to what was being done ("cannot open"). */
void hlc_bad_io(hlc_faults *faults, const char *file, const char *action, int error_number);
void hlc_out_of_memory(hlc_faults *faults, const char *file, uint64_t bytes);

/* From now on faults of kind INPUT that are added to the list are of this kind, until it is set again (INPUT: as they say).
 * Answers the kind that was set before. For a list that one thread uses. */
hlc_fault_kind hlc_faults_scope(hlc_faults *faults, hlc_fault_kind kind);

/* Adds what `from` holds, in its order, with what it has only counted, and destroys it. from: NULL is harmless. */
void hlc_faults_take(hlc_faults *faults, hlc_faults *from);

size_t hlc_faults_errors(const hlc_faults *faults);
size_t hlc_faults_warnings(const hlc_faults *faults);
/* 0 without errors, else the exit status of the gravest. */
int hlc_faults_exit_status(const hlc_faults *faults);
/* "error: FILE: PLACE: REASON (remedy: REMEDY)", a line each, sorted by file, then in order of arrival within it. */
void hlc_faults_print(const hlc_faults *faults, FILE *stream);

/* Reading back, for --json: i < hlc_faults_count. Strings live until the next hlc_fault call or destroy. */
typedef struct hlc_fault_view {
    hlc_severity severity;
    hlc_fault_kind kind;
    const char *file, *place, *reason, *remedy; /* NULL where none */
} hlc_fault_view;
size_t hlc_faults_count(const hlc_faults *faults);
/* Faults that were counted but not stored: the first 10,000 errors and the first 10,000 warnings and notes are kept. */
size_t hlc_faults_omitted(const hlc_faults *faults);
void hlc_faults_get(const hlc_faults *faults, size_t i, hlc_fault_view *out);

#endif
