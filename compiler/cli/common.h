/* What the programs share: options, exit statuses, progress, and faults for people and for machines. */
#ifndef HILORA_CLI_COMMON_H
#define HILORA_CLI_COMMON_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler/base/faults.h"
#include "compiler/compile.h"

enum { HLC_EXIT_DONE = 0, HLC_EXIT_BAD_INPUT = 1, HLC_EXIT_MISUSE = 2, HLC_EXIT_RESOURCE = 3 };

typedef struct hlc_program {
    const char *name;  /* "hilora-compile" */
    const char *usage; /* the whole --help text */
} hlc_program;

/* --help and --version: on standard output, exit status 0 (3 when it cannot be written). */
int hlc_cli_help(const hlc_program *program);
int hlc_cli_version(const hlc_program *program);
/* "NAME: MESSAGE", then a pointer to --help, on standard error; answers HLC_EXIT_MISUSE. */
int hlc_cli_misuse(const hlc_program *program, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What getopt_long answered for an unknown option or a missing value; getopt has said which. */
int hlc_cli_bad_option(const hlc_program *program);

/* Whole-string numbers; false for anything else. */
bool hlc_cli_number(const char *text, double *out);
bool hlc_cli_count(const char *text, uint64_t least, uint64_t most, uint64_t *out);
/* The position of text in a list of names that ends with NULL; -1 when it is not there. */
int hlc_cli_choice(const char *text, const char *const *names);

/* A progress line on standard error, at most six times a second, only on a terminal. Zero-initialise; `quiet` silences it. */
typedef struct hlc_cli_progress {
    bool quiet, shown;
    double last, started;
} hlc_cli_progress;
hlc_progress hlc_cli_progress_start(hlc_cli_progress *progress);
/* Clears the line. */
void hlc_cli_progress_end(hlc_cli_progress *progress);

/* First of all. Temporary files go on SIGINT, SIGTERM and SIGHUP. Standard error is written by the line. Standard streams that are closed are opened on /dev/null, and as many
 * files may be open as the system allows. */
void hlc_cli_setup(void);

/* [{"severity","file","place","reason","remedy"}]; NULL when memory is out. */
json_t *hlc_cli_faults_json(const hlc_faults *faults);
/* A counted string that may not be UTF-8 (the invalid bytes are replaced by U+FFFD). */
json_t *hlc_cli_string_json(const char *bytes, size_t length);
json_t *hlc_cli_hex_json(const uint8_t *bytes, size_t size);
/* A number, or null where it is not finite. */
json_t *hlc_cli_real_json(double value);
/* Writes and frees the document; answers `status`, or 3 when standard output fails. */
int hlc_cli_write_json(const hlc_program *program, json_t *document, int status);
/* Flushes standard output; answers `status`, or 3 when it fails (a full disk behind a redirection). */
int hlc_cli_finish(const hlc_program *program, int status);

#endif
