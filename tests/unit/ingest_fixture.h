/* What the tests of the input readers share: a temporary folder, files in it, safetensors files, and looking for
 * faults. */
#ifndef HILORA_TESTS_INGEST_FIXTURE_H
#define HILORA_TESTS_INGEST_FIXTURE_H

#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/base/faults.h"

static char folder[64];
static hlc_faults *faults;

static inline void enter_folder(void) {
    strcpy(folder, "/tmp/hilora-ingest-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
    faults = hlc_faults_create();
    ck_assert_ptr_nonnull(faults);
}

static inline int remove_entry(const char *path, const struct stat *status, int flag, struct FTW *walk) {
    (void)status, (void)flag, (void)walk;
    return remove(path);
}

static inline void leave_folder(void) {
    hlc_faults_destroy(faults);
    ck_assert_int_eq(chdir("/tmp"), 0);
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void forget_faults(void) {
    hlc_faults_destroy(faults);
    faults = hlc_faults_create();
}

static inline void write_file(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

static inline void write_text(const char *path, const char *text) {
    write_file(path, text, strlen(text));
}

/* A safetensors file of this header and data_size bytes of data (zeros where data is NULL). */
static inline void write_safetensors_sized(const char *path, const char *header, size_t header_size, const void *data,
                                           size_t data_size) {
    unsigned char *bytes = calloc(1, 8 + header_size + data_size);
    ck_assert_ptr_nonnull(bytes);
    for (size_t i = 0; i < 8; i++)
        bytes[i] = (unsigned char)((uint64_t)header_size >> (8 * i));
    memcpy(bytes + 8, header, header_size);
    if (data)
        memcpy(bytes + 8 + header_size, data, data_size);
    write_file(path, bytes, 8 + header_size + data_size);
    free(bytes);
}

static inline void write_safetensors(const char *path, const char *header, const void *data, size_t data_size) {
    write_safetensors_sized(path, header, strlen(header), data, data_size);
}

/* Whether a fault of this severity names `place` (NULL: any) and holds `part` in its reason or remedy. */
static inline bool has_fault_of(hlc_severity severity, const char *place, const char *part) {
    for (size_t i = 0; i < hlc_faults_count(faults); i++) {
        hlc_fault_view view;
        hlc_faults_get(faults, i, &view);
        bool place_fits = !place || (view.place && strstr(view.place, place));
        bool part_fits = strstr(view.reason, part) || (view.remedy && strstr(view.remedy, part));
        if (view.severity == severity && place_fits && part_fits)
            return true;
    }
    return false;
}

static inline bool has_error(const char *place, const char *part) {
    return has_fault_of(HLC_ERROR, place, part);
}

static inline bool has_warning(const char *place, const char *part) {
    return has_fault_of(HLC_WARNING, place, part);
}

#define assert_error(place, part)                                                                                      \
    do {                                                                                                               \
        if (!has_error(place, part)) {                                                                                 \
            hlc_faults_print(faults, stderr);                                                                          \
            ck_abort_msg("no error '%s'", part);                                                                       \
        }                                                                                                              \
    } while (0)

#define assert_warning(place, part)                                                                                    \
    do {                                                                                                               \
        if (!has_warning(place, part)) {                                                                               \
            hlc_faults_print(faults, stderr);                                                                          \
            ck_abort_msg("no warning '%s'", part);                                                                     \
        }                                                                                                              \
    } while (0)

/* No error and no warning. */
#define assert_silent()                                                                                                \
    do {                                                                                                               \
        if (hlc_faults_count(faults) > 0) {                                                                            \
            hlc_faults_print(faults, stderr);                                                                          \
            ck_abort_msg("faults where none were expected");                                                           \
        }                                                                                                              \
    } while (0)

static inline int run_suite(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
