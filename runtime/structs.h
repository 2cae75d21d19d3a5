/* Reading the caller's options and writing the caller's views, whose sizes may be those of another release. */
#ifndef HILORA_RUNTIME_STRUCTS_H
#define HILORA_RUNTIME_STRUCTS_H

#include <stdbool.h>
#include <stddef.h>

#include <hilora/status.h>

/* Both kinds begin with size_t struct_size. `size` is ours, `least` that of the first release that had the structure.
 */

/* Fills `own` (size bytes) from the caller's options; absent ones (NULL, or fields beyond an older struct_size) are
 * zero. HL_ERR_ARGUMENT when struct_size is smaller than `least`, HL_ERR_UNSUPPORTED when fields that we do not know
 * are not zero. */
HL_NODISCARD hl_status hlr_options_read(void *own, size_t size, size_t least, const void *options, hl_diag *diag);

/* True when a view can be written to. */
bool hlr_view_ok(const void *view, size_t least);
/* Copies our view over the caller's, as far as that reaches; what is beyond ours becomes zero; struct_size stays. */
void hlr_view_write(void *view, const void *own, size_t size);

#endif
