/* SARIF 2.1.0 (OASIS), one run: what code-scanning services read. */
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"
#include "compiler/cli/validate.h"
#include "compiler/version.h"

static json_t *text_json(const char *text) {
    return hlc_cli_string_json(text, strlen(text));
}

/* {"text": "Text."} */
static json_t *message_json(const char *text) {
    hlc_text sentence = {0};
    const size_t length = strlen(text);
    hlc_text_append(&sentence, text, length);
    if (length && !strchr(".!?", text[length - 1])) {
        hlc_text_append(&sentence, ".", 1);
    }
    json_t *out = sentence.failed ? NULL : json_pack("{s:o}", "text", text_json(sentence.bytes ? sentence.bytes : ""));
    if (out && sentence.bytes && sentence.bytes[0] >= 'a' && sentence.bytes[0] <= 'z') {
        sentence.bytes[0] = (char)(sentence.bytes[0] - 'a' + 'A');
        json_object_set_new(out, "text", text_json(sentence.bytes));
    }
    hlc_text_free(&sentence);
    return out;
}

/* ---- Rules ---- */

static json_t *rule_json(const hlc_policy *policy, size_t number) {
    const hlc_rule *rule = &hlc_rules[number];
    static const char *const levels[] = {
        [HLC_LEVEL_NOTE] = "note", [HLC_LEVEL_WARNING] = "warning", [HLC_LEVEL_ERROR] = "error"};
    const hlc_level level = policy->levels[number];
    const bool enabled = level != HLC_LEVEL_OFF;
    const char *name = level == HLC_LEVEL_AS_FOUND || !enabled ? hlc_severity_name(rule->severity) : levels[level];
    json_t *thresholds = json_object();
    for (size_t k = 0; k < HLC_RULE_THRESHOLDS && rule->thresholds[k].name; k++) {
        json_object_set_new(thresholds, rule->thresholds[k].name, hlc_cli_real_json(policy->thresholds[number][k]));
    }
    return json_pack("{s:s, s:o, s:o, s:{s:b, s:s}, s:{s:[s], s:o}}", "id", rule->id, "shortDescription",
                     message_json(rule->meaning), "help", message_json(rule->remedy), "defaultConfiguration", "enabled",
                     enabled, "level", name, "properties", "tags", hlc_rule_group(rule), "thresholds", thresholds);
}

/* ---- Places ---- */

/* A path as a relative or absolute URI reference (RFC 3986). */
static json_t *uri_json(const char *path) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
    hlc_text uri = {0};
    hlc_text_printf(&uri, "%s", path[0] == '/' ? "file://" : "");
    for (const char *at = path; *at; at++) {
        if (strchr(plain, *at)) {
            hlc_text_append(&uri, at, 1);
        } else {
            hlc_text_printf(&uri, "%%%02X", (unsigned)(unsigned char)*at);
        }
    }
    json_t *out = uri.failed ? NULL : json_string(uri.bytes ? uri.bytes : "");
    hlc_text_free(&uri);
    return out;
}

/* "byte 17" is a region of the file; anything else is a name in it. */
static json_t *location_json(const hlc_finding *finding, const char *subject) {
    const char *file = finding->fault.file ? finding->fault.file : subject, *place = finding->fault.place;
    json_t *out = json_object(), *physical = json_object(), *logical = json_array();
    unsigned long long byte;
    char behind;
    const bool at_byte = place && sscanf(place, "byte %llu%c", &byte, &behind) == 1 && byte <= INT64_MAX;
    if (file) {
        json_object_set_new(physical, "artifactLocation", json_pack("{s:o}", "uri", uri_json(file)));
        if (at_byte) {
            json_object_set_new(physical, "region",
                                json_pack("{s:I, s:i}", "byteOffset", (json_int_t)byte, "byteLength", 0));
        }
        json_object_set(out, "physicalLocation", physical);
    }
    if (place && !at_byte) {
        json_array_append_new(logical, json_pack("{s:o}", "fullyQualifiedName", text_json(place)));
        json_object_set(out, "logicalLocations", logical);
    }
    json_decref(physical);
    json_decref(logical);
    return out;
}

/* ---- Results ---- */

static json_t *result_json(const hlc_outcome *outcome, const hlc_finding *finding) {
    const hlc_rule *rule = &hlc_rules[finding->rule];
    const char *subject = finding->subject < 0 ? NULL : outcome->validation->subjects[finding->subject].path;
    const char *remedy = finding->fault.remedy ? finding->fault.remedy : rule->remedy;
    hlc_text message = {0};
    hlc_text_printf(&message, "%s%s%s (remedy: %s)", finding->fault.place ? finding->fault.place : "",
                    finding->fault.place ? ": " : "", finding->fault.reason, remedy);
    json_t *out = json_pack("{s:s, s:i, s:s, s:o, s:[o], s:{s:s, s:o}}", "ruleId", rule->id, "ruleIndex",
                            (int)finding->rule, "level", hlc_severity_name(finding->severity), "message",
                            message_json(message.failed ? finding->fault.reason : message.bytes), "locations",
                            location_json(finding, subject), "properties", "check", finding->code, "adapter",
                            finding->adapter ? text_json(finding->adapter) : json_null());
    if (finding->excused) {
        const char *reason = outcome->policy->exceptions[finding->exception].reason.bytes;
        json_object_set_new(out, "suppressions",
                            json_pack("[{s:s, s:s, s:o}]", "kind", "external", "status", "accepted", "justification",
                                      text_json(reason)));
    } else {
        json_object_set_new(out, "suppressions", json_array());
    }
    hlc_text_free(&message);
    return out;
}

json_t *hlc_outcome_sarif(const hlc_outcome *outcome) {
    json_t *rules = json_array(), *results = json_array();
    for (size_t i = 0; i < hlc_rule_count(); i++) {
        json_array_append_new(rules, rule_json(outcome->policy, i));
    }
    for (size_t i = 0; i < outcome->findings->count; i++) {
        json_array_append_new(results, result_json(outcome, &outcome->findings->items[outcome->findings->ranked[i]]));
    }
    return json_pack("{s:s, s:[{s:{s:{s:s, s:s, s:s, s:o}}, s:[{s:b, s:i}], s:o, s:{s:I}}]}", "version", "2.1.0",
                     "runs", "tool", "driver", "name", "hilora-validate", "version", HLC_VERSION, "semanticVersion",
                     HLC_VERSION, "rules", rules, "invocations", "executionSuccessful",
                     outcome->exit_status < HLC_EXIT_RESOURCE, "exitCode", outcome->exit_status, "results", results,
                     "properties", "omitted", (json_int_t)outcome->findings->omitted);
}
