#include "compiler/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool hlc_string_copy(hlc_string *out, const char *bytes, size_t length) {
    *out = (hlc_string){0};
    if (length == SIZE_MAX)
        return false;
    char *copy = malloc(length + 1);
    if (!copy)
        return false;
    if (length > 0)
        memcpy(copy, bytes, length);
    copy[length] = '\0';
    *out = (hlc_string){copy, length};
    return true;
}

void hlc_string_free(hlc_string *string) {
    free(string->bytes);
    *string = (hlc_string){0};
}

int hlc_bytes_compare(const char *a, size_t a_length, const char *b, size_t b_length) {
    size_t common = a_length < b_length ? a_length : b_length;
    int order = common > 0 ? memcmp(a, b, common) : 0;
    if (order != 0)
        return order;
    return (a_length > b_length) - (a_length < b_length);
}

bool hlc_bytes_equal(const char *bytes, size_t length, const char *literal) {
    return strlen(literal) == length && (length == 0 || memcmp(bytes, literal, length) == 0);
}

bool hlc_bytes_start(const char *bytes, size_t length, const char *literal) {
    size_t n = strlen(literal);
    return n <= length && (n == 0 || memcmp(bytes, literal, n) == 0);
}

bool hlc_bytes_end(const char *bytes, size_t length, const char *literal) {
    size_t n = strlen(literal);
    return n <= length && (n == 0 || memcmp(bytes + (length - n), literal, n) == 0);
}

/* The ranges of the second byte follow The Unicode Standard, table 3-7 ("Well-Formed UTF-8 Byte Sequences"). */
size_t hlc_utf8_next(const char *bytes, size_t length, uint32_t *code) {
    if (length == 0)
        return 0;
    const unsigned char *s = (const unsigned char *)bytes;
    if (s[0] < 0x80) {
        *code = s[0];
        return 1;
    }
    size_t size;
    unsigned char low = 0x80, high = 0xBF;
    if (s[0] >= 0xC2 && s[0] <= 0xDF) {
        size = 2;
        *code = s[0] & 0x1Fu;
    } else if (s[0] >= 0xE0 && s[0] <= 0xEF) {
        size = 3;
        *code = s[0] & 0x0Fu;
        low = s[0] == 0xE0 ? 0xA0 : 0x80;
        high = s[0] == 0xED ? 0x9F : 0xBF;
    } else if (s[0] >= 0xF0 && s[0] <= 0xF4) {
        size = 4;
        *code = s[0] & 0x07u;
        low = s[0] == 0xF0 ? 0x90 : 0x80;
        high = s[0] == 0xF4 ? 0x8F : 0xBF;
    } else {
        return 0;
    }
    if (size > length || s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((s[i] & 0xC0u) != 0x80)
            return 0;
        *code = *code << 6 | (s[i] & 0x3Fu);
    }
    return size;
}

size_t hlc_utf8_prefix(const char *bytes, size_t length) {
    const uint64_t high_bits = 0x8080808080808080u;
    size_t at = 0;
    while (at < length) {
        uint64_t word;
        if (length - at >= sizeof word) {
            memcpy(&word, bytes + at, sizeof word);
            if ((word & high_bits) == 0) {
                at += sizeof word;
                continue;
            }
        }
        uint32_t code;
        size_t size = hlc_utf8_next(bytes + at, length - at, &code);
        if (size == 0)
            break;
        at += size;
    }
    return at;
}

static bool text_reserve(hlc_text *text, size_t more) {
    if (text->failed)
        return false;
    if (more < text->capacity - text->length)
        return true;
    size_t capacity = text->capacity > 0 ? text->capacity : 64;
    while (capacity - text->length <= more) {
        if (capacity > SIZE_MAX / 2) {
            text->failed = true;
            return false;
        }
        capacity *= 2;
    }
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes) {
        text->failed = true;
        return false;
    }
    text->bytes = bytes;
    text->capacity = capacity;
    return true;
}

bool hlc_text_append(hlc_text *text, const char *bytes, size_t length) {
    if (!text_reserve(text, length))
        return false;
    if (length > 0)
        memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
    return true;
}

bool hlc_text_printf(hlc_text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0 || !text_reserve(text, (size_t)length)) {
        text->failed = true;
        return false;
    }
    va_start(arguments, format);
    vsnprintf(text->bytes + text->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    text->length += (size_t)length;
    return true;
}

void hlc_text_free(hlc_text *text) {
    free(text->bytes);
    *text = (hlc_text){0};
}

static bool code_is_printable(uint32_t code) {
    if (code < 0x20 || (code >= 0x7F && code < 0xA0))
        return false;
    bool bidirectional = code == 0x061C || code == 0x200E || code == 0x200F || (code >= 0x202A && code <= 0x202E) ||
                         (code >= 0x2066 && code <= 0x2069);
    bool line_break = code == 0x2028 || code == 0x2029;
    return !bidirectional && !line_break;
}

size_t hlc_printable_next(const char *bytes, size_t length, char out[HLC_PRINTABLE_SIZE], size_t *out_length) {
    static const char hex[] = "0123456789ABCDEF";
    uint32_t code = 0;
    size_t size = hlc_utf8_next(bytes, length, &code);
    if (size > 0 && code_is_printable(code)) {
        memcpy(out, bytes, size);
        *out_length = size;
        return size;
    }
    if (size == 0)
        size = 1;
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        out[n++] = '\\';
        out[n++] = 'x';
        out[n++] = hex[byte >> 4];
        out[n++] = hex[byte & 15];
    }
    *out_length = n;
    return size;
}

const char *hlc_place(char buffer[HLC_PLACE_SIZE], const char *what, const char *name, size_t length) {
    static const char ending[] = "...'";
    int head = snprintf(buffer, HLC_PLACE_SIZE / 2, "%s '", what);
    size_t used = head < 0 ? 0 : (size_t)head;
    if (used >= HLC_PLACE_SIZE / 2)
        used = HLC_PLACE_SIZE / 2 - 1;
    size_t at = 0;
    while (at < length) {
        char form[HLC_PRINTABLE_SIZE];
        size_t size;
        size_t consumed = hlc_printable_next(name + at, length - at, form, &size);
        if (size > HLC_PLACE_SIZE - sizeof ending - used) {
            memcpy(buffer + used, ending, sizeof ending);
            return buffer;
        }
        memcpy(buffer + used, form, size);
        used += size;
        at += consumed;
    }
    memcpy(buffer + used, "'", 2);
    return buffer;
}
