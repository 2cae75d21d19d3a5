/* Statuses and diagnostics shared by every hilora library.
 *
 * C99 and C++. No function here allocates or keeps state; all are safe to call from any thread. */
#ifndef HILORA_STATUS_H
#define HILORA_STATUS_H

#include <stdint.h>

#if defined(__GNUC__)
#define HL_NODISCARD __attribute__((warn_unused_result))
#define HL_API __attribute__((visibility("default")))
#else
#define HL_NODISCARD
#define HL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The numeric values are part of the ABI and never change their meaning. */
typedef enum hl_status {
    HL_OK = 0,
    HL_ERR_ARGUMENT = 1,    /* the caller passed something the function does not take */
    HL_ERR_INPUT = 2,       /* a file or buffer breaks the rules of its format */
    HL_ERR_UNSUPPORTED = 3, /* well formed, but of a kind or version this build does not handle */
    HL_ERR_CORRUPT = 4,     /* a checksum or a cross-check shows damage */
    HL_ERR_LIMIT = 5,       /* larger than a limit set in the options */
    HL_ERR_IO = 6,          /* the operating system refused: missing path, no space, no permission */
    HL_ERR_MEMORY = 7,      /* an allocation failed */
    HL_ERR_NOT_FOUND = 8,   /* no adapter, module or tensor of that name */
    HL_ERR_CACHE = 9,       /* a cache is too small for what was asked; the diagnostic says the bytes */
    HL_ERR_INTERNAL = 10    /* a defect of this library; please report it */
} hl_status;

enum { HL_DIAG_MESSAGE_SIZE = 512 };

/* A bounded diagnostic that the caller owns. A function given one fills it on failure and leaves it
 * alone on success; NULL is always allowed. The first error wins: a later one never replaces it. */
typedef struct hl_diag {
    hl_status status;
    uint64_t offset; /* byte offset in the file or buffer, HL_NO_OFFSET where none applies */
    char message[HL_DIAG_MESSAGE_SIZE]; /* one sentence in UTF-8, NUL-terminated, no line break */
} hl_diag;

#define HL_NO_OFFSET UINT64_MAX

/* A short English name of the status ("corrupt"); never NULL, static storage. */
HL_API const char *hl_status_name(hl_status status);

/* Makes a diagnostic ready for use (HL_OK, no offset, empty message). */
HL_API void hl_diag_clear(hl_diag *diag);

#ifdef __cplusplus
}
#endif
#endif
