/* Why each adapter is in a route or not: for people the ones that were left out, for machines all of them. */
#include <math.h>
#include <stdlib.h>

#include "compiler/cli/route.h"
#include "compiler/cli/text_table.h"

enum { REASON_SIZE = 96, NAME_COLUMNS = 20 };

/* The rule by which an adapter that was ranked stayed behind. */
static void say_not_selected(const hlc_routing *r, const hl_fate_view *fate, char reason[REASON_SIZE]) {
    const hl_route_view *view = &r->view;
    if (view->select == HL_SELECT_EXPLICIT) {
        snprintf(reason, REASON_SIZE, "not named");
    } else if (fate->rank < view->wanted) {
        snprintf(reason, REASON_SIZE, "over --max-adapters %u", view->max_adapters);
    } else if (view->fell_back) {
        snprintf(reason, REASON_SIZE, "not among the wide %u", view->wide_k);
    } else if (view->select == HL_SELECT_NUCLEUS) {
        snprintf(reason, REASON_SIZE, "beyond the mass %g", view->p);
    } else if (view->select == HL_SELECT_CALIBRATED && view->tested && view->familiar) {
        snprintf(reason, REASON_SIZE, "below the pool's quantile %.3g", view->familiar_quantile);
    } else if (view->select == HL_SELECT_PAPER && view->best > 0) {
        snprintf(reason, REASON_SIZE, "no positive score");
    } else {
        snprintf(reason, REASON_SIZE, "not among the %u best", view->wanted);
    }
}

static void say_reason(const hlc_routing *r, const hl_fate_view *fate, char reason[REASON_SIZE]) {
    char number[HLC_NUMBER_TEXT];
    switch (fate->fate) {
    case HL_FATE_DENIED:
        snprintf(reason, REASON_SIZE, "not allowed (--allow, --deny)");
        break;
    case HL_FATE_CONDITION:
        snprintf(reason, REASON_SIZE, "below its threshold %s", hlc_route_number(number, 10, 5, fate->threshold));
        break;
    case HL_FATE_NOT_SELECTED:
        say_not_selected(r, fate, reason);
        break;
    case HL_FATE_UNFAMILIAR:
        snprintf(reason, REASON_SIZE, "unfamiliar prompt, fallback base");
        break;
    case HL_FATE_NO_WEIGHT:
        snprintf(reason, REASON_SIZE, "weight rounds to 0 of 256");
        break;
    case HL_FATE_NO_ROC:
        snprintf(reason, REASON_SIZE, "no component of %llu left", (unsigned long long)r->view.budget);
        break;
    default:
        snprintf(reason, REASON_SIZE, "%s", hlc_fate_name(fate->fate));
    }
}

/* ---- For people ---- */

typedef struct left_out {
    uint32_t rank, adapter;
} left_out;

static int by_rank(const void *a, const void *b) {
    const left_out *x = a, *y = b;
    const uint32_t a_key = x->rank != y->rank ? x->rank : x->adapter, b_key = x->rank != y->rank ? y->rank : y->adapter;
    return (a_key > b_key) - (a_key < b_key);
}

static void print_left_out(FILE *stream, const hlc_routing *r, uint32_t adapter) {
    const hl_fate_view fate = hlc_route_fate_of(r, adapter);
    const hl_string name = hlc_route_name_of(r, adapter);
    const bool cosine = r->view.select == HL_SELECT_COSINE;
    char place[HLC_NUMBER_TEXT] = "-", score[HLC_NUMBER_TEXT], last[HLC_NUMBER_TEXT], reason[REASON_SIZE];
    if (fate.rank != HL_NONE) {
        snprintf(place, sizeof place, "%u", fate.rank + 1);
    }
    say_reason(r, &fate, reason);
    hlc_cli_print_cell(stream, name.data, name.size, NAME_COLUMNS);
    fprintf(stream, " %5s %10s %8s  %s\n", place, hlc_route_number(score, 10, 5, fate.score),
            hlc_route_number(last, 8, 4, cosine ? fate.cosine : fate.position), reason);
}

void hlc_route_print_left_out(FILE *stream, const hlc_routing *r) {
    const uint32_t adapters = r->pool_view.adapters;
    left_out *list = malloc((adapters ? adapters : 1) * sizeof *list);
    size_t n = 0;
    for (uint32_t i = 0; list && i < adapters; i++) {
        const hl_fate_view fate = hlc_route_fate_of(r, i);
        if (fate.fate != HL_FATE_CHOSEN) {
            list[n++] = (left_out){fate.rank, i};
        }
    }
    if (!list) {
        fputs("\nout of memory for the adapters that were left out\n", stream);
    } else if (n > 0) {
        const bool cosine = r->view.select == HL_SELECT_COSINE;
        qsort(list, n, sizeof *list, by_rank);
        fprintf(stream, "\n%-*s %5s %10s %8s  %s\n", NAME_COLUMNS, "LEFT OUT", "PLACE", "SCORE",
                cosine ? "COSINE" : "QUANTILE", "WHY");
    }
    for (size_t i = 0; i < n; i++) {
        print_left_out(stream, r, list[i].adapter);
    }
    free(list);
    if (r->view.select != HL_SELECT_COSINE) {
        fputs("QUANTILE: of the score among the adapter's own left-out samples, up to their\nmedian (0.5).\n", stream);
    }
}

/* ---- For machines ---- */

static json_t *place_json(uint32_t rank) {
    return rank == HL_NONE ? json_null() : json_integer((json_int_t)rank + 1);
}

static json_t *fate_json(const hlc_routing *r, uint32_t adapter, const hl_route_item *item) {
    const hl_fate_view fate = hlc_route_fate_of(r, adapter);
    const hl_string name = hlc_route_name_of(r, adapter);
    char reason[REASON_SIZE];
    say_reason(r, &fate, reason);
    return json_pack("{s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:f}",
                     "adapter", hlc_cli_string_json(name.data, name.size),
                     "fate", hlc_fate_name(fate.fate), "reason", reason, "place", place_json(fate.rank),
                     "score", hlc_cli_real_json(fate.score),
                     "log_likelihood", hlc_cli_real_json(fate.log_likelihood),
                     "position", hlc_cli_real_json(fate.position),
                     "threshold", hlc_cli_real_json(fate.threshold),
                     "cosine", hlc_cli_real_json(fate.cosine),
                     "rocs", item ? (json_int_t)item->rocs : 0, "weight", item ? item->weight : 0.0);
}

json_t *hlc_route_explain_json(const hlc_routing *r) {
    const uint32_t adapters = r->pool_view.adapters;
    json_t *list = json_array();
    hl_route_item *items = calloc(adapters ? adapters : 1, sizeof *items);
    for (uint32_t i = 0; items && i < r->view.count; i++) {
        const hl_route_item item = hlc_route_item_of(r, i);
        items[item.adapter] = item;
    }
    for (uint32_t i = 0; items && list && i < adapters; i++) {
        if (json_array_append_new(list, fate_json(r, i, items[i].rocs ? &items[i] : NULL)) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    if (!items) {
        json_decref(list);
        list = NULL;
    }
    free(items);
    return list;
}
