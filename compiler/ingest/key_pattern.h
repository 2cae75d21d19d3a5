/* Python's regular expressions over module paths, as PEFT uses them, evaluated by PCRE2 in bounded time.
 *
 * Read are the constructs that mean the same to both; a pattern that holds another is refused, never guessed at. */
#ifndef HILORA_COMPILER_KEY_PATTERN_H
#define HILORA_COMPILER_KEY_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum hlc_pattern_form {
    HLC_PATTERN_KEY, /* re.match(r"(.*\.)?(PATTERN)$", path) */
    HLC_PATTERN_FULL /* re.fullmatch(PATTERN, path) */
} hlc_pattern_form;

typedef struct hlc_key_pattern {
    const char *text; /* borrowed */
    size_t length;
    void *code; /* NULL: names and dots alone, matched without PCRE2 */
} hlc_key_pattern;

/* What matching needs and uses up; one per thread. */
typedef struct hlc_matcher {
    void *data, *context;
    uint64_t steps_left;
} hlc_matcher;

typedef enum hlc_match {
    HLC_MATCH_NO,
    HLC_MATCH_YES,
    HLC_MATCH_TOO_HARD, /* this pattern needs too many steps on this path */
    HLC_MATCH_SPENT,    /* the matcher's steps are used up */
    HLC_MATCH_NO_MEMORY
} hlc_match;

enum { HLC_PATTERN_ERROR_SIZE = 192 };

/* text: UTF-8, lives as long as the pattern. False with a reason in `error`: not a regular expression, not one that
 * both languages read alike, too long, or out of memory. */
bool hlc_key_pattern_compile(hlc_key_pattern *pattern, hlc_pattern_form form, const char *text, size_t length,
                             char error[HLC_PATTERN_ERROR_SIZE]);
void hlc_key_pattern_free(hlc_key_pattern *pattern);
/* Bytes of memory that the compiled pattern takes: a few characters can stand for many. */
size_t hlc_key_pattern_size(const hlc_key_pattern *pattern);

bool hlc_matcher_init(hlc_matcher *matcher);
void hlc_matcher_free(hlc_matcher *matcher);
/* Uses up steps for work that is done elsewhere. False when they are spent. */
bool hlc_matcher_spend(hlc_matcher *matcher, uint64_t steps);
/* path: UTF-8. */
hlc_match hlc_key_pattern_match(const hlc_key_pattern *pattern, hlc_matcher *matcher, const char *path, size_t length);

#endif
