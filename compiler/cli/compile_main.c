/* hilora-compile: adapters in, a pool out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler/base/text.h"
#include "compiler/base/workers.h"
#include "compiler/cli/common.h"
#include "compiler/cli/compile_squeeze.h"
#include "compiler/linalg.h"
#include "compiler/cli/text_table.h"
#include "compiler/cli/threshold.h"
#include "compiler/ingest/base_model.h"
#include "compiler/pool/pool_file.h"

static const hlc_program program = {
    "hilora-compile",
    "Usage: hilora-compile [OPTION]... ADAPTER...\n"
    "Compile LoRA adapters of one base model into a pool.\n"
    "\n"
    "ADAPTER is a .safetensors file with its adapter_config.json beside it, or a folder that holds\n"
    "adapter_model.safetensors. Sample embeddings are looked for beside each adapter (embeddings.safetensors,\n"
    ".npy or .h5); hilora-embed makes them.\n"
    "\n"
    "Output:\n"
    "  -o, --output FILE          the pool to write (default pool.hlp)\n"
    "      --codec zstd|store     compress the weights without loss (default), or store them for zero-copy reading\n"
    "      --decompose svd|raw    rank-one components: of the singular value decomposition (default), or as trained\n"
    "      --energy E             keep of each module the fewest components that hold this share of its energy, the "
    "sum of\n"
    "                             squared singular values (above 0, at most 1); lossy: the report gives each error\n"
    "      --max-rank R           keep at most R components of each module\n"
    "\n"
    "Statistics:\n"
    "      --embeddings PATH      a folder with NAME.safetensors, .npy or .h5 per adapter, or one file with a\n"
    "                             tensor per adapter name\n"
    "      --shrinkage pool|oas|ledoit-wolf|NUMBER\n"
    "                             shrinkage of the covariances (default pool: one coefficient for all adapters)\n"
    "      --whiten none|pool     fit in the space where the pooled covariance is the identity (default none)\n"
    "      --threshold NAME=SCORE an adapter that only prompts of at least this score may use; NAME=q0.05: the score\n"
    "                             at a quantile of its own samples; again for more\n"
    "      --no-stats=allow       accept adapters without embeddings; they cannot be routed by likelihood\n"
    "      --encoder NAME         the encoder of the embeddings, over what the files say\n"
    "      --encoder-revision R   its revision\n"
    "      --prefix TEXT          the instruction put before each text\n"
    "      --normalized yes|no    whether the embeddings have length 1\n"
    "\n"
    "Input:\n"
    "      --base NAME            the base model, over what the adapters say\n"
    "      --base-model DIR       the base model's folder: each adapted module must be there, with its shape\n"
    "      --drop-extras          leave out tensors that are no low-rank update, naming each\n"
    "      --mlx-alpha ignore|apply\n"
    "                             what to do with an alpha beside the scale of an MLX adapter\n"
    "      --expert-layout rank-major|grouped\n"
    "                             how lora_B of fused experts is packed, where an adapter does not say: rank-major as\n"
    "                             PEFT does, or expert after expert\n"
    "\n"
    "      --threads N            default: the cores at hand; never changes a byte of the output\n"
    "      --json                 a report on standard output as one JSON document\n"
    "  -q, --quiet                no progress\n"
    "  -h, --help                 this text\n"
    "      --version              the version\n"
    "\n"
    "Exit status: 0 done, 1 a bad adapter or embedding, 2 misuse, 3 a missing file or resource.\n"
    "A run that fails writes nothing and leaves an existing pool alone.\n"};

enum option_code {
    OPTION_EMBEDDINGS = 256,
    OPTION_DECOMPOSE,
    OPTION_ENERGY,
    OPTION_MAX_RANK,
    OPTION_CODEC,
    OPTION_SHRINKAGE,
    OPTION_WHITEN,
    OPTION_NO_STATS,
    OPTION_DROP_EXTRAS,
    OPTION_MLX_ALPHA,
    OPTION_BASE_MODEL,
    OPTION_EXPERT_LAYOUT,
    OPTION_BASE,
    OPTION_ENCODER,
    OPTION_REVISION,
    OPTION_PREFIX,
    OPTION_NORMALIZED,
    OPTION_THREADS,
    OPTION_THRESHOLD,
    OPTION_JSON,
    OPTION_VERSION
};

static const struct option long_options[] = {{"output", required_argument, NULL, 'o'},
                                             {"embeddings", required_argument, NULL, OPTION_EMBEDDINGS},
                                             {"decompose", required_argument, NULL, OPTION_DECOMPOSE},
                                             {"energy", required_argument, NULL, OPTION_ENERGY},
                                             {"max-rank", required_argument, NULL, OPTION_MAX_RANK},
                                             {"codec", required_argument, NULL, OPTION_CODEC},
                                             {"shrinkage", required_argument, NULL, OPTION_SHRINKAGE},
                                             {"whiten", required_argument, NULL, OPTION_WHITEN},
                                             {"no-stats", required_argument, NULL, OPTION_NO_STATS},
                                             {"drop-extras", no_argument, NULL, OPTION_DROP_EXTRAS},
                                             {"mlx-alpha", required_argument, NULL, OPTION_MLX_ALPHA},
                                             {"base-model", required_argument, NULL, OPTION_BASE_MODEL},
                                             {"expert-layout", required_argument, NULL, OPTION_EXPERT_LAYOUT},
                                             {"base", required_argument, NULL, OPTION_BASE},
                                             {"encoder", required_argument, NULL, OPTION_ENCODER},
                                             {"encoder-revision", required_argument, NULL, OPTION_REVISION},
                                             {"prefix", required_argument, NULL, OPTION_PREFIX},
                                             {"normalized", required_argument, NULL, OPTION_NORMALIZED},
                                             {"threshold", required_argument, NULL, OPTION_THRESHOLD},
                                             {"threads", required_argument, NULL, OPTION_THREADS},
                                             {"json", no_argument, NULL, OPTION_JSON},
                                             {"quiet", no_argument, NULL, 'q'},
                                             {"help", no_argument, NULL, 'h'},
                                             {"version", no_argument, NULL, OPTION_VERSION},
                                             {NULL, 0, NULL, 0}};

typedef struct settings {
    hlc_compile_options compile;
    hlc_cli_progress progress;
    hlc_cli_thresholds thresholds;
    bool json;
    int exit_status; /* -1: go on */
} settings;

static int parse_shrinkage(const char *text, hlc_stats_options *stats) {
    static const char *const names[] = {"pool", "oas", "ledoit-wolf", NULL};
    int choice = hlc_cli_choice(text, names);
    if (choice >= 0) {
        stats->shrinkage = (hlc_shrinkage)choice;
        return -1;
    }
    if (!hlc_cli_number(text, &stats->number) || stats->number < 0 || stats->number > 1) {
        return hlc_cli_misuse(&program, "--shrinkage takes pool, oas, ledoit-wolf or a number from 0 to 1, not '%s'", text);
    }
    stats->shrinkage = HLC_SHRINKAGE_NUMBER;
    return -1;
}

/* Sets *out to the choice; answers -1, or the exit status of a misuse. */
static int parse_choice(const char *option, const char *text, const char *const *names, const char *listed, int *out) {
    *out = hlc_cli_choice(text, names);
    return *out >= 0 ? -1 : hlc_cli_misuse(&program, "%s takes %s, not '%s'", option, listed, text);
}

/* Sets *out to a text that stands in the pool; answers -1, or the exit status of a misuse. */
static int parse_text(const char *option, const char *text, const char **out) {
    *out = text;
    const size_t length = strlen(text);
    return hlc_utf8_prefix(text, length) == length ? -1 : hlc_cli_misuse(&program, "%s takes UTF-8, not '%s'", option, text);
}

static int apply_option(settings *s, int code) {
    static const char *const codecs[] = {"store", "zstd", NULL}, *const decompositions[] = {"raw", "svd", NULL};
    static const char *const whitenings[] = {"none", "pool", NULL}, *const answers[] = {"no", "yes", NULL};
    static const char *const alphas[] = {"ignore", "apply", NULL};
    static const char *const layouts[] = {"rank-major", "grouped", NULL};
    hlc_compile_options *compile = &s->compile;
    int choice = 0, status = -1;
    uint64_t count;
    switch (code) {
    case 'o':
        compile->output = optarg;
        break;
    case OPTION_EMBEDDINGS:
        compile->embeddings = optarg;
        break;
    case OPTION_DECOMPOSE:
        status = parse_choice("--decompose", optarg, decompositions, "svd or raw", &choice);
        compile->decomposition = choice == 1 ? HLC_DECOMPOSE_SVD : HLC_DECOMPOSE_RAW;
        break;
    case OPTION_ENERGY:
        if (!hlc_cli_number(optarg, &compile->energy) || !(compile->energy > 0 && compile->energy <= 1)) {
            return hlc_cli_misuse(&program, "--energy takes a number above 0 and at most 1, not '%s'", optarg);
        }
        break;
    case OPTION_MAX_RANK:
        if (!hlc_cli_count(optarg, 1, UINT32_MAX, &count)) {
            return hlc_cli_misuse(&program, "--max-rank takes a whole number, at least 1, not '%s'", optarg);
        }
        compile->max_rank = (uint32_t)count;
        break;
    case OPTION_BASE_MODEL:
        compile->base_model = optarg;
        break;
    case OPTION_CODEC:
        status = parse_choice("--codec", optarg, codecs, "zstd or store", &choice);
        compile->codec = choice == 1 ? HLF_CODEC_ZSTD : HLF_CODEC_STORE;
        break;
    case OPTION_SHRINKAGE:
        return parse_shrinkage(optarg, &compile->stats);
    case OPTION_WHITEN:
        status = parse_choice("--whiten", optarg, whitenings, "none or pool", &choice);
        compile->stats.whiten = choice == 1;
        break;
    case OPTION_NO_STATS:
        compile->allow_no_stats = true;
        return strcmp(optarg, "allow") == 0 ? -1 : hlc_cli_misuse(&program, "--no-stats takes allow, not '%s'", optarg);
    case OPTION_DROP_EXTRAS:
        compile->drop_extras = true;
        break;
    case OPTION_MLX_ALPHA:
        status = parse_choice("--mlx-alpha", optarg, alphas, "ignore or apply", &choice);
        compile->mlx_alpha = choice == 1 ? HLC_MLX_ALPHA_APPLY : HLC_MLX_ALPHA_IGNORE;
        break;
    case OPTION_EXPERT_LAYOUT:
        status = parse_choice("--expert-layout", optarg, layouts, "rank-major or grouped", &choice);
        compile->expert_layout = choice == 1 ? HLC_EXPERTS_GROUPED : HLC_EXPERTS_RANK_MAJOR;
        break;
    case OPTION_BASE:
        return parse_text("--base", optarg, &compile->base);
    case OPTION_ENCODER:
        return parse_text("--encoder", optarg, &compile->encoder);
    case OPTION_REVISION:
        return parse_text("--encoder-revision", optarg, &compile->revision);
    case OPTION_PREFIX:
        return parse_text("--prefix", optarg, &compile->prefix);
    case OPTION_NORMALIZED:
        status = parse_choice("--normalized", optarg, answers, "yes or no", &choice);
        compile->normalized = choice;
        break;
    case OPTION_THRESHOLD:
        return hlc_cli_add_threshold(&program, optarg, false, &s->thresholds);
    case OPTION_THREADS:
        if (!hlc_cli_count(optarg, 1, 1024, &count)) {
            return hlc_cli_misuse(&program, "--threads takes a number from 1 to 1024, not '%s'", optarg);
        }
        compile->threads = (size_t)count;
        break;
    case OPTION_JSON:
        s->json = true;
        break;
    case 'q':
        s->progress.quiet = true;
        break;
    case 'h':
        return hlc_cli_help(&program);
    case OPTION_VERSION:
        return hlc_cli_version(&program);
    default:
        return hlc_cli_bad_option(&program);
    }
    return status;
}

/* An output that is also an input would be replaced by what was made from it. */
static const char *input_that_is_output(const hlc_compile_options *compile) {
    struct stat output, input;
    if (stat(compile->output, &output) != 0) {
        return NULL;
    }
    for (size_t i = 0; i <= compile->operand_count; i++) {
        const char *path = i < compile->operand_count ? compile->operands[i] : compile->embeddings;
        if (path && stat(path, &input) == 0 && S_ISREG(input.st_mode) && input.st_dev == output.st_dev && input.st_ino == output.st_ino) {
            return path;
        }
    }
    return compile->base_model && hlc_base_model_reads(compile->base_model, compile->output) ? compile->output : NULL;
}

static bool squeezes(const hlc_compile_options *compile) {
    return compile->energy > 0 || compile->max_rank > 0;
}

static int parse(int argc, char **argv, settings *s) {
    s->compile = (hlc_compile_options){.output = "pool.hlp",
                                       .decomposition = HLC_DECOMPOSE_SVD,
                                       .codec = HLF_CODEC_ZSTD,
                                       .normalized = -1,
                                       .threads = hlc_default_threads()};
    int code;
    while ((code = getopt_long(argc, argv, "o:qh", long_options, NULL)) != -1) {
        int status = apply_option(s, code);
        if (status >= 0) {
            return status;
        }
    }
    s->compile.thresholds = s->thresholds.list;
    s->compile.threshold_count = s->thresholds.count;
    s->compile.operands = (const char *const *)argv + optind;
    s->compile.operand_count = (size_t)(argc - optind);
    if (!s->compile.operand_count) {
        return hlc_cli_misuse(&program, "no adapter given");
    }
    if (squeezes(&s->compile) && s->compile.decomposition != HLC_DECOMPOSE_SVD) {
        return hlc_cli_misuse(&program, "--energy and --max-rank drop singular values: they need --decompose svd");
    }
    const char *clash = input_that_is_output(&s->compile);
    return clash ? hlc_cli_misuse(&program, "the output %s is an input", clash) : -1;
}

/* pool: NULL unless components were dropped. */
static json_t *report_json(const settings *s, const hlc_compile_report *report, bool done, const hlf_index *pool,
                           const hlc_faults *faults) {
    json_t *document = json_pack("{s:b, s:o}", "done", done, "faults", hlc_cli_faults_json(faults));
    if (done) {
        json_object_update_new(
            document,
            json_pack("{s:o, s:o, s:i, s:i, s:i, s:i, s:I, s:I, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}}", "output",
                      hlc_cli_string_json(s->compile.output, strlen(s->compile.output)), "digest",
                      hlc_cli_hex_json(report->digest, sizeof report->digest), "adapters", (int)report->adapters, "routable",
                      (int)report->routable, "conditional", (int)report->conditional, "modules", (int)report->modules, "rocs",
                      (json_int_t)report->rocs, "parameters",
                      (json_int_t)report->parameters, "bytes", "sources", (json_int_t)report->source_bytes, "tensors",
                      (json_int_t)report->tensor_bytes, "weights", (json_int_t)report->weight_bytes, "gauge",
                      (json_int_t)report->gauge_bytes, "index", (json_int_t)report->index_bytes, "route", (json_int_t)report->route_bytes,
                      "pool", (json_int_t)report->pool_bytes));
        json_object_set_new(document, "squeeze", pool ? hlc_squeeze_json(pool) : json_null());
    }
    return document;
}

static void print_report(const settings *s, const hlc_compile_report *report) {
    hlc_cli_print_text(stdout, s->compile.output, strlen(s->compile.output), SIZE_MAX);
    printf(": %u adapters (%u routable), %u modules, %llu rank-one components\n", report->adapters, report->routable, report->modules,
           (unsigned long long)report->rocs);
    printf("  %llu bytes from %llu bytes of adapters: weights %llu (ratio %.3f), gauges %llu, statistics %llu, index %llu\n",
           (unsigned long long)report->pool_bytes, (unsigned long long)report->source_bytes, (unsigned long long)report->weight_bytes,
           (double)report->tensor_bytes / (double)report->weight_bytes, (unsigned long long)report->gauge_bytes,
           (unsigned long long)report->route_bytes, (unsigned long long)report->index_bytes);
    printf("  digest ");
    for (size_t i = 0; i < sizeof report->digest; i++) {
        printf("%02x", report->digest[i]);
    }
    putchar('\n');
}

int main(int argc, char **argv) {
    settings s = {0};
    hlc_cli_setup();
    int status = parse(argc, argv, &s);
    if (status >= 0) {
        hlc_cli_free_thresholds(&s.thresholds);
        return status;
    }
    hlc_faults *faults = hlc_faults_create();
    if (!faults) {
        fprintf(stderr, "%s: out of memory\n", program.name);
        return HLC_EXIT_RESOURCE;
    }
    hlc_compile_report report;
    s.compile.progress = hlc_cli_progress_start(&s.progress);
    bool done = hlc_compile(&s.compile, faults, &report);
    hlc_cli_progress_end(&s.progress);
    hlc_pool_file pool;
    const bool shown = done && squeezes(&s.compile) && hlc_pool_file_open(&pool, s.compile.output, faults);
    hlc_faults_print(faults, stderr);
    status = done ? HLC_EXIT_DONE : hlc_faults_exit_status(faults);
    if (s.json) {
        status =
            hlc_cli_write_json(&program, report_json(&s, &report, done, shown ? &pool.index : NULL, faults), status);
    } else if (done) {
        if (shown) {
            hlc_squeeze_print(&pool.index);
        }
        print_report(&s, &report);
        status = hlc_cli_finish(&program, status);
    }
    if (shown) {
        hlc_pool_file_close(&pool);
    }
    hlc_faults_destroy(faults);
    hlc_cli_free_thresholds(&s.thresholds);
    if (!hlc_linalg_has_room(2 * hlc_default_threads())) { /* each of OpenBLAS's threads wants a buffer, and a heap as large */
        fflush(NULL);
        _exit(status); /* past OpenBLAS's handler, which would wait for memory */
    }
    return status;
}
