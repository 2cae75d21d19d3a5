/* Fuzzing adapter_config.json: reading it, and rank and scale of a few modules by its patterns. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/ingest/peft_config.h"
#include "tests/fuzz/fuzz.h"

static void resolve(hlc_peft_config *config, hlc_faults *faults) {
    static const char *const modules[] = {"model.layers.0.self_attn.q_proj", "model.layers.17.mlp.down_proj",
                                          "lm_head", "h.3.attn.c_attn", ""};
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        uint32_t rank;
        double scale;
        if (hlc_peft_config_resolve(config, modules[i], strlen(modules[i]), &rank, &scale, faults) &&
            (rank < 1 || rank > HLC_MOST_RANK || isnan(scale))) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    hlc_string text;
    if (!hlc_string_copy(&text, (const char *)data, size)) {
        return 0;
    }
    for (int drop_extras = 0; drop_extras <= 1; drop_extras++) {
        hlc_faults *faults = hlc_faults_create();
        hlc_peft_config *config =
            hlc_peft_config_read("adapter_config.json", drop_extras ? "metadata key 'x'" : NULL, &text, drop_extras, faults);
        if (!config || (config->state == HLC_CONFIG_GOOD) != (hlc_faults_errors(faults) == 0)) {
            abort();
        }
        resolve(config, faults);
        hlc_peft_config_free(config);
        hlc_faults_destroy(faults);
    }
    hlc_string_free(&text);
    return 0;
}
