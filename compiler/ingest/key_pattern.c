#include "compiler/ingest/key_pattern.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "compiler/base/text.h"

enum {
    MOST_PATTERN = 4096,  /* bytes */
    CHEAP_STEPS = 1000,   /* of a first try, enough for almost every pattern */
    DEAR_STEPS = 100000,  /* of the second, about a millisecond */
    LITERAL_CHUNK = 64,   /* bytes compared for a step */
    MATCH_HEAP_KIB = 8192 /* memory of one match */
};
static const uint64_t all_steps = 1000000000;

/* ---- What Python and PCRE2 read alike ---- */

static bool is_ascii_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_ascii_alnum(char c) {
    return is_ascii_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* at: behind the backslash. Both read an escaped non-letter as itself. */
static bool escape_is_common(const char *text, size_t length, size_t at, bool in_class) {
    if (at == length || !is_ascii_alnum(text[at]))
        return true;
    if (text[at] == 'x')
        return length - at > 2 && isxdigit((unsigned char)text[at + 1]) && isxdigit((unsigned char)text[at + 2]);
    return strchr(in_class ? "dDsSwWnrtfa" : "dDsSwWnrtfabBA", text[at]) != NULL;
}

/* at: behind the opening parenthesis. */
static bool group_is_common(const char *text, size_t length, size_t at) {
    static const char *const openings[] = {"?:", "?=", "?!", "?<=", "?<!", "?P<", "?>"};
    if (at == length || (text[at] != '?' && text[at] != '*'))
        return true;
    for (size_t i = 0; i < sizeof openings / sizeof *openings; i++)
        if (hlc_bytes_start(text + at, length - at, openings[i]))
            return true;
    return false;
}

/* The first construct that the two languages read differently, or that Python does not have; `length` when there is
 * none. */
static size_t first_uncommon(const char *text, size_t length) {
    bool in_class = false;
    size_t class_start = 0;
    for (size_t at = 0; at < length; at++) {
        char c = text[at];
        char next = at + 1 < length ? text[at + 1] : '\0';
        if (c == '\\') {
            if (!escape_is_common(text, length, at + 1, in_class))
                return at;
            at++;
        } else if (in_class) {
            if (c == '[' && next != '\0' && strchr(":.=", next))
                return at;
            if (c == ']' && at > class_start)
                in_class = false;
        } else if (c == '[') {
            in_class = true;
            class_start = at + 1 + (next == '^');
        } else if ((c == '(' && !group_is_common(text, length, at + 1)) || (c == '{' && next == ',')) {
            return at;
        }
    }
    return length;
}

/* ---- Names with dots as wildcards: most keys, without PCRE2 ---- */

static bool is_literal(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (!is_ascii_alnum(text[i]) && text[i] != '_' && text[i] != '-' && text[i] != '.')
            return false;
    return true;
}

/* Whether the first `end` bytes of path end with the key behind a dot or nothing. A dot in the key is any character but
 * a newline. */
static bool literal_matches_until(const hlc_key_pattern *pattern, const char *path, size_t end) {
    size_t at = end;
    for (size_t i = pattern->length; i-- > 0;) {
        if (at == 0)
            return false;
        at--;
        while (at > 0 && ((unsigned char)path[at] & 0xC0) == 0x80)
            at--;
        if (pattern->text[i] == '.' ? path[at] == '\n' : path[at] != pattern->text[i])
            return false;
    }
    return at == 0 || (path[at - 1] == '.' && !memchr(path, '\n', at));
}

/* Python's $ also matches before a newline that ends the text. */
static bool literal_matches(const hlc_key_pattern *pattern, const char *path, size_t length) {
    return literal_matches_until(pattern, path, length) ||
           (length > 0 && path[length - 1] == '\n' && literal_matches_until(pattern, path, length - 1));
}

/* ---- Everything else ---- */

static bool compile_code(hlc_key_pattern *pattern, hlc_pattern_form form, char error[HLC_PATTERN_ERROR_SIZE]) {
    static const char *const before[] = {"(.*\\.)?(", "(?:"}, *const after[] = {")$", ")\\z"};
    hlc_text whole = {0};
    hlc_text_append(&whole, before[form], strlen(before[form]));
    hlc_text_append(&whole, pattern->text, pattern->length);
    hlc_text_append(&whole, after[form], strlen(after[form]));
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (whole.failed || !context) {
        snprintf(error, HLC_PATTERN_ERROR_SIZE, "out of memory");
        goto done;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int number;
    PCRE2_SIZE at;
    /* Without the optimisations: paths are short, and version 10.42 misses matches of (?=a)x*+a by them. */
    const uint32_t plain = PCRE2_NO_START_OPTIMIZE | PCRE2_NO_AUTO_POSSESS;
    const uint32_t options = PCRE2_ANCHORED | PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | plain;
    pattern->code = pcre2_compile((PCRE2_SPTR)whole.bytes, whole.length, options, &number, &at, context);
    if (!pattern->code) {
        unsigned char message[HLC_PATTERN_ERROR_SIZE - 32];
        pcre2_get_error_message(number, message, sizeof message);
        snprintf(error, HLC_PATTERN_ERROR_SIZE, "no regular expression: %s", (const char *)message);
    }
done:
    pcre2_compile_context_free(context);
    hlc_text_free(&whole);
    return pattern->code != NULL;
}

bool hlc_key_pattern_compile(hlc_key_pattern *pattern, hlc_pattern_form form, const char *text, size_t length,
                             char error[HLC_PATTERN_ERROR_SIZE]) {
    *pattern = (hlc_key_pattern){.text = text, .length = length};
    if (length > MOST_PATTERN) {
        snprintf(error, HLC_PATTERN_ERROR_SIZE, "longer than the %d bytes that are read", MOST_PATTERN);
        return false;
    }
    if (form == HLC_PATTERN_KEY && is_literal(text, length))
        return true;
    /* At the start these would say what kind of group the parenthesis before them opens. */
    bool alters_group = length > 0 && (text[0] == '?' || text[0] == '*');
    size_t uncommon = alters_group ? 0 : first_uncommon(text, length);
    if (uncommon < length) {
        snprintf(error, HLC_PATTERN_ERROR_SIZE,
                 "a regular expression whose construct at byte %zu is not read here as Python reads it", uncommon);
        return false;
    }
    return compile_code(pattern, form, error);
}

void hlc_key_pattern_free(hlc_key_pattern *pattern) {
    pcre2_code_free(pattern->code);
    pattern->code = NULL;
}

size_t hlc_key_pattern_size(const hlc_key_pattern *pattern) {
    size_t size = 0;
    if (pattern->code)
        pcre2_pattern_info(pattern->code, PCRE2_INFO_SIZE, &size);
    return size;
}

bool hlc_matcher_init(hlc_matcher *matcher) {
    *matcher = (hlc_matcher){
        .data = pcre2_match_data_create(1, NULL), .context = pcre2_match_context_create(NULL), .steps_left = all_steps};
    if (matcher->data && matcher->context) {
        pcre2_set_depth_limit(matcher->context, DEAR_STEPS);
        pcre2_set_heap_limit(matcher->context, MATCH_HEAP_KIB);
        return true;
    }
    hlc_matcher_free(matcher);
    return false;
}

void hlc_matcher_free(hlc_matcher *matcher) {
    pcre2_match_data_free(matcher->data);
    pcre2_match_context_free(matcher->context);
    *matcher = (hlc_matcher){0};
}

bool hlc_matcher_spend(hlc_matcher *matcher, uint64_t steps) {
    if (matcher->steps_left < steps) {
        matcher->steps_left = 0;
        return false;
    }
    matcher->steps_left -= steps;
    return true;
}

static hlc_match match_within(const hlc_key_pattern *pattern, hlc_matcher *matcher, const char *path, size_t length,
                              uint32_t steps) {
    if (!hlc_matcher_spend(matcher, steps))
        return HLC_MATCH_SPENT;
    pcre2_set_match_limit(matcher->context, steps);
    int result = pcre2_match(pattern->code, (PCRE2_SPTR)path, length, 0, 0, matcher->data, matcher->context);
    if (result >= 0)
        return HLC_MATCH_YES;
    if (result == PCRE2_ERROR_NOMATCH)
        return HLC_MATCH_NO;
    return result == PCRE2_ERROR_NOMEMORY ? HLC_MATCH_NO_MEMORY : HLC_MATCH_TOO_HARD;
}

hlc_match hlc_key_pattern_match(const hlc_key_pattern *pattern, hlc_matcher *matcher, const char *path, size_t length) {
    if (!pattern->code) {
        if (!hlc_matcher_spend(matcher, 1 + length / LITERAL_CHUNK))
            return HLC_MATCH_SPENT;
        return literal_matches(pattern, path, length) ? HLC_MATCH_YES : HLC_MATCH_NO;
    }
    hlc_match match = match_within(pattern, matcher, path, length, CHEAP_STEPS);
    return match == HLC_MATCH_TOO_HARD ? match_within(pattern, matcher, path, length, DEAR_STEPS) : match;
}
