/* Fuzzing the JSON scanner, beside Jansson: both accept the same texts and read the same strings. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"
#include "compiler/ingest/json_scan.h"
#include "tests/fuzz/fuzz.h"

static void must(bool holds) {
    if (!holds) {
        abort();
    }
}

/* Positions stay inside the text and never go back. True when the text was accepted. */
static bool scan_all(const char *text, size_t size, hlc_json_scan *scan) {
    hlc_json_start(scan, text, size);
    size_t before = 0;
    hlc_json_token token;
    while ((token = hlc_json_next(scan)) != HLC_JSON_END && token != HLC_JSON_ERROR) {
        must(scan->begin <= scan->end && scan->end <= scan->at && scan->at <= size && scan->at >= before);
        before = scan->at;
    }
    must(token == HLC_JSON_END || (scan->error && scan->error_at <= size));
    must(token == HLC_JSON_END || hlc_json_next(scan) == HLC_JSON_ERROR);
    return token == HLC_JSON_END;
}

static bool skips_all(const char *text, size_t size) {
    hlc_json_scan scan;
    hlc_json_start(&scan, text, size);
    return hlc_json_skip(&scan, hlc_json_next(&scan)) && hlc_json_next(&scan) == HLC_JSON_END;
}

static void compare_string(const char *text, size_t size, const json_t *root) {
    hlc_json_scan scan;
    hlc_json_start(&scan, text, size);
    must(hlc_json_next(&scan) == HLC_JSON_STRING);
    char *characters = malloc(scan.end - scan.begin + 1);
    size_t length = hlc_json_unescape(text + scan.begin, scan.end - scan.begin, characters);
    must(length == json_string_length(root) && memcmp(characters, json_string_value(root), length) == 0);
    free(characters);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1); /* of exactly this size but for the NUL that Jansson does not need */
    memcpy(text, data, size);
    hlc_json_scan scan;
    bool accepted = scan_all(text, size, &scan);
    must(skips_all(text, size) == accepted);
    bool too_deep = !accepted && strstr(scan.error, "nested");
    json_error_t error;
    json_t *root = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    must(too_deep || accepted == (root != NULL));
    if (accepted && json_is_string(root)) {
        compare_string(text, size, root);
    }
    json_decref(root);
    free(text);
    return 0;
}
