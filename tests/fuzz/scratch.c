#include "tests/fuzz/scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_FILES = 4, PATH_SIZE = 128 };

static char folder[64];
static char paths[MOST_FILES][PATH_SIZE];
static size_t path_count;

static void remove_all(void) {
    for (size_t i = 0; i < path_count; i++) {
        unlink(paths[i]);
    }
    rmdir(folder);
}

static void make_folder(void) {
    const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(folder, sizeof folder, "%s/hilora-fuzz-XXXXXX", root);
    if (!mkdtemp(folder)) {
        abort();
    }
    atexit(remove_all);
}

static const char *path_of(const char *name) {
    for (size_t i = 0; i < path_count; i++) {
        if (strcmp(strrchr(paths[i], '/') + 1, name) == 0) {
            return paths[i];
        }
    }
    if (path_count == 0) {
        make_folder();
    }
    if (path_count == MOST_FILES || (size_t)snprintf(paths[path_count], PATH_SIZE, "%s/%s", folder, name) >= PATH_SIZE) {
        abort();
    }
    return paths[path_count++];
}

const char *hlt_scratch_file(const char *name, const void *bytes, size_t size) {
    const char *path = path_of(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size || close(fd) != 0) {
        abort();
    }
    return path;
}
