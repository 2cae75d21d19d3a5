/* An output folder that appears with all of its files or not at all.
 *
 * While they are written, the files have no name (O_TMPFILE), so that a killed process leaves nothing behind; at the
 * end they are linked into a hidden folder beside the target, which is synced and renamed. Where the file system has no
 * unnamed files, they are in the hidden folder from the start. One output at a time per process. */
#ifndef HILORA_COMPILER_OUTPUT_FOLDER_H
#define HILORA_COMPILER_OUTPUT_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "compiler/base/faults.h"

enum { HLC_FOLDER_FILES = 4 };

typedef struct hlc_output_folder {
    char *target, *parent; /* without slashes at their ends */
    char *hidden;          /* the hidden folder's path once it exists, else NULL */
    size_t count;
    struct {
        const char *name; /* borrowed */
        char *path;       /* in the hidden folder; NULL while unnamed */
        int fd;
    } files[HLC_FOLDER_FILES];
} hlc_output_folder;

/* Starts an output. A target that is there already, unless it is an empty folder, and a missing or read-only parent are
 * RESOURCE faults. */
bool hlc_folder_begin(hlc_output_folder *folder, const char *target, hlc_faults *faults);
/* Adds an empty file (at most HLC_FOLDER_FILES, names without slashes); *file is its number. */
bool hlc_folder_add(hlc_output_folder *folder, const char *name, size_t *file, hlc_faults *faults);
/* Appends to a file. */
bool hlc_folder_write(hlc_output_folder *folder, size_t file, const void *bytes, size_t size, hlc_faults *faults);
/* Makes the folder appear; releases the rest. False after a fault: then nothing has appeared. */
bool hlc_folder_commit(hlc_output_folder *folder, hlc_faults *faults);
/* Drops everything; nothing appears. Harmless after commit and on a zeroed struct. */
void hlc_folder_abandon(hlc_output_folder *folder);
/* Removes the hidden folder of the output in progress, if any: for a signal handler (async-signal-safe). */
void hlc_folder_remove_hidden(void);

#endif
