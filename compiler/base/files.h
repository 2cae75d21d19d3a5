/* Reading input files: regular files only, whole small ones or exact byte ranges. Safe from any thread. */
#ifndef HILORA_COMPILER_FILES_H
#define HILORA_COMPILER_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler/base/faults.h"
#include "compiler/base/text.h"

/* An open file and what identifies its content. */
typedef struct hlc_file {
    int fd;
    uint64_t size, device, inode;
    int64_t mtime_seconds, mtime_nanoseconds;
    int64_t ctime_seconds, ctime_nanoseconds; /* of the last change of the file or its inode: nobody can set it back */
} hlc_file;

/* Opens a regular file for reading, never blocking on a FIFO or a device: anything but a regular file is an INPUT
 * fault, a file that cannot be opened a RESOURCE fault. On success the caller closes out->fd. */
bool hlc_file_open(const char *path, hlc_file *out, hlc_faults *faults);

/* Reads exactly `size` bytes from `offset` on. A file that ends before is an INPUT fault. path: for the faults. */
bool hlc_file_read(int fd, const char *path, uint64_t offset, void *buffer, size_t size, hlc_faults *faults);

/* The whole of a file of at most `limit` bytes, with a NUL behind it; the caller frees it with hlc_string_free. */
bool hlc_file_load(const char *path, size_t limit, hlc_string *out, hlc_faults *faults);

typedef enum hlc_path_kind {
    HLC_PATH_MISSING,
    HLC_PATH_FILE,
    HLC_PATH_FOLDER,
    HLC_PATH_OTHER,
    HLC_PATH_ERROR
} hlc_path_kind;

/* What stands at a path (links followed). HLC_PATH_ERROR: it cannot be looked at; errno says why. */
hlc_path_kind hlc_path_look(const char *path);

/* "FOLDER/NAME" (just NAME where folder is empty), malloc'd; NULL when memory is out. */
char *hlc_path_join(const char *folder, const char *name);
/* The folder part of a path: "" where it has none, "/" for a file of the root. Malloc'd; NULL when memory is out. */
char *hlc_path_folder(const char *path);
/* The part after the last slash, inside `path`. */
const char *hlc_path_last(const char *path);
/* A hidden name for a temporary file beside `path`, of this process, a new one per attempt: short, so that it is allowed
 * wherever the path's own name is. Malloc'd; NULL when memory is out. */
char *hlc_path_hidden(const char *path, unsigned attempt);

#endif
