/* hilora-llama: prompts through a GGUF model, each with the adapters that a pool's routing gives it. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/cli/text_table.h"
#include "compiler/ingest/embeddings.h"
#include "plugins/llama.cpp/program.h"

static const hlc_program program = {
    "hilora-llama",
    "Usage: hilora-llama -m MODEL.gguf -p POOL.hlp --prompt TEXT... [OPTION]...\n"
    "Generate from prompts with llama.cpp, each prompt with the adapters of a pool that it is routed to.\n"
    "\n"
    "  -m, --model FILE           the base model, GGUF\n"
    "  -p, --pool FILE            the pool\n"
    "      --prompt TEXT          a prompt; again for more\n"
    "      --embedding-model FILE a GGUF model that embeds the prompts; the pool's encoder, please; or\n"
    "      --embedding FILE       their embeddings, a row per prompt: .npy, .safetensors or .h5\n"
    "      --row N                the row of the first prompt (default 0)\n"
    "      --adapter NAME[=W]     or name the adapters, of all prompts; again for more\n"
    "      --mode a|b|base        a: routed per token, all prompts in one batch (default); b: each route blended into\n"
    "                             a LoRA of llama.cpp's; base: without adapters\n"
    "      --lora FILE            a LoRA of llama.cpp's, with --mode base\n"
    "  -n, --predict N            tokens to generate per prompt at most (default 32)\n"
    "  -t, --threads N            of llama.cpp and of hilora (default 1)\n"
    "      --kv-type f16|f32      precision of the KV cache (default f16)\n"
    "      --logits FILE.npy      write the logits after each prompt, a row per prompt\n"
    "      --json                 one JSON document\n"
    "  -q, --quiet                the texts alone\n"
    "  -h, --help                 this text\n"
    "      --version              the version\n"
    "\n"
    "Routing options are those of hilora-route: --select, --k, --p, --gamma, --gate, --rows, ...\n"
    "\n"
    "Exit status: 0 done, 1 a bad model, pool or embedding, or a pool for another model, 2 misuse, 3 a missing file or\n"
    "resource.\n"};

enum option_code { OPTION_PROMPT = HLC_OPTION_FIRST_MORE, OPTION_EMBEDDING_MODEL, OPTION_MODE, OPTION_KV_TYPE, OPTION_LOGITS, OPTION_LORA };

static const struct option own_options[] = {{"model", required_argument, NULL, 'm'},
                                            {"pool", required_argument, NULL, 'p'},
                                            {"prompt", required_argument, NULL, OPTION_PROMPT},
                                            {"embedding-model", required_argument, NULL, OPTION_EMBEDDING_MODEL},
                                            {"mode", required_argument, NULL, OPTION_MODE},
                                            {"predict", required_argument, NULL, 'n'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"kv-type", required_argument, NULL, OPTION_KV_TYPE},
                                            {"lora", required_argument, NULL, OPTION_LORA},
                                            {"logits", required_argument, NULL, OPTION_LOGITS}};

/* ---- The command line ---- */

static int add_prompt(hlp_settings *s) {
    const char **grown = realloc(s->prompts, (s->prompt_count + 1) * sizeof *grown);
    if (!grown) {
        fprintf(stderr, "%s: out of memory\n", program.name);
        return HLC_EXIT_RESOURCE;
    }
    grown[s->prompt_count++] = optarg;
    s->prompts = grown;
    return -1;
}

static int parse_count(const char *option, uint64_t least, uint64_t most, uint64_t *out) {
    return hlc_cli_count(optarg, least, most, out)
               ? -1
               : hlc_cli_misuse(&program, "%s takes a whole number from %llu to %llu, not '%s'", option,
                                (unsigned long long)least, (unsigned long long)most, optarg);
}

static int parse_choice(const char *option, const char *const *names, int *out) {
    *out = hlc_cli_choice(optarg, names);
    return *out >= 0 ? -1 : hlc_cli_misuse(&program, "%s cannot be '%s'", option, optarg);
}

static int apply_option(void *user, int code) {
    static const char *const modes[] = {"a", "b", "base", NULL}, *const types[] = {"f16", "f32", NULL};
    hlp_settings *s = user;
    int choice = 0, status;
    switch (code) {
    case 'm':
        s->model = optarg;
        return -1;
    case 'p':
        s->route.pool = optarg;
        return -1;
    case 'q':
        s->quiet = true;
        return -1;
    case 'n':
        return parse_count("--predict", 0, 1000000, &s->predict);
    case 't':
        return parse_count("--threads", 1, 512, &s->threads);
    case OPTION_PROMPT:
        return add_prompt(s);
    case OPTION_EMBEDDING_MODEL:
        s->embedding_model = optarg;
        return -1;
    case OPTION_LOGITS:
        s->logits = optarg;
        return -1;
    case OPTION_LORA:
        s->lora = optarg;
        return -1;
    case OPTION_MODE:
        status = parse_choice("--mode", modes, &choice);
        s->mode = (hlp_mode)choice;
        return status;
    case OPTION_KV_TYPE:
        status = parse_choice("--kv-type", types, &choice);
        s->exact_cache = choice == 1;
        return status;
    default:
        return HLC_OPTION_UNKNOWN;
    }
}

/* The input that writing the logits would replace; NULL: none. */
static const char *overwritten_input(const hlp_settings *s) {
    const char *const inputs[] = {s->model, s->route.pool, s->route.embedding, s->embedding_model, s->lora};
    struct stat output, input;
    if (!s->logits || stat(s->logits, &output) != 0) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        if (inputs[i] && stat(inputs[i], &input) == 0 && input.st_dev == output.st_dev && input.st_ino == output.st_ino) {
            return inputs[i];
        }
    }
    return NULL;
}

/* Mode B computes the blend of a route, whatever gate and rows it names: the route, and its digest, shall say so. */
static int freeze_route(hl_route_options *route) {
    if ((route->gate != HL_GATE_DEFAULT && route->gate != HL_GATE_STATIC) ||
        (route->rows != HL_ROWS_DEFAULT && route->rows != HL_ROWS_F32)) {
        return hlc_cli_misuse(&program, "--mode b is for --gate static and --rows f32 alone");
    }
    route->gate = HL_GATE_STATIC;
    route->rows = HL_ROWS_F32;
    return -1;
}

static int parse(int argc, char **argv, hlp_settings *s) {
    const hlc_more_options more = {.letters = "m:p:n:t:",
                                   .options = own_options,
                                   .count = sizeof own_options / sizeof own_options[0],
                                   .embeds = true,
                                   .apply = apply_option,
                                   .user = s};
    const int status = hlc_route_parse_with(&program, argc, argv, &more, &s->route);
    if (status >= 0) {
        return status;
    }
    if (!s->model || !s->prompt_count) {
        return hlc_cli_misuse(&program, s->model ? "no prompt given (--prompt TEXT)" : "no model given (-m FILE)");
    }
    if (s->mode != HLP_MODE_BASE && !s->embedding_model && !s->route.embedding && !s->route.adapter_count) {
        return hlc_cli_misuse(&program, "no embeddings given (--embedding-model FILE or --embedding FILE)");
    }
    if (s->embedding_model && s->route.embedding) {
        return hlc_cli_misuse(&program, "--embedding-model and --embedding exclude each other");
    }
    if (s->lora && s->mode != HLP_MODE_BASE) {
        return hlc_cli_misuse(&program, "--lora goes with --mode base");
    }
    const char *input = overwritten_input(s);
    if (input) {
        return hlc_cli_misuse(&program, "the output %s is an input", input);
    }
    return s->mode == HLP_MODE_B ? freeze_route(&s->route.options) : -1;
}

/* ---- Routing ---- */

/* prompt_count rows of *dim floats, to be freed; NULL with *dim 0 where none are needed, or after a fault. */
static float *find_embeddings(const hlp_settings *s, const hl_pool *pool, size_t *dim, hlc_faults *faults) {
    const hlc_route_settings *route = &s->route;
    float *rows = NULL;
    *dim = 0;
    if (s->embedding_model) {
        return hlp_embed(s, pool, dim, faults);
    }
    hlc_embeddings *file = route->embedding ? hlc_embeddings_read(route->embedding, "embeddings", faults) : NULL;
    if (file && (route->row > file->samples || s->prompt_count > file->samples - route->row)) {
        hlc_bad_input(faults, route->embedding, NULL, "%zu prompts from row %llu on, and the file holds %zu rows",
                      s->prompt_count, (unsigned long long)route->row, file->samples);
    } else if (file) {
        const size_t size = s->prompt_count * file->dim * sizeof *rows;
        rows = malloc(size);
        if (rows) {
            memcpy(rows, file->values + route->row * file->dim, size);
            *dim = file->dim;
        } else {
            hlc_out_of_memory(faults, route->embedding, size);
        }
    }
    hlc_embeddings_free(file);
    return rows;
}

static bool route_prompts(hlp_settings *s, const hl_pool *pool, hlp_prompt *prompts, hlc_faults *faults) {
    if (!hlc_route_resolve(&s->route, pool, faults)) {
        return false;
    }
    size_t dim;
    float *rows = find_embeddings(s, pool, &dim, faults);
    const char *source = s->embedding_model ? s->embedding_model : s->route.embedding;
    for (size_t p = 0; p < s->prompt_count && hlc_faults_errors(faults) == 0; p++) {
        hl_diag diag;
        hl_diag_clear(&diag);
        if (hl_route_compute(pool, rows ? rows + p * dim : NULL, dim, &s->route.options, &prompts[p].route, &diag) != HL_OK) {
            hlc_route_fault(faults, diag.status == HL_ERR_INPUT && source ? source : s->route.pool, &diag);
        } else {
            hl_route_digest(prompts[p].route, prompts[p].digest);
        }
    }
    free(rows);
    return hlc_faults_errors(faults) == 0;
}

/* ---- Prompts to tokens and back ---- */

static bool tokenize(const hlp_settings *s, const struct llama_model *model, hlp_prompt *prompt, hlc_faults *faults) {
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    const int32_t length = (int32_t)strlen(prompt->text);
    const int32_t wanted = -llama_tokenize(vocab, prompt->text, length, NULL, 0, true, false);
    prompt->tokens = malloc((size_t)(wanted > 0 ? wanted : 1) * sizeof *prompt->tokens);
    prompt->output = malloc((s->predict + 1) * sizeof *prompt->output);
    prompt->logits = s->logits ? calloc((size_t)llama_vocab_n_tokens(vocab), sizeof *prompt->logits) : NULL;
    if (!prompt->tokens || !prompt->output || (s->logits && !prompt->logits)) {
        hlc_out_of_memory(faults, s->model, s->predict);
        return false;
    }
    prompt->token_count = wanted > 0 ? llama_tokenize(vocab, prompt->text, length, prompt->tokens, wanted, true, false) : 0;
    if (prompt->token_count <= 0) {
        hlc_bad_input(faults, s->model, NULL, "a prompt has no tokens");
        return false;
    }
    return true;
}

static hlc_text detokenize(const struct llama_model *model, const hlp_prompt *prompt) {
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    hlc_text text = {0};
    char piece[256];
    for (int32_t i = 0; i < prompt->output_count; i++) {
        const int32_t size = llama_token_to_piece(vocab, prompt->output[i], piece, sizeof piece, 0, false);
        if (size > 0) {
            hlc_text_append(&text, piece, (size_t)size);
        }
    }
    return text;
}

/* ---- Output ---- */

static double per_second(int64_t tokens, double seconds) {
    return seconds > 0 ? (double)tokens / seconds : 0;
}

static json_t *route_json(const hl_pool *pool, const hlp_prompt *prompt) {
    hl_route_item item = {.struct_size = sizeof item};
    hl_adapter_view adapter = {.struct_size = sizeof adapter};
    json_t *route = json_array();
    for (uint32_t i = 0; hl_route_item_at(prompt->route, i, &item) == HL_OK; i++) {
        if (hl_adapter_at(pool, item.adapter, &adapter) == HL_OK) {
            json_array_append_new(route, json_pack("{s:o, s:I, s:f}", "adapter",
                                                   hlc_cli_string_json(adapter.name.data, adapter.name.size), "rocs",
                                                   (json_int_t)item.rocs, "weight", item.weight));
        }
    }
    return route;
}

static json_t *prompt_json(const hlp_settings *s, const hl_pool *pool, const struct llama_model *model,
                           const hlp_prompt *prompt) {
    hlc_text text = detokenize(model, prompt);
    json_t *tokens = json_array();
    for (int32_t i = 0; i < prompt->output_count; i++) {
        json_array_append_new(tokens, json_integer(prompt->output[i]));
    }
    json_t *document = json_pack("{s:o, s:o, s:o, s:i}", "prompt", hlc_cli_string_json(prompt->text, strlen(prompt->text)),
                                 "text", hlc_cli_string_json(text.bytes ? text.bytes : "", text.length), "tokens", tokens,
                                 "prompt_tokens", (int)prompt->token_count);
    if (s->mode != HLP_MODE_BASE) {
        hl_route_view view = {.struct_size = sizeof view};
        json_object_set_new(document, "route", route_json(pool, prompt));
        json_object_set_new(document, "digest", hlc_cli_hex_json(prompt->digest, sizeof prompt->digest));
        if (hl_route_info(prompt->route, &view) == HL_OK) {
            json_object_set_new(document, "familiar", json_boolean(view.familiar));
        }
    }
    hlc_text_free(&text);
    return document;
}

static json_t *report_json(const hlp_settings *s, const hl_pool *pool, const struct llama_model *model,
                           const hlp_prompt *prompts, const hlp_speed *speed) {
    static const char *const modes[] = {"a", "b", "base"};
    json_t *list = json_array();
    for (size_t p = 0; p < s->prompt_count; p++) {
        json_array_append_new(list, prompt_json(s, pool, model, &prompts[p]));
    }
    return json_pack("{s:s, s:o, s:f, s:f}", "mode", modes[s->mode], "prompts", list, "prompt_tokens_per_second",
                     per_second(speed->prompt_tokens, speed->prompt_seconds), "tokens_per_second",
                     per_second(speed->output_tokens, speed->output_seconds));
}

static void print_route(const hl_pool *pool, const hlp_prompt *prompt) {
    hl_route_item item = {.struct_size = sizeof item};
    hl_adapter_view adapter = {.struct_size = sizeof adapter};
    const char *comma = "";
    printf("[");
    for (uint32_t i = 0; hl_route_item_at(prompt->route, i, &item) == HL_OK; i++) {
        if (hl_adapter_at(pool, item.adapter, &adapter) == HL_OK) {
            printf("%s", comma);
            hlc_cli_print_text(stdout, adapter.name.data, adapter.name.size, SIZE_MAX);
            printf(" %u/%u x %.4f", item.rocs, item.rank, item.weight);
            comma = ", ";
        }
    }
    printf("%s] ", *comma ? "" : "base model");
}

/* Lines as they are, control characters in them escaped. */
static void print_lines(const char *text, size_t length) {
    for (const char *end = text + length; text < end;) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        stop = stop ? stop : end;
        hlc_cli_print_text(stdout, text, (size_t)(stop - text), SIZE_MAX);
        putchar('\n');
        text = stop + 1;
    }
}

static void print_texts(const hlp_settings *s, const hl_pool *pool, const struct llama_model *model,
                        const hlp_prompt *prompts, const hlp_speed *speed) {
    for (size_t p = 0; p < s->prompt_count; p++) {
        hlc_text text = detokenize(model, &prompts[p]);
        if (!s->quiet) {
            if (s->mode != HLP_MODE_BASE) {
                print_route(pool, &prompts[p]);
            }
            hlc_cli_print_text(stdout, prompts[p].text, strlen(prompts[p].text), SIZE_MAX);
            puts("");
        }
        print_lines(text.bytes ? text.bytes : "", text.length);
        hlc_text_free(&text);
    }
    if (!s->quiet) {
        fprintf(stderr, "%.1f tokens per second read, %.1f written\n", per_second(speed->prompt_tokens, speed->prompt_seconds),
                per_second(speed->output_tokens, speed->output_seconds));
    }
}

/* ---- The run ---- */

/* A reason why pool and model do not fit. */
typedef struct misfits {
    const char *file;
    hlc_faults *faults;
} misfits;

static void report_misfit(void *user, const hl_diag *diag) {
    const misfits *m = user;
    hlc_route_fault(m->faults, m->file, diag);
}

static bool generate(const hlp_settings *s, const hl_pool *pool, struct llama_model *model, hlp_prompt *prompts,
                     hlp_speed *speed, hlc_faults *faults) {
    hl_llama *shim = NULL;
    misfits misfit = {s->model, faults};
    const hl_llama_options options = {
        .struct_size = sizeof options,
        .session = {.struct_size = sizeof options.session, .threads = (uint32_t)s->threads},
        .report = report_misfit,
        .user = &misfit};
    if (s->mode != HLP_MODE_BASE) {
        hl_diag diag;
        hl_diag_clear(&diag);
        if (hl_llama_create(pool, s->model, &options, &shim, &diag) != HL_OK) {
            if (hlc_faults_errors(faults) == 0) {
                hlc_route_fault(faults, s->model, &diag);
            }
            return false;
        }
    }
    bool good = true;
    for (size_t p = 0; p < s->prompt_count; p++) {
        good = tokenize(s, model, &prompts[p], faults) && good;
    }
    good = good && hlp_generate(s, shim, model, prompts, speed, faults);
    hl_llama_destroy(shim);
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    return good && (!s->logits || hlp_write_logits(s, prompts, llama_vocab_n_tokens(vocab), faults));
}

static int fail(const hlp_settings *s, const hlc_faults *faults) {
    const int status = hlc_faults_exit_status(faults);
    hlc_faults_print(faults, stderr);
    return s->route.json ? hlc_cli_write_json(&program, json_pack("{s:o}", "faults", hlc_cli_faults_json(faults)), status)
                         : status;
}

static int run_model(const hlp_settings *s, const hl_pool *pool, hlp_prompt *prompts, hlc_faults *faults) {
    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    hlp_speed speed = {0};
    int status;
    struct llama_model *model = llama_model_load_from_file(s->model, params);
    if (!model) {
        hlp_fault_engine(faults, s->model, "llama.cpp cannot load the model");
    }
    if (!model || !generate(s, pool, model, prompts, &speed, faults)) {
        status = fail(s, faults);
    } else if (s->route.json) {
        status = hlc_cli_write_json(&program, report_json(s, pool, model, prompts, &speed), HLC_EXIT_DONE);
    } else {
        print_texts(s, pool, model, prompts, &speed);
        status = hlc_cli_finish(&program, HLC_EXIT_DONE);
    }
    if (model) {
        llama_model_free(model);
    }
    return status;
}

static int run(hlp_settings *s, hlc_faults *faults) {
    hl_pool *pool = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    hlp_prompt *prompts = calloc(s->prompt_count, sizeof *prompts);
    if (!prompts) {
        hlc_out_of_memory(faults, s->model, s->prompt_count * sizeof *prompts);
    } else if (hl_pool_open(s->route.pool, NULL, &pool, &diag) != HL_OK) {
        hlc_route_fault(faults, s->route.pool, &diag);
    }
    for (size_t p = 0; prompts && p < s->prompt_count; p++) {
        prompts[p].text = s->prompts[p];
    }
    llama_backend_init();
    const int status = pool && (s->mode == HLP_MODE_BASE || route_prompts(s, pool, prompts, faults))
                           ? run_model(s, pool, prompts, faults)
                           : fail(s, faults);
    for (size_t p = 0; prompts && p < s->prompt_count; p++) {
        hl_route_free(prompts[p].route);
        free(prompts[p].tokens);
        free(prompts[p].output);
        free(prompts[p].logits);
    }
    free(prompts);
    hl_pool_close(pool);
    llama_backend_free();
    return status;
}

int main(int argc, char **argv) {
    hlp_settings settings = {.predict = 32, .threads = 1};
    hlc_cli_setup();
    hlp_log_start();
    int status = parse(argc, argv, &settings);
    if (status < 0) {
        hlc_faults *faults = hlc_faults_create();
        if (faults) {
            status = run(&settings, faults);
        } else {
            fprintf(stderr, "%s: out of memory\n", program.name);
            status = HLC_EXIT_RESOURCE;
        }
        hlc_faults_destroy(faults);
    }
    hlc_route_settings_free(&settings.route);
    free(settings.prompts);
    return status;
}
