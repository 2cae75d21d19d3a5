/* Files that are given in place of safetensors files, recognised by their first bytes. */
#ifndef HILORA_COMPILER_FOREIGN_H
#define HILORA_COMPILER_FOREIGN_H

#include <stdbool.h>
#include <stddef.h>

enum { HLC_FOREIGN_HEAD = 512 }; /* so many first bytes are enough */

typedef struct hlc_foreign {
    const char *what;   /* "a git-LFS pointer", ...; static storage */
    const char *remedy; /* NULL where there is none */
} hlc_foreign;

/* head: the first `length` bytes of a file that is known to be no safetensors file. False when it is nothing known. */
bool hlc_foreign_content(const char *head, size_t length, hlc_foreign *out);

#endif
