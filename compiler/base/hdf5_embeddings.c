#include "compiler/base/hdf5_embeddings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/contained.h"

enum {
    ATTRIBUTES = 4,
    MOST_TEXT = 1 << 17, /* of an attribute, a place, a reason */
    MOST_FAULTS = 16,
    SECONDS = 5,              /* of the processor, */
    BYTES_PER_SECOND = 1 << 23 /* and one more for so many bytes of the file */
};

typedef struct request {
    const char *path, *dataset;
    const hlc_h5_limits *limits;
} request;

/* What stands at the start of an answer. Faults follow, then the attributes, then the values. */
typedef struct answer {
    uint64_t good, rows, cols, faults;
    uint64_t lengths[ATTRIBUTES]; /* UINT64_MAX: there is none */
} answer;

typedef struct answered_fault {
    uint64_t severity, kind;
    uint64_t lengths[3]; /* place, reason, remedy; UINT64_MAX: NULL */
} answered_fault;

/* ---- In the child ---- */

static uint64_t length_of(const char *text) {
    return text ? strlen(text) : UINT64_MAX;
}

static bool send_texts(int fd, const char *const *texts, const uint64_t *lengths, size_t count) {
    bool good = true;
    for (size_t i = 0; good && i < count; i++) {
        good = lengths[i] == UINT64_MAX || hlc_contained_write(fd, texts[i], lengths[i]);
    }
    return good;
}

static bool send_fault(int fd, const hlc_faults *faults, size_t i) {
    hlc_fault_view view;
    hlc_faults_get(faults, i, &view);
    const char *const texts[3] = {view.place, view.reason, view.remedy};
    answered_fault fault = {.severity = view.severity, .kind = view.kind};
    for (size_t k = 0; k < 3; k++) {
        fault.lengths[k] = length_of(texts[k]);
    }
    return hlc_contained_write(fd, &fault, sizeof fault) && send_texts(fd, texts, fault.lengths, 3);
}

static void read_and_answer(void *context, int fd) {
    const request *asked = context;
    float *values = NULL;
    size_t rows = 0, cols = 0;
    char *attributes[ATTRIBUTES] = {NULL};
    answer out = {0};
    hlc_faults *faults = hlc_faults_create();
    hlc_h5_release();
    if (!faults) {
        return;
    }
    out.good = hlc_h5_read_matrix(asked->path, asked->dataset, asked->limits, &values, &rows, &cols, attributes, faults);
    out.rows = rows;
    out.cols = cols;
    out.faults = hlc_faults_count(faults);
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        out.lengths[i] = length_of(attributes[i]);
    }
    bool sent = hlc_contained_write(fd, &out, sizeof out);
    for (size_t i = 0; sent && i < out.faults; i++) {
        sent = send_fault(fd, faults, i);
    }
    if (sent && out.good && send_texts(fd, (const char *const *)attributes, out.lengths, ATTRIBUTES)) {
        hlc_contained_write(fd, values, rows * cols * sizeof *values);
    }
}

/* ---- In the parent: nothing of the answer is trusted ---- */

/* A text of the answer, malloc'd; *out is NULL where there is none. False when the answer ends, or memory is out. */
static bool receive_text(hlc_contained *child, uint64_t length, char **out) {
    *out = NULL;
    if (length == UINT64_MAX) {
        return true;
    }
    if (length > MOST_TEXT || !(*out = malloc(length + 1))) {
        return false;
    }
    (*out)[length] = '\0';
    if (hlc_contained_read(child, *out, length)) {
        return true;
    }
    free(*out);
    *out = NULL;
    return false;
}

static bool receive_fault(hlc_contained *child, const char *path, hlc_faults *faults) {
    answered_fault fault;
    char *texts[3] = {NULL};
    bool good = hlc_contained_read(child, &fault, sizeof fault);
    for (size_t i = 0; good && i < 3; i++) {
        good = receive_text(child, fault.lengths[i], &texts[i]);
    }
    if (good && texts[1]) {
        hlc_fault(faults, fault.severity == HLC_ERROR ? HLC_ERROR : HLC_WARNING,
                  fault.kind == HLC_FAULT_RESOURCE ? HLC_FAULT_RESOURCE : HLC_FAULT_EMBEDDINGS, path, texts[0], texts[2], "%s",
                  texts[1]);
    }
    for (size_t i = 0; i < 3; i++) {
        free(texts[i]);
    }
    return good;
}

static bool answer_is_possible(const answer *in, const hlc_h5_limits *limits) {
    return in->faults <= MOST_FAULTS &&
           (!in->good || (in->rows > 0 && in->rows <= limits->rows && in->cols > 0 && in->cols <= limits->columns &&
                          in->rows <= limits->elements / in->cols && in->rows * in->cols * sizeof(float) <= limits->bytes));
}

/* False when the answer ends too early or cannot be; *good: what it says. */
static bool receive(hlc_contained *child, const request *asked, float **values, size_t *rows, size_t *cols,
                    char *attributes[ATTRIBUTES], bool *good, hlc_faults *faults) {
    answer in;
    if (!hlc_contained_read(child, &in, sizeof in) || !answer_is_possible(&in, asked->limits)) {
        return false;
    }
    for (uint64_t i = 0; i < in.faults; i++) {
        if (!receive_fault(child, asked->path, faults)) {
            return false;
        }
    }
    *good = in.good;
    if (!in.good) {
        return in.faults > 0;
    }
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        if (!receive_text(child, in.lengths[i], &attributes[i])) {
            return false;
        }
    }
    *rows = in.rows;
    *cols = in.cols;
    *values = malloc(in.rows * in.cols * sizeof **values);
    return *values && hlc_contained_read(child, *values, in.rows * in.cols * sizeof **values);
}

bool hlc_h5_read_contained(const char *path, uint64_t file_bytes, const char *dataset, const hlc_h5_limits *limits,
                           float **values, size_t *rows, size_t *cols, char *attributes[4], hlc_faults *faults) {
    request asked = {path, dataset, limits};
    const uint64_t memory = 2 * limits->bytes + (file_bytes < (UINT64_C(1) << 40) ? 4 * file_bytes : 0) + (UINT64_C(512) << 20);
    const uint64_t seconds = SECONDS + file_bytes / BYTES_PER_SECOND;
    hlc_contained child;
    bool good = false;
    *values = NULL;
    memset(attributes, 0, ATTRIBUTES * sizeof attributes[0]);
    hlc_h5_hold(); /* so that no other thread is inside HDF5 when the child is made */
    const bool started = hlc_contained_start(&child, read_and_answer, &asked, memory,
                                             seconds < UINT32_MAX ? (unsigned)seconds : UINT32_MAX);
    const int error = errno;
    hlc_h5_release();
    if (!started) {
        hlc_bad_io(faults, path, "cannot start a process to read it", error);
        return false;
    }
    const bool whole = receive(&child, &asked, values, rows, cols, attributes, &good, faults);
    const int killed = hlc_contained_end(&child);
    if (whole) {
        return good;
    }
    static const char remedy[] = "save the embeddings as safetensors or .npy";
    if (killed == HLC_CONTAINED_UNRESTRICTED) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, path, NULL, remedy,
                  "the system does not let a process give up its rights (seccomp), and HDF5 files are read in no other");
    } else {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_EMBEDDINGS, path, NULL, remedy, "the HDF5 library fails on this file (%s)",
                  killed ? strsignal(killed) : "it gives no answer");
    }
    free(*values);
    *values = NULL;
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        free(attributes[i]);
        attributes[i] = NULL;
    }
    return false;
}
