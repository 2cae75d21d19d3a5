#include "compiler/cli/common.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "compiler/base/output_file.h"
#include "compiler/base/text.h"
#include "compiler/cli/text_table.h"
#include "compiler/export/output_folder.h"
#include "compiler/ingest/order.h"
#include "compiler/version.h"

int hlc_cli_finish(const hlc_program *program, int status) {
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "%s: cannot write standard output: %s\n", program->name, strerror(errno));
        return HLC_EXIT_RESOURCE;
    }
    return status;
}

int hlc_cli_help(const hlc_program *program) {
    fputs(program->usage, stdout);
    return hlc_cli_finish(program, HLC_EXIT_DONE);
}

int hlc_cli_version(const hlc_program *program) {
    printf("%s %s\n", program->name, HLC_VERSION);
    return hlc_cli_finish(program, HLC_EXIT_DONE);
}

int hlc_cli_misuse(const hlc_program *program, const char *format, ...) {
    char message[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    fprintf(stderr, "%s: ", program->name);
    hlc_cli_print_text(stderr, message, length < 0 ? 0 : strlen(message), SIZE_MAX);
    fputc('\n', stderr);
    return hlc_cli_bad_option(program);
}

int hlc_cli_bad_option(const hlc_program *program) {
    fprintf(stderr, "Try '%s --help'.\n", program->name);
    return HLC_EXIT_MISUSE;
}

bool hlc_cli_number(const char *text, double *out) {
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*out);
}

bool hlc_cli_count(const char *text, uint64_t least, uint64_t most, uint64_t *out) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    *out = value;
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && value >= least && value <= most;
}

int hlc_cli_choice(const char *text, const char *const *names) {
    for (int i = 0; names[i]; i++) {
        if (strcmp(text, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

/* ---- Progress ---- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void show_progress(void *user, const char *phase, uint64_t done, uint64_t total) {
    hlc_cli_progress *progress = user;
    const double least_interval = 1.0 / 6, t = now();
    if (progress->quiet || t - progress->last < least_interval) {
        return;
    }
    progress->last = t;
    progress->shown = true;
    const double fraction = total ? (double)done / (double)total : 0;
    fprintf(stderr, "\r\033[K%s %3.0f %%", phase, 100 * fraction);
    if (total > 1 << 20) {
        fprintf(stderr, "  %.0f of %.0f MB  %.0f s", (double)done * 1e-6, (double)total * 1e-6, t - progress->started);
    }
    fflush(stderr);
}

hlc_progress hlc_cli_progress_start(hlc_cli_progress *progress) {
    progress->quiet = progress->quiet || !isatty(STDERR_FILENO);
    progress->started = now();
    progress->last = progress->started;
    return (hlc_progress){progress->quiet ? NULL : show_progress, progress};
}

void hlc_cli_progress_end(hlc_cli_progress *progress) {
    if (progress->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}

/* ---- Process ---- */

static void on_signal(int number) {
    hlc_output_remove_hidden();
    hlc_folder_remove_hidden();
    signal(number, SIG_DFL);
    raise(number);
}

static void open_standard_streams(void) {
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO) {
        close(fd);
    }
}

/* Buffers of a few megabytes come and go with every module: taking each anew from the system costs an eighth of a run. */
static void keep_freed_memory(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 256 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
#endif
}

void hlc_cli_setup(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    open_standard_streams();
    setvbuf(stderr, NULL, _IOLBF, BUFSIZ); /* a fault is one write, not one for each of its characters */
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction action = {.sa_handler = on_signal}, old;
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &action, NULL);
        }
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files); /* best effort: a run of few adapters needs no more */
    }
    keep_freed_memory();
    signal(SIGXFSZ, SIG_IGN); /* a file over the limit is an error of write() */
}

/* ---- JSON ---- */

json_t *hlc_cli_string_json(const char *bytes, size_t length) {
    if (hlc_utf8_prefix(bytes, length) == length) {
        return json_stringn(bytes, length);
    }
    hlc_text text = {0};
    for (size_t i = 0; i < length;) {
        uint32_t code;
        size_t n = hlc_utf8_next(bytes + i, length - i, &code);
        hlc_text_append(&text, n ? bytes + i : "\xEF\xBF\xBD", n ? n : 3);
        i += n ? n : 1;
    }
    json_t *out = text.failed ? NULL : json_stringn(text.bytes, text.length);
    hlc_text_free(&text);
    return out;
}

json_t *hlc_cli_hex_json(const uint8_t *bytes, size_t size) {
    char text[129];
    for (size_t i = 0; i < size && i < 64; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    return json_stringn(text, 2 * size);
}

json_t *hlc_cli_real_json(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *text_or_null(const char *text) {
    return text ? hlc_cli_string_json(text, strlen(text)) : json_null();
}

static json_t *fault_json(const hlc_faults *faults, size_t i) {
    static const char *const severities[] = {[HLC_NOTE] = "note", [HLC_WARNING] = "warning", [HLC_ERROR] = "error"};
    hlc_fault_view fault;
    hlc_faults_get(faults, i, &fault);
    return json_pack("{s:s, s:o, s:o, s:o, s:o}", "severity", severities[fault.severity], "file", text_or_null(fault.file), "place",
                     text_or_null(fault.place), "reason", text_or_null(fault.reason), "remedy", text_or_null(fault.remedy));
}

/* By file, in order of arrival within it, as they are printed: arrival alone depends on the threads. */
static int compare_faults(uint32_t a, uint32_t b, const void *context) {
    hlc_fault_view x, y;
    hlc_faults_get(context, a, &x);
    hlc_faults_get(context, b, &y);
    return strcmp(x.file ? x.file : "", y.file ? y.file : "");
}

json_t *hlc_cli_faults_json(const hlc_faults *faults) {
    const size_t count = hlc_faults_count(faults);
    json_t *list = json_array();
    uint32_t *order = hlc_sorted_numbers(count, compare_faults, faults);
    for (size_t i = 0; order && i < count; i++) {
        json_array_append_new(list, fault_json(faults, order[i]));
    }
    if (!order) {
        json_decref(list);
        list = NULL;
    }
    free(order);
    return list;
}

int hlc_cli_write_json(const hlc_program *program, json_t *document, int status) {
    if (!document || json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) != 0) {
        fprintf(stderr, "%s: cannot write the JSON document\n", program->name);
        json_decref(document);
        return HLC_EXIT_RESOURCE;
    }
    fputc('\n', stdout);
    json_decref(document);
    return hlc_cli_finish(program, status);
}
