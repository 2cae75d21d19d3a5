#include "compiler/ingest/foreign.h"

#include <string.h>
#include <strings.h>

#include "compiler/base/text.h"

static const char convert_pickle[] =
    "if you trust its source, load it with PyTorch and save its tensors as safetensors";

typedef struct magic {
    size_t at;
    const char *bytes;
    size_t length;
    hlc_foreign content;
} magic;

#define MAGIC(at, bytes) at, bytes, sizeof bytes - 1
static const magic magics[] = {
    {MAGIC(0, "version https://git-lfs"),
     {"a git-LFS pointer in place of the file itself", "fetch the file with 'git lfs pull'"}},
    {MAGIC(0, "PK\x03\x04"),
     {"a pickle in a ZIP archive, as torch.save writes it; pickles are never read, as they can run code",
      convert_pickle}},
    {MAGIC(0, "GGUF"), {"a GGUF file", "give the PEFT adapter that it was made from"}},
    {MAGIC(0, "\x89HDF\r\n\x1A\n"), {"an HDF5 file", NULL}},
    {MAGIC(0, "\x93NUMPY"), {"a NumPy array file", NULL}},
    {MAGIC(0, "\x1F\x8B"), {"a gzip file", "unpack it first"}},
    {MAGIC(257, "ustar"), {"a tar archive (a .nemo file is one)", "unpack it first"}},
};

/* Protocols 0 and 1 have no mark of their own; 2 and later start with PROTO and the number. */
static bool is_pickle(const char *head, size_t length) {
    return length >= 2 && (unsigned char)head[0] == 0x80 && (unsigned char)head[1] <= 5;
}

/* The length of a header and the header's first byte look alike in no pickle or archive. */
static bool starts_like_safetensors(const char *head, size_t length) {
    return length > 8 && memcmp(head + 4, "\0\0\0\0", 4) == 0 && strchr("{ \t\n\r", head[8]) && head[8] != '\0';
}

static bool starts_with_tag(const char *text, size_t length, const char *tag) {
    size_t n = strlen(tag);
    return length >= n && strncasecmp(text, tag, n) == 0;
}

static void skip_blanks(const char **text, size_t *length) {
    if (hlc_bytes_start(*text, *length, "\xEF\xBB\xBF")) {
        *text += 3;
        *length -= 3;
    }
    while (*length > 0 && **text != '\0' && strchr(" \t\r\n", **text)) {
        (*text)++;
        (*length)--;
    }
}

static bool is_html(const char *text, size_t length) {
    static const char *const tags[] = {"<!doctype", "<html", "<head", "<body", "<!--", "<?xml"};
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (starts_with_tag(text, length, tags[i]))
            return true;
    return false;
}

bool hlc_foreign_content(const char *head, size_t length, hlc_foreign *out) {
    if (starts_like_safetensors(head, length))
        return false;
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        const magic *m = &magics[i];
        if (length >= m->at && length - m->at >= m->length && memcmp(head + m->at, m->bytes, m->length) == 0) {
            *out = m->content;
            return true;
        }
    }
    if (is_pickle(head, length)) {
        *out = (hlc_foreign){"a pickle; pickles are never read, as they can run code", convert_pickle};
        return true;
    }
    skip_blanks(&head, &length);
    if (is_html(head, length)) {
        *out = (hlc_foreign){"an HTML or XML page", "download the file itself, not the page that shows it"};
        return true;
    }
    if (length > 0 && *head == '{') {
        *out = (hlc_foreign){"JSON text", NULL};
        return true;
    }
    return false;
}
