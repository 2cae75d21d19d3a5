#include "compiler/cli/text_table.h"

#include <stdbool.h>

#include "compiler/base/text.h"

/* The blocks of Unicode whose characters are wide (East Asian Width W and F), without the gaps inside them. */
static bool is_wide(uint32_t code) {
    static const uint32_t blocks[][2] = {{0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0x4DBF},   {0x4E00, 0xA4CF},
                                         {0xA960, 0xA97F},   {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},
                                         {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},   {0x16FE0, 0x18DFF}, {0x1AFF0, 0x1B2FF},
                                         {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF}, {0x1F900, 0x1FAFF}, {0x20000, 0x3FFFD}};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        if (code >= blocks[i][0] && code <= blocks[i][1]) {
            return true;
        }
    }
    return false;
}

/* Columns of a printable form: an escape is ASCII, anything else is one character. */
static size_t form_columns(const char *form, size_t size) {
    uint32_t code = 0;
    if (form[0] == '\\' && size >= 4) {
        return size;
    }
    return hlc_utf8_next(form, size, &code) > 0 && is_wide(code) ? 2 : 1;
}

static size_t text_columns(const char *bytes, size_t length) {
    size_t columns = 0;
    for (size_t at = 0; at < length;) {
        char form[HLC_PRINTABLE_SIZE];
        size_t size;
        at += hlc_printable_next(bytes + at, length - at, form, &size);
        columns += form_columns(form, size);
    }
    return columns;
}

/* Writes the forms that lie whole within columns [from, to) of the text; answers how many columns that were. */
static size_t print_columns(FILE *stream, const char *bytes, size_t length, size_t from, size_t to) {
    size_t column = 0, printed = 0;
    for (size_t at = 0; at < length && column < to;) {
        char form[HLC_PRINTABLE_SIZE];
        size_t size;
        at += hlc_printable_next(bytes + at, length - at, form, &size);
        const size_t wide = form_columns(form, size);
        if (column >= from && column + wide <= to) {
            fwrite(form, 1, size, stream);
            printed += wide;
        }
        column += wide;
    }
    return printed;
}

size_t hlc_cli_print_text(FILE *stream, const char *bytes, size_t length, size_t columns) {
    static const char dots[] = "...";
    const size_t whole = text_columns(bytes, length), kept = columns - (sizeof dots - 1);
    if (whole <= columns) {
        return print_columns(stream, bytes, length, 0, whole);
    }
    size_t printed = print_columns(stream, bytes, length, 0, kept - kept / 2) + sizeof dots - 1;
    fputs(dots, stream);
    return printed + print_columns(stream, bytes, length, whole - kept / 2, whole);
}

void hlc_cli_print_cell(FILE *stream, const char *bytes, size_t length, size_t columns) {
    fprintf(stream, "%*s", (int)(columns - hlc_cli_print_text(stream, bytes, length, columns)), "");
}

const char *hlc_cli_bytes_text(char buffer[HLC_BYTES_TEXT], uint64_t bytes) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 999.5 && unit + 1 < sizeof units / sizeof units[0]; unit++) {
        value /= 1000;
    }
    snprintf(buffer, HLC_BYTES_TEXT, unit && value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return buffer;
}
