#include "compiler/cli/wrapped_text.h"

#include <stdbool.h>
#include <string.h>

#include "compiler/base/text.h"

enum { COLUMNS = 80 };

/* Columns that the first word of the text takes, in printable form. */
static size_t word_columns(const char *text, size_t length) {
    size_t columns = 0;
    for (size_t at = 0; at < length && text[at] != ' ';) {
        char form[HLC_PRINTABLE_SIZE];
        size_t size;
        at += hlc_printable_next(text + at, length - at, form, &size);
        columns += form[0] == '\\' ? size : 1;
    }
    return columns;
}

static void break_line(FILE *stream, size_t hang, size_t *column) {
    fprintf(stream, "\n%*s", (int)hang, "");
    *column = hang;
}

/* Writes a word; answers the bytes that it has. */
static size_t print_word(FILE *stream, const char *text, size_t length, size_t hang, size_t *column) {
    size_t at = 0;
    while (at < length && text[at] != ' ') {
        char form[HLC_PRINTABLE_SIZE];
        size_t size;
        at += hlc_printable_next(text + at, length - at, form, &size);
        const size_t columns = form[0] == '\\' ? size : 1;
        if (*column + columns > COLUMNS) {
            break_line(stream, hang, column);
        }
        fwrite(form, 1, size, stream);
        *column += columns;
    }
    return at;
}

void hlc_cli_print_wrapped(FILE *stream, const char *text, size_t indent, size_t hang) {
    const size_t length = strlen(text);
    size_t column = indent, at = 0;
    bool first = true; /* word of its line */
    fprintf(stream, "%*s", (int)indent, "");
    while (at < length) {
        if (text[at] == ' ') {
            at++;
            continue;
        }
        if (!first && column + 1 + word_columns(text + at, length - at) > COLUMNS) {
            break_line(stream, hang, &column);
        } else if (!first) {
            fputc(' ', stream);
            column++;
        }
        at += print_word(stream, text + at, length - at, hang, &column);
        first = false;
    }
    fputc('\n', stream);
}
