#include <math.h>
#include <string.h>

#include "compiler/cli/route.h"
#include "compiler/cli/text_table.h"

const char *hlc_fate_name(hl_fate fate) {
    switch (fate) {
    case HL_FATE_CHOSEN:
        return "chosen";
    case HL_FATE_DENIED:
        return "not allowed";
    case HL_FATE_UNROUTABLE:
        return "no statistics";
    case HL_FATE_CONDITION:
        return "below its threshold";
    case HL_FATE_NOT_SELECTED:
        return "not selected";
    case HL_FATE_UNFAMILIAR:
        return "unfamiliar prompt";
    case HL_FATE_NO_WEIGHT:
        return "weight rounds to 0";
    case HL_FATE_NO_ROC:
        return "no component left";
    }
    return "unknown";
}

static const char *select_name(hl_select select) {
    static const char *const names[] = {"posterior", "posterior", "paper", "calibrated", "nucleus", "top-k", "cosine", "explicit"};
    return names[select];
}

static const char *weights_name(const hl_route_view *view) {
    static const char *const names[] = {"score", "posterior", "mean", "sum"};
    return view->weights == HL_WEIGHTS_DEFAULT && view->select == HL_SELECT_EXPLICIT ? "explicit" : names[view->weights];
}

static const char *fallback_name(hl_fallback fallback) {
    static const char *const names[] = {"wide", "wide", "base", "none"};
    return names[fallback];
}

static const char *gate_name(hl_gate gate) {
    static const char *const names[] = {"magnitude", "magnitude", "contribution", "static"};
    return names[gate];
}

static const char *rows_name(hl_rows rows) {
    static const char *const names[] = {"source", "source", "f32", "f16"};
    return names[rows];
}

hl_route_item hlc_route_item_of(const hlc_routing *r, uint32_t i) {
    hl_route_item item = {.struct_size = sizeof item};
    hl_status status = hl_route_item_at(r->route, i, &item);
    (void)status;
    return item;
}

hl_string hlc_route_name_of(const hlc_routing *r, uint32_t adapter) {
    hl_adapter_view view = {.struct_size = sizeof view};
    hl_status status = hl_adapter_at(r->pool, adapter, &view);
    (void)status;
    return view.name;
}

hl_fate_view hlc_route_fate_of(const hlc_routing *r, uint32_t adapter) {
    hl_fate_view view = {.struct_size = sizeof view};
    hl_status status = hl_route_fate_at(r->route, adapter, &view);
    (void)status;
    return view;
}

const char *hlc_route_number(char buffer[HLC_NUMBER_TEXT], int columns, int digits, double value) {
    if (isnan(value)) {
        return "-";
    }
    int size = columns + 1;
    for (; size > columns && digits >= 0; digits--) {
        size = snprintf(buffer, HLC_NUMBER_TEXT, "%.*f", digits, value);
    }
    for (int precision = columns; size > columns && precision > 0; precision--) {
        size = snprintf(buffer, HLC_NUMBER_TEXT, "%.*g", precision, value);
    }
    return buffer;
}

/* ---- For people ---- */

/* Where the best log-likelihood lies among the pool's own samples, which are known up to their median. */
static const char *position_text(char buffer[HLC_NUMBER_TEXT], double position) {
    if (position >= 0.5) {
        return "above the median of";
    }
    snprintf(buffer, HLC_NUMBER_TEXT, position > 0 ? "at quantile %.3f of" : "below all", position);
    return buffer;
}

static void print_familiarity(FILE *stream, const hl_route_view *view) {
    enum { NATS = 8 };
    char position[HLC_NUMBER_TEXT], best[HLC_NUMBER_TEXT], apart[HLC_NUMBER_TEXT], threshold[HLC_NUMBER_TEXT];
    if (!view->tested) {
        fputs("familiarity not tested\n", stream);
        return;
    }
    if (view->allowed == 0) {
        fputs("no adapter that is allowed meets its condition\n", stream);
        return;
    }
    fprintf(stream, "%s: best log-likelihood %s nats, %s known inputs\n", view->familiar ? "familiar" : "unfamiliar",
            hlc_route_number(best, NATS, 2, view->best), position_text(position, view->best_position));
    fprintf(stream, "  %s %s the threshold %s (quantile %g)",
            hlc_route_number(apart, NATS, 2, fabs(view->best - view->threshold)),
            view->best >= view->threshold ? "above" : "below", hlc_route_number(threshold, NATS, 2, view->threshold),
            view->familiar_quantile);
    if (view->fell_back) {
        fprintf(stream, "; fallback %s", fallback_name(view->fallback));
    }
    fputc('\n', stream);
}

/* QUANTILE, or COSINE where that ranks; nothing unless every adapter was kept. */
static void print_last_column(FILE *stream, const hlc_routing *r, uint32_t adapter) {
    char text[HLC_NUMBER_TEXT];
    if (r->explained) {
        const hl_fate_view fate = hlc_route_fate_of(r, adapter);
        const bool cosine = r->view.select == HL_SELECT_COSINE;
        fprintf(stream, " %8s", hlc_route_number(text, 8, 4, cosine ? fate.cosine : fate.position));
    }
}

static void print_route(FILE *stream, const hlc_routing *r) {
    if (r->view.count == 0) {
        fputs("the base model alone\n", stream);
        return;
    }
    fprintf(stream, "%-32s %10s %7s %10s%s\n", "ADAPTER", "ROCS", "WEIGHT", "SCORE",
            !r->explained                          ? ""
            : r->view.select == HL_SELECT_COSINE ? "   COSINE"
                                                   : " QUANTILE");
    for (uint32_t i = 0; i < r->view.count; i++) {
        const hl_route_item item = hlc_route_item_of(r, i);
        const hl_string name = hlc_route_name_of(r, item.adapter);
        char rocs[HLC_NUMBER_TEXT], score[HLC_NUMBER_TEXT];
        snprintf(rocs, sizeof rocs, "%u/%u", item.rocs, item.rank);
        hlc_cli_print_cell(stream, name.data, name.size, 32);
        fprintf(stream, " %10s %7.4f %10s", rocs, item.weight, hlc_route_number(score, 10, 5, item.score));
        print_last_column(stream, r, item.adapter);
        fputc('\n', stream);
    }
}

void hlc_route_print(FILE *stream, const hlc_routing *r) {
    const hl_route_view *view = &r->view;
    print_familiarity(stream, view);
    print_route(stream, r);
    fprintf(stream, "select %s, weights %s, gamma %g, gate %s\n", select_name(view->select), weights_name(view), view->gamma,
            gate_name(view->gate));
    fprintf(stream, "budget %llu components, digest ", (unsigned long long)view->budget);
    for (size_t i = 0; i < sizeof view->digest; i++) {
        fprintf(stream, "%02x", view->digest[i]);
    }
    fputc('\n', stream);
    if (r->explained) {
        hlc_route_print_left_out(stream, r);
    }
}

/* ---- For machines ---- */

static json_t *name_json(const hlc_routing *r, uint32_t adapter) {
    const hl_string name = hlc_route_name_of(r, adapter);
    return hlc_cli_string_json(name.data, name.size);
}

static json_t *route_list(const hlc_routing *r) {
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < r->view.count; i++) {
        const hl_route_item item = hlc_route_item_of(r, i);
        json_array_append_new(list, json_pack("{s:o, s:i, s:i, s:f, s:o, s:o}", "adapter", name_json(r, item.adapter), "rocs",
                                              (int)item.rocs, "rank", (int)item.rank, "weight", item.weight, "score",
                                              hlc_cli_real_json(item.score), "log_likelihood", hlc_cli_real_json(item.log_likelihood)));
    }
    return list;
}

static json_t *score_list(const hlc_routing *r) {
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < r->pool_view.adapters; i++) {
        json_array_append_new(
            list, json_pack("{s:o, s:o}", "adapter", name_json(r, i), "score", hlc_cli_real_json(hlc_route_fate_of(r, i).score)));
    }
    return list;
}

static json_t *parameters(const hl_route_view *view) {
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:s, s:I, s:s, s:I, s:s, s:I, s:s, s:s, s:b}", "select", select_name(view->select),
                     "k", (json_int_t)view->k, "p", view->p, "gamma", view->gamma, "temperature", view->temperature, "familiar",
                     view->familiar_quantile, "fallback", fallback_name(view->fallback), "wide_k", (json_int_t)view->wide_k, "weights",
                     weights_name(view), "max_adapters", (json_int_t)view->max_adapters, "allocate",
                     view->allocate == HL_ALLOCATE_MULTINOMIAL ? "multinomial" : "proportional", "seed", (json_int_t)view->seed, "gate",
                     gate_name(view->gate), "rows", rows_name(view->rows), "variance_norm", (int)view->variance_norm);
}

json_t *hlc_route_json(const hlc_route_settings *settings, const hlc_routing *r) {
    const hl_route_view *view = &r->view;
    json_t *document = json_pack("{s:o, s:b, s:b, s:b, s:o, s:o, s:I, s:o, s:I, s:o, s:o}", "route", route_list(r), "familiar", (int)view->familiar,
                                 "tested", (int)view->tested, "fell_back", (int)view->fell_back, "best", hlc_cli_real_json(view->best),
                                 "best_position", hlc_cli_real_json(view->best_position), "allowed", (json_int_t)view->allowed,
                                 "threshold", hlc_cli_real_json(view->threshold), "budget", (json_int_t)view->budget, "digest",
                                 hlc_cli_hex_json(view->digest, sizeof view->digest), "parameters", parameters(view));
    if (document && settings->all_scores) {
        json_object_set_new(document, "scores", score_list(r));
    }
    if (document && settings->explain) {
        json_object_set_new(document, "explain", hlc_route_explain_json(r));
    }
    return document;
}
