/* The table of rules, for people and for machines. */
#include <string.h>

#include "compiler/cli/validate.h"
#include "compiler/cli/wrapped_text.h"

static json_t *rule_json(const hlc_rule *rule) {
    json_t *thresholds = json_array();
    for (size_t k = 0; k < HLC_RULE_THRESHOLDS && rule->thresholds[k].name; k++) {
        const hlc_rule_threshold *t = &rule->thresholds[k];
        json_array_append_new(thresholds, json_pack("{s:s, s:f, s:f, s:f, s:s}", "name", t->name, "default", t->value,
                                                    "least", t->least, "most", t->most, "meaning", t->meaning));
    }
    return json_pack("{s:s, s:s, s:s, s:b, s:s, s:s, s:o}", "id", rule->id, "group", hlc_rule_group(rule), "severity",
                     hlc_severity_name(rule->severity), "deep", rule->deep, "meaning", rule->meaning, "remedy",
                     rule->remedy, "thresholds", thresholds);
}

int hlc_rules_list(const hlc_program *program, bool as_json) {
    const char *group = "";
    json_t *rules = json_array();
    for (size_t i = 0; i < hlc_rule_count(); i++) {
        const hlc_rule *rule = &hlc_rules[i];
        if (as_json) {
            json_array_append_new(rules, rule_json(rule));
            continue;
        }
        if (strcmp(group, hlc_rule_group(rule)) != 0) {
            group = hlc_rule_group(rule);
            printf("%s%s\n", i ? "\n" : "", group);
        }
        hlc_text line = {0};
        hlc_text_printf(&line, "%s %s%s: %s", rule->id, hlc_severity_name(rule->severity),
                        rule->deep ? " (--deep)" : "", rule->meaning);
        hlc_cli_print_wrapped(stdout, line.failed ? rule->id : line.bytes, 2, 2);
        hlc_text_free(&line);
    }
    if (as_json) {
        return hlc_cli_write_json(program, json_pack("{s:o}", "rules", rules), HLC_EXIT_DONE);
    }
    json_decref(rules);
    return hlc_cli_finish(program, HLC_EXIT_DONE);
}

static void explain_threshold(const hlc_rule_threshold *threshold) {
    hlc_text line = {0};
    hlc_text_printf(&line, "threshold %s: %s; %g, from %g to %g", threshold->name, threshold->meaning, threshold->value,
                    threshold->least, threshold->most);
    hlc_cli_print_wrapped(stdout, line.failed ? threshold->name : line.bytes, 2, 2);
    hlc_text_free(&line);
}

int hlc_rules_explain(const hlc_program *program, const char *id) {
    const size_t number = hlc_rule_find(id);
    if (number == hlc_rule_count()) {
        return hlc_cli_misuse(program, "there is no rule '%s': --list-rules names them", id);
    }
    const hlc_rule *rule = &hlc_rules[number];
    hlc_text line = {0};
    printf("%s (%s)\n", rule->id, hlc_rule_group(rule));
    hlc_text_printf(&line, "%s: %s", hlc_severity_name(rule->severity), rule->meaning);
    hlc_cli_print_wrapped(stdout, line.failed ? rule->meaning : line.bytes, 2, 2);
    hlc_text_free(&line);
    hlc_text_printf(&line, "remedy: %s", rule->remedy);
    hlc_cli_print_wrapped(stdout, line.bytes ? line.bytes : rule->remedy, 2, 2);
    hlc_text_free(&line);
    for (size_t k = 0; k < HLC_RULE_THRESHOLDS && rule->thresholds[k].name; k++) {
        explain_threshold(&rule->thresholds[k]);
    }
    if (rule->deep) {
        puts("  looked for with --deep");
    }
    return hlc_cli_finish(program, HLC_EXIT_DONE);
}
