/* hilora-validate: pools, and adapters before they are compiled. */
#include <stdio.h>

#include "compiler/base/workers.h"
#include "compiler/cli/validate.h"

static const hlc_program program = {
    "hilora-validate",
    "Usage: hilora-validate [OPTION]... PATH...\n"
    "Check pools, and adapters before they are compiled.\n"
    "\n"
    "PATH is a pool, or an adapter as hilora-compile takes it: a .safetensors file or a folder. What a file is, its\n"
    "content says. All faults of all paths go to standard error, a line per path to standard output, worst first.\n"
    "\n"
    "      --deep                 also decode every weight of a pool and compare the content hashes; also look for "
    "NaN\n"
    "                             and infinity in the weights of adapters\n"
    "      --embeddings PATH      where the adapters' embeddings are, as for hilora-compile\n"
    "      --drop-extras          warn of tensors that are no low-rank update, as they would be left out\n"
    "      --threads N            default: the cores at hand; never changes the result\n"
    "      --json                 one JSON document on standard output\n"
    "  -q, --quiet                no progress\n"
    "  -h, --help                 this text\n"
    "      --version              the version\n"
    "\n"
    "Exit status: 0 no errors, 1 a bad pool or adapter, 2 misuse, 3 a missing file or resource.\n"};

enum option_code {
    OPTION_DEEP = 256,
    OPTION_EMBEDDINGS,
    OPTION_DROP_EXTRAS,
    OPTION_THREADS,
    OPTION_JSON,
    OPTION_VERSION,
    OPTION_JUNIT,
    OPTION_SARIF,
    OPTION_RULES,
    OPTION_LIST_RULES
};

static const struct option long_options[] = {{"deep", no_argument, NULL, OPTION_DEEP},
                                             {"embeddings", required_argument, NULL, OPTION_EMBEDDINGS},
                                             {"drop-extras", no_argument, NULL, OPTION_DROP_EXTRAS},
                                             {"threads", required_argument, NULL, OPTION_THREADS},
                                             {"json", no_argument, NULL, OPTION_JSON},
                                             {"junit", required_argument, NULL, OPTION_JUNIT},
                                             {"sarif", required_argument, NULL, OPTION_SARIF},
                                             {"rules", required_argument, NULL, OPTION_RULES},
                                             {"list-rules", no_argument, NULL, OPTION_LIST_RULES},
                                             {"quiet", no_argument, NULL, 'q'},
                                             {"help", no_argument, NULL, 'h'},
                                             {"version", no_argument, NULL, OPTION_VERSION},
                                             {NULL, 0, NULL, 0}};

typedef struct settings {
    hlc_validation validation;
    hlc_cli_progress progress;
    bool json;
} settings;

static int unsupported(int code) {
    return hlc_cli_misuse(&program, "%s is not supported yet",
                          code == OPTION_JUNIT   ? "--junit"
                          : code == OPTION_SARIF ? "--sarif"
                          : code == OPTION_RULES ? "--rules"
                                                 : "--list-rules");
}

/* -1: go on; else the exit status. */
static int apply_option(settings *s, int code) {
    uint64_t count;
    switch (code) {
    case OPTION_DEEP:
        s->validation.deep = true;
        return -1;
    case OPTION_EMBEDDINGS:
        s->validation.embeddings = optarg;
        return -1;
    case OPTION_DROP_EXTRAS:
        s->validation.drop_extras = true;
        return -1;
    case OPTION_THREADS:
        if (!hlc_cli_count(optarg, 1, 1024, &count)) {
            return hlc_cli_misuse(&program, "--threads takes a number from 1 to 1024, not '%s'", optarg);
        }
        s->validation.threads = (size_t)count;
        return -1;
    case OPTION_JSON:
        s->json = true;
        return -1;
    case OPTION_JUNIT:
    case OPTION_SARIF:
    case OPTION_RULES:
    case OPTION_LIST_RULES:
        return unsupported(code);
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

static int parse(int argc, char **argv, settings *s) {
    int code;
    s->validation.threads = hlc_default_threads();
    while ((code = getopt_long(argc, argv, "qh", long_options, NULL)) != -1) {
        int status = apply_option(s, code);
        if (status >= 0) {
            return status;
        }
    }
    s->validation.paths = (const char *const *)argv + optind;
    s->validation.count = (size_t)(argc - optind);
    return s->validation.count ? -1 : hlc_cli_misuse(&program, "no path given");
}

int main(int argc, char **argv) {
    settings s = {0};
    hlc_cli_setup();
    int status = parse(argc, argv, &s);
    if (status >= 0) {
        return status;
    }
    s.validation.progress = hlc_cli_progress_start(&s.progress);
    bool done = hlc_validate(&s.validation);
    hlc_cli_progress_end(&s.progress);
    if (!done) {
        fprintf(stderr, "%s: out of memory\n", program.name);
        status = HLC_EXIT_RESOURCE;
    } else {
        status = hlc_validation_exit_status(&s.validation);
        hlc_validation_print_faults(&s.validation, stderr);
        if (s.json) {
            status = hlc_cli_write_json(&program, hlc_validation_json(&s.validation), status);
        } else {
            hlc_validation_print_summary(&s.validation);
            status = hlc_cli_finish(&program, status);
        }
    }
    hlc_validation_free(&s.validation);
    return status;
}
