/* An output file that appears whole or not at all.
 *
 * The bytes go to an unnamed file of the target's folder (O_TMPFILE), so that even a killed process leaves nothing behind;
 * where the file system has no unnamed files, to a hidden temporary name, which hlc_output_abandon removes. Commit syncs the file, renames it over the
 * target and syncs the folder. A target that is a symbolic link stays one: the file that it leads to is replaced. */
#ifndef HILORA_COMPILER_OUTPUT_FILE_H
#define HILORA_COMPILER_OUTPUT_FILE_H

#include <stdbool.h>

#include "compiler/base/faults.h"

typedef struct hlc_output {
    int fd;
    char *target;  /* the path to appear, links followed */
    char *work;    /* a path that opens the file while it is being written */
    char *hidden;  /* the temporary name where one exists, else NULL */
} hlc_output;

/* Starts an output. A target that is a folder, a link that leads nowhere, or in a folder that does not exist or cannot be written, is a RESOURCE fault. */
bool hlc_output_begin(hlc_output *output, const char *target, hlc_faults *faults);
/* Writes all of size bytes at offset. */
bool hlc_output_write(hlc_output *output, const void *bytes, size_t size, uint64_t offset, hlc_faults *faults);
/* Makes the file appear under its name; releases the rest. False after a fault: then nothing has appeared. */
bool hlc_output_commit(hlc_output *output, hlc_faults *faults);
/* Drops everything; nothing appears. Harmless after commit and on a zeroed struct. */
void hlc_output_abandon(hlc_output *output);
/* Removes the temporary name of the output in progress, if any: for a signal handler (async-signal-safe). */
void hlc_output_remove_hidden(void);

#endif
