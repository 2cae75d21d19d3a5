#include "format/diag.h"

#include <stdarg.h>
#include <stdio.h>

const char *hl_status_name(hl_status status) {
    switch (status) {
    case HL_OK:
        return "ok";
    case HL_ERR_ARGUMENT:
        return "bad argument";
    case HL_ERR_INPUT:
        return "bad input";
    case HL_ERR_UNSUPPORTED:
        return "unsupported";
    case HL_ERR_CORRUPT:
        return "corrupt";
    case HL_ERR_LIMIT:
        return "over a limit";
    case HL_ERR_IO:
        return "input/output error";
    case HL_ERR_MEMORY:
        return "out of memory";
    case HL_ERR_NOT_FOUND:
        return "not found";
    case HL_ERR_CACHE:
        return "cache too small";
    case HL_ERR_INTERNAL:
        return "internal error";
    }
    return "unknown status";
}

void hl_diag_clear(hl_diag *diag) {
    diag->status = HL_OK;
    diag->offset = HL_NO_OFFSET;
    diag->message[0] = '\0';
}

hl_status hlf_fail(hl_diag *diag, hl_status status, uint64_t offset, const char *format, ...) {
    if (!diag || diag->status != HL_OK) {
        return status;
    }
    diag->status = status;
    diag->offset = offset;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(diag->message, sizeof diag->message, format, args);
    va_end(args);
    if (n < 0) {
        diag->message[0] = '\0';
    }
    for (char *p = diag->message; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7F) {
            *p = '?';
        }
    }
    return status;
}
