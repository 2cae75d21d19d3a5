#include "compiler/ingest/json_scan.h"

#include <string.h>

#include "compiler/base/text.h"

/* What may stand at the scanner's position. */
enum expectation {
    EXPECT_TOP_VALUE,
    EXPECT_VALUE,
    EXPECT_FIRST_ELEMENT, /* of an array, or its end */
    EXPECT_FIRST_KEY,     /* of an object, or its end */
    EXPECT_KEY,
    EXPECT_COMMA_OR_END,
    EXPECT_NOTHING,
    EXPECT_NO_MORE /* after an error */
};

static hlc_json_token fail(hlc_json_scan *scan, size_t at, const char *error) {
    scan->error = error;
    scan->error_at = at;
    scan->expect = EXPECT_NO_MORE;
    return HLC_JSON_ERROR;
}

void hlc_json_start(hlc_json_scan *scan, const char *text, size_t size) {
    *scan = (hlc_json_scan){.text = text, .size = size, .expect = EXPECT_TOP_VALUE};
    size_t valid = hlc_utf8_prefix(text, size);
    if (valid < size)
        fail(scan, valid, "the text is not UTF-8");
    else if (hlc_bytes_start(text, size, "\xEF\xBB\xBF"))
        fail(scan, 0, "the text starts with a byte order mark");
}

static bool is_white_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_white_space(hlc_json_scan *scan) {
    while (scan->at < scan->size && is_white_space(scan->text[scan->at]))
        scan->at++;
}

static bool innermost_is_object(const hlc_json_scan *scan) {
    unsigned level = scan->depth - 1;
    return (scan->in_object[level / 8] >> (level % 8) & 1) != 0;
}

static hlc_json_token open_container(hlc_json_scan *scan, bool object) {
    if (scan->depth == HLC_JSON_MAX_DEPTH)
        return fail(scan, scan->at, "arrays and objects are nested more than 128 deep");
    unsigned level = scan->depth++;
    unsigned char bit = (unsigned char)(1u << (level % 8));
    scan->in_object[level / 8] =
        (unsigned char)(object ? scan->in_object[level / 8] | bit : scan->in_object[level / 8] & ~bit);
    scan->begin = scan->at++;
    scan->end = scan->at;
    scan->expect = object ? EXPECT_FIRST_KEY : EXPECT_FIRST_ELEMENT;
    return object ? HLC_JSON_OBJECT_BEGIN : HLC_JSON_ARRAY_BEGIN;
}

static void value_is_over(hlc_json_scan *scan) {
    scan->expect = scan->depth == 0 ? EXPECT_NOTHING : EXPECT_COMMA_OR_END;
}

static hlc_json_token close_container(hlc_json_scan *scan) {
    bool object = innermost_is_object(scan);
    scan->begin = scan->at++;
    scan->end = scan->at;
    scan->depth--;
    value_is_over(scan);
    return object ? HLC_JSON_OBJECT_END : HLC_JSON_ARRAY_END;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The code unit of the four hexadecimal digits at text; -1 where they are not that. */
static int hex_unit(const char *text, size_t length) {
    if (length < 4)
        return -1;
    int unit = 0;
    for (size_t i = 0; i < 4; i++) {
        int digit = hex_digit(text[i]);
        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* Checks the escape whose backslash is at scan->at and moves behind it; false after setting the error. */
static bool scan_escape(hlc_json_scan *scan) {
    const char *text = scan->text + scan->at;
    size_t left = scan->size - scan->at;
    if (left >= 2 && text[1] != '\0' && strchr("\"\\/bfnrt", text[1])) {
        scan->at += 2;
        return true;
    }
    int unit = left >= 2 && text[1] == 'u' ? hex_unit(text + 2, left - 2) : -1;
    if (unit < 0) {
        fail(scan, scan->at, "a string holds an escape that JSON does not know");
        return false;
    }
    size_t size = 6;
    if (unit >= 0xD800 && unit <= 0xDFFF) {
        int low = left >= 8 && text[6] == '\\' && text[7] == 'u' ? hex_unit(text + 8, left - 8) : -1;
        if (unit >= 0xDC00 || low < 0xDC00 || low > 0xDFFF) {
            fail(scan, scan->at, "a string holds half of a surrogate pair");
            return false;
        }
        size = 12;
    }
    scan->at += size;
    return true;
}

static bool scan_string(hlc_json_scan *scan) {
    size_t quote = scan->at++;
    scan->begin = scan->at;
    scan->escaped = false;
    while (scan->at < scan->size) {
        unsigned char byte = (unsigned char)scan->text[scan->at];
        if (byte == '"') {
            scan->end = scan->at++;
            return true;
        }
        if (byte < 0x20) {
            fail(scan, scan->at, "a string holds a control character that is not escaped");
            return false;
        }
        if (byte != '\\') {
            scan->at++;
            continue;
        }
        scan->escaped = true;
        if (!scan_escape(scan))
            return false;
    }
    fail(scan, quote, "a string does not end");
    return false;
}

static size_t count_digits(const hlc_json_scan *scan, size_t at) {
    size_t start = at;
    while (at < scan->size && scan->text[at] >= '0' && scan->text[at] <= '9')
        at++;
    return at - start;
}

enum { LEADING_DIGITS = 21 };

/* A scanned number as 0.DIGITS x 10^exponent: its first digits without leading zeros, padded with zeros. */
static int64_t decimal_exponent(const char *text, size_t length, char digits[LEADING_DIGITS]) {
    int64_t exponent = 0, written = 0;
    size_t kept = 0, at = text[0] == '-';
    bool behind_point = false;
    memset(digits, '0', LEADING_DIGITS);
    for (; at < length && text[at] != 'e' && text[at] != 'E'; at++) {
        if (text[at] == '.') {
            behind_point = true;
            continue;
        }
        bool significant = kept > 0 || text[at] != '0';
        exponent += behind_point ? -(int64_t)!significant : significant;
        if (significant && kept < LEADING_DIGITS)
            digits[kept++] = text[at];
    }
    bool negative = ++at < length && text[at] == '-';
    for (; at < length; at++)
        if (text[at] >= '0' && text[at] <= '9' && written < 1000000000000)
            written = written * 10 + (text[at] - '0');
    return negative ? exponent - written : exponent + written;
}

/* Whether a scanned number rounds to infinity in float64: it is at least 2^1024 - 2^970. */
static bool number_overflows(const char *text, size_t length) {
    if (length < 300 && !memchr(text, 'e', length) && !memchr(text, 'E', length))
        return false;
    char digits[LEADING_DIGITS];
    int64_t exponent = decimal_exponent(text, length, digits);
    if (digits[0] == '0' || exponent < 309)
        return false;
    return exponent > 309 || memcmp(digits, "179769313486231580793", LEADING_DIGITS) >= 0;
}

static hlc_json_token scan_number(hlc_json_scan *scan) {
    size_t at = scan->at;
    at += scan->text[at] == '-';
    size_t digits = count_digits(scan, at);
    if (digits == 0)
        return fail(scan, scan->at, "this is no JSON value");
    if (digits > 1 && scan->text[at] == '0')
        return fail(scan, scan->at, "a number has a leading zero");
    at += digits;
    if (at < scan->size && scan->text[at] == '.') {
        digits = count_digits(scan, ++at);
        if (digits == 0)
            return fail(scan, scan->at, "a number has no digit after its point");
        at += digits;
    }
    if (at < scan->size && (scan->text[at] == 'e' || scan->text[at] == 'E')) {
        at++;
        at += at < scan->size && (scan->text[at] == '+' || scan->text[at] == '-');
        digits = count_digits(scan, at);
        if (digits == 0)
            return fail(scan, scan->at, "a number has no digit in its exponent");
        at += digits;
    }
    if (number_overflows(scan->text + scan->at, at - scan->at))
        return fail(scan, scan->at, "a number is beyond the range of float64");
    scan->begin = scan->at;
    scan->end = scan->at = at;
    value_is_over(scan);
    return HLC_JSON_NUMBER;
}

static hlc_json_token scan_word(hlc_json_scan *scan, const char *word, hlc_json_token token) {
    if (!hlc_bytes_start(scan->text + scan->at, scan->size - scan->at, word))
        return fail(scan, scan->at, "this is no JSON value");
    scan->begin = scan->at;
    scan->end = scan->at += strlen(word);
    value_is_over(scan);
    return token;
}

static hlc_json_token scan_value(hlc_json_scan *scan) {
    switch (scan->text[scan->at]) {
    case '{':
        return open_container(scan, true);
    case '[':
        return open_container(scan, false);
    case '"':
        if (!scan_string(scan))
            return HLC_JSON_ERROR;
        value_is_over(scan);
        return HLC_JSON_STRING;
    case 't':
        return scan_word(scan, "true", HLC_JSON_TRUE);
    case 'f':
        return scan_word(scan, "false", HLC_JSON_FALSE);
    case 'n':
        return scan_word(scan, "null", HLC_JSON_NULL);
    default:
        return scan_number(scan);
    }
}

static hlc_json_token scan_key(hlc_json_scan *scan) {
    if (scan->text[scan->at] != '"')
        return fail(scan, scan->at, "a member's name, in quotes, must stand here");
    if (!scan_string(scan))
        return HLC_JSON_ERROR;
    size_t begin = scan->begin, end = scan->end;
    skip_white_space(scan);
    if (scan->at == scan->size || scan->text[scan->at] != ':')
        return fail(scan, scan->at, "a colon must stand here");
    scan->at++;
    scan->begin = begin;
    scan->end = end;
    scan->expect = EXPECT_VALUE;
    return HLC_JSON_KEY;
}

static hlc_json_token after_a_value(hlc_json_scan *scan) {
    bool object = innermost_is_object(scan);
    char c = scan->text[scan->at];
    if (c == (object ? '}' : ']'))
        return close_container(scan);
    if (c != ',')
        return fail(scan, scan->at, object ? "a comma or } must stand here" : "a comma or ] must stand here");
    scan->at++;
    scan->expect = object ? EXPECT_KEY : EXPECT_VALUE;
    return hlc_json_next(scan);
}

hlc_json_token hlc_json_next(hlc_json_scan *scan) {
    if (scan->expect == EXPECT_NO_MORE)
        return HLC_JSON_ERROR;
    skip_white_space(scan);
    if (scan->at == scan->size)
        return scan->expect == EXPECT_NOTHING ? HLC_JSON_END : fail(scan, scan->at, "the text ends too early");
    char c = scan->text[scan->at];
    switch (scan->expect) {
    case EXPECT_FIRST_KEY:
        return c == '}' ? close_container(scan) : scan_key(scan);
    case EXPECT_KEY:
        return scan_key(scan);
    case EXPECT_FIRST_ELEMENT:
        return c == ']' ? close_container(scan) : scan_value(scan);
    case EXPECT_COMMA_OR_END:
        return after_a_value(scan);
    case EXPECT_NOTHING:
        return fail(scan, scan->at, "something stands behind the end of the JSON value");
    default:
        return scan_value(scan);
    }
}

bool hlc_json_skip(hlc_json_scan *scan, hlc_json_token token) {
    if (token == HLC_JSON_ERROR)
        return false;
    if (token != HLC_JSON_OBJECT_BEGIN && token != HLC_JSON_ARRAY_BEGIN)
        return true;
    unsigned outside = scan->depth - 1;
    while (scan->depth > outside)
        if (hlc_json_next(scan) == HLC_JSON_ERROR)
            return false;
    return true;
}

static size_t put_utf8(uint32_t code, char *out) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = size - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)(leads[size] | code);
    return size;
}

static char simple_escape(char c) {
    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return c;
    }
}

size_t hlc_json_unescape(const char *text, size_t length, char *out) {
    size_t n = 0;
    for (size_t at = 0; at < length;) {
        if (text[at] != '\\') {
            out[n++] = text[at++];
        } else if (text[at + 1] != 'u') {
            out[n++] = simple_escape(text[at + 1]);
            at += 2;
        } else {
            uint32_t code = (uint32_t)hex_unit(text + at + 2, 4);
            at += 6;
            if (code >= 0xD800 && code <= 0xDBFF) {
                uint32_t low = (uint32_t)hex_unit(text + at + 2, 4);
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                at += 6;
            }
            n += put_utf8(code, out + n);
        }
    }
    return n;
}

bool hlc_json_u64(const char *text, size_t length, uint64_t *value) {
    uint64_t sum = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (sum > (UINT64_MAX - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *value = sum;
    return length > 0;
}
