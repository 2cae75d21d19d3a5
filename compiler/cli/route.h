/* What hilora-route was asked, what came of it, and how it is shown. */
#ifndef HILORA_CLI_ROUTE_H
#define HILORA_CLI_ROUTE_H

#include <stdio.h>

#include <hilora/hilora.h>

#include "compiler/cli/threshold.h"

typedef struct hlc_route_settings {
    const char *pool, *embedding;
    uint64_t row;
    bool row_given, all_scores, explain, json;
    hl_route_options options; /* the lists are filled in by hlc_route_resolve */
    /* Names as the command line gives them. */
    const char **adapters, **allow, **deny;
    double *weights;
    hlc_cli_thresholds thresholds;
    double *scores; /* of the thresholds, once resolved */
    size_t adapter_count, allow_count, deny_count;
    bool allow_given, weights_given;
    bool routing_given;  /* an option that shapes the route, beside --adapter and --embedding */
    char *first_adapter; /* the first --adapter as it was given, "=" and all; owned */
} hlc_route_settings;

typedef struct hlc_routing {
    const hl_pool *pool;
    const hl_route *route;
    hl_pool_view pool_view;
    hl_route_view view;
    bool explained; /* the route knows every adapter's fate */
} hlc_routing;

/* Options of a program that routes and does something else with the route. */
typedef struct hlc_more_options {
    const char *letters; /* for getopt_long, "o:" */
    const struct option *options;
    size_t count;
    bool embeds; /* the program finds embeddings itself: none need be named */
    /* -1: taken; HLC_OPTION_UNKNOWN: one of the routing options; else the exit status. */
    int (*apply)(void *user, int code);
    void *user;
} hlc_more_options;

enum { HLC_OPTION_UNKNOWN = -2, HLC_OPTION_FIRST_MORE = 1024 /* codes of more options start here */ };

/* Fills the settings; the pool is the operand, unless an option of the program has set it. Answers -1, or the exit status at which the program ends. hlc_route_settings_free in either case. */
int hlc_route_parse(const hlc_program *program, int argc, char **argv, hlc_route_settings *settings);
int hlc_route_parse_with(const hlc_program *program, int argc, char **argv, const hlc_more_options *more,
                         hlc_route_settings *settings);
/* Finds the named adapters in the pool. False after a fault for each unknown name. */
bool hlc_route_resolve(hlc_route_settings *settings, const hl_pool *pool, hlc_faults *faults);
void hlc_route_settings_free(hlc_route_settings *settings);

void hlc_route_print(FILE *stream, const hlc_routing *routing);
/* NULL when memory is out. */
json_t *hlc_route_json(const hlc_route_settings *settings, const hlc_routing *routing);

/* What the library said about a call, as a fault. */
void hlc_route_fault(hlc_faults *faults, const char *file, const hl_diag *diag);

/* "chosen", "not selected", ... */
const char *hlc_fate_name(hl_fate fate);

/* The tables of --explain and --all-scores, and the same as JSON (NULL when memory is out). */
void hlc_route_print_left_out(FILE *stream, const hlc_routing *routing);
json_t *hlc_route_explain_json(const hlc_routing *routing);

/* Views that cannot fail: the positions come from the route and the pool themselves. */
hl_route_item hlc_route_item_of(const hlc_routing *routing, uint32_t i);
hl_fate_view hlc_route_fate_of(const hlc_routing *routing, uint32_t adapter);
hl_string hlc_route_name_of(const hlc_routing *routing, uint32_t adapter);
/* With so many digits behind the point, fewer or an exponent where it would take more than `columns` (8 or more); "-"
 * where the number is NaN. */
enum { HLC_NUMBER_TEXT = 32 };
const char *hlc_route_number(char buffer[HLC_NUMBER_TEXT], int columns, int digits, double value);

#endif
