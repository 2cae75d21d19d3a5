#include "compiler/rules/rules_file.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/ingest/json_scan.h"
#include "compiler/rules/rule_table.h"

enum { MOST_VALUES = 200000, MOST_REASON_BYTES = 4096 };

void hlc_policy_init(hlc_policy *policy) {
    *policy = (hlc_policy){0};
    for (size_t i = 0; i < hlc_rule_count(); i++) {
        for (size_t k = 0; k < HLC_RULE_THRESHOLDS; k++) {
            policy->thresholds[i][k] = hlc_rules[i].thresholds[k].value;
        }
    }
}

void hlc_policy_free(hlc_policy *policy) {
    for (size_t i = 0; i < policy->exception_count; i++) {
        hlc_string_free(&policy->exceptions[i].adapter);
        hlc_string_free(&policy->exceptions[i].module);
        hlc_string_free(&policy->exceptions[i].reason);
    }
    free(policy->exceptions);
    *policy = (hlc_policy){0};
}

double hlc_policy_threshold(const hlc_policy *policy, hlc_fault_kind kind, size_t which) {
    return policy->thresholds[hlc_rule_of_kind(kind)][which];
}

bool hlc_policy_wants(const hlc_policy *policy, hlc_fault_kind kind) {
    return policy->levels[hlc_rule_of_kind(kind)] != HLC_LEVEL_OFF;
}

/* ---- Reading ---- */

typedef struct rules_reader {
    hlc_policy *policy;
    hlc_faults *faults;
    const char *path, *today;
    bool good;
} rules_reader;

static void refuse(rules_reader *reader, const char *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void refuse(rules_reader *reader, const char *place, const char *format, ...) {
    char reason[2 * HLC_PLACE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(reason, sizeof reason, format, arguments) < 0) {
        reason[0] = '\0';
    }
    va_end(arguments);
    hlc_error(reader->faults, HLC_FAULT_MISUSE, reader->path, place, "%s", reason);
    reader->good = false;
}

/* Names the unknown: "key 'x'" within what is being read. */
static void refuse_key(rules_reader *reader, const char *within, const char *key, const char *known) {
    char name[HLC_PLACE_SIZE], place[2 * HLC_PLACE_SIZE + 4];
    hlc_place(name, "key", key, strlen(key));
    snprintf(place, sizeof place, "%s%s%s", within, within[0] ? ": " : "", name);
    refuse(reader, place, "the key is not known: %s", known);
}

/* HL0101 stands for the run's own failures, and keeps its severity. Answers hlc_rule_count() after a fault. */
static size_t read_rule(rules_reader *reader, const char *within, const char *id) {
    char name[HLC_PLACE_SIZE], place[2 * HLC_PLACE_SIZE + 4];
    const size_t rule = hlc_rule_find(id);
    hlc_place(name, "rule", id, strlen(id));
    snprintf(place, sizeof place, "%s: %s", within, name);
    if (rule == hlc_rule_count()) {
        refuse(reader, place, "there is no rule of this id (hilora-validate --list-rules)");
    } else if (hlc_rules[rule].kind == HLC_FAULT_RESOURCE) {
        refuse(reader, place, "what the system refused can be neither excused nor weighed otherwise");
        return hlc_rule_count();
    }
    return rule;
}

static void read_severity(rules_reader *reader, const char *id, const json_t *value) {
    static const char *const names[] = {[HLC_LEVEL_OFF] = "off",
                                        [HLC_LEVEL_NOTE] = "note",
                                        [HLC_LEVEL_WARNING] = "warning",
                                        [HLC_LEVEL_ERROR] = "error"};
    const size_t rule = read_rule(reader, "severities", id);
    const char *text = json_is_string(value) ? json_string_value(value) : "";
    for (hlc_level level = HLC_LEVEL_OFF; level <= HLC_LEVEL_ERROR; level++) {
        if (strcmp(text, names[level]) == 0) {
            if (rule < hlc_rule_count()) {
                reader->policy->levels[rule] = level;
            }
            return;
        }
    }
    char place[HLC_PLACE_SIZE];
    refuse(reader, hlc_place(place, "severities: rule", id, strlen(id)),
           "the value must be \"off\", \"note\", \"warning\" or \"error\"");
}

static void read_threshold(rules_reader *reader, size_t rule, const char *name, const json_t *value) {
    char place[HLC_PLACE_SIZE], known[128] = "";
    snprintf(place, sizeof place, "thresholds: rule '%s'", hlc_rules[rule].id);
    for (size_t k = 0; k < HLC_RULE_THRESHOLDS && hlc_rules[rule].thresholds[k].name; k++) {
        const hlc_rule_threshold *threshold = &hlc_rules[rule].thresholds[k];
        const size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", k ? " or " : "it may be ", threshold->name);
        if (strcmp(threshold->name, name) != 0) {
            continue;
        }
        const double number = json_is_number(value) ? json_number_value(value) : NAN;
        if (!(number >= threshold->least && number <= threshold->most)) {
            refuse(reader, place, "%s must be a number from %g to %g", name, threshold->least, threshold->most);
        } else {
            reader->policy->thresholds[rule][k] = number;
        }
        return;
    }
    refuse_key(reader, place, name, known[0] ? known : "the rule has no threshold");
}

static void read_thresholds(rules_reader *reader, const char *id, json_t *value) {
    char place[HLC_PLACE_SIZE];
    const size_t rule = read_rule(reader, "thresholds", id);
    if (!json_is_object(value)) {
        refuse(reader, hlc_place(place, "thresholds: rule", id, strlen(id)), "the value must be an object of numbers");
        return;
    }
    const char *name;
    json_t *number;
    if (rule < hlc_rule_count()) {
        json_object_foreach(value, name, number) {
            read_threshold(reader, rule, name, number);
        }
    }
}

/* ---- Exceptions ---- */

/* Of the Gregorian calendar. */
static bool is_date(const char *text) {
    static const char form[] = "dddd-dd-dd", days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const size_t length = strlen(text);
    if (length != sizeof form - 1) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != '-') {
            return false;
        }
    }
    const long year = strtol(text, NULL, 10), month = strtol(text + 5, NULL, 10), day = strtol(text + 8, NULL, 10);
    const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1] - (month == 2 && !leap);
}

/* A member that is a string of 1 to `most` bytes without NUL; absent: *out stays empty. */
static void read_text(rules_reader *reader, const char *place, const char *key, const json_t *value, size_t most,
                      hlc_string *out) {
    const size_t length = json_is_string(value) ? json_string_length(value) : 0;
    if (length == 0 || length > most || strlen(json_string_value(value)) != length) {
        refuse(reader, place, "%s must be a string of 1 to %zu bytes without NUL", key, most);
    } else if (!hlc_string_copy(out, json_string_value(value), length)) {
        hlc_out_of_memory(reader->faults, reader->path, length);
        reader->good = false;
    }
}

static void read_member(rules_reader *reader, const char *place, const char *key, const json_t *value,
                        hlc_exception *out, bool *has_rule) {
    if (strcmp(key, "rule") == 0) {
        *has_rule = true;
        out->rule = json_is_string(value) ? read_rule(reader, place, json_string_value(value)) : hlc_rule_count();
        if (!json_is_string(value)) {
            refuse(reader, place, "rule must be the id of a rule");
        }
    } else if (strcmp(key, "adapter") == 0) {
        read_text(reader, place, key, value, HLC_MOST_PATTERN_BYTES, &out->adapter);
    } else if (strcmp(key, "module") == 0) {
        read_text(reader, place, key, value, HLC_MOST_PATTERN_BYTES, &out->module);
    } else if (strcmp(key, "reason") == 0) {
        read_text(reader, place, key, value, MOST_REASON_BYTES, &out->reason);
    } else if (strcmp(key, "expires") == 0) {
        const char *date = json_is_string(value) ? json_string_value(value) : "";
        if (!is_date(date)) {
            refuse(reader, place, "expires must be a date such as 2027-01-31");
        }
        out->expired = strcmp(date, reader->today) < 0;
    } else {
        refuse_key(reader, place, key, "it may be rule, adapter, module, reason or expires");
    }
}

static void read_exception(rules_reader *reader, size_t number, json_t *value) {
    char place[64];
    hlc_exception *out = &reader->policy->exceptions[reader->policy->exception_count++];
    bool has_rule = false;
    *out = (hlc_exception){.rule = hlc_rule_count()};
    snprintf(place, sizeof place, "exceptions: number %zu", number);
    if (!json_is_object(value)) {
        refuse(reader, place, "an exception must be an object");
        return;
    }
    const char *key;
    json_t *member;
    json_object_foreach(value, key, member) {
        read_member(reader, place, key, member, out, &has_rule);
    }
    if (!has_rule) {
        refuse(reader, place, "an exception must name its rule");
    }
    if (!json_object_get(value, "reason")) {
        refuse(reader, place, "an exception must give its reason");
    }
}

static void read_exceptions(rules_reader *reader, const json_t *list) {
    const size_t count = json_array_size(list);
    if (!json_is_array(list) || count > HLC_MOST_EXCEPTIONS) {
        refuse(reader, "exceptions", "the value must be a list of at most %d exceptions", HLC_MOST_EXCEPTIONS);
        return;
    }
    reader->policy->exceptions = calloc(count + 1, sizeof *reader->policy->exceptions);
    if (!reader->policy->exceptions) {
        hlc_out_of_memory(reader->faults, reader->path, count * sizeof *reader->policy->exceptions);
        reader->good = false;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        read_exception(reader, i, json_array_get(list, i));
    }
}

/* ---- The whole ---- */

static void read_section(rules_reader *reader, const char *key, json_t *value) {
    const bool severities = strcmp(key, "severities") == 0, thresholds = strcmp(key, "thresholds") == 0;
    const char *id;
    json_t *member;
    if (strcmp(key, "exceptions") == 0) {
        read_exceptions(reader, value);
    } else if (!severities && !thresholds) {
        refuse_key(reader, "", key, "it may be severities, thresholds or exceptions");
    } else if (!json_is_object(value)) {
        refuse(reader, key, "the value must be an object with a member for each rule");
    } else {
        json_object_foreach(value, id, member) {
            if (severities) {
                read_severity(reader, id, member);
            } else {
                read_thresholds(reader, id, member);
            }
        }
    }
}

/* Strictness, depth and size are checked before a tree is built. */
static json_t *load_tree(rules_reader *reader, const char *text, size_t length) {
    hlc_json_scan scan;
    char place[48];
    hlc_json_start(&scan, text, length);
    size_t values = 0;
    hlc_json_token token = hlc_json_next(&scan);
    for (; token != HLC_JSON_END && token != HLC_JSON_ERROR && values <= MOST_VALUES; values++) {
        token = hlc_json_next(&scan);
    }
    if (token == HLC_JSON_ERROR || values > MOST_VALUES) {
        snprintf(place, sizeof place, "byte %zu", token == HLC_JSON_ERROR ? scan.error_at : scan.at);
        refuse(reader, place, "the rules file is not readable JSON: %s",
               token == HLC_JSON_ERROR ? scan.error : "it holds too many values");
        return NULL;
    }
    json_error_t error;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!root && error.text[0] == '\0') {
        hlc_out_of_memory(reader->faults, reader->path, length);
        reader->good = false;
    } else if (!root) {
        snprintf(place, sizeof place, "byte %d", error.position);
        refuse(reader, place, "the rules file is not readable JSON: %s", error.text);
    }
    return root;
}

bool hlc_policy_read(hlc_policy *policy, const char *path, const char *text, size_t length, const char *today,
                     hlc_faults *faults) {
    rules_reader reader = {.policy = policy, .faults = faults, .path = path, .today = today, .good = true};
    if (length > HLC_RULES_FILE_BYTES) {
        refuse(&reader, NULL, "the rules file has %zu bytes; at most %d are read", length, HLC_RULES_FILE_BYTES);
        return false;
    }
    json_t *root = load_tree(&reader, text, length);
    if (root && !json_is_object(root)) {
        refuse(&reader, NULL, "the rules file must be a JSON object");
    }
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        read_section(&reader, key, value);
    }
    json_decref(root);
    return reader.good;
}

/* ---- Matching ---- */

bool hlc_glob_match(const char *pattern, size_t pattern_length, const char *text, size_t length) {
    size_t p = 0, t = 0, star = SIZE_MAX, resume = 0;
    while (t < length) {
        if (p < pattern_length && pattern[p] == '*') {
            star = p++;
            resume = t;
        } else if (p < pattern_length && (pattern[p] == '?' || pattern[p] == text[t])) {
            p++;
            t++;
        } else if (star != SIZE_MAX) { /* the last star takes one byte more */
            p = star + 1;
            t = ++resume;
        } else {
            return false;
        }
    }
    while (p < pattern_length && pattern[p] == '*') {
        p++;
    }
    return p == pattern_length;
}

static bool matches(const hlc_string *pattern, const char *text, size_t length) {
    return hlc_glob_match(pattern->bytes, pattern->length, text, length);
}

/* Any of the names in quotes. */
static bool matches_a_name(const hlc_string *pattern, const char *place) {
    for (const char *open = strchr(place, '\''); open;) {
        const char *close = strchr(open + 1, '\'');
        if (!close) {
            return false;
        }
        if (matches(pattern, open + 1, (size_t)(close - open - 1))) {
            return true;
        }
        open = strchr(close + 1, '\'');
    }
    return false;
}

size_t hlc_policy_excuse(const hlc_policy *policy, size_t rule, const char *adapter, const char *place) {
    for (size_t i = 0; i < policy->exception_count; i++) {
        const hlc_exception *exception = &policy->exceptions[i];
        if (exception->rule == rule && !exception->expired &&
            (!exception->adapter.bytes || (adapter && matches(&exception->adapter, adapter, strlen(adapter)))) &&
            (!exception->module.bytes || (place && matches_a_name(&exception->module, place)))) {
            return i;
        }
    }
    return HLC_MOST_EXCEPTIONS;
}
