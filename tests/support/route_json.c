#include "tests/support/route_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

void hlt_put_number(FILE *out, double value) {
    if (isnan(value)) {
        fputs("NaN", out);
    } else if (isinf(value)) {
        fputs(value < 0 ? "-Infinity" : "Infinity", out);
    } else {
        fprintf(out, "%.17g", value);
    }
}

/* Of a route made with keep_all: fate, place or -1, log-likelihood, position, threshold and cosine of every adapter. */
static void put_fates(FILE *out, const hl_route *route) {
    hl_fate_view fate = {.struct_size = sizeof fate};
    if (hl_route_fate_at(route, 0, &fate) != HL_OK) {
        return;
    }
    fputs(", \"fates\": [", out);
    for (uint32_t i = 0; hl_route_fate_at(route, i, &fate) == HL_OK; i++) {
        const double numbers[] = {fate.log_likelihood, fate.position, fate.threshold, fate.cosine};
        fprintf(out, "%s[%d, %" PRId64, i ? ", " : "", (int)fate.fate, fate.rank == HL_NONE ? -1 : (int64_t)fate.rank);
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
            fputs(", ", out);
            hlt_put_number(out, numbers[k]);
        }
        fputs("]", out);
    }
    fputs("]", out);
}

void hlt_put_route(FILE *out, const hl_route *route) {
    hl_route_view view = {.struct_size = sizeof view};
    if (hl_route_info(route, &view) != HL_OK) {
        abort();
    }
    fprintf(out, ", \"familiar\": %s, \"budget\": %" PRIu64 ", \"wanted\": %" PRIu32 ", \"digest\": \"",
            view.familiar ? "true" : "false", view.budget, view.wanted);
    for (int i = 0; i < 16; i++) {
        fprintf(out, "%02x", view.digest[i]);
    }
    fputs("\", \"threshold\": ", out);
    hlt_put_number(out, view.threshold);
    fprintf(out, ", \"allowed\": %" PRIu32 ", \"best\": ", view.allowed);
    hlt_put_number(out, view.best);
    fputs(", \"best_position\": ", out);
    hlt_put_number(out, view.best_position);
    fputs(", \"route\": [", out);
    for (uint32_t i = 0; i < view.count; i++) {
        hl_route_item item = {.struct_size = sizeof item};
        if (hl_route_item_at(route, i, &item) != HL_OK) {
            abort();
        }
        fprintf(out,
                "%s{\"adapter\": %" PRIu32 ", \"rocs\": %" PRIu32 ", \"weight_256\": %" PRIu32 ", \"log_likelihood\": ",
                i ? ", " : "", item.adapter, item.rocs, item.weight_256);
        hlt_put_number(out, item.log_likelihood);
        fputs("}", out);
    }
    fputs("]", out);
    put_fates(out, route);
}
