/* Files in memory, read-only. The only caller of mmap in the runtime. */
#ifndef HILORA_RUNTIME_MAP_H
#define HILORA_RUNTIME_MAP_H

#include <stdint.h>

#include <hilora/status.h>

typedef struct hlr_mapping {
    const uint8_t *bytes; /* NULL for an empty file */
    uint64_t size;
} hlr_mapping;

/* Maps a regular file of at most max_bytes. A file that is cut short afterwards raises SIGBUS on access. */
HL_NODISCARD hl_status hlr_map(const char *path, uint64_t max_bytes, hlr_mapping *mapping, hl_diag *diag);
/* An empty mapping is allowed. */
void hlr_unmap(hlr_mapping *mapping);

/* Has the system read the `size` bytes from offset on ahead of their use, without waiting for them. Only a hint; an empty range or
 * mapping is allowed. */
void hlr_map_prefetch(const hlr_mapping *mapping, uint64_t offset, uint64_t size);

#endif
