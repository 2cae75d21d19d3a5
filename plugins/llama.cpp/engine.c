/* llama.cpp's log, and logits as a NumPy file. */
#include <stdio.h>
#include <string.h>

#include "compiler/base/output_file.h"
#include "plugins/llama.cpp/program.h"

static char last_error[256];

static void keep_error(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) {
        snprintf(last_error, sizeof last_error, "%s", text);
        last_error[strcspn(last_error, "\r\n")] = '\0';
    }
}

void hlp_log_start(void) {
    llama_log_set(keep_error, NULL);
}

const char *hlp_last_error(void) {
    return last_error;
}

void hlp_fault_engine(hlc_faults *faults, const char *file, const char *reason) {
    FILE *readable = fopen(file, "rb");
    if (readable) {
        fclose(readable);
    }
    hlc_fault(faults, HLC_ERROR, readable ? HLC_FAULT_INPUT : HLC_FAULT_RESOURCE, file, NULL, NULL, "%s%s%s", reason,
              last_error[0] ? ": " : "", last_error);
}

/* Version 1.0 of NumPy's format: a header of a multiple of 64 bytes. */
static size_t npy_header(char header[128], size_t rows, int32_t columns) {
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10);
    const int length = snprintf(header + 10, 118, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %d), }", rows, columns);
    memset(header + 10 + length, ' ', (size_t)(117 - length));
    header[127] = '\n';
    return 128;
}

bool hlp_write_logits(const hlp_settings *s, const hlp_prompt *prompts, int32_t words, hlc_faults *faults) {
    char header[128];
    hlc_output output = {0};
    const size_t row = (size_t)words * sizeof(float);
    uint64_t end = npy_header(header, s->prompt_count, words);
    bool good = hlc_output_begin(&output, s->logits, faults) && hlc_output_write(&output, header, end, 0, faults);
    for (size_t p = 0; good && p < s->prompt_count; p++, end += row) {
        good = hlc_output_write(&output, prompts[p].logits, row, end, faults);
    }
    good = good && hlc_output_commit(&output, faults);
    hlc_output_abandon(&output);
    return good;
}
