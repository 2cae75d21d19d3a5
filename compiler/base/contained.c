#include "compiler/base/contained.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- In the child ---- */

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(what) BPF_STMT(BPF_RET | BPF_K, what)
#define REFUSE ANSWER(SECCOMP_RET_ERRNO | (EPERM & SECCOMP_RET_DATA))
#define ALLOW(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), ANSWER(SECCOMP_RET_ALLOW)

/* All that reading a file and allocating memory needs; other calls fail as if not permitted. */
static bool restrict_calls(void) {
    struct sock_filter rules[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
        REFUSE,
        LOAD(nr),
        ALLOW(read),
        ALLOW(pread64),
        ALLOW(write),
        ALLOW(lseek),
        ALLOW(close),
        ALLOW(fstat),
        ALLOW(newfstatat),
        ALLOW(mmap),
        ALLOW(munmap),
        ALLOW(mremap),
        ALLOW(mprotect),
        ALLOW(madvise),
        ALLOW(brk),
        ALLOW(flock),
        ALLOW(getcwd),
        ALLOW(getrandom),
        ALLOW(futex),
        ALLOW(getpid),
        ALLOW(gettid),
        ALLOW(rt_sigaction),
        ALLOW(rt_sigprocmask),
        ALLOW(rt_sigreturn),
        ALLOW(clock_gettime),
        ALLOW(exit),
        ALLOW(exit_group),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 1, 0),
        REFUSE,
        LOAD(args[2]), /* the flags of openat: the lower half on little-endian machines */
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC, 0, 1),
        REFUSE,
        ANSWER(SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}
#else
static bool restrict_calls(void) {
    return true;
}
#endif

/* Exit status of a child that could not be restricted. */
enum { UNRESTRICTED = 77 };

/* 0 where it cannot be told. */
static uint64_t address_space(void) {
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (fscanf(file, "%llu", &pages) != 1) {
            pages = 0;
        }
        fclose(file);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void limit(int resource, rlim_t most) {
    struct rlimit limits;
    if (getrlimit(resource, &limits) == 0 && limits.rlim_cur > most) {
        limits.rlim_cur = most;
        setrlimit(resource, &limits);
    }
}

static void be_harmless(uint64_t memory, unsigned seconds) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGXCPU};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        signal(signals[i], SIG_DFL);
    }
    signal(SIGXFSZ, SIG_IGN); /* what a library says on standard error, if that is a file, is lost */
    const uint64_t present = address_space();
    if (present) {
        limit(RLIMIT_AS, present + memory);
    }
    limit(RLIMIT_CPU, seconds);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (!restrict_calls() && errno != EINVAL && errno != ENOSYS) { /* a kernel without seccomp: the limits must do */
        _exit(UNRESTRICTED);
    }
}

/* Standard input, output and error stay, and one more. A kernel without the call leaves all open: the rest must do. */
static void close_others(int kept) {
#ifdef SYS_close_range
    enum { FIRST = 3 };
    if (kept > FIRST) {
        syscall(SYS_close_range, FIRST, (unsigned)kept - 1, 0);
    }
    syscall(SYS_close_range, kept < FIRST ? FIRST : (unsigned)kept + 1, ~0U, 0);
#endif
}

bool hlc_contained_write(int fd, const void *bytes, size_t size) {
    const char *at = bytes;
    while (size) {
        const size_t ask = size < (size_t)1 << 30 ? size : (size_t)1 << 30;
        const ssize_t n = write(fd, at, ask);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

/* ---- In the parent ---- */

bool hlc_contained_start(hlc_contained *child, void (*work)(void *context, int fd), void *context, uint64_t memory,
                         unsigned seconds) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return false;
    }
    child->pid = fork();
    if (child->pid == 0) {
        close(ends[0]);
        close_others(ends[1]);
        be_harmless(memory, seconds);
        work(context, ends[1]);
        _exit(0);
    }
    const int error = errno;
    close(ends[1]);
    child->fd = ends[0];
    if (child->pid < 0) {
        close(ends[0]);
        errno = error;
        return false;
    }
    return true;
}

bool hlc_contained_read(hlc_contained *child, void *buffer, size_t size) {
    char *at = buffer;
    while (size) {
        const ssize_t n = read(child->fd, at, size < (size_t)1 << 30 ? size : (size_t)1 << 30);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

int hlc_contained_end(hlc_contained *child) {
    int status = 0;
    close(child->fd); /* a child that still writes ends by SIGPIPE */
    while (waitpid(child->pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return 0; /* somebody else has waited for it */
        }
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == UNRESTRICTED) {
        return HLC_CONTAINED_UNRESTRICTED;
    }
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}
