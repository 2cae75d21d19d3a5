/* hilora-export: an adapter out of a pool. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/cli/common.h"
#include "compiler/cli/text_table.h"
#include "compiler/export/export_peft.h"

static const hlc_program program = {
    "hilora-export",
    "Usage: hilora-export [OPTION]... --adapter NAME -o FOLDER POOL\n"
    "Take an adapter out of a pool: a PEFT folder, bit for bit as it went in.\n"
    "\n"
    "FOLDER gets adapter_model.safetensors and adapter_config.json. The weight file equals the one that was compiled,\n"
    "byte for byte, which its SHA-256 confirms; where tensors were left out at compile time (--drop-extras), they are\n"
    "missing, each named. FOLDER must not exist, or be an empty folder; it appears whole or not at all.\n"
    "\n"
    "      --adapter NAME         the adapter\n"
    "  -o, --output FOLDER        the folder to write\n"
    "      --format peft          a PEFT folder (default)\n"
    "      --json                 a report on standard output as one JSON document\n"
    "  -q, --quiet                no progress\n"
    "  -h, --help                 this text\n"
    "      --version              the version\n"
    "\n"
    "Exit status: 0 done, 1 a bad pool, or no such adapter in it, 2 misuse, 3 a missing file or resource, or a FOLDER\n"
    "that is there already.\n"};

enum option_code { OPTION_ADAPTER = 256, OPTION_FORMAT, OPTION_EMBEDDING, OPTION_JSON, OPTION_VERSION };

static const struct option long_options[] = {{"adapter", required_argument, NULL, OPTION_ADAPTER},
                                             {"output", required_argument, NULL, 'o'},
                                             {"format", required_argument, NULL, OPTION_FORMAT},
                                             {"embedding", required_argument, NULL, OPTION_EMBEDDING},
                                             {"json", no_argument, NULL, OPTION_JSON},
                                             {"quiet", no_argument, NULL, 'q'},
                                             {"help", no_argument, NULL, 'h'},
                                             {"version", no_argument, NULL, OPTION_VERSION},
                                             {NULL, 0, NULL, 0}};

typedef struct settings {
    const char *pool, *adapter, *output;
    hlc_cli_progress progress;
    bool json;
} settings;

/* -1: go on; else the exit status. */
static int apply_option(settings *s, int code) {
    switch (code) {
    case OPTION_ADAPTER:
        if (s->adapter) {
            return hlc_cli_misuse(&program, "--adapter is given twice");
        }
        s->adapter = optarg;
        return -1;
    case 'o':
        s->output = optarg;
        return -1;
    case OPTION_FORMAT:
        if (strcmp(optarg, "gguf") == 0) {
            return hlc_cli_misuse(&program, "--format gguf is not supported yet");
        }
        return strcmp(optarg, "peft") == 0 ? -1 : hlc_cli_misuse(&program, "--format takes peft, not '%s'", optarg);
    case OPTION_EMBEDDING:
        return hlc_cli_misuse(&program, "--embedding is not supported yet");
    case OPTION_JSON:
        s->json = true;
        return -1;
    case 'q':
        s->progress.quiet = true;
        return -1;
    case 'h':
        return hlc_cli_help(&program);
    case OPTION_VERSION:
        return hlc_cli_version(&program);
    default:
        return hlc_cli_bad_option(&program);
    }
}

static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int parse(int argc, char **argv, settings *s) {
    int code;
    while ((code = getopt_long(argc, argv, "o:qh", long_options, NULL)) != -1) {
        int status = apply_option(s, code);
        if (status >= 0) {
            return status;
        }
    }
    if (argc - optind != 1) {
        return hlc_cli_misuse(&program, argc == optind ? "no pool given" : "more than one pool given");
    }
    s->pool = argv[optind];
    if (!s->adapter || !s->output) {
        return hlc_cli_misuse(&program,
                              s->adapter ? "no output given (-o FOLDER)" : "no adapter given (--adapter NAME)");
    }
    return same_file(s->pool, s->output) ? hlc_cli_misuse(&program, "the output %s is the pool", s->output) : -1;
}

static bool run(const settings *s, hlc_progress progress, hlc_export_report *report, hlc_faults *faults) {
    hlc_pool_file pool;
    char place[HLC_PLACE_SIZE];
    if (!hlc_pool_file_open(&pool, s->pool, faults)) {
        return false;
    }
    const uint32_t adapter = hlf_index_find_adapter(&pool.index, s->adapter, strlen(s->adapter));
    bool good = adapter != HLF_NONE;
    if (!good) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, s->pool,
                  hlc_place(place, "adapter", s->adapter, strlen(s->adapter)), "hilora-inspect lists them",
                  "not in this pool");
    }
    good = good && hlc_export_peft(&pool, adapter, s->output, progress, report, faults);
    hlc_pool_file_close(&pool);
    return good;
}

static json_t *text_json(const char *text) {
    return hlc_cli_string_json(text, strlen(text));
}

static json_t *report_json(const settings *s, const hlc_export_report *report, bool done, const hlc_faults *faults) {
    json_t *document = json_pack("{s:b, s:o}", "done", done, "faults", hlc_cli_faults_json(faults));
    if (done) {
        json_object_update_new(
            document,
            json_pack("{s:o, s:o, s:s, s:b, s:I, s:I, s:I, s:I, s:o}", "adapter", text_json(s->adapter), "output",
                      text_json(s->output), "format", "peft", "identical", report->dropped == 0, "tensors",
                      (json_int_t)report->tensors, "dropped", (json_int_t)report->dropped, "weights_bytes",
                      (json_int_t)report->weights_bytes, "config_bytes", (json_int_t)report->config_bytes,
                      "weights_sha256", hlc_cli_hex_json(report->weights_sha256, sizeof report->weights_sha256)));
    }
    return document;
}

static void print_report(const settings *s, const hlc_export_report *report) {
    hlc_cli_print_text(stdout, s->output, strlen(s->output), SIZE_MAX);
    printf(": %zu tensors, %llu bytes, ", report->tensors, (unsigned long long)report->weights_bytes);
    if (report->dropped) {
        printf("without the %zu that were left out\n", report->dropped);
    } else {
        puts("byte for byte as they went in");
    }
}

int main(int argc, char **argv) {
    settings s = {0};
    hlc_cli_setup();
    int status = parse(argc, argv, &s);
    if (status >= 0) {
        return status;
    }
    hlc_faults *faults = hlc_faults_create();
    if (!faults) {
        fprintf(stderr, "%s: out of memory\n", program.name);
        return HLC_EXIT_RESOURCE;
    }
    hlc_export_report report = {0};
    bool done = run(&s, hlc_cli_progress_start(&s.progress), &report, faults);
    hlc_cli_progress_end(&s.progress);
    hlc_faults_print(faults, stderr);
    status = done ? HLC_EXIT_DONE : hlc_faults_exit_status(faults);
    if (s.json) {
        status = hlc_cli_write_json(&program, report_json(&s, &report, done, faults), status);
    } else if (done) {
        print_report(&s, &report);
        status = hlc_cli_finish(&program, status);
    }
    hlc_faults_destroy(faults);
    return status;
}
