/* How strongly each candidate counts. */
#include <math.h>

#include "runtime/exp.h"
#include "runtime/route_row.h"

enum { WHOLE = 256 };

/* shares = softmax of value / divisor over the list, summed in its order. value: the density over `unit`. */
static void softmax(hlr_candidate *list, size_t n, double unit, double divisor) {
    double top = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        list[i].share = list[i].density / unit;
        top = list[i].share > top ? list[i].share : top;
    }
    for (size_t i = 0; i < n; i++) {
        list[i].share = hlr_exp((list[i].share - top) / divisor);
    }
    hlr_scale_shares(list, n);
}

void hlr_scale_shares(hlr_candidate *list, size_t n) {
    double sum = 0, unit = 1;
    for (size_t i = 0; i < n; i++) {
        sum += list[i].share;
    }
    if (isinf(sum)) { /* only named weights can be so large */
        unit = 0x1p-64;
        sum = 0;
        for (size_t i = 0; i < n; i++) {
            sum += list[i].share * unit;
        }
    }
    for (size_t i = 0; i < n; i++) {
        list[i].share = list[i].share * unit / sum;
    }
}

void hlr_order_named(hlr_candidate *list, size_t n, hlr_ranked *scratch) {
    for (size_t i = 0; i < n; i++) {
        scratch[i] = (hlr_ranked){list[i].share, list[i].adapter, 0};
    }
    hlr_rank(scratch, n, n);
    for (size_t i = 0; i < n; i++) {
        list[i].adapter = scratch[i].adapter;
        list[i].share = scratch[i].key;
    }
}

/* Hands the parts that rounding down has left to the largest remainders (scratch's keys; places in the list). */
static void deal_remainders(hlr_candidate *list, size_t n, uint32_t left, hlr_ranked *scratch) {
    hlr_rank(scratch, n, left);
    for (size_t i = 0; left > 0; i = (i + 1) % n, left--) {
        list[scratch[i].place].parts++;
    }
}

void hlr_round_shares(hlr_candidate *list, size_t n, hlr_ranked *scratch) {
    uint32_t dealt = 0;
    for (size_t i = 0; i < n; i++) {
        const double exact = list[i].share * WHOLE;
        list[i].parts = (uint32_t)exact;
        dealt += list[i].parts;
        scratch[i] = (hlr_ranked){exact - (double)list[i].parts, list[i].adapter, (uint32_t)i};
    }
    deal_remainders(list, n, dealt < WHOLE ? WHOLE - dealt : 0, scratch);
}

void hlr_rescale_parts(hlr_candidate *list, size_t n, hlr_ranked *scratch) {
    uint32_t sum = 0, dealt = 0;
    for (size_t i = 0; i < n; i++) {
        sum += list[i].parts;
    }
    for (size_t i = 0; i < n; i++) {
        const uint32_t scaled = list[i].parts * WHOLE;
        list[i].parts = scaled / sum;
        dealt += list[i].parts;
        scratch[i] = (hlr_ranked){scaled % sum, list[i].adapter, (uint32_t)i};
    }
    deal_remainders(list, n, WHOLE - dealt, scratch);
}

static hl_weights implied_weights(const hlr_row *row) {
    switch (row->plan->select) {
    case HL_SELECT_PAPER:
        return HL_WEIGHTS_SUM;
    case HL_SELECT_COSINE:
        return HL_WEIGHTS_MEAN;
    case HL_SELECT_EXPLICIT:
        return HL_WEIGHTS_DEFAULT;
    default:
        return row->wide ? HL_WEIGHTS_DEFAULT : HL_WEIGHTS_POSTERIOR;
    }
}

/* The caller's weights where adapters are named, else softmax of the scores. */
static void share_by_default(hlr_row *row) {
    const hlr_plan *plan = row->plan;
    if (plan->select != HL_SELECT_EXPLICIT) {
        softmax(row->candidates, row->count, (double)plan->pool->index.pool.dim, 1);
        return;
    }
    for (size_t i = 0; i < row->count; i++) {
        row->candidates[i].share = plan->named_weights[row->candidates[i].adapter];
    }
    hlr_scale_shares(row->candidates, row->count);
}

void hlr_row_weigh(hlr_row *row) {
    row->weights = row->plan->weights ? row->plan->weights : implied_weights(row);
    if (row->count == 0) {
        return;
    }
    switch (row->weights) {
    case HL_WEIGHTS_POSTERIOR:
        softmax(row->candidates, row->count, 1, row->plan->temperature);
        break;
    case HL_WEIGHTS_MEAN:
        for (size_t i = 0; i < row->count; i++) {
            row->candidates[i].share = 1.0 / (double)row->count;
        }
        break;
    default:
        share_by_default(row);
        break;
    }
    hlr_round_shares(row->candidates, row->count, row->ranked);
    size_t kept = 0;
    for (size_t i = 0; i < row->count; i++) {
        if (row->candidates[i].parts || row->weights == HL_WEIGHTS_SUM) {
            row->candidates[kept++] = row->candidates[i];
        } else {
            row->fates[row->candidates[i].adapter] = HL_FATE_NO_WEIGHT;
        }
    }
    row->count = kept;
}
