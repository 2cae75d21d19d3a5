#include "compiler/ingest/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"

enum {
    MAGIC = 6,          /* bytes, followed by two of the version */
    MOST_HEADER = 65535 /* NumPy itself reads 10,000 unless told otherwise */
};

/* The text of the header, a literal of a Python dictionary, while it is read. */
typedef struct literal {
    const char *text;
    size_t size, at;
    const char *error; /* static storage; the first one */
} literal;

static bool fail(literal *l, const char *error) {
    if (!l->error)
        l->error = error;
    return false;
}

static void skip_blanks(literal *l) {
    while (l->at < l->size &&
           (l->text[l->at] == ' ' || l->text[l->at] == '\t' || l->text[l->at] == '\n' || l->text[l->at] == '\r'))
        l->at++;
}

static bool take(literal *l, char c) {
    skip_blanks(l);
    if (l->at == l->size || l->text[l->at] != c)
        return false;
    l->at++;
    return true;
}

static bool need(literal *l, char c, const char *error) {
    return take(l, c) || fail(l, error);
}

/* A string in single or double quotes, without escapes. */
static bool read_string(literal *l, const char **text, size_t *length) {
    char quote = take(l, '\'') ? '\'' : take(l, '"') ? '"' : '\0';
    if (quote == '\0')
        return fail(l, "a string in quotes must stand here");
    *text = l->text + l->at;
    const char *end = memchr(*text, quote, l->size - l->at);
    if (!end || memchr(*text, '\\', (size_t)(end - *text)))
        return fail(l, "a string does not end, or holds an escape");
    *length = (size_t)(end - *text);
    l->at += *length + 1;
    return true;
}

static bool read_word(literal *l, const char *word) {
    skip_blanks(l);
    if (!hlc_bytes_start(l->text + l->at, l->size - l->at, word))
        return false;
    l->at += strlen(word);
    return true;
}

static bool read_integer(literal *l, uint64_t *value) {
    skip_blanks(l);
    size_t start = l->at;
    *value = 0;
    for (; l->at < l->size && l->text[l->at] >= '0' && l->text[l->at] <= '9'; l->at++)
        if (__builtin_mul_overflow(*value, (uint64_t)10, value) ||
            __builtin_add_overflow(*value, (uint64_t)(l->text[l->at] - '0'), value))
            return fail(l, "a dimension is beyond 64 bits");
    if (l->at == start)
        return fail(l, "shape must be a tuple of non-negative integers");
    if (l->at < l->size && l->text[l->at] == 'L') /* as Python 2 wrote long integers */
        l->at++;
    return true;
}

static bool read_descr(literal *l, hlc_npy *out) {
    static const struct {
        const char *name;
        hlf_dtype dtype;
    } types[] = {{"f2", HLF_DTYPE_F16}, {"f4", HLF_DTYPE_F32}, {"f8", HLF_DTYPE_F64}};
    const char *text;
    size_t length;
    skip_blanks(l);
    if (l->at < l->size && l->text[l->at] == '[')
        return fail(l, "structured types are not read");
    if (!read_string(l, &text, &length))
        return false;
    out->big_endian = length > 0 && text[0] == '>';
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (length == 3 && (text[0] == '<' || text[0] == '>') && hlc_bytes_equal(text + 1, 2, types[i].name))
            out->dtype = types[i].dtype;
    return out->dtype != HLF_DTYPE_NONE ||
           fail(l, "the type must be float16, float32 or float64 (<f2, <f4, <f8 or big-endian)");
}

static bool read_order(literal *l, hlc_npy *out) {
    out->fortran = read_word(l, "True");
    return out->fortran || read_word(l, "False") || fail(l, "fortran_order must be True or False");
}

static bool read_shape(literal *l, hlc_npy *out) {
    uint64_t shape[2] = {0, 0};
    size_t dims = 0;
    if (!need(l, '(', "shape must be a tuple"))
        return false;
    while (!take(l, ')')) {
        uint64_t size;
        if (!read_integer(l, &size))
            return false;
        if (dims < 2)
            shape[dims] = size;
        dims++;
        if (!take(l, ',') && (l->at == l->size || l->text[l->at] != ')'))
            return fail(l, "shape must be a tuple");
    }
    if (dims != 1 && dims != 2)
        return fail(l, "the array must have two dimensions, samples and components, or be one sample");
    out->rows = dims == 2 ? shape[0] : 1;
    out->cols = shape[dims - 1];
    return true;
}

static bool read_dictionary(literal *l, hlc_npy *out) {
    static const struct {
        const char *key;
        bool (*read)(literal *l, hlc_npy *out);
    } members[] = {{"descr", read_descr}, {"fortran_order", read_order}, {"shape", read_shape}};
    enum { MEMBERS = sizeof members / sizeof *members };
    bool seen[MEMBERS] = {false};
    size_t count = 0;
    if (!need(l, '{', "the header must be a dictionary"))
        return false;
    while (!take(l, '}')) {
        const char *key;
        size_t length, i = 0;
        if (!read_string(l, &key, &length) || !need(l, ':', "a colon must stand here"))
            return false;
        while (i < MEMBERS && !hlc_bytes_equal(key, length, members[i].key))
            i++;
        if (i == MEMBERS || seen[i])
            return fail(l, "the keys must be descr, fortran_order and shape, each once");
        seen[i] = true;
        count++;
        if (!members[i].read(l, out))
            return false;
        if (!take(l, ',') && (l->at == l->size || l->text[l->at] != '}'))
            return fail(l, "a comma or } must stand here");
    }
    skip_blanks(l);
    if (count != MEMBERS)
        return fail(l, "the keys must be descr, fortran_order and shape, each once");
    return l->at == l->size || fail(l, "something stands behind the dictionary");
}

/* The data must fill the file: rows * cols elements, without a remainder. */
static bool check_size(const hlc_file *file, const char *path, const hlc_npy *npy, hlc_faults *faults) {
    uint64_t have = file->size - npy->data_at, need_bytes;
    bool overflows = __builtin_mul_overflow(npy->rows, npy->cols, &need_bytes) ||
                     __builtin_mul_overflow(need_bytes, (uint64_t)hlf_dtype_size(npy->dtype), &need_bytes);
    if (overflows)
        hlc_bad_input(faults, path, NULL, "the size of shape (%" PRIu64 ", %" PRIu64 ") overflows 64 bits", npy->rows,
                      npy->cols);
    else if (need_bytes != have)
        hlc_bad_input(faults, path, NULL,
                      "shape (%" PRIu64 ", %" PRIu64 ") needs %" PRIu64 " bytes, but %" PRIu64
                      " follow the header, from byte %" PRIu64 " on",
                      npy->rows, npy->cols, need_bytes, have, npy->data_at);
    return !overflows && need_bytes == have;
}

bool hlc_npy_read_header(const hlc_file *file, const char *path, hlc_npy *out, hlc_faults *faults) {
    *out = (hlc_npy){0};
    unsigned char start[12] = {0};
    size_t given = file->size < sizeof start ? (size_t)file->size : sizeof start;
    if (!hlc_file_read(file->fd, path, 0, start, given, faults))
        return false;
    if (given < 10 || memcmp(start, "\x93NUMPY", MAGIC) != 0) {
        hlc_bad_input(faults, path, "byte 0", "this is no NumPy array file: it does not start with \\x93NUMPY");
        return false;
    }
    unsigned version = start[MAGIC];
    if (version < 1 || version > 3) {
        hlc_bad_input(faults, path, "byte 6", "version %u of NumPy's format is not known", version);
        return false;
    }
    size_t field = version == 1 ? 2 : 4, length = 0;
    for (size_t i = field; i-- > 0;)
        length = length << 8 | start[MAGIC + 2 + i];
    out->data_at = MAGIC + 2 + field + length;
    if (length > MOST_HEADER || out->data_at > file->size) {
        hlc_bad_input(faults, path, "byte 8",
                      "the header's length is %zu bytes; at most %d, and not more than the file holds, are read",
                      length, MOST_HEADER);
        return false;
    }
    char *text = malloc(length + 1);
    if (!text) {
        hlc_out_of_memory(faults, path, length + 1);
        return false;
    }
    bool ok = hlc_file_read(file->fd, path, MAGIC + 2 + field, text, length, faults);
    literal l = {.text = text, .size = length};
    if (ok && !read_dictionary(&l, out)) {
        char place[32];
        snprintf(place, sizeof place, "byte %zu", MAGIC + 2 + field + l.at);
        hlc_bad_input(faults, path, place, "%s", l.error);
        ok = false;
    }
    free(text);
    return ok && check_size(file, path, out, faults);
}
