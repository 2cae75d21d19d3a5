#include "compiler/base/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/base/files.h"

/* The hidden name that a signal handler should remove; owned by the output. */
static _Atomic(const char *) hidden_in_progress;

void hlc_output_remove_hidden(void) {
    const char *hidden = atomic_load(&hidden_in_progress);
    if (hidden) {
        unlink(hidden);
    }
}

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) {
        return strdup(".");
    }
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* From here on a signal handler removes the name. It is told before the name exists, so that no moment is left out. */
static void note_hidden(hlc_output *output, char *name) {
    output->hidden = name;
    atomic_store(&hidden_in_progress, name);
}

static void forget_hidden(hlc_output *output) {
    atomic_store(&hidden_in_progress, NULL);
    free(output->hidden);
    output->hidden = NULL;
}

/* linkat cannot replace an existing name, so the link goes to a hidden name first and rename moves it. */
static bool give_hidden_name(hlc_output *output, hlc_faults *faults) {
    for (unsigned attempt = 0; attempt < 100; attempt++) {
        char *name = hlc_path_hidden(output->target, attempt);
        if (!name) {
            hlc_out_of_memory(faults, output->target, 0);
            return false;
        }
        note_hidden(output, name);
        if (linkat(AT_FDCWD, output->work, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0) {
            return true;
        }
        const int error_number = errno;
        forget_hidden(output);
        errno = error_number;
        if (error_number != EEXIST) {
            break;
        }
    }
    hlc_bad_io(faults, output->target, "cannot give the finished file a name", errno);
    return false;
}

static bool begin_unnamed(hlc_output *output, const char *folder) {
    output->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    if (output->fd < 0) {
        return false;
    }
    struct stat status;
    if (asprintf(&output->work, "/proc/self/fd/%d", output->fd) < 0) {
        output->work = NULL;
    }
    if (!output->work || stat(output->work, &status) != 0) { /* no /proc: the file could not be named later */
        free(output->work);
        output->work = NULL;
        close(output->fd);
        output->fd = -1;
        return false;
    }
    return true;
}

static bool begin_hidden(hlc_output *output) {
    for (unsigned attempt = 0; attempt < 100; attempt++) {
        char *name = hlc_path_hidden(output->target, attempt);
        if (!name) {
            errno = ENOMEM;
            return false;
        }
        note_hidden(output, name);
        output->fd = open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
        if (output->fd >= 0) {
            output->work = strdup(name);
            return output->work != NULL;
        }
        const int error_number = errno;
        forget_hidden(output);
        errno = error_number;
        if (error_number != EEXIST) {
            return false;
        }
    }
    return false;
}

static bool refuse(const char *target, const char *reason, hlc_faults *faults) {
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, target, NULL, "name a file", "%s", reason);
    return false;
}

/* Sets *path, malloc'd, to where the file is to appear: `target`, or what it leads to where it is a link. */
static bool find_place(const char *target, char **path, hlc_faults *faults) {
    struct stat status;
    *path = NULL;
    if (!target[0]) {
        return refuse(NULL, "the output's name is empty", faults);
    }
    const bool is_link = lstat(target, &status) == 0 && S_ISLNK(status.st_mode);
    if (stat(target, &status) == 0) {
        if (!S_ISREG(status.st_mode)) {
            return refuse(target, S_ISDIR(status.st_mode) ? "the output is a folder" : "the output is a special file", faults);
        }
    } else if (errno != ENOENT) {
        hlc_bad_io(faults, target, "cannot create the output", errno);
        return false;
    } else if (is_link) {
        return refuse(target, "the output is a link that leads nowhere", faults);
    }
    *path = is_link ? realpath(target, NULL) : strdup(target);
    if (!*path) {
        hlc_bad_io(faults, target, "cannot create the output", errno);
    }
    return *path != NULL;
}

bool hlc_output_begin(hlc_output *output, const char *target, hlc_faults *faults) {
    *output = (hlc_output){.fd = -1};
    if (!find_place(target, &output->target, faults)) {
        return false;
    }
    char *folder = folder_of(output->target);
    const bool begun = folder && (begin_unnamed(output, folder) || begin_hidden(output));
    free(folder);
    if (!begun) {
        hlc_bad_io(faults, target, "cannot create the output", errno);
        hlc_output_abandon(output);
    }
    return begun;
}

bool hlc_output_write(hlc_output *output, const void *bytes, size_t size, uint64_t offset, hlc_faults *faults) {
    const char *at = bytes;
    while (size) {
        ssize_t n = pwrite(output->fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            hlc_bad_io(faults, output->target, "cannot write", n < 0 ? errno : EIO);
            return false;
        }
        at += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

static bool sync_folder(const char *target) {
    char *folder = folder_of(target);
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    free(folder);
    if (fd < 0) {
        return false;
    }
    bool done = fsync(fd) == 0 || errno == EINVAL; /* some file systems cannot sync folders */
    close(fd);
    return done;
}

/* What a file created by open(..., 0666) would have had if it had replaced an existing one: the old file's permissions. */
static void keep_permissions(const hlc_output *output) {
    struct stat status;
    if (stat(output->target, &status) == 0 && fchmod(output->fd, status.st_mode & 07777) != 0) {
        return; /* not ours to change: the defaults stay */
    }
}

bool hlc_output_commit(hlc_output *output, hlc_faults *faults) {
    bool done = false;
    if (fsync(output->fd) != 0) {
        hlc_bad_io(faults, output->target, "cannot sync", errno);
        goto done;
    }
    keep_permissions(output);
    if (!output->hidden && !give_hidden_name(output, faults)) {
        goto done;
    }
    if (rename(output->hidden, output->target) != 0) {
        hlc_bad_io(faults, output->target, "cannot rename the finished file", errno);
        goto done;
    }
    forget_hidden(output);
    if (!sync_folder(output->target)) {
        hlc_fault(faults, HLC_WARNING, HLC_FAULT_RESOURCE, output->target, NULL, NULL, "cannot sync the folder");
    }
    done = true;
done:
    hlc_output_abandon(output);
    return done;
}

void hlc_output_abandon(hlc_output *output) {
    if (!output->target) {
        return;
    }
    if (output->hidden) {
        unlink(output->hidden);
        atomic_store(&hidden_in_progress, NULL);
    }
    if (output->fd >= 0) {
        close(output->fd);
    }
    free(output->hidden);
    free(output->work);
    free(output->target);
    *output = (hlc_output){.fd = -1};
}
