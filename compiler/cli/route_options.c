#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/text.h"
#include "compiler/cli/route.h"

enum option_code {
    OPTION_SELECT = 256,
    OPTION_ADAPTER,
    OPTION_K,
    OPTION_P,
    OPTION_GAMMA,
    OPTION_TEMPERATURE,
    OPTION_FAMILIAR,
    OPTION_FALLBACK,
    OPTION_WIDE_K,
    OPTION_WEIGHTS,
    OPTION_MAX_ADAPTERS,
    OPTION_ALLOCATE,
    OPTION_SEED,
    OPTION_ALLOW,
    OPTION_DENY,
    OPTION_THRESHOLD,
    OPTION_GATE,
    OPTION_ROWS,
    OPTION_VARIANCE_NORM,
    OPTION_ALL_SCORES,
    OPTION_EXPLAIN,
    OPTION_EMBEDDING,
    OPTION_ROW,
    OPTION_JSON,
    OPTION_VERSION
};

static const struct option long_options[] = {{"select", required_argument, NULL, OPTION_SELECT},
                                             {"adapter", required_argument, NULL, OPTION_ADAPTER},
                                             {"k", required_argument, NULL, OPTION_K},
                                             {"p", required_argument, NULL, OPTION_P},
                                             {"gamma", required_argument, NULL, OPTION_GAMMA},
                                             {"temperature", required_argument, NULL, OPTION_TEMPERATURE},
                                             {"familiar", required_argument, NULL, OPTION_FAMILIAR},
                                             {"fallback", required_argument, NULL, OPTION_FALLBACK},
                                             {"wide-k", required_argument, NULL, OPTION_WIDE_K},
                                             {"weights", required_argument, NULL, OPTION_WEIGHTS},
                                             {"max-adapters", required_argument, NULL, OPTION_MAX_ADAPTERS},
                                             {"allocate", required_argument, NULL, OPTION_ALLOCATE},
                                             {"seed", required_argument, NULL, OPTION_SEED},
                                             {"allow", required_argument, NULL, OPTION_ALLOW},
                                             {"deny", required_argument, NULL, OPTION_DENY},
                                             {"threshold", required_argument, NULL, OPTION_THRESHOLD},
                                             {"gate", required_argument, NULL, OPTION_GATE},
                                             {"rows", required_argument, NULL, OPTION_ROWS},
                                             {"variance-norm", required_argument, NULL, OPTION_VARIANCE_NORM},
                                             {"all-scores", no_argument, NULL, OPTION_ALL_SCORES},
                                             {"explain", no_argument, NULL, OPTION_EXPLAIN},
                                             {"embedding", required_argument, NULL, OPTION_EMBEDDING},
                                             {"row", required_argument, NULL, OPTION_ROW},
                                             {"json", no_argument, NULL, OPTION_JSON},
                                             {"quiet", no_argument, NULL, 'q'},
                                             {"help", no_argument, NULL, 'h'},
                                             {"version", no_argument, NULL, OPTION_VERSION},
                                             {NULL, 0, NULL, 0}};

/* The names of an enumeration whose zero means the default: names[i] has the value i + 1. */
typedef struct choice {
    int code;
    const char *option, *listed;
    const char *const *names;
} choice;

static const char *const select_names[] = {"posterior", "paper", "calibrated", "nucleus", "top-k", "cosine", "explicit", NULL};
static const char *const fallback_names[] = {"wide", "base", "none", NULL};
static const char *const weight_names[] = {"posterior", "mean", "sum", NULL};
static const char *const allocate_names[] = {"proportional", "multinomial", NULL};
static const char *const gate_names[] = {"magnitude", "contribution", "static", NULL};
static const char *const row_names[] = {"source", "f32", "f16", NULL};
static const char *const switch_names[] = {"off", "on", NULL};

static const choice choices[] = {
    {OPTION_SELECT, "--select", "posterior, paper, calibrated, nucleus, top-k, cosine or explicit", select_names},
    {OPTION_FALLBACK, "--fallback", "wide, base or none", fallback_names},
    {OPTION_WEIGHTS, "--weights", "posterior, mean or sum", weight_names},
    {OPTION_ALLOCATE, "--allocate", "proportional or multinomial", allocate_names},
    {OPTION_GATE, "--gate", "magnitude, contribution or static", gate_names},
    {OPTION_ROWS, "--rows", "source, f32 or f16", row_names},
    {OPTION_VARIANCE_NORM, "--variance-norm", "off or on", switch_names},
};

static void set_choice(hl_route_options *options, int code, int value) {
    switch (code) {
    case OPTION_SELECT:
        options->select = (hl_select)value;
        break;
    case OPTION_FALLBACK:
        options->fallback = (hl_fallback)value;
        break;
    case OPTION_WEIGHTS:
        options->weights = (hl_weights)value;
        break;
    case OPTION_ALLOCATE:
        options->allocate = (hl_allocate)value;
        break;
    case OPTION_GATE:
        options->gate = (hl_gate)value;
        break;
    case OPTION_ROWS:
        options->rows = (hl_rows)value;
        break;
    default:
        options->variance_norm = (hl_switch)value;
    }
}

static int parse_choice(const hlc_program *program, hl_route_options *options, const choice *c) {
    int value = hlc_cli_choice(optarg, c->names);
    if (value < 0) {
        return hlc_cli_misuse(program, "%s takes %s, not '%s'", c->option, c->listed, optarg);
    }
    set_choice(options, c->code, value + 1);
    return -1;
}

static int parse_count(const hlc_program *program, const char *option, uint64_t least, uint64_t most, uint64_t *out) {
    if (!hlc_cli_count(optarg, least, most, out)) {
        return hlc_cli_misuse(program, "%s takes a whole number from %llu to %llu, not '%s'", option, (unsigned long long)least,
                              (unsigned long long)most, optarg);
    }
    return -1;
}

/* A number in (low, high], or in [low, high] where `closed`. */
static int parse_number(const hlc_program *program, const char *option, double low, bool closed, double high, double *out) {
    if (!hlc_cli_number(optarg, out) || *out > high || *out < low || (*out == low && !closed)) {
        return hlc_cli_misuse(program, "%s is out of range: '%s'", option, optarg);
    }
    return -1;
}

static const char **append_name(const char **names, size_t *count, const char *name) {
    const char **grown = realloc(names, (*count + 1) * sizeof *grown);
    if (grown) {
        grown[(*count)++] = name;
    }
    return grown;
}

static int out_of_memory(const hlc_program *program) {
    fprintf(stderr, "%s: out of memory\n", program->name);
    return HLC_EXIT_RESOURCE;
}

/* Ends a name at the next comma and makes "\," in it a comma, in place. What follows; NULL at the end. */
static char *cut_name(char *name) {
    char *to = name;
    for (; *name && *name != ','; name++) {
        if (name[0] == '\\' && name[1] == ',') {
            name++;
        }
        *to++ = *name;
    }
    char *rest = *name ? name + 1 : NULL;
    *to = '\0';
    return rest;
}

/* "A,B,C", split in place: the command line is ours to change. */
static int add_list(const hlc_program *program, const char ***names, size_t *count) {
    for (char *name = optarg, *rest; name; name = rest) {
        rest = cut_name(name);
        if (*name) {
            const char **grown = append_name(*names, count, name);
            if (!grown) {
                return out_of_memory(program);
            }
            *names = grown;
        }
    }
    return -1;
}

/* NAME[=WEIGHT]. A name may hold "=": only a number behind the last one is a weight. */
static int add_adapter(const hlc_program *program, hlc_route_settings *s) {
    if (!s->first_adapter && !(s->first_adapter = strdup(optarg))) {
        return out_of_memory(program);
    }
    char *equals = strrchr(optarg, '=');
    double weight = 1;
    if (equals && equals != optarg && hlc_cli_number(equals + 1, &weight)) {
        *equals = '\0';
        s->weights_given = true;
        if (weight < 0) {
            return hlc_cli_misuse(program, "the weight of %s is negative", optarg);
        }
    }
    double *weights = realloc(s->weights, (s->adapter_count + 1) * sizeof *weights);
    if (!weights) {
        return out_of_memory(program);
    }
    s->weights = weights;
    s->weights[s->adapter_count] = weight;
    const char **names = append_name(s->adapters, &s->adapter_count, optarg);
    if (!names) {
        return out_of_memory(program);
    }
    s->adapters = names;
    return -1;
}

static int apply_number(const hlc_program *program, hlc_route_settings *s, int code) {
    hl_route_options *options = &s->options;
    uint64_t count = 0;
    int status;
    switch (code) {
    case OPTION_K:
        status = parse_count(program, "--k", 1, UINT32_MAX, &count);
        options->k = (uint32_t)count;
        return status;
    case OPTION_WIDE_K:
        status = parse_count(program, "--wide-k", 1, UINT32_MAX, &count);
        options->wide_k = (uint32_t)count;
        return status;
    case OPTION_MAX_ADAPTERS:
        status = parse_count(program, "--max-adapters", 1, UINT32_MAX, &count);
        options->max_adapters = (uint32_t)count;
        return status;
    case OPTION_SEED:
        return parse_count(program, "--seed", 0, INT64_MAX, &options->seed); /* so that JSON can say it */
    case OPTION_ROW:
        s->row_given = true;
        return parse_count(program, "--row", 0, UINT64_MAX, &s->row);
    case OPTION_P:
        return parse_number(program, "--p", 0, false, 1, &options->p);
    case OPTION_GAMMA:
        return parse_number(program, "--gamma", 0, false, 1, &options->gamma);
    case OPTION_TEMPERATURE:
        return parse_number(program, "--temperature", 0, false, 1e300, &options->temperature);
    default:
        status = parse_number(program, "--familiar", 0, true, 0.5, &options->familiar);
        if (status < 0 && options->familiar == 0) {
            options->familiar = HL_FAMILIAR_LOWEST;
        }
        return status;
    }
}

static bool shapes_route(int code) {
    switch (code) {
    case OPTION_ADAPTER:
    case OPTION_EMBEDDING:
    case OPTION_ROW:
    case OPTION_JSON:
    case 'q':
        return false;
    default:
        return true;
    }
}

static int apply_option(const hlc_program *program, hlc_route_settings *s, int code) {
    s->routing_given = s->routing_given || shapes_route(code);
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        if (choices[i].code == code) {
            return parse_choice(program, &s->options, &choices[i]);
        }
    }
    switch (code) {
    case OPTION_ADAPTER:
        return add_adapter(program, s);
    case OPTION_ALLOW:
        s->allow_given = true;
        return add_list(program, &s->allow, &s->allow_count);
    case OPTION_DENY:
        return add_list(program, &s->deny, &s->deny_count);
    case OPTION_THRESHOLD:
        return hlc_cli_add_threshold(program, optarg, true, &s->thresholds);
    case OPTION_ALL_SCORES:
        s->all_scores = true;
        return -1;
    case OPTION_EXPLAIN:
        s->explain = true;
        return -1;
    case OPTION_EMBEDDING:
        s->embedding = optarg;
        return -1;
    case OPTION_JSON:
        s->json = true;
        return -1;
    case 'q':
        return -1; /* there is no progress to silence; every program takes it */
    case 'h':
        return hlc_cli_help(program);
    case OPTION_VERSION:
        return hlc_cli_version(program);
    case '?':
    case ':':
        return hlc_cli_bad_option(program);
    default:
        return apply_number(program, s, code);
    }
}

enum { ROUTE_OPTIONS = sizeof long_options / sizeof long_options[0] - 1, MORE_OPTIONS = 16, MORE_LETTERS = 16 };

static int parse_options(const hlc_program *program, int argc, char **argv, const hlc_more_options *more,
                         hlc_route_settings *s) {
    struct option all[MORE_OPTIONS + ROUTE_OPTIONS + 1];
    char letters[MORE_LETTERS];
    int code;
    assert(more->count <= MORE_OPTIONS && strlen(more->letters) + sizeof "qh" <= sizeof letters);
    if (more->count) {
        memcpy(all, more->options, more->count * sizeof *all);
    }
    memcpy(all + more->count, long_options, sizeof long_options);
    snprintf(letters, sizeof letters, "qh%s", more->letters);
    while ((code = getopt_long(argc, argv, letters, all, NULL)) != -1) {
        int status = more->apply ? more->apply(more->user, code) : HLC_OPTION_UNKNOWN;
        status = status == HLC_OPTION_UNKNOWN ? apply_option(program, s, code) : status;
        if (status >= 0) {
            return status;
        }
    }
    return -1;
}

int hlc_route_parse(const hlc_program *program, int argc, char **argv, hlc_route_settings *s) {
    return hlc_route_parse_with(program, argc, argv, &(hlc_more_options){.letters = ""}, s);
}

int hlc_route_parse_with(const hlc_program *program, int argc, char **argv, const hlc_more_options *more,
                         hlc_route_settings *s) {
    *s = (hlc_route_settings){.options = {.struct_size = sizeof(hl_route_options)}};
    const int status = parse_options(program, argc, argv, more, s);
    if (status >= 0) {
        return status;
    }
    if (argc - optind != !s->pool) {
        return hlc_cli_misuse(program, argc == optind ? "no pool given" : "more than one pool given");
    }
    s->pool = s->pool ? s->pool : argv[optind];
    const bool by_name = s->options.select == HL_SELECT_EXPLICIT;
    if (s->adapter_count && !by_name) {
        if (s->options.select != HL_SELECT_DEFAULT) {
            return hlc_cli_misuse(program, "--adapter names adapters for --select explicit");
        }
        s->options.select = HL_SELECT_EXPLICIT;
    }
    if (by_name && !s->adapter_count) {
        return hlc_cli_misuse(program, "--select explicit wants --adapter NAME[=WEIGHT]");
    }
    if (!s->embedding && !more->embeds && s->options.select != HL_SELECT_EXPLICIT) {
        return hlc_cli_misuse(program, "no embedding given (--embedding FILE)");
    }
    if (s->row_given && !s->embedding) {
        return hlc_cli_misuse(program, "--row names a row of --embedding FILE");
    }
    return -1;
}

void hlc_route_fault(hlc_faults *faults, const char *file, const hl_diag *diag) {
    char place[40];
    snprintf(place, sizeof place, "byte %llu", (unsigned long long)diag->offset);
    const hlc_fault_kind kind = diag->status == HL_ERR_ARGUMENT                                    ? HLC_FAULT_MISUSE
                                : diag->status == HL_ERR_IO || diag->status == HL_ERR_MEMORY ? HLC_FAULT_RESOURCE
                                                                                             : HLC_FAULT_INPUT;
    hlc_fault(faults, HLC_ERROR, kind, file, diag->offset == HL_NO_OFFSET ? NULL : place, NULL, "%s",
              diag->message[0] ? diag->message : hl_status_name(diag->status));
}

static uint32_t *resolve_list(const char *const *names, size_t count, const char *option, const hlc_route_settings *s,
                              const hl_pool *pool, hlc_faults *faults) {
    uint32_t *positions = malloc((count ? count : 1) * sizeof *positions);
    for (size_t i = 0; positions && i < count; i++) {
        positions[i] = hl_adapter_find(pool, names[i], strlen(names[i]));
        if (positions[i] == HL_NONE) {
            char place[HLC_PLACE_SIZE];
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, s->pool, hlc_place(place, "adapter", names[i], strlen(names[i])),
                      "hilora-inspect lists them", "not in this pool (%s)", option);
        }
    }
    if (!positions) {
        hlc_out_of_memory(faults, s->pool, count * sizeof *positions);
    }
    return positions;
}

/* The scores of the thresholds; a fault for each quantile of an adapter that has none. */
static double *resolve_scores(const hlc_route_settings *s, const hl_pool *pool, const uint32_t *positions, hlc_faults *faults) {
    double *scores = malloc(s->thresholds.count * sizeof *scores);
    hl_pool_view view = {.struct_size = sizeof view};
    if (!scores || hl_pool_info(pool, &view) != HL_OK) {
        hlc_out_of_memory(faults, s->pool, s->thresholds.count * sizeof *scores);
        free(scores);
        return NULL;
    }
    for (size_t i = 0; i < s->thresholds.count; i++) {
        const hlc_threshold *threshold = &s->thresholds.list[i];
        hl_adapter_view adapter = {.struct_size = sizeof adapter};
        const bool found = hl_adapter_at(pool, positions[i], &adapter) == HL_OK;
        if (found && threshold->by_quantile && !(adapter.flags & HL_ADAPTER_CALIBRATED)) {
            char place[HLC_PLACE_SIZE];
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, s->pool,
                      hlc_place(place, "adapter", threshold->adapter, strlen(threshold->adapter)), "give a score (NAME=SCORE)",
                      "it has no quantiles (--threshold)");
        }
        scores[i] = hlc_threshold_score(threshold, adapter.quantiles, view.dim);
    }
    return scores;
}

static void resolve_thresholds(hlc_route_settings *s, const hl_pool *pool, hlc_faults *faults) {
    const size_t count = s->thresholds.count;
    const char **names = malloc(count * sizeof *names);
    for (size_t i = 0; names && i < count; i++) {
        names[i] = s->thresholds.list[i].adapter;
    }
    if (names) {
        s->options.conditional = resolve_list(names, count, "--threshold", s, pool, faults);
        s->options.conditional_count = count;
    } else {
        hlc_out_of_memory(faults, s->pool, count * sizeof *names);
    }
    if (s->options.conditional) {
        s->options.thresholds = s->scores = resolve_scores(s, pool, s->options.conditional, faults);
    }
    free(names);
}

bool hlc_route_resolve(hlc_route_settings *s, const hl_pool *pool, hlc_faults *faults) {
    hl_route_options *options = &s->options;
    if (s->adapter_count) {
        options->adapters = resolve_list(s->adapters, s->adapter_count, "--adapter", s, pool, faults);
        options->adapter_count = s->adapter_count;
        options->adapter_weights = s->weights_given ? s->weights : NULL;
    }
    if (s->allow_given) {
        options->allow = resolve_list(s->allow, s->allow_count, "--allow", s, pool, faults);
        options->allow_count = s->allow_count;
    }
    if (s->deny_count) {
        options->deny = resolve_list(s->deny, s->deny_count, "--deny", s, pool, faults);
        options->deny_count = s->deny_count;
    }
    if (s->thresholds.count) {
        resolve_thresholds(s, pool, faults);
    }
    options->keep_all = s->all_scores || s->explain;
    return hlc_faults_errors(faults) == 0;
}

static void free_positions(const uint32_t *positions) {
    union {
        const uint32_t *in;
        void *out;
    } p = {positions};
    free(p.out);
}

void hlc_route_settings_free(hlc_route_settings *s) {
    free_positions(s->options.adapters);
    free_positions(s->options.allow);
    free_positions(s->options.deny);
    free_positions(s->options.conditional);
    hlc_cli_free_thresholds(&s->thresholds);
    free(s->scores);
    free(s->weights);
    free(s->adapters);
    free(s->allow);
    free(s->deny);
    free(s->first_adapter);
    *s = (hlc_route_settings){0};
}
