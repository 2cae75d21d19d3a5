/* Files in memory for fuzz targets whose reader wants a path. */
#ifndef HILORA_TESTS_FUZZ_SCRATCH_H
#define HILORA_TESTS_FUZZ_SCRATCH_H

#include <stddef.h>

/* Writes a file into a folder of this process, which goes away when it ends, and returns its path (valid until the
 * next call with this name). name: short, without slashes. Aborts on failure. */
const char *hlt_scratch_file(const char *name, const void *bytes, size_t size);

#endif
