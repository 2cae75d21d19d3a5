#include "compiler/base/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool hlc_map_descriptor(hlc_mapped_file *file, int fd, const char *label, hlc_faults *faults) {
    struct stat status;
    *file = (hlc_mapped_file){0};
    if (fstat(fd, &status) != 0) {
        hlc_bad_io(faults, label, "cannot examine", errno);
        return false;
    }
    if (!S_ISREG(status.st_mode)) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, label, NULL, NULL, "not a regular file");
        return false;
    }
    if (status.st_size == 0) {
        return true;
    }
    void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED) {
        hlc_bad_io(faults, label, "cannot map into memory", errno);
        return false;
    }
    file->bytes = bytes;
    file->size = (uint64_t)status.st_size;
    return true;
}

bool hlc_map_file(hlc_mapped_file *file, const char *path, hlc_faults *faults) {
    *file = (hlc_mapped_file){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        hlc_bad_io(faults, path, "cannot open", errno);
        return false;
    }
    bool good = hlc_map_descriptor(file, fd, path, faults);
    close(fd);
    return good;
}

/* mmap's counterparts take a pointer to what may be changed; ours never is. */
static void *start_of(const hlc_mapped_file *file) {
    union {
        const uint8_t *in;
        void *out;
    } bytes = {file->bytes};
    return bytes.out;
}

void hlc_mapped_forget(const hlc_mapped_file *file, uint64_t offset, uint64_t size) {
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t first = (offset + page - 1) / page * page, end = (offset + size) / page * page;
    if (first < end && end <= file->size) {
        madvise((uint8_t *)start_of(file) + first, end - first, MADV_DONTNEED);
    }
}

void hlc_unmap_file(hlc_mapped_file *file) {
    if (file->bytes) {
        munmap(start_of(file), (size_t)file->size);
    }
    *file = (hlc_mapped_file){0};
}
