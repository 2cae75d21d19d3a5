#include "compiler/base/faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"

enum {
    /* Stored per class, so that a flood of warnings cannot crowd out an error; the rest is counted. */
    STORED_LIMIT = 10000,
    TEXT_LIMIT = 4096 /* bytes of each part of a fault, its NUL included */
};

typedef struct stored_fault {
    hlc_fault_view view;
    size_t arrival;
} stored_fault;

typedef struct fault_list {
    pthread_mutex_t lock;
    stored_fault *faults;
    size_t count, capacity;
    size_t stored_errors, stored_others;
    size_t errors, warnings, notes; /* all that were added, stored or not */
    int exit_status;
    hlc_fault_kind scope; /* the kind of INPUT faults that do not say more */
} fault_list;

/* The list is behind a pointer so that functions which only read can lock it. */
struct hlc_faults {
    fault_list *list;
};

hlc_faults *hlc_faults_create(void) {
    hlc_faults *faults = malloc(sizeof *faults);
    fault_list *list = calloc(1, sizeof *list);
    if (!faults || !list || pthread_mutex_init(&list->lock, NULL) != 0) {
        free(faults);
        free(list);
        return NULL;
    }
    faults->list = list;
    return faults;
}

/* All strings of a fault live in one block that starts with its reason. */
static void free_texts(stored_fault *fault) {
    union {
        const char *constant;
        char *owned;
    } block = {fault->view.reason};
    free(block.owned);
}

void hlc_faults_destroy(hlc_faults *faults) {
    if (!faults)
        return;
    fault_list *list = faults->list;
    for (size_t i = 0; i < list->count; i++)
        free_texts(&list->faults[i]);
    free(list->faults);
    pthread_mutex_destroy(&list->lock);
    free(list);
    free(faults);
}

static size_t bounded_length(const char *text) {
    return text ? strnlen(text, TEXT_LIMIT - 1) : 0;
}

static const char *put_text(char **at, const char *text) {
    if (!text)
        return NULL;
    char *start = *at;
    size_t length = bounded_length(text);
    memcpy(start, text, length);
    start[length] = '\0';
    *at = start + length + 1;
    return start;
}

static bool copy_view(const hlc_fault_view *view, hlc_fault_view *out) {
    size_t size = bounded_length(view->reason) + bounded_length(view->file) + bounded_length(view->place) +
                  bounded_length(view->remedy) + 4;
    char *at = malloc(size);
    if (!at)
        return false;
    *out = (hlc_fault_view){.severity = view->severity, .kind = view->kind};
    out->reason = put_text(&at, view->reason);
    out->file = put_text(&at, view->file);
    out->place = put_text(&at, view->place);
    out->remedy = put_text(&at, view->remedy);
    return true;
}

static int exit_status_of(hlc_fault_kind kind) {
    return kind == HLC_FAULT_MISUSE ? 2 : kind == HLC_FAULT_RESOURCE ? 3 : 1;
}

static void raise_exit_status(fault_list *list, int status) {
    if (status > list->exit_status)
        list->exit_status = status;
}

static bool grow(fault_list *list) {
    if (list->count < list->capacity)
        return true;
    size_t capacity = list->capacity > 0 ? 2 * list->capacity : 16;
    stored_fault *larger = realloc(list->faults, capacity * sizeof *larger);
    if (!larger)
        return false;
    list->faults = larger;
    list->capacity = capacity;
    return true;
}

static void store(fault_list *list, const hlc_fault_view *view) {
    bool error = view->severity == HLC_ERROR;
    size_t *stored = error ? &list->stored_errors : &list->stored_others;
    if (*stored >= STORED_LIMIT)
        return;
    hlc_fault_view copy;
    if (!grow(list) || !copy_view(view, &copy)) {
        list->errors += !error;
        raise_exit_status(list, exit_status_of(HLC_FAULT_RESOURCE));
        return;
    }
    list->faults[list->count] = (stored_fault){copy, list->count};
    list->count++;
    (*stored)++;
}

static void add(hlc_faults *faults, const hlc_fault_view *view) {
    fault_list *list = faults->list;
    hlc_fault_view own = *view;
    pthread_mutex_lock(&list->lock);
    if (own.kind == HLC_FAULT_INPUT)
        own.kind = list->scope;
    list->errors += own.severity == HLC_ERROR;
    list->warnings += own.severity == HLC_WARNING;
    list->notes += own.severity == HLC_NOTE;
    if (own.severity == HLC_ERROR)
        raise_exit_status(list, exit_status_of(own.kind));
    store(list, &own);
    pthread_mutex_unlock(&list->lock);
}

void hlc_fault(hlc_faults *faults, hlc_severity severity, hlc_fault_kind kind, const char *file, const char *place,
               const char *remedy, const char *reason, ...) {
    char text[TEXT_LIMIT];
    va_list arguments;
    va_start(arguments, reason);
    if (vsnprintf(text, sizeof text, reason, arguments) < 0)
        text[0] = '\0';
    va_end(arguments);
    add(faults, &(hlc_fault_view){severity, kind, file, place, text, remedy});
}

void hlc_error(hlc_faults *faults, hlc_fault_kind kind, const char *file, const char *place, const char *reason, ...) {
    char text[TEXT_LIMIT];
    va_list arguments;
    va_start(arguments, reason);
    if (vsnprintf(text, sizeof text, reason, arguments) < 0)
        text[0] = '\0';
    va_end(arguments);
    add(faults, &(hlc_fault_view){HLC_ERROR, kind, file, place, text, NULL});
}

void hlc_bad_input(hlc_faults *faults, const char *file, const char *place, const char *reason, ...) {
    char text[TEXT_LIMIT];
    va_list arguments;
    va_start(arguments, reason);
    if (vsnprintf(text, sizeof text, reason, arguments) < 0)
        text[0] = '\0';
    va_end(arguments);
    add(faults, &(hlc_fault_view){HLC_ERROR, HLC_FAULT_INPUT, file, place, text, NULL});
}

void hlc_bad_io(hlc_faults *faults, const char *file, const char *action, int error_number) {
    char buffer[256];
    const char *remedy = error_number == EMFILE ? "allow more open files, as with 'ulimit -n 65536'" : NULL;
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, file, NULL, remedy, "%s: %s", action,
              strerror_r(error_number, buffer, sizeof buffer));
}

void hlc_out_of_memory(hlc_faults *faults, const char *file, uint64_t bytes) {
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, file, NULL, NULL,
              "out of memory: %llu bytes could not be allocated", (unsigned long long)bytes);
}

hlc_fault_kind hlc_faults_scope(hlc_faults *faults, hlc_fault_kind kind) {
    fault_list *list = faults->list;
    pthread_mutex_lock(&list->lock);
    const hlc_fault_kind before = list->scope;
    list->scope = kind;
    pthread_mutex_unlock(&list->lock);
    return before;
}

void hlc_faults_take(hlc_faults *faults, hlc_faults *from) {
    if (!from)
        return;
    fault_list *to = faults->list;
    const fault_list *list = from->list;
    size_t stored[] = {[HLC_NOTE] = 0, [HLC_WARNING] = 0, [HLC_ERROR] = 0};
    for (size_t i = 0; i < list->count; i++) {
        stored[list->faults[i].view.severity]++;
        add(faults, &list->faults[i].view);
    }
    pthread_mutex_lock(&to->lock);
    to->errors += list->errors - stored[HLC_ERROR];
    to->warnings += list->warnings - stored[HLC_WARNING];
    to->notes += list->notes - stored[HLC_NOTE];
    raise_exit_status(to, list->exit_status);
    pthread_mutex_unlock(&to->lock);
    hlc_faults_destroy(from);
}

size_t hlc_faults_errors(const hlc_faults *faults) {
    pthread_mutex_lock(&faults->list->lock);
    size_t errors = faults->list->errors;
    pthread_mutex_unlock(&faults->list->lock);
    return errors;
}

size_t hlc_faults_warnings(const hlc_faults *faults) {
    pthread_mutex_lock(&faults->list->lock);
    size_t warnings = faults->list->warnings;
    pthread_mutex_unlock(&faults->list->lock);
    return warnings;
}

int hlc_faults_exit_status(const hlc_faults *faults) {
    pthread_mutex_lock(&faults->list->lock);
    int status = faults->list->exit_status;
    pthread_mutex_unlock(&faults->list->lock);
    return status;
}

size_t hlc_faults_count(const hlc_faults *faults) {
    pthread_mutex_lock(&faults->list->lock);
    size_t count = faults->list->count;
    pthread_mutex_unlock(&faults->list->lock);
    return count;
}

void hlc_faults_get(const hlc_faults *faults, size_t i, hlc_fault_view *out) {
    pthread_mutex_lock(&faults->list->lock);
    *out = faults->list->faults[i].view;
    pthread_mutex_unlock(&faults->list->lock);
}

size_t hlc_faults_omitted(const hlc_faults *faults) {
    fault_list *list = faults->list;
    pthread_mutex_lock(&list->lock);
    size_t omitted = list->errors + list->warnings + list->notes - list->count;
    pthread_mutex_unlock(&list->lock);
    return omitted;
}

static int compare_by_file(const void *left, const void *right) {
    const stored_fault *a = *(const stored_fault *const *)left, *b = *(const stored_fault *const *)right;
    int order = strcmp(a->view.file ? a->view.file : "", b->view.file ? b->view.file : "");
    return order != 0 ? order : (a->arrival > b->arrival) - (a->arrival < b->arrival);
}

static void print_text(FILE *stream, const char *text) {
    size_t length = strlen(text);
    for (size_t at = 0; at < length;) {
        char form[HLC_PRINTABLE_SIZE];
        size_t size;
        at += hlc_printable_next(text + at, length - at, form, &size);
        fwrite(form, 1, size, stream);
    }
}

static void print_fault(FILE *stream, const hlc_fault_view *fault) {
    static const char *const severities[] = {[HLC_NOTE] = "note", [HLC_WARNING] = "warning", [HLC_ERROR] = "error"};
    fprintf(stream, "%s: ", severities[fault->severity]);
    const char *subjects[] = {fault->file, fault->place};
    for (size_t i = 0; i < 2; i++) {
        if (!subjects[i])
            continue;
        print_text(stream, subjects[i]);
        fputs(": ", stream);
    }
    print_text(stream, fault->reason);
    if (fault->remedy) {
        fputs(" (remedy: ", stream);
        print_text(stream, fault->remedy);
        fputc(')', stream);
    }
    fputc('\n', stream);
}

static void print_omitted(FILE *stream, const fault_list *list) {
    size_t errors = list->errors - list->stored_errors;
    size_t others = list->warnings + list->notes - list->stored_others;
    if (errors > 0)
        fprintf(stream, "error: and %zu more errors\n", errors);
    if (others > 0)
        fprintf(stream, "warning: and %zu more warnings and notes\n", others);
}

void hlc_faults_print(const hlc_faults *faults, FILE *stream) {
    fault_list *list = faults->list;
    pthread_mutex_lock(&list->lock);
    const stored_fault **order = list->count > 0 ? malloc(list->count * sizeof *order) : NULL;
    if (order) {
        for (size_t i = 0; i < list->count; i++)
            order[i] = &list->faults[i];
        qsort(order, list->count, sizeof *order, compare_by_file);
    }
    for (size_t i = 0; i < list->count; i++)
        print_fault(stream, order ? &order[i]->view : &list->faults[i].view);
    free(order);
    print_omitted(stream, list);
    pthread_mutex_unlock(&list->lock);
}
