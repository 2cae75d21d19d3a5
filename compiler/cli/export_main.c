/* hilora-export: an adapter out of a pool. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/cli/export_lora.h"
#include "compiler/cli/text_table.h"
#include "compiler/export/export_peft.h"

static const hlc_program program = {
    "hilora-export",
    "Usage: hilora-export [OPTION]... --adapter NAME -o FOLDER POOL\n"
    "       hilora-export [OPTION]... --embedding FILE [ROUTING OPTION]... -o FOLDER POOL\n"
    "       hilora-export --format gguf --base-model DIR [OPTION]... -o FILE POOL\n"
    "Take an adapter out of a pool, bit for bit as it went in, or freeze a route to one LoRA.\n"
    "\n"
    "With one --adapter alone, FOLDER gets adapter_model.safetensors and adapter_config.json. The weight file equals the\n"
    "one that was compiled, byte for byte, which its SHA-256 confirms; where tensors were left out at compile time\n"
    "(--drop-extras), they are missing, each named. FOLDER must not exist, or be an empty folder; it appears whole or\n"
    "not at all. With --embedding, several adapters or a routing option (--select explicit), the route is blended into\n"
    "one LoRA in float32: the first components of each adapter, whatever the gate. As a PEFT folder its rank is one that\n"
    "vLLM takes.\n"
    "\n"
    "      --adapter NAME[=W]     the adapter; again, with weights, for a blend\n"
    "      --embedding FILE       blend the route of this embedding: .npy, .safetensors or .h5\n"
    "      --row N                which row of it (default 0)\n"
    "  -o, --output PATH          the folder or file to write\n"
    "      --format peft|gguf     a PEFT folder (default), or a GGUF file for llama.cpp's --lora\n"
    "      --base-model DIR       for GGUF: the base model's folder or config.json, for its architecture and heads; or\n"
    "      --architecture NAME    as llama.cpp names it (llama, qwen2, gemma, ...), with\n"
    "      --heads N              heads of attention and\n"
    "      --kv-heads N           of keys and values (default: as many), where llama.cpp regroups their rows\n"
    "      --json                 a report on standard output as one JSON document\n"
    "  -q, --quiet                no progress\n"
    "  -h, --help                 this text\n"
    "      --version              the version\n"
    "\n"
    "Routing options are those of hilora-route: --select, --k, --p, --gamma, --temperature, --familiar, --fallback,\n"
    "--wide-k, --weights, --max-adapters, --allocate, --seed, --allow, --deny, --threshold,\n"
    "--variance-norm.\n"
    "\n"
    "Exit status: 0 done, 1 a bad pool or embedding, or no such adapter, 2 misuse, 3 a missing file or resource, or a\n"
    "FOLDER that is there already.\n"};

enum option_code {
    OPTION_FORMAT = HLC_OPTION_FIRST_MORE,
    OPTION_BASE_MODEL,
    OPTION_ARCHITECTURE,
    OPTION_HEADS,
    OPTION_KV_HEADS
};

static const struct option own_options[] = {{"output", required_argument, NULL, 'o'},
                                            {"format", required_argument, NULL, OPTION_FORMAT},
                                            {"base-model", required_argument, NULL, OPTION_BASE_MODEL},
                                            {"architecture", required_argument, NULL, OPTION_ARCHITECTURE},
                                            {"heads", required_argument, NULL, OPTION_HEADS},
                                            {"kv-heads", required_argument, NULL, OPTION_KV_HEADS}};

typedef struct settings {
    hlc_export_settings lora;
    hlc_cli_progress progress;
} settings;

static int parse_heads(const char *option, uint32_t *out) {
    uint64_t count = 0;
    if (!hlc_cli_count(optarg, 1, 65536, &count)) {
        return hlc_cli_misuse(&program, "%s takes a whole number from 1 to 65536, not '%s'", option, optarg);
    }
    *out = (uint32_t)count;
    return -1;
}

static int parse_format(settings *s) {
    static const char *const names[] = {"peft", "gguf", NULL};
    const int choice = hlc_cli_choice(optarg, names);
    s->lora.gguf = choice == 1;
    return choice >= 0 ? -1 : hlc_cli_misuse(&program, "--format takes peft or gguf, not '%s'", optarg);
}

/* -1: go on; HLC_OPTION_UNKNOWN: a routing option; else the exit status. */
static int apply_option(void *user, int code) {
    settings *s = user;
    switch (code) {
    case 'o':
        s->lora.output = optarg;
        return -1;
    case OPTION_FORMAT:
        return parse_format(s);
    case OPTION_BASE_MODEL:
        s->lora.base_model = optarg;
        return -1;
    case OPTION_ARCHITECTURE:
        s->lora.base.architecture = hlc_gguf_architecture(optarg);
        return s->lora.base.architecture
                   ? -1
                   : hlc_cli_misuse(&program, "--architecture: the names of '%s' are not known", optarg);
    case OPTION_HEADS:
        return parse_heads("--heads", &s->lora.base.heads);
    case OPTION_KV_HEADS:
        return parse_heads("--kv-heads", &s->lora.base.kv_heads);
    case 'q':
        s->progress.quiet = true;
        return -1;
    default:
        return HLC_OPTION_UNKNOWN;
    }
}

static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int check_base(hlc_export_settings *s) {
    hlc_gguf_base *base = &s->base;
    if (!s->gguf) {
        return s->base_model || base->architecture || base->heads || base->kv_heads
                   ? hlc_cli_misuse(&program, "the base model is asked for with --format gguf alone")
                   : -1;
    }
    if (!s->base_model == !base->architecture) {
        return hlc_cli_misuse(&program, "--format gguf wants --base-model DIR or --architecture NAME");
    }
    base->kv_heads = base->kv_heads ? base->kv_heads : base->heads;
    return base->architecture && hlc_gguf_regroups(base->architecture) && !base->heads
               ? hlc_cli_misuse(&program, "--architecture %s wants --heads N", base->architecture)
               : -1;
}

static int parse(int argc, char **argv, settings *s) {
    const hlc_more_options more = {.letters = "o:",
                                   .options = own_options,
                                   .count = sizeof own_options / sizeof own_options[0],
                                   .apply = apply_option,
                                   .user = s};
    hlc_route_settings *route = &s->lora.route;
    const int status = hlc_route_parse_with(&program, argc, argv, &more, route);
    if (status >= 0) {
        return status;
    }
    if (!s->lora.output) {
        return hlc_cli_misuse(&program, "no output given (-o PATH)");
    }
    if (route->all_scores || route->explain) {
        return hlc_cli_misuse(&program, "--all-scores and --explain are options of hilora-route");
    }
    if (same_file(route->pool, s->lora.output)) {
        return hlc_cli_misuse(&program, "the output %s is the pool", s->lora.output);
    }
    return check_base(&s->lora);
}

/* One adapter, as it went in. */
static bool run_plain(const settings *s, hlc_progress progress, hlc_export_report *report, hlc_faults *faults) {
    const char *name = s->lora.route.first_adapter, *path = s->lora.route.pool;
    hlc_pool_file pool;
    char place[HLC_PLACE_SIZE];
    if (!hlc_pool_file_open(&pool, path, faults)) {
        return false;
    }
    const uint32_t adapter = hlf_index_find_adapter(&pool.index, name, strlen(name));
    bool good = adapter != HLF_NONE;
    if (!good) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, path, hlc_place(place, "adapter", name, strlen(name)),
                  "hilora-inspect lists them", "not in this pool");
    }
    good = good && hlc_export_peft(&pool, adapter, s->lora.output, progress, report, faults);
    hlc_pool_file_close(&pool);
    return good;
}

static json_t *text_json(const char *text) {
    return hlc_cli_string_json(text, strlen(text));
}

static json_t *plain_json(const settings *s, const hlc_export_report *report) {
    return json_pack("{s:o, s:o, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:o}", "adapter",
                     text_json(s->lora.route.first_adapter), "output", text_json(s->lora.output), "format", "peft",
                     "identical", report->dropped == 0 && !report->converted, "squeezed", report->squeezed, "tensors",
                     (json_int_t)report->tensors, "dropped", (json_int_t)report->dropped, "weights_bytes",
                     (json_int_t)report->weights_bytes, "config_bytes", (json_int_t)report->config_bytes,
                     "weights_sha256", hlc_cli_hex_json(report->weights_sha256, sizeof report->weights_sha256));
}

static json_t *lora_json(const settings *s, const hlc_lora_outcome *outcome) {
    const hlc_lora_report *report = &outcome->report;
    json_t *document = json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:f}", "output", text_json(s->lora.output), "format",
                                 s->lora.gguf ? "gguf" : "peft", "modules", (json_int_t)outcome->modules, "tensors",
                                 (json_int_t)report->tensors, "weights_bytes", (json_int_t)report->bytes, "rank",
                                 (json_int_t)report->rank, "alpha", report->alpha);
    if (outcome->adapters) {
        json_object_set_new(document, "digest", json_string(outcome->digest));
        json_object_set(document, "route", outcome->adapters);
    } else {
        json_object_set_new(document, "adapter", text_json(s->lora.route.first_adapter));
    }
    return document;
}

static void print_plain(const settings *s, const hlc_export_report *report) {
    hlc_cli_print_text(stdout, s->lora.output, strlen(s->lora.output), SIZE_MAX);
    printf(": %zu tensors, %llu bytes, ", report->tensors, (unsigned long long)report->weights_bytes);
    if (report->squeezed) {
        puts("its strongest components, in PEFT's form");
    } else if (report->converted) {
        puts("bit for bit, in PEFT's form");
    } else if (report->dropped) {
        printf("without the %zu that were left out\n", report->dropped);
    } else {
        puts("byte for byte as they went in");
    }
}

static void print_lora(const settings *s, const hlc_lora_outcome *outcome) {
    hlc_cli_print_text(stdout, s->lora.output, strlen(s->lora.output), SIZE_MAX);
    printf(": %u modules, %llu bytes, rank %u, alpha %g", outcome->modules, (unsigned long long)outcome->report.bytes,
           outcome->report.rank, outcome->report.alpha);
    if (outcome->adapters) {
        printf("; a blend of %zu adapters, digest %s", json_array_size(outcome->adapters), outcome->digest);
    }
    putchar('\n');
}

/* What came of either kind of run. */
static int finish(const settings *s, bool done, const hlc_export_report *plain, const hlc_lora_outcome *outcome,
                  const hlc_faults *faults) {
    const int status = done ? HLC_EXIT_DONE : hlc_faults_exit_status(faults);
    hlc_faults_print(faults, stderr);
    if (s->lora.route.json) {
        json_t *document = json_pack("{s:b, s:o}", "done", done, "faults", hlc_cli_faults_json(faults));
        if (done) {
            json_object_update_new(document, plain ? plain_json(s, plain) : lora_json(s, outcome));
        }
        return hlc_cli_write_json(&program, document, status);
    }
    if (!done) {
        return status;
    }
    if (plain) {
        print_plain(s, plain);
    } else {
        print_lora(s, outcome);
    }
    return hlc_cli_finish(&program, status);
}

static int run(settings *s, hlc_faults *faults) {
    hlc_export_report plain = {0};
    hlc_lora_outcome outcome = {.adapters = NULL};
    const bool as_it_is = hlc_export_is_plain(&s->lora) && !s->lora.gguf;
    const hlc_progress progress = hlc_cli_progress_start(&s->progress);
    const bool done =
        as_it_is ? run_plain(s, progress, &plain, faults) : hlc_export_lora(&s->lora, &outcome, faults);
    hlc_cli_progress_end(&s->progress);
    const int status = finish(s, done, as_it_is ? &plain : NULL, &outcome, faults);
    json_decref(outcome.adapters);
    return status;
}

int main(int argc, char **argv) {
    settings s = {.progress = {.quiet = false}};
    hlc_cli_setup();
    int status = parse(argc, argv, &s);
    if (status < 0) {
        hlc_faults *faults = hlc_faults_create();
        if (faults) {
            status = run(&s, faults);
        } else {
            fprintf(stderr, "%s: out of memory\n", program.name);
            status = HLC_EXIT_RESOURCE;
        }
        hlc_faults_destroy(faults);
    }
    hlc_route_settings_free(&s.lora.route);
    return status;
}
