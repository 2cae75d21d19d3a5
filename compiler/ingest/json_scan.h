/* A pull scanner over JSON text (RFC 8259, strict): one token at a time, in constant memory and linear time, with byte
 * positions. For safetensors headers, whose shapes need all of uint64, whose names may hold NUL and whose entries may
 * be many. One scanner per thread. */
#ifndef HILORA_COMPILER_JSON_SCAN_H
#define HILORA_COMPILER_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HLC_JSON_MAX_DEPTH = 128 };

typedef enum hlc_json_token {
    HLC_JSON_ERROR, /* stays so: `error` and `error_at` say what and where */
    HLC_JSON_END,   /* after the one top-level value and white space */
    HLC_JSON_OBJECT_BEGIN,
    HLC_JSON_OBJECT_END,
    HLC_JSON_ARRAY_BEGIN,
    HLC_JSON_ARRAY_END,
    HLC_JSON_KEY, /* a member's name; the next token begins its value */
    HLC_JSON_STRING,
    HLC_JSON_NUMBER,
    HLC_JSON_TRUE,
    HLC_JSON_FALSE,
    HLC_JSON_NULL
} hlc_json_token;

typedef struct hlc_json_scan {
    const char *text; /* borrowed */
    size_t size, at;
    /* The token just returned: text[begin, end), without the quotes for keys and strings. */
    size_t begin, end;
    bool escaped;      /* a key or string that holds escapes: hlc_json_unescape gives its characters */
    const char *error; /* static storage */
    size_t error_at;
    /* Private. */
    unsigned depth;
    unsigned char in_object[HLC_JSON_MAX_DEPTH / 8]; /* a bit per open container */
    unsigned char expect;
} hlc_json_scan;

/* Checks that text is UTF-8 without a byte order mark; the first hlc_json_next reports it if not. */
void hlc_json_start(hlc_json_scan *scan, const char *text, size_t size);
hlc_json_token hlc_json_next(hlc_json_scan *scan);
/* After OBJECT_BEGIN or ARRAY_BEGIN: moves behind the container's end. After any other value: nothing. False on an
 * error. */
bool hlc_json_skip(hlc_json_scan *scan, hlc_json_token token);

/* The characters of a scanned key or string as UTF-8, \u0000 included; out has room for `length` bytes. Returns their
 * count. */
size_t hlc_json_unescape(const char *text, size_t length, char *out);
/* The value of a scanned number that is a non-negative integer below 2^64, written without sign, fraction or exponent.
 */
bool hlc_json_u64(const char *text, size_t length, uint64_t *value);

#endif
