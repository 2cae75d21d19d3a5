#include "compiler/export/output_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/base/files.h"

/* What a signal handler should remove; it belongs to the output, which outlives its place here. */
static _Atomic(const hlc_output_folder *) in_progress;

static void remove_hidden(const hlc_output_folder *folder) {
    for (size_t i = 0; i < folder->count; i++) {
        if (folder->files[i].path) {
            unlink(folder->files[i].path);
        }
    }
    if (folder->hidden) {
        rmdir(folder->hidden);
    }
}

void hlc_folder_remove_hidden(void) {
    const hlc_output_folder *folder = atomic_load(&in_progress);
    if (folder) {
        remove_hidden(folder);
    }
}

static bool fail_io(const hlc_output_folder *folder, const char *action, hlc_faults *faults) {
    hlc_bad_io(faults, folder->target, action, errno);
    return false;
}

/* ---- Before anything is written ---- */

static bool split_target(hlc_output_folder *folder, const char *target, hlc_faults *faults) {
    size_t length = strlen(target);
    while (length > 1 && target[length - 1] == '/') {
        length--;
    }
    folder->target = strndup(target, length);
    folder->parent = folder->target ? hlc_path_folder(folder->target) : NULL;
    if (folder->parent && !folder->parent[0]) {
        free(folder->parent);
        folder->parent = strdup(".");
    }
    if (!folder->parent) {
        hlc_out_of_memory(faults, target, 2 * length);
        return false;
    }
    const char *last = hlc_path_last(folder->target);
    if (!last[0] || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, target, NULL, "name a new folder",
                  "the path does not end in a name");
        return false;
    }
    return true;
}

static bool folder_is_empty(const char *path) {
    DIR *entries = opendir(path);
    if (!entries) {
        return false;
    }
    bool empty = true;
    for (const struct dirent *entry; empty && (entry = readdir(entries));) {
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    }
    closedir(entries);
    return empty;
}

static bool target_is_free(const hlc_output_folder *folder, hlc_faults *faults) {
    struct stat status;
    if (lstat(folder->target, &status) != 0) {
        return errno == ENOENT || fail_io(folder, "cannot create the output", faults);
    }
    if (S_ISDIR(status.st_mode) && folder_is_empty(folder->target)) {
        return true;
    }
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, folder->target, NULL, "name a new folder", "%s",
              S_ISDIR(status.st_mode) ? "the folder is there already, and cannot be seen to be empty"
                                      : "the output is there already, and no folder");
    return false;
}

/* ---- The hidden folder ---- */

/* The name is known to the signal handler before the folder exists. */
static bool try_hidden(hlc_output_folder *folder, char *name) {
    folder->hidden = name;
    atomic_store(&in_progress, folder);
    if (mkdir(name, 0777) == 0) {
        return true;
    }
    atomic_store(&in_progress, NULL);
    folder->hidden = NULL;
    free(name);
    return false;
}

static bool make_hidden(hlc_output_folder *folder) {
    for (unsigned attempt = 0; attempt < 100; attempt++) {
        char *name = hlc_path_hidden(folder->target, attempt);
        if (!name) {
            errno = ENOMEM;
            return false;
        }
        if (try_hidden(folder, name)) {
            return true;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    return false;
}

static bool name_in_hidden(hlc_output_folder *folder, size_t file) {
    folder->files[file].path = hlc_path_join(folder->hidden, folder->files[file].name);
    if (!folder->files[file].path) {
        errno = ENOMEM;
    }
    return folder->files[file].path != NULL;
}

/* ---- Files ---- */

static int open_unnamed(const hlc_output_folder *folder) {
    int fd = folder->hidden ? -1 : open(folder->parent, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    if (fd >= 0 && access("/proc/self/fd", X_OK) != 0) { /* it could not be named later */
        close(fd);
        fd = -1;
    }
    return fd;
}

bool hlc_folder_begin(hlc_output_folder *folder, const char *target, hlc_faults *faults) {
    *folder = (hlc_output_folder){0};
    return split_target(folder, target, faults) && target_is_free(folder, faults);
}

bool hlc_folder_add(hlc_output_folder *folder, const char *name, size_t *file, hlc_faults *faults) {
    *file = folder->count;
    folder->files[*file].name = name;
    folder->files[*file].fd = open_unnamed(folder);
    folder->count++;
    if (folder->files[*file].fd >= 0) {
        return true;
    }
    if ((folder->hidden || make_hidden(folder)) && name_in_hidden(folder, *file)) {
        folder->files[*file].fd = open(folder->files[*file].path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    }
    return folder->files[*file].fd >= 0 || fail_io(folder, "cannot create the output", faults);
}

bool hlc_folder_write(hlc_output_folder *folder, size_t file, const void *bytes, size_t size, hlc_faults *faults) {
    const char *at = bytes;
    while (size) {
        ssize_t n = write(folder->files[file].fd, at, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n < 0 ? errno : EIO;
            return fail_io(folder, "cannot write", faults);
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

/* ---- The end ---- */

static bool link_file(hlc_output_folder *folder, size_t file) {
    char open_path[48];
    snprintf(open_path, sizeof open_path, "/proc/self/fd/%d", folder->files[file].fd);
    return name_in_hidden(folder, file) &&
           linkat(AT_FDCWD, open_path, AT_FDCWD, folder->files[file].path, AT_SYMLINK_FOLLOW) == 0;
}

static bool sync_path(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool done = fsync(fd) == 0 || errno == EINVAL; /* some file systems cannot sync folders */
    close(fd);
    return done;
}

static bool finish_files(hlc_output_folder *folder) {
    if (!folder->hidden && !make_hidden(folder)) {
        return false;
    }
    for (size_t i = 0; i < folder->count; i++) {
        if (fsync(folder->files[i].fd) != 0 || (!folder->files[i].path && !link_file(folder, i))) {
            return false;
        }
    }
    return sync_path(folder->hidden);
}

bool hlc_folder_commit(hlc_output_folder *folder, hlc_faults *faults) {
    bool done = finish_files(folder) && rename(folder->hidden, folder->target) == 0;
    if (!done) {
        fail_io(folder, "cannot finish the output", faults);
    } else {
        atomic_store(&in_progress, NULL);
        free(folder->hidden);
        folder->hidden = NULL;
        if (!sync_path(folder->parent)) {
            hlc_fault(faults, HLC_WARNING, HLC_FAULT_RESOURCE, folder->parent, NULL, NULL, "cannot sync the folder");
        }
    }
    hlc_folder_abandon(folder);
    return done;
}

void hlc_folder_abandon(hlc_output_folder *folder) {
    if (folder->hidden) {
        remove_hidden(folder);
        atomic_store(&in_progress, NULL);
    }
    for (size_t i = 0; i < folder->count; i++) {
        if (folder->files[i].fd >= 0) {
            close(folder->files[i].fd);
        }
        free(folder->files[i].path);
    }
    free(folder->hidden);
    free(folder->parent);
    free(folder->target);
    *folder = (hlc_output_folder){0};
}
