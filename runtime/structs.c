#include "runtime/structs.h"

#include <string.h>

#include "format/diag.h"

static size_t struct_size(const void *structure) {
    size_t size;
    memcpy(&size, structure, sizeof size);
    return size;
}

hl_status hlr_options_read(void *own, size_t size, size_t least, const void *options, hl_diag *diag) {
    memset(own, 0, size);
    if (!options) {
        return HL_OK;
    }
    const size_t given = struct_size(options);
    if (given < least) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET,
                        "struct_size of the options is %zu, at least %zu expected: set it to sizeof the structure",
                        given, least);
    }
    for (size_t i = size; i < given; i++) {
        if (((const unsigned char *)options)[i]) {
            return hlf_fail(diag, HL_ERR_UNSUPPORTED, HL_NO_OFFSET,
                            "an option is set that this release of the library does not know");
        }
    }
    memcpy(own, options, given < size ? given : size);
    return HL_OK;
}

bool hlr_view_ok(const void *view, size_t least) {
    return view && struct_size(view) >= least;
}

void hlr_view_write(void *view, const void *own, size_t size) {
    const size_t given = struct_size(view), common = given < size ? given : size, first = sizeof(size_t);
    memcpy((char *)view + first, (const char *)own + first, common - first);
    memset((char *)view + common, 0, given - common);
}
