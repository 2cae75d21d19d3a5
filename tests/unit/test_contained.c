#include "tests/unit/ingest_fixture.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "compiler/base/contained.h"

/* Sanitizers catch crashes and allocations themselves. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED 0
#endif

static const uint64_t plenty = UINT64_C(1) << 30;

static void answer_tries(void *context, int fd) {
    const char *path = context;
    const int tries[] = {open(path, O_RDONLY), open(path, O_RDWR),         open("made", O_WRONLY | O_CREAT, 0600),
                         unlink(path),         socket(AF_INET, SOCK_STREAM, 0), kill(getppid(), 0)};
    hlc_contained_write(fd, tries, sizeof tries);
}

START_TEST(a_child_can_read_files_and_nothing_else) {
    int tries[6];
    char path[] = "file";
    hlc_contained child;
    write_text(path, "text");
    ck_assert(hlc_contained_start(&child, answer_tries, path, plenty, 10));
    ck_assert(hlc_contained_read(&child, tries, sizeof tries));
    ck_assert_int_eq(hlc_contained_end(&child), 0);
    ck_assert_int_ge(tries[0], 0);
    for (size_t i = 1; i < 6; i++)
        ck_assert_int_eq(tries[i], -1);
    ck_assert_int_eq(access("made", F_OK), -1);
    ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

static void write_to_others(void *context, int fd) {
    const int *others = context;
    const ssize_t written[] = {write(others[1], "x", 1), read(others[0], &(char){0}, 1)};
    hlc_contained_write(fd, written, sizeof written);
}

START_TEST(a_child_has_no_open_files_of_its_parent) {
    ssize_t written[2];
    int others[2];
    hlc_contained child;
    ck_assert_int_eq(pipe(others), 0);
    ck_assert(hlc_contained_start(&child, write_to_others, others, plenty, 10));
    ck_assert(hlc_contained_read(&child, written, sizeof written));
    ck_assert_int_eq(hlc_contained_end(&child), 0);
    ck_assert_int_eq(written[0], -1);
    ck_assert_int_eq(written[1], -1);
}
END_TEST

#if defined(__x86_64__) || defined(__aarch64__)
/* As in a container whose rules let nobody add further ones. */
static bool forbid_filters(void) {
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_SECCOMP, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void answer_a_byte(void *context, int fd) {
    hlc_contained_write(fd, context, 1);
}

START_TEST(without_its_restrictions_a_child_does_nothing_and_that_is_told) {
    char byte = 'x';
    hlc_contained child;
    ck_assert(forbid_filters());
    ck_assert(hlc_contained_start(&child, answer_a_byte, &byte, plenty, 10));
    ck_assert(!hlc_contained_read(&child, &byte, 1));
    ck_assert_int_eq(hlc_contained_end(&child), HLC_CONTAINED_UNRESTRICTED);
}
END_TEST
#endif

static void loop(void *context, int fd) {
    (void)context, (void)fd;
    for (volatile bool forever = true; forever;) {
    }
}

static void write_for_ever(void *context, int fd) {
    while (hlc_contained_write(fd, context, 1)) {
    }
}

START_TEST(children_that_loop_or_babble_are_ended) {
    char byte = 'x';
    hlc_contained child;
    ck_assert(hlc_contained_start(&child, loop, NULL, plenty, 1));
    ck_assert(!hlc_contained_read(&child, &byte, 1));
    ck_assert_int_eq(hlc_contained_end(&child), SIGXCPU);
    ck_assert(hlc_contained_start(&child, write_for_ever, &byte, plenty, 10));
    ck_assert(hlc_contained_read(&child, &byte, 1));
    ck_assert_int_eq(hlc_contained_end(&child), SIGPIPE);
}
END_TEST

#if !SANITIZED
static void crash(void *context, int fd) {
    (void)context, (void)fd;
    __builtin_trap();
}

START_TEST(a_crash_is_told) {
    hlc_contained child;
    char byte;
    ck_assert(hlc_contained_start(&child, crash, NULL, plenty, 10));
    ck_assert(!hlc_contained_read(&child, &byte, 1));
    ck_assert_int_ne(hlc_contained_end(&child), 0);
}
END_TEST

static void allocate(void *context, int fd) {
    const size_t *size = context;
    void *volatile block = malloc(*size);
    const char got = block != NULL;
    hlc_contained_write(fd, &got, 1);
}

START_TEST(memory_has_a_limit) {
    hlc_contained child;
    size_t sizes[] = {(size_t)64 << 20, (size_t)512 << 20};
    char got;
    for (size_t i = 0; i < 2; i++) {
        ck_assert(hlc_contained_start(&child, allocate, &sizes[i], (size_t)256 << 20, 10));
        ck_assert(hlc_contained_read(&child, &got, 1));
        ck_assert_int_eq(got, i == 0);
        ck_assert_int_eq(hlc_contained_end(&child), 0);
    }
}
END_TEST
#endif

int main(void) {
    Suite *suite = suite_create("contained");
    TCase *all = tcase_create("all");
    tcase_add_checked_fixture(all, enter_folder, leave_folder);
    tcase_set_timeout(all, 60);
    tcase_add_test(all, a_child_can_read_files_and_nothing_else);
    tcase_add_test(all, a_child_has_no_open_files_of_its_parent);
#if defined(__x86_64__) || defined(__aarch64__)
    tcase_add_test(all, without_its_restrictions_a_child_does_nothing_and_that_is_told);
#endif
    tcase_add_test(all, children_that_loop_or_babble_are_ended);
#if !SANITIZED
    tcase_add_test(all, a_crash_is_told);
    tcase_add_test(all, memory_has_a_limit);
#endif
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
