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

/* The views below cannot fail: the positions come from the route and the pool themselves. */
static hl_route_item item_at(const hlc_routing *r, uint32_t i) {
    hl_route_item item = {.struct_size = sizeof item};
    hl_status status = hl_route_item_at(r->route, i, &item);
    (void)status;
    return item;
}

static hl_string name_of(const hlc_routing *r, uint32_t adapter) {
    hl_adapter_view view = {.struct_size = sizeof view};
    hl_status status = hl_adapter_at(r->pool, adapter, &view);
    (void)status;
    return view.name;
}

static hl_fate_view fate_of(const hlc_routing *r, uint32_t adapter) {
    hl_fate_view view = {.struct_size = sizeof view};
    hl_status status = hl_route_fate_at(r->route, adapter, &view);
    (void)status;
    return view;
}

/* ---- For people ---- */

static void print_familiarity(FILE *stream, const hl_route_view *view) {
    if (!view->tested) {
        fputs("familiarity not tested", stream);
    } else if (view->allowed == 0) {
        fputs("no adapter that is allowed meets its condition\n", stream);
        return;
    } else {
        fprintf(stream, "%s: best log-likelihood %.2f nats, %.2f %s the threshold %.2f (quantile %g)",
                view->familiar ? "familiar" : "unfamiliar", view->best, fabs(view->best - view->threshold),
                view->best >= view->threshold ? "above" : "below", view->threshold, view->familiar_quantile);
    }
    if (view->fell_back) {
        fprintf(stream, "; fallback %s", fallback_name(view->fallback));
    }
    fputc('\n', stream);
}

static void print_route(FILE *stream, const hlc_routing *r) {
    if (r->view.count == 0) {
        fputs("the base model alone\n", stream);
        return;
    }
    fprintf(stream, "%-32s %10s %7s %10s\n", "ADAPTER", "ROCS", "WEIGHT", "SCORE");
    for (uint32_t i = 0; i < r->view.count; i++) {
        const hl_route_item item = item_at(r, i);
        const hl_string name = name_of(r, item.adapter);
        char rocs[32], score[32] = "-";
        snprintf(rocs, sizeof rocs, "%u/%u", item.rocs, item.rank);
        if (!isnan(item.score)) {
            snprintf(score, sizeof score, "%.5f", item.score);
        }
        hlc_cli_print_cell(stream, name.data, name.size, 32);
        fprintf(stream, " %10s %7.4f %10s\n", rocs, item.weight, score);
    }
}

static void print_fates(FILE *stream, const hlc_routing *r) {
    fprintf(stream, "\n%-32s %5s %10s %8s  %s\n", "ADAPTER", "PLACE", "SCORE", "POSITION", "");
    for (uint32_t i = 0; i < r->pool_view.adapters; i++) {
        const hl_fate_view fate = fate_of(r, i);
        const hl_string name = name_of(r, i);
        char place[16] = "-", score[32] = "-", position[32] = "-";
        if (fate.rank != HL_NONE) {
            snprintf(place, sizeof place, "%u", fate.rank + 1);
        }
        if (!isnan(fate.score)) {
            snprintf(score, sizeof score, "%.5f", fate.score);
        }
        if (!isnan(fate.position)) {
            snprintf(position, sizeof position, "%.1f %%", 100 * fate.position);
        }
        hlc_cli_print_cell(stream, name.data, name.size, 32);
        fprintf(stream, " %5s %10s %8s  %s\n", place, score, position, hlc_fate_name(fate.fate));
    }
    fputs("POSITION: where the log-likelihood lies among the adapter's own left-out samples, up to their median (50 %).\n", stream);
}

void hlc_route_print(FILE *stream, const hlc_route_settings *settings, const hlc_routing *r) {
    const hl_route_view *view = &r->view;
    print_familiarity(stream, view);
    print_route(stream, r);
    fprintf(stream, "select %s, weights %s, gamma %g: budget %llu components; gate %s; digest ", select_name(view->select),
            weights_name(view), view->gamma, (unsigned long long)view->budget, gate_name(view->gate));
    for (size_t i = 0; i < sizeof view->digest; i++) {
        fprintf(stream, "%02x", view->digest[i]);
    }
    fputc('\n', stream);
    if (settings->explain || settings->all_scores) {
        print_fates(stream, r);
    }
}

/* ---- For machines ---- */

static json_t *name_json(const hlc_routing *r, uint32_t adapter) {
    const hl_string name = name_of(r, adapter);
    return hlc_cli_string_json(name.data, name.size);
}

static json_t *route_list(const hlc_routing *r) {
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < r->view.count; i++) {
        const hl_route_item item = item_at(r, i);
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
            list, json_pack("{s:o, s:o}", "adapter", name_json(r, i), "score", hlc_cli_real_json(fate_of(r, i).score)));
    }
    return list;
}

static json_t *explanation(const hlc_routing *r) {
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < r->pool_view.adapters; i++) {
        const hl_fate_view fate = fate_of(r, i);
        json_array_append_new(
            list, json_pack("{s:o, s:s, s:o, s:o, s:o, s:o}", "adapter", name_json(r, i), "fate", hlc_fate_name(fate.fate), "place",
                            fate.rank == HL_NONE ? json_null() : json_integer(fate.rank + 1), "score", hlc_cli_real_json(fate.score),
                            "log_likelihood", hlc_cli_real_json(fate.log_likelihood), "position", hlc_cli_real_json(fate.position)));
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
    json_t *document = json_pack("{s:o, s:b, s:b, s:b, s:o, s:o, s:I, s:o, s:o}", "route", route_list(r), "familiar", (int)view->familiar,
                                 "tested", (int)view->tested, "fell_back", (int)view->fell_back, "best", hlc_cli_real_json(view->best),
                                 "threshold", hlc_cli_real_json(view->threshold), "budget", (json_int_t)view->budget, "digest",
                                 hlc_cli_hex_json(view->digest, sizeof view->digest), "parameters", parameters(view));
    if (document && settings->all_scores) {
        json_object_set_new(document, "scores", score_list(r));
    }
    if (document && settings->explain) {
        json_object_set_new(document, "explain", explanation(r));
    }
    return document;
}
