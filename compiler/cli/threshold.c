#include "compiler/cli/threshold.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_threshold(const char *text, bool none_allowed, hlc_threshold *out) {
    if (none_allowed && strcmp(text, "none") == 0) {
        out->score = -INFINITY;
        return true;
    }
    out->by_quantile = text[0] == 'q';
    if (!out->by_quantile) {
        return hlc_cli_number(text, &out->score);
    }
    return hlc_cli_number(text + 1, &out->level) && out->level >= 0 && out->level <= 0.5;
}

int hlc_cli_add_threshold(const hlc_program *program, char *text, bool none_allowed, hlc_cli_thresholds *thresholds) {
    char *equals = strrchr(text, '=');
    hlc_threshold threshold = {.adapter = text};
    if (!equals || equals == text || !read_threshold(equals + 1, none_allowed, &threshold)) {
        return hlc_cli_misuse(program,
                              "--threshold takes NAME=SCORE%s or NAME=qLEVEL with a level from 0 to 0.5, not '%s'",
                              none_allowed ? ", NAME=none" : "", text);
    }
    *equals = '\0';
    for (size_t i = 0; i < thresholds->count; i++) {
        if (strcmp(thresholds->list[i].adapter, text) == 0) {
            return hlc_cli_misuse(program, "the threshold of %s is given twice", text);
        }
    }
    hlc_threshold *grown = realloc(thresholds->list, (thresholds->count + 1) * sizeof *grown);
    if (!grown) {
        fprintf(stderr, "%s: out of memory\n", program->name);
        return HLC_EXIT_RESOURCE;
    }
    grown[thresholds->count++] = threshold;
    thresholds->list = grown;
    return -1;
}

void hlc_cli_free_thresholds(hlc_cli_thresholds *thresholds) {
    free(thresholds->list);
    *thresholds = (hlc_cli_thresholds){0};
}
