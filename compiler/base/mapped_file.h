/* A file's bytes in memory, read-only: the compiler's only caller of mmap.
 *
 * A file that another program cuts short while it is mapped ends the process with SIGBUS on access; the programs replace
 * pools by rename only, which leaves mapped ones alone. */
#ifndef HILORA_COMPILER_MAPPED_FILE_H
#define HILORA_COMPILER_MAPPED_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "compiler/base/faults.h"

typedef struct hlc_mapped_file {
    const uint8_t *bytes; /* NULL for an empty file */
    uint64_t size;
} hlc_mapped_file;

/* Maps a regular file whole. False after a fault (a missing path or a folder: RESOURCE). */
bool hlc_map_file(hlc_mapped_file *file, const char *path, hlc_faults *faults);
/* The same for an open descriptor, which the caller keeps. label: the name for faults. */
bool hlc_map_descriptor(hlc_mapped_file *file, int fd, const char *label, hlc_faults *faults);
/* Lets the system take the memory of a range back; a later access reads the file again. Any range; advice only. */
void hlc_mapped_forget(const hlc_mapped_file *file, uint64_t offset, uint64_t size);
void hlc_unmap_file(hlc_mapped_file *file);

#endif
