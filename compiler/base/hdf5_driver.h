/* A virtual file driver: HDF5 reads and writes an open descriptor of ours.
 *
 * HDF5's own driver wants a name, and an output has none until it is complete. Besides, a driver is told where every byte
 * goes, which the library's interface answers slowly for chunks, and differently from version to version. */
#ifndef HILORA_COMPILER_HDF5_DRIVER_H
#define HILORA_COMPILER_HDF5_DRIVER_H

#include <stddef.h>
#include <stdint.h>

/* What the driver notes: the place of the latest write of raw data from the watched memory. */
typedef struct hlc_h5_watch {
    const void *bytes;
    size_t size;
    uint64_t offset; /* UINT64_MAX until it was written */
    int error_number; /* of the first write, or the latest read, that failed; else 0. HDF5 does not hear of failed writes. */
} hlc_h5_watch;

/* Makes a file access property list (an HDF5 identifier) use the driver on `fd`. Both must outlive the file. The caller holds the
 * HDF5 lock. False when HDF5 refuses. */
_Bool hlc_h5_use_descriptor(int64_t access_list, int fd, hlc_h5_watch *watch);

#endif
