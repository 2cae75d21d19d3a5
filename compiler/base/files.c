#include "compiler/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool refuse_if_special(const char *path, mode_t mode, hlc_faults *faults) {
    if (S_ISREG(mode))
        return false;
    const char *kind = S_ISDIR(mode)                      ? "a folder"
                       : S_ISFIFO(mode)                   ? "a pipe"
                       : S_ISSOCK(mode)                   ? "a socket"
                       : (S_ISCHR(mode) || S_ISBLK(mode)) ? "a device"
                                                          : "not a file";
    hlc_bad_input(faults, path, NULL, "this is %s; a regular file is needed", kind);
    return true;
}

/* The kind is looked at before opening, as opening a device can do something, and after, as the path may have changed.
 */
bool hlc_file_open(const char *path, hlc_file *out, hlc_faults *faults) {
    *out = (hlc_file){.fd = -1};
    struct stat status;
    if (stat(path, &status) != 0) {
        hlc_bad_io(faults, path, "cannot open", errno);
        return false;
    }
    if (refuse_if_special(path, status.st_mode, faults))
        return false;
    int fd;
    do
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        hlc_bad_io(faults, path, "cannot open", errno);
        return false;
    }
    if (fstat(fd, &status) != 0) {
        hlc_bad_io(faults, path, "cannot look at", errno);
        goto fail;
    }
    if (refuse_if_special(path, status.st_mode, faults))
        goto fail;
    *out = (hlc_file){.fd = fd,
                      .size = (uint64_t)status.st_size,
                      .device = (uint64_t)status.st_dev,
                      .inode = (uint64_t)status.st_ino,
                      .mtime_seconds = (int64_t)status.st_mtim.tv_sec,
                      .mtime_nanoseconds = (int64_t)status.st_mtim.tv_nsec,
                      .ctime_seconds = (int64_t)status.st_ctim.tv_sec,
                      .ctime_nanoseconds = (int64_t)status.st_ctim.tv_nsec};
    return true;
fail:
    close(fd);
    return false;
}

bool hlc_file_read(int fd, const char *path, uint64_t offset, void *buffer, size_t size, hlc_faults *faults) {
    const size_t most_at_once = (size_t)1 << 30;
    if (offset > INT64_MAX || size > INT64_MAX - offset) {
        hlc_bad_input(faults, path, NULL, "a read at byte %llu is beyond every file", (unsigned long long)offset);
        return false;
    }
    size_t done = 0;
    while (done < size) {
        size_t ask = size - done < most_at_once ? size - done : most_at_once;
        ssize_t got = pread(fd, (char *)buffer + done, ask, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            hlc_bad_io(faults, path, "cannot read", errno);
            return false;
        }
        if (got == 0) {
            hlc_bad_input(faults, path, NULL, "the file ends before the last of the %zu bytes from byte %llu on", size,
                          (unsigned long long)offset);
            return false;
        }
        done += (size_t)got;
    }
    return true;
}

bool hlc_file_load(const char *path, size_t limit, hlc_string *out, hlc_faults *faults) {
    *out = (hlc_string){0};
    hlc_file file;
    if (!hlc_file_open(path, &file, faults))
        return false;
    bool ok = false;
    if (file.size > limit || file.size >= SIZE_MAX) {
        hlc_bad_input(faults, path, NULL, "the file has %llu bytes; at most %zu are read",
                      (unsigned long long)file.size, limit);
        goto done;
    }
    size_t size = (size_t)file.size;
    out->bytes = malloc(size + 1);
    if (!out->bytes) {
        hlc_out_of_memory(faults, path, file.size + 1);
        goto done;
    }
    ok = hlc_file_read(file.fd, path, 0, out->bytes, size, faults);
    out->bytes[ok ? size : 0] = '\0';
    out->length = ok ? size : 0;
    if (!ok)
        hlc_string_free(out);
done:
    close(file.fd);
    return ok;
}

hlc_path_kind hlc_path_look(const char *path) {
    struct stat status;
    if (stat(path, &status) != 0)
        return errno == ENOENT || errno == ENOTDIR ? HLC_PATH_MISSING : HLC_PATH_ERROR;
    return S_ISREG(status.st_mode) ? HLC_PATH_FILE : S_ISDIR(status.st_mode) ? HLC_PATH_FOLDER : HLC_PATH_OTHER;
}

char *hlc_path_join(const char *folder, const char *name) {
    size_t folder_length = strlen(folder), name_length = strlen(name);
    bool slash = folder_length > 0 && folder[folder_length - 1] != '/';
    char *path = malloc(folder_length + slash + name_length + 1);
    if (!path)
        return NULL;
    memcpy(path, folder, folder_length);
    if (slash)
        path[folder_length] = '/';
    memcpy(path + folder_length + slash, name, name_length + 1);
    return path;
}

char *hlc_path_folder(const char *path) {
    size_t length = (size_t)(hlc_path_last(path) - path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    char *folder = malloc(length + 1);
    if (!folder)
        return NULL;
    memcpy(folder, path, length);
    folder[length] = '\0';
    return folder;
}

const char *hlc_path_last(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *hlc_path_hidden(const char *path, unsigned attempt) {
    char *name = NULL;
    int folder = (int)(hlc_path_last(path) - path);
    return asprintf(&name, "%.*s.hilora.%ld.%u.tmp", folder, path, (long)getpid(), attempt) < 0 ? NULL : name;
}
