/* hilora-validate: pools, and adapters before they are compiled. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "compiler/base/files.h"
#include "compiler/base/output_file.h"
#include "compiler/base/workers.h"
#include "compiler/cli/validate_outputs.h"

static const hlc_program program = {
    "hilora-validate",
    "Usage: hilora-validate [OPTION]... PATH...\n"
    "       hilora-validate --list-rules [--json]\n"
    "       hilora-validate --explain ID\n"
    "Check pools, and adapters before they are compiled.\n"
    "\n"
    "PATH is a pool, or an adapter as hilora-compile takes it: a .safetensors file or a folder. What a file is, its\n"
    "content says. Adapters given together are also compared with each other, as those of a pool are. Faults of all\n"
    "paths go to standard error, each with the id of its rule; a line per path to standard output, worst first.\n"
    "\n"
    "      --deep                 also read every weight: decode a pool's and compare the content hashes, look at the\n"
    "                             numbers, find near-duplicates, rivals and unusual spectra\n"
    "      --decode-limit BYTES   do not decode a pool whose weights come to more (default: 1 GiB and 1000 times its "
    "size)\n"
    "      --sources PATH         a file or folder of adapters, or a folder of these, that a pool was made of: "
    "compare\n"
    "                             their SHA-256 with the pool's; may be given often\n"
    "      --embeddings PATH      where the adapters' embeddings are, as for hilora-compile\n"
    "      --drop-extras          warn of tensors that are no low-rank update, as they would be left out\n"
    "      --base-model DIR       check that each adapted module is in the base model there, with its shapes\n"
    "      --expert-layout rank-major|grouped\n"
    "      --mlx-alpha ignore|apply\n"
    "                             how to read what an adapter does not say, as for hilora-compile\n"
    "      --rules FILE           JSON with severities, thresholds and exceptions (docs/VALIDATE.md)\n"
    "      --fail-on LEVEL        error (default), or warning: exit status 1 for warnings, too\n"
    "      --report FILE          everything found in 80 columns, by path, worst first, with remedies\n"
    "      --junit FILE           the same as JUnit's XML\n"
    "      --sarif FILE           the same as SARIF 2.1.0; FILE '-' is standard output, for one of the three\n"
    "      --notes                show notes, too, on standard error\n"
    "      --list-rules           the rules: id, severity, meaning\n"
    "      --explain ID           one rule: meaning, remedy, thresholds\n"
    "      --threads N            default: the cores at hand; never changes the result\n"
    "      --json                 one JSON document on standard output\n"
    "  -q, --quiet                no progress\n"
    "  -h, --help                 this text\n"
    "      --version              the version\n"
    "\n"
    "Exit status: 0 no errors, 1 a bad pool or adapter, 2 misuse, 3 a missing file or resource.\n"};

enum option_code {
    OPTION_DEEP = 256,
    OPTION_DECODE_LIMIT,
    OPTION_SOURCES,
    OPTION_EMBEDDINGS,
    OPTION_DROP_EXTRAS,
    OPTION_BASE_MODEL,
    OPTION_EXPERT_LAYOUT,
    OPTION_MLX_ALPHA,
    OPTION_RULES,
    OPTION_FAIL_ON,
    OPTION_REPORT,
    OPTION_JUNIT,
    OPTION_SARIF,
    OPTION_NOTES,
    OPTION_LIST_RULES,
    OPTION_EXPLAIN,
    OPTION_THREADS,
    OPTION_JSON,
    OPTION_VERSION
};

static const struct option long_options[] = {{"deep", no_argument, NULL, OPTION_DEEP},
                                             {"decode-limit", required_argument, NULL, OPTION_DECODE_LIMIT},
                                             {"sources", required_argument, NULL, OPTION_SOURCES},
                                             {"embeddings", required_argument, NULL, OPTION_EMBEDDINGS},
                                             {"drop-extras", no_argument, NULL, OPTION_DROP_EXTRAS},
                                             {"base-model", required_argument, NULL, OPTION_BASE_MODEL},
                                             {"expert-layout", required_argument, NULL, OPTION_EXPERT_LAYOUT},
                                             {"mlx-alpha", required_argument, NULL, OPTION_MLX_ALPHA},
                                             {"rules", required_argument, NULL, OPTION_RULES},
                                             {"fail-on", required_argument, NULL, OPTION_FAIL_ON},
                                             {"report", required_argument, NULL, OPTION_REPORT},
                                             {"junit", required_argument, NULL, OPTION_JUNIT},
                                             {"sarif", required_argument, NULL, OPTION_SARIF},
                                             {"notes", no_argument, NULL, OPTION_NOTES},
                                             {"list-rules", no_argument, NULL, OPTION_LIST_RULES},
                                             {"explain", required_argument, NULL, OPTION_EXPLAIN},
                                             {"threads", required_argument, NULL, OPTION_THREADS},
                                             {"json", no_argument, NULL, OPTION_JSON},
                                             {"quiet", no_argument, NULL, 'q'},
                                             {"help", no_argument, NULL, 'h'},
                                             {"version", no_argument, NULL, OPTION_VERSION},
                                             {NULL, 0, NULL, 0}};

typedef struct settings {
    hlc_validation validation;
    hlc_policy policy;
    hlc_report_paths reports;
    hlc_cli_progress progress;
    const char **sources; /* room for all arguments */
    const char *rules, *explain;
    bool json, notes, list_rules, fail_on_warnings;
} settings;

static int set_threads(settings *s, const char *text) {
    uint64_t count;
    if (!hlc_cli_count(text, 1, 1024, &count)) {
        return hlc_cli_misuse(&program, "--threads takes a number from 1 to 1024, not '%s'", text);
    }
    s->validation.threads = (size_t)count;
    return -1;
}

static int set_fail_on(settings *s, const char *text) {
    static const char *const levels[] = {"error", "warning", NULL};
    const int level = hlc_cli_choice(text, levels);
    s->fail_on_warnings = level == 1;
    return level >= 0 ? -1 : hlc_cli_misuse(&program, "--fail-on takes error or warning, not '%s'", text);
}

static int set_expert_layout(settings *s, const char *text) {
    static const char *const layouts[] = {"rank-major", "grouped", NULL};
    const int layout = hlc_cli_choice(text, layouts);
    s->validation.ingest.expert_layout = layout == 1 ? HLC_EXPERTS_GROUPED : HLC_EXPERTS_RANK_MAJOR;
    return layout >= 0 ? -1 : hlc_cli_misuse(&program, "--expert-layout takes rank-major or grouped, not '%s'", text);
}

static int set_mlx_alpha(settings *s, const char *text) {
    static const char *const alphas[] = {"ignore", "apply", NULL};
    const int alpha = hlc_cli_choice(text, alphas);
    s->validation.ingest.mlx_alpha = alpha == 1 ? HLC_MLX_ALPHA_APPLY : HLC_MLX_ALPHA_IGNORE;
    return alpha >= 0 ? -1 : hlc_cli_misuse(&program, "--mlx-alpha takes ignore or apply, not '%s'", text);
}

/* -1: go on; else the exit status. */
static int apply_option(settings *s, int code) {
    switch (code) {
    case OPTION_DEEP:
        s->validation.deep = true;
        return -1;
    case OPTION_DECODE_LIMIT:
        return hlc_cli_count(optarg, 1, UINT64_MAX, &s->validation.decode_limit)
                   ? -1
                   : hlc_cli_misuse(&program, "--decode-limit takes a number of bytes, at least 1, not '%s'", optarg);
    case OPTION_SOURCES:
        s->sources[s->validation.source_count++] = optarg;
        return -1;
    case OPTION_EMBEDDINGS:
        s->validation.embeddings = optarg;
        return -1;
    case OPTION_DROP_EXTRAS:
        s->validation.ingest.drop_extras = true;
        return -1;
    case OPTION_BASE_MODEL:
        s->validation.base_model = optarg;
        return -1;
    case OPTION_EXPERT_LAYOUT:
        return set_expert_layout(s, optarg);
    case OPTION_MLX_ALPHA:
        return set_mlx_alpha(s, optarg);
    case OPTION_RULES:
        s->rules = optarg;
        return -1;
    case OPTION_FAIL_ON:
        return set_fail_on(s, optarg);
    case OPTION_REPORT:
    case OPTION_JUNIT:
    case OPTION_SARIF:
        s->reports.path[code - OPTION_REPORT + HLC_REPORT_TEXT] = optarg;
        return -1;
    case OPTION_NOTES:
        s->notes = true;
        return -1;
    case OPTION_LIST_RULES:
        s->list_rules = true;
        return -1;
    case OPTION_EXPLAIN:
        s->explain = optarg;
        return -1;
    case OPTION_THREADS:
        return set_threads(s, optarg);
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

static int check_options(const settings *s) {
    size_t on_stdout = s->json;
    for (int i = 0; i < HLC_REPORT_FORMATS; i++) {
        on_stdout += s->reports.path[i] && strcmp(s->reports.path[i], "-") == 0;
    }
    if (on_stdout > 1) {
        return hlc_cli_misuse(&program, "standard output takes one of --json, --report -, --junit - and --sarif -");
    }
    const char *clash = hlc_reports_clash(&s->reports);
    if (clash) {
        return hlc_cli_misuse(&program, "two reports cannot go to one file, '%s'", clash);
    }
    return s->validation.count ? -1 : hlc_cli_misuse(&program, "no path given");
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
    if (s->list_rules) {
        return hlc_rules_list(&program, s->json);
    }
    if (s->explain) {
        return hlc_rules_explain(&program, s->explain);
    }
    s->validation.paths = (const char *const *)argv + optind;
    s->validation.count = (size_t)(argc - optind);
    s->validation.sources = s->sources;
    s->validation.policy = &s->policy;
    return check_options(s);
}

static int out_of_memory(void) {
    fprintf(stderr, "%s: out of memory\n", program.name);
    return HLC_EXIT_RESOURCE;
}

/* ---- Before the run ---- */

static void read_rules(settings *s, hlc_faults *faults) {
    hlc_string text;
    char today[16] = "";
    const time_t now = time(NULL);
    struct tm date;
    if (gmtime_r(&now, &date)) {
        strftime(today, sizeof today, "%Y-%m-%d", &date);
    }
    const hlc_fault_kind before = hlc_faults_scope(faults, HLC_FAULT_MISUSE);
    if (s->rules && hlc_file_load(s->rules, HLC_RULES_FILE_BYTES, &text, faults)) {
        hlc_policy_read(&s->policy, s->rules, text.bytes, text.length, today, faults);
        hlc_string_free(&text);
    }
    hlc_faults_scope(faults, before);
}

/* A report that cannot be written is told before any work. */
static void probe_reports(const settings *s, hlc_faults *faults) {
    for (int i = 0; i < HLC_REPORT_FORMATS; i++) {
        hlc_output output = {0};
        if (s->reports.path[i] && strcmp(s->reports.path[i], "-") != 0) {
            hlc_output_begin(&output, s->reports.path[i], faults);
            hlc_output_abandon(&output);
        }
    }
}

/* ---- After the run ---- */

static int tell(settings *s, const hlc_outcome *outcome) {
    hlc_outcome_print_faults(outcome, s->notes, stderr);
    if (s->json) {
        return hlc_cli_write_json(&program, hlc_outcome_json(outcome), outcome->exit_status);
    }
    if (!hlc_reports_on_stdout(&s->reports)) {
        hlc_outcome_print_summary(outcome, stdout);
    }
    return hlc_cli_finish(&program, outcome->exit_status);
}

static int conclude(settings *s, hlc_faults *faults) {
    hlc_findings findings;
    int status;
    if (!hlc_findings_make(&s->validation, &s->policy, s->rules, &findings)) {
        status = out_of_memory();
    } else {
        const int by_warnings = s->fail_on_warnings && findings.all.warnings ? HLC_EXIT_BAD_INPUT : HLC_EXIT_DONE;
        const hlc_outcome outcome = {&s->validation, &s->policy, &findings,
                                     findings.exit_status > by_warnings ? findings.exit_status : by_warnings};
        hlc_reports_refuse_inputs(&s->reports, &s->validation, s->rules, faults);
        if (hlc_faults_errors(faults) == 0) {
            hlc_reports_write(&s->reports, &outcome, faults);
        }
        status = tell(s, &outcome);
    }
    hlc_findings_free(&findings);
    return status;
}

static int run(settings *s, hlc_faults *faults) {
    read_rules(s, faults);
    hlc_reports_refuse_inputs(&s->reports, &s->validation, s->rules, faults);
    if (hlc_faults_errors(faults) == 0) {
        probe_reports(s, faults);
    }
    if (hlc_faults_errors(faults)) {
        return HLC_EXIT_DONE;
    }
    s->validation.progress = hlc_cli_progress_start(&s->progress);
    const bool done = hlc_validate(&s->validation);
    hlc_cli_progress_end(&s->progress);
    const int status = done ? conclude(s, faults) : out_of_memory();
    hlc_validation_free(&s->validation);
    return status;
}

int main(int argc, char **argv) {
    settings s = {0};
    hlc_cli_setup();
    hlc_policy_init(&s.policy);
    s.sources = calloc((size_t)argc + 1, sizeof *s.sources);
    hlc_faults *faults = hlc_faults_create(); /* of the run itself: the rules file and the reports */
    if (!s.sources || !faults) {
        return out_of_memory();
    }
    int status = parse(argc, argv, &s);
    if (status < 0) {
        status = run(&s, faults);
        hlc_faults_print(faults, stderr);
        const int own = hlc_faults_exit_status(faults);
        status = own > status ? own : status;
    }
    hlc_faults_destroy(faults);
    hlc_policy_free(&s.policy);
    free(s.sources);
    return status;
}
