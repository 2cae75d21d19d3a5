/* Work in a child process that can hurt nothing: for libraries that hostile files are known to crash.
 *
 * The child has memory and processor time up to limits, keeps none of the parent's open files but standard input, output and
 * error, may open files for reading alone, and can neither write files, nor
 * start programs, nor use the network (Linux's seccomp on x86-64 and AArch64; elsewhere the limits alone). What it answers is
 * bytes through a pipe, which the parent must not trust more than the file. Start and end from one thread; the rest of the
 * program may have others. */
#ifndef HILORA_COMPILER_CONTAINED_H
#define HILORA_COMPILER_CONTAINED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct hlc_contained {
    pid_t pid;
    int fd; /* the reading end of the pipe */
} hlc_contained;

/* Runs work(context, fd) in a child that ends with it; it may not touch locks that other threads of this process can hold
 * (malloc is fine). memory: bytes of address space beyond those of this process. False, with errno, when there is no child. */
bool hlc_contained_start(hlc_contained *child, void (*work)(void *context, int fd), void *context, uint64_t memory,
                         unsigned seconds);
/* Reads exactly `size` bytes of the answer. False when the child ended before. */
bool hlc_contained_read(hlc_contained *child, void *buffer, size_t size);
/* Writes the whole to the pipe, in the child; false when the parent is gone. */
bool hlc_contained_write(int fd, const void *bytes, size_t size);
/* What hlc_contained_end answers of a child that the system did not let give up its rights; it has done nothing. */
enum { HLC_CONTAINED_UNRESTRICTED = -1 };
/* Ends the child, if it has not ended, and waits for it: 0 when it ended by itself, else the signal that ended it. */
int hlc_contained_end(hlc_contained *child);

#endif
