/* hilora-llama: what it was asked, and its parts. */
#ifndef HILORA_LLAMA_PROGRAM_H
#define HILORA_LLAMA_PROGRAM_H

#include "compiler/base/text.h"
#include "compiler/cli/route.h"
#include "plugins/llama.cpp/hilora_llama.h"

typedef enum hlp_mode { HLP_MODE_A, HLP_MODE_B, HLP_MODE_BASE } hlp_mode;

typedef struct hlp_settings {
    hlc_route_settings route; /* pool, embedding, routing options */
    const char *model, *embedding_model, *logits;
    const char *lora; /* a GGUF adapter, in mode base */
    const char **prompts;
    size_t prompt_count;
    hlp_mode mode;
    uint64_t predict, threads;
    bool exact_cache; /* keys and values in float32 */
    bool quiet;
} hlp_settings;

/* One prompt on its way. */
typedef struct hlp_prompt {
    const char *text;
    hl_route *route;
    uint8_t digest[16];
    llama_token *tokens;
    int32_t token_count;
    llama_token *output; /* at most settings.predict */
    int32_t output_count;
    float *logits; /* of the token after the prompt: one per word of the vocabulary */
    bool done;
} hlp_prompt;

/* llama.cpp's log: silent, but for the last error, which a fault may quote. */
void hlp_log_start(void);
const char *hlp_last_error(void);
void hlp_fault_engine(hlc_faults *faults, const char *file, const char *reason);

/* Embeds every text, with the pool's prefix, by a model in embedding mode; lengths are 1 where the pool's are. Answers
 * prompt_count x *dim floats to be freed, or NULL after a fault. */
float *hlp_embed(const hlp_settings *settings, const hl_pool *pool, size_t *dim, hlc_faults *faults);

typedef struct hlp_speed {
    double prompt_seconds, output_seconds;
    int64_t prompt_tokens, output_tokens;
} hlp_speed;

/* Generates greedily for all prompts; in mode A in one batch, in mode B and without adapters in one batch per route. */
bool hlp_generate(const hlp_settings *settings, hl_llama *shim, struct llama_model *model, hlp_prompt *prompts,
                  hlp_speed *speed, hlc_faults *faults);

/* Writes the logits of all prompts as a NumPy file. */
bool hlp_write_logits(const hlp_settings *settings, const hlp_prompt *prompts, int32_t words, hlc_faults *faults);

#endif
