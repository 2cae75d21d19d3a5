#include "tests/fuzz/container.h"

#include <stdbool.h>

enum { LENGTH_FIELD = 8 };

/* Bytes up to the brace that closes the first one; 0 when none does. */
static size_t object_length(const uint8_t *text, size_t size) {
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        if (in_string && text[i] == '\\') {
            i++;
        } else if (text[i] == '"') {
            in_string = !in_string;
        } else if (!in_string && text[i] == '{') {
            depth++;
        } else if (!in_string && text[i] == '}' && depth > 0 && --depth == 0) {
            return i + 1;
        }
    }
    return 0;
}

void hlt_fit_header_length(uint8_t *file, size_t size) {
    size_t length = size > LENGTH_FIELD ? object_length(file + LENGTH_FIELD, size - LENGTH_FIELD) : 0;
    for (size_t i = 0; length > 0 && i < LENGTH_FIELD; i++) {
        file[i] = (uint8_t)((uint64_t)length >> (8 * i));
    }
}
