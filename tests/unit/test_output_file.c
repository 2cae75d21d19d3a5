/* Output files: whole or not at all, old ones untouched until the last moment. */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/base/output_file.h"

static char folder[64], target[128];
static hlc_faults *faults;

static void setup(void) {
    strcpy(folder, "/tmp/hilora-output-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(target, sizeof target, "%s/pool.hlp", folder);
    faults = hlc_faults_create();
}

static void teardown(void) {
    unlink(target);
    rmdir(folder);
    hlc_faults_destroy(faults);
}

static void put(const char *text) {
    FILE *f = fopen(target, "w");
    fputs(text, f);
    fclose(f);
}

static void assert_content(const char *text) {
    char found[64] = "";
    FILE *f = fopen(target, "r");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(found, 1, sizeof found - 1, f);
    fclose(f);
    found[n] = '\0';
    ck_assert_str_eq(found, text);
}

static int files_in_folder(void) {
    int count = 0;
    DIR *d = opendir(folder);
    for (struct dirent *entry; (entry = readdir(d));) {
        count += entry->d_name[0] != '.' || (entry->d_name[1] && strcmp(entry->d_name, "..") != 0);
    }
    closedir(d);
    return count;
}

START_TEST(appears_on_commit) {
    hlc_output output;
    ck_assert(hlc_output_begin(&output, target, faults));
    ck_assert(hlc_output_write(&output, "world", 5, 6, faults));
    ck_assert(hlc_output_write(&output, "hello ", 6, 0, faults));
    ck_assert_int_ne(access(target, F_OK), 0);
    ck_assert(hlc_output_commit(&output, faults));
    assert_content("hello world");
    ck_assert_int_eq(files_in_folder(), 1);
    hlc_output_abandon(&output);
    assert_content("hello world");
}
END_TEST

START_TEST(replaces_only_on_commit) {
    hlc_output output;
    put("old");
    ck_assert_int_eq(chmod(target, 0640), 0);
    ck_assert(hlc_output_begin(&output, target, faults));
    ck_assert(hlc_output_write(&output, "new", 3, 0, faults));
    assert_content("old");
    ck_assert(hlc_output_commit(&output, faults));
    assert_content("new");
    struct stat status;
    ck_assert_int_eq(stat(target, &status), 0);
    ck_assert_int_eq(status.st_mode & 07777, 0640);
}
END_TEST

START_TEST(abandoned_leaves_nothing) {
    hlc_output output;
    put("old");
    ck_assert(hlc_output_begin(&output, target, faults));
    ck_assert(hlc_output_write(&output, "new", 3, 0, faults));
    hlc_output_abandon(&output);
    hlc_output_abandon(&output);
    assert_content("old");
    ck_assert_int_eq(files_in_folder(), 1);
}
END_TEST

START_TEST(the_work_path_opens_the_same_file) {
    hlc_output output;
    char found[4] = "";
    ck_assert(hlc_output_begin(&output, target, faults));
    int fd = open(output.work, O_RDWR);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, "abc", 3, 0), 3);
    ck_assert_int_eq(pread(output.fd, found, 3, 0), 3);
    ck_assert_str_eq(found, "abc");
    close(fd);
    hlc_output_abandon(&output);
}
END_TEST

static bool write_to(const char *path, const char *text) {
    hlc_output output;
    return hlc_output_begin(&output, path, faults) && hlc_output_write(&output, text, strlen(text), 0, faults) &&
           hlc_output_commit(&output, faults);
}

START_TEST(takes_the_longest_name_that_the_file_system_has) {
    char path[400];
    snprintf(path, sizeof path, "%s/%0255d", folder, 1);
    ck_assert(write_to(path, "long"));
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(files_in_folder(), 0);
}
END_TEST

START_TEST(follows_a_link_and_leaves_it) {
    char link[128], found[128] = "";
    snprintf(link, sizeof link, "%s/current", folder);
    ck_assert_int_eq(symlink("pool.hlp", link), 0);
    put("old");
    ck_assert(write_to(link, "new"));
    assert_content("new");
    ck_assert_int_eq(readlink(link, found, sizeof found - 1), strlen("pool.hlp"));
    ck_assert_int_eq(files_in_folder(), 2);
    unlink(link);
}
END_TEST

START_TEST(refuses_links_that_lead_nowhere) {
    hlc_output output;
    char link[128];
    snprintf(link, sizeof link, "%s/link", folder);
    const char *const leads_to[] = {"nowhere", "link"};
    for (size_t i = 0; i < 2; i++) {
        ck_assert_int_eq(symlink(leads_to[i], link), 0);
        ck_assert(!hlc_output_begin(&output, link, faults));
        ck_assert_int_eq(hlc_faults_exit_status(faults), 3);
        ck_assert_int_eq(files_in_folder(), 1);
        unlink(link);
    }
}
END_TEST

START_TEST(refuses_what_cannot_be_written) {
    hlc_output output;
    char too_long[400];
    snprintf(too_long, sizeof too_long, "%s/%0256d", folder, 1);
    const char *const bad[] = {folder, "/nonexistent/pool.hlp", "/dev/null", "/proc/pool.hlp", "", too_long};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(!hlc_output_begin(&output, bad[i], faults), "%s", bad[i]);
        ck_assert_uint_eq(hlc_faults_errors(faults), i + 1);
        ck_assert_int_eq(hlc_faults_exit_status(faults), 3);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("output_file");
    TCase *tests = tcase_create("output_file");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, appears_on_commit);
    tcase_add_test(tests, replaces_only_on_commit);
    tcase_add_test(tests, abandoned_leaves_nothing);
    tcase_add_test(tests, the_work_path_opens_the_same_file);
    tcase_add_test(tests, takes_the_longest_name_that_the_file_system_has);
    tcase_add_test(tests, follows_a_link_and_leaves_it);
    tcase_add_test(tests, refuses_links_that_lead_nowhere);
    tcase_add_test(tests, refuses_what_cannot_be_written);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
