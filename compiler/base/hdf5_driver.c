#include "compiler/base/hdf5_driver.h"

#include <errno.h>
#include <hdf5.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__has_include)
#if __has_include(<H5FDdevelop.h>)
#include <H5FDdevelop.h>
#endif
#endif

enum { DRIVER_NUMBER = 517 }; /* 1.14 wants one; 512 and up are not registered */

typedef struct driver_info {
    int fd;
    hlc_h5_watch *watch;
} driver_info;

typedef struct descriptor_file {
    H5FD_t base; /* first: HDF5 knows the file by it */
    driver_info info;
    haddr_t allocated;
} descriptor_file;

static hid_t driver = H5I_INVALID_HID;

static H5FD_t *open_file(const char *name, unsigned flags, hid_t access_list, haddr_t largest) {
    (void)name, (void)flags, (void)largest;
    const driver_info *info = H5Pget_driver_info(access_list);
    descriptor_file *file = info ? calloc(1, sizeof *file) : NULL;
    if (!file) {
        return NULL;
    }
    file->info = *info;
    return &file->base;
}

static herr_t close_file(H5FD_t *base) {
    free(base); /* the descriptor is the caller's */
    return 0;
}

static herr_t query(const H5FD_t *base, unsigned long *flags) {
    (void)base;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE;
    return 0;
}

static haddr_t get_allocated(const H5FD_t *base, H5FD_mem_t type) {
    (void)type;
    return ((const descriptor_file *)base)->allocated;
}

static herr_t set_allocated(H5FD_t *base, H5FD_mem_t type, haddr_t address) {
    (void)type;
    ((descriptor_file *)base)->allocated = address;
    return 0;
}

static haddr_t get_end(const H5FD_t *base, H5FD_mem_t type) {
    (void)type;
    struct stat status;
    return fstat(((const descriptor_file *)base)->info.fd, &status) == 0 ? (haddr_t)status.st_size : HADDR_UNDEF;
}

static void note_error(const descriptor_file *file, int error_number) {
    file->info.watch->error_number = error_number;
}

/* True once a write has failed. HDF5 (1.10 at least) frees a file that it cannot flush and yet keeps its identifier, and uses it
 * again when the process ends. So the failure is noted for our caller and kept from HDF5, which goes on to close into the void. */
static bool is_void(const descriptor_file *file) {
    return file->info.watch->error_number != 0;
}

static herr_t read_file(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size, void *buffer) {
    (void)type, (void)transfer;
    const descriptor_file *file = (const descriptor_file *)base;
    char *at = buffer;
    while (size) {
        ssize_t n = pread(file->info.fd, at, size, (off_t)address);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            note_error(file, errno);
            return -1;
        }
        if (n == 0) { /* beyond the end: HDF5 expects zeros */
            memset(at, 0, size);
            break;
        }
        at += n;
        address += (haddr_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static herr_t write_file(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size, const void *buffer) {
    (void)transfer;
    const descriptor_file *file = (const descriptor_file *)base;
    hlc_h5_watch *watch = file->info.watch;
    if (type == H5FD_MEM_DRAW && buffer == watch->bytes && size == watch->size) {
        watch->offset = address;
    }
    const char *at = buffer;
    while (size && !is_void(file)) {
        ssize_t n = pwrite(file->info.fd, at, size, (off_t)address);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            note_error(file, n < 0 ? errno : EIO);
            break;
        }
        at += n;
        address += (haddr_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static herr_t truncate_file(H5FD_t *base, hid_t transfer, hbool_t closing) {
    (void)transfer, (void)closing;
    const descriptor_file *file = (const descriptor_file *)base;
    if (!is_void(file) && ftruncate(file->info.fd, (off_t)file->allocated) != 0) {
        note_error(file, errno);
    }
    return 0;
}

static const H5FD_class_t driver_class = {
#ifdef H5FD_CLASS_VERSION
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)DRIVER_NUMBER,
#endif
    .name = "hilora_descriptor",
    .maxaddr = (haddr_t)INT64_MAX,
    .fc_degree = H5F_CLOSE_WEAK,
    .fapl_size = sizeof(driver_info),
    .open = open_file,
    .close = close_file,
    .query = query,
    .get_eoa = get_allocated,
    .set_eoa = set_allocated,
    .get_eof = get_end,
    .read = read_file,
    .write = write_file,
    .truncate = truncate_file,
    .fl_map = H5FD_FLMAP_SINGLE,
};

_Bool hlc_h5_use_descriptor(int64_t access_list, int fd, hlc_h5_watch *watch) {
    if (H5Iis_valid(driver) <= 0) {
        driver = H5FDregister(&driver_class);
    }
    const driver_info info = {fd, watch};
    return driver >= 0 && H5Pset_driver((hid_t)access_list, driver, &info) >= 0;
}
