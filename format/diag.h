/* Filling the caller's diagnostic. */
#ifndef HILORA_FORMAT_DIAG_H
#define HILORA_FORMAT_DIAG_H

#include <hilora/status.h>

/* Records the first error and answers `status`, so that a function can end in `return hlf_fail(...)`. diag may be NULL.
 * The message is cut to fit; control bytes become '?'. */
hl_status hlf_fail(hl_diag *diag, hl_status status, uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
