/* Counted strings, growable text and UTF-8. Nothing here keeps state; all of it is safe from any thread. */
#ifndef HILORA_COMPILER_TEXT_H
#define HILORA_COMPILER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A counted string: names in safetensors headers may hold NUL. `bytes` has a NUL after `length` bytes all the same;
 * an empty one may have bytes == NULL. */
typedef struct hlc_string {
    char *bytes;
    size_t length;
} hlc_string;

/* Makes *out a copy (the caller frees it with hlc_string_free). False, with *out empty, when memory is out. */
bool hlc_string_copy(hlc_string *out, const char *bytes, size_t length);
void hlc_string_free(hlc_string *string);

/* Bytewise order, a proper prefix first: < 0, 0 or > 0. */
int hlc_bytes_compare(const char *a, size_t a_length, const char *b, size_t b_length);
bool hlc_bytes_equal(const char *bytes, size_t length, const char *literal);
bool hlc_bytes_start(const char *bytes, size_t length, const char *literal);
bool hlc_bytes_end(const char *bytes, size_t length, const char *literal);

/* Length of the well-formed UTF-8 sequence at the start of bytes (1 to 4), its code point in *code; 0 when there is
 * none. */
size_t hlc_utf8_next(const char *bytes, size_t length, uint32_t *code);
/* Length of the longest well-formed prefix: `length` itself when all of it is UTF-8. */
size_t hlc_utf8_prefix(const char *bytes, size_t length);

/* Text that grows. Zero-initialise it; after a failed append it stays as it was and `failed` is set for good. */
typedef struct hlc_text {
    char *bytes; /* NUL-terminated once anything was appended */
    size_t length, capacity;
    bool failed;
} hlc_text;

bool hlc_text_append(hlc_text *text, const char *bytes, size_t length);
bool hlc_text_printf(hlc_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void hlc_text_free(hlc_text *text);

/* Printable form of untrusted text, a character at a time: writes the form of the first character of bytes (length > 0)
 * to out, its size to *out_length, and returns the bytes consumed. Control characters, bytes that are not UTF-8, and
 * the characters that reorder or break lines in a terminal come out as \xNN, a group for each byte. */
enum { HLC_PRINTABLE_SIZE = 16 };
size_t hlc_printable_next(const char *bytes, size_t length, char out[HLC_PRINTABLE_SIZE], size_t *out_length);

/* "what 'name'" for a fault's place, in printable form, cut with "..." where the name is long. Returns buffer. */
enum { HLC_PLACE_SIZE = 288 };
const char *hlc_place(char buffer[HLC_PLACE_SIZE], const char *what, const char *name, size_t length);

#endif
