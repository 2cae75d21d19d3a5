#include "runtime/map.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/diag.h"

static hl_status refuse(hl_diag *diag, const char *action, int error_number) {
    char reason[128];
    /* The XSI function; glibc's header offers GNU's under this name when _GNU_SOURCE is defined. */
#if defined(__GLIBC__) && defined(_GNU_SOURCE)
    const char *text = strerror_r(error_number, reason, sizeof reason);
#else
    const char *text = strerror_r(error_number, reason, sizeof reason) == 0 ? reason : "unknown error";
#endif
    return hlf_fail(diag, error_number == ENOMEM ? HL_ERR_MEMORY : HL_ERR_IO, HL_NO_OFFSET, "cannot %s: %s", action,
                    text);
}

static hl_status map_descriptor(int fd, uint64_t max_bytes, hlr_mapping *mapping, hl_diag *diag) {
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return refuse(diag, "examine", errno);
    }
    if (!S_ISREG(status.st_mode)) {
        return hlf_fail(diag, HL_ERR_IO, HL_NO_OFFSET, "not a regular file");
    }
    const uint64_t size = (uint64_t)status.st_size;
    if (size > max_bytes || size > PTRDIFF_MAX) {
        return hlf_fail(diag, HL_ERR_LIMIT, HL_NO_OFFSET, "%llu bytes, over the limit of %llu",
                        (unsigned long long)size, (unsigned long long)max_bytes);
    }
    if (size == 0) {
        return HL_OK;
    }
    void *bytes = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED) {
        return refuse(diag, "map into memory", errno);
    }
    mapping->bytes = bytes;
    mapping->size = size;
    return HL_OK;
}

hl_status hlr_map(const char *path, uint64_t max_bytes, hlr_mapping *mapping, hl_diag *diag) {
    *mapping = (hlr_mapping){NULL, 0};
    /* Without O_NONBLOCK a FIFO without a writer would hang here, before it can be refused. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return refuse(diag, "open", errno);
    }
    hl_status status = map_descriptor(fd, max_bytes, mapping, diag);
    close(fd);
    return status;
}

void hlr_unmap(hlr_mapping *mapping) {
    if (mapping->bytes) {
        munmap((void *)(uintptr_t)mapping->bytes, (size_t)mapping->size);
    }
    *mapping = (hlr_mapping){NULL, 0};
}

void hlr_map_prefetch(const hlr_mapping *mapping, uint64_t offset, uint64_t size) {
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first = offset - offset % page;
    if (mapping->bytes && size && offset <= mapping->size && size <= mapping->size - offset) {
        madvise((void *)(uintptr_t)(mapping->bytes + first), (size_t)(offset - first + size), MADV_WILLNEED);
    }
}
