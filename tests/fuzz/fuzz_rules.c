/* Fuzzing the rules file of hilora-validate: reading it, and what its policy then answers. */
#include <math.h>
#include <stdlib.h>

#include "compiler/rules/rule_table.h"
#include "compiler/rules/rules_file.h"
#include "tests/fuzz/fuzz.h"

static void ask(const hlc_policy *policy) {
    static const char *const names[] = {NULL, "sql", "german-translation", ""};
    static const char *const places[] = {NULL, "module 'model.layers.0.self_attn.q_proj'", "tensor 'a', module 'b'", "'"};
    for (size_t rule = 0; rule < hlc_rule_count(); rule++) {
        for (size_t i = 0; i < 4; i++) {
            const size_t excuse = hlc_policy_excuse(policy, rule, names[i], places[i]);
            if (excuse != HLC_MOST_EXCEPTIONS && excuse >= policy->exception_count) {
                abort();
            }
        }
        if (isnan(policy->thresholds[rule][0]) || isnan(policy->thresholds[rule][1])) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    hlc_faults *faults = hlc_faults_create();
    hlc_policy policy;
    hlc_string text;
    if (!faults || !hlc_string_copy(&text, (const char *)data, size)) {
        abort();
    }
    hlc_policy_init(&policy);
    const bool good = hlc_policy_read(&policy, "rules.json", text.bytes, text.length, "2026-11-22", faults);
    if (good != (hlc_faults_errors(faults) == 0)) {
        abort();
    }
    ask(&policy);
    hlc_policy_free(&policy);
    hlc_string_free(&text);
    hlc_faults_destroy(faults);
    return 0;
}
