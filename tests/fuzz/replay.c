/* replay FILE|FOLDER...: runs a fuzz target over files, for compilers without libFuzzer and to look at a case that was
 * found. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"

static int failures;
static size_t files;

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = NULL;
    long length = -1;
    if (file && fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0) {
        bytes = malloc(length > 0 ? (size_t)length : 1);
    }
    if (bytes && fread(bytes, 1, (size_t)length, file) != (size_t)length) {
        free(bytes);
        bytes = NULL;
    }
    if (file) {
        fclose(file);
    }
    *size = (size_t)length;
    return bytes;
}

static void replay_file(const char *path) {
    size_t size;
    uint8_t *bytes = read_file(path, &size);
    if (!bytes) {
        fprintf(stderr, "cannot read %s\n", path);
        failures++;
        return;
    }
    fprintf(stderr, "%s\n", path); /* before the run: the last line names the file that ends it */
    LLVMFuzzerTestOneInput(bytes, size);
    free(bytes);
    files++;
}

static void replay(const char *path) {
    DIR *folder = opendir(path);
    if (!folder) {
        replay_file(path);
        return;
    }
    for (const struct dirent *entry; (entry = readdir(folder));) {
        char inside[4096];
        if (entry->d_name[0] != '.' && (size_t)snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name) < sizeof inside) {
            replay_file(inside);
        }
    }
    closedir(folder);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        replay(argv[i]);
    }
    printf("%zu files\n", files);
    return failures > 0 || files == 0;
}
