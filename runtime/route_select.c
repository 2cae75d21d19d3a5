/* Which adapters become candidates. */
#include <math.h>

#include "runtime/exp.h"
#include "runtime/route_row.h"

/* ---- ranking ---- */

static inline bool better(const hlr_ranked *a, const hlr_ranked *b) {
    return a->key > b->key || (a->key == b->key && a->adapter < b->adapter);
}

static inline void swap(hlr_ranked *a, hlr_ranked *b) {
    hlr_ranked t = *a;
    *a = *b;
    *b = t;
}

/* A heap with the worst on top. */
static void sift_down(hlr_ranked *heap, size_t n, size_t i) {
    for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && better(&heap[child], &heap[child + 1])) {
            child++;
        }
        if (!better(&heap[i], &heap[child])) {
            return;
        }
        swap(&heap[i], &heap[child]);
        i = child;
    }
}

void hlr_rank(hlr_ranked *list, size_t n, size_t k) {
    if (k > n) {
        k = n;
    }
    for (size_t i = k / 2; i-- > 0;) {
        sift_down(list, k, i);
    }
    for (size_t i = k; k && i < n; i++) {
        if (better(&list[i], &list[0])) {
            swap(&list[i], &list[0]);
            sift_down(list, k, 0);
        }
    }
    for (size_t end = k; end > 1; end--) {
        swap(&list[0], &list[end - 1]);
        sift_down(list, end - 1, 0);
    }
}

/* ---- the rules: how many of the best ---- */

static double score(const hlr_row *row, double density) {
    return density / (double)row->plan->pool->index.pool.dim;
}

static uint32_t count_at_least(const hlr_row *row, double threshold) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < row->allowed; i++) {
        count += row->ranked[i].key >= threshold;
    }
    return count;
}

static uint32_t wanted_by_paper(const hlr_row *row) {
    uint32_t positive = 0;
    for (uint32_t i = 0; i < row->allowed; i++) {
        positive += score(row, row->ranked[i].key) > 0;
    }
    if (positive) {
        return positive;
    }
    const double bound = ceil(fabs(score(row, row->best)));
    const uint32_t k = row->plan->k;
    return bound >= row->allowed ? row->allowed : (uint32_t)bound > k ? (uint32_t)bound : k;
}

/* The fewest best whose mass reaches p; `ranked` is in order. */
static uint32_t wanted_by_nucleus(const hlr_row *row) {
    const double temperature = row->plan->temperature;
    double total = 0, mass = 0;
    for (uint32_t i = 0; i < row->allowed; i++) {
        total += hlr_exp((row->ranked[i].key - row->best) / temperature);
    }
    for (uint32_t i = 0; i < row->allowed; i++) {
        mass += hlr_exp((row->ranked[i].key - row->best) / temperature);
        if (mass >= row->plan->p * total) {
            return i + 1;
        }
    }
    return row->allowed;
}

static uint32_t wanted_by_rule(const hlr_row *row) {
    const hlr_plan *plan = row->plan;
    switch (plan->select) {
    case HL_SELECT_PAPER:
        return wanted_by_paper(row);
    case HL_SELECT_CALIBRATED:
        return row->tested && row->familiar ? count_at_least(row, plan->threshold) : plan->k;
    case HL_SELECT_NUCLEUS:
        return wanted_by_nucleus(row);
    case HL_SELECT_EXPLICIT:
        return row->allowed;
    default:
        return plan->k;
    }
}

/* ---- the step ---- */

static bool ranked_by_density(hl_select select) {
    return select != HL_SELECT_COSINE && select != HL_SELECT_EXPLICIT;
}

static void test_familiarity(hlr_row *row) {
    const hlr_plan *plan = row->plan;
    row->best = ranked_by_density(plan->select) ? -INFINITY : (double)NAN;
    for (uint32_t i = 0; ranked_by_density(plan->select) && i < row->allowed; i++) {
        row->best = row->ranked[i].key > row->best ? row->ranked[i].key : row->best;
    }
    row->tested =
        (plan->select == HL_SELECT_POSTERIOR || plan->select == HL_SELECT_CALIBRATED) && !isnan(plan->threshold);
    row->familiar = !row->tested || row->best >= plan->threshold;
    row->fell_back = !row->familiar && plan->fallback != HL_FALLBACK_NONE;
    row->wide = row->fell_back && plan->fallback == HL_FALLBACK_WIDE;
}

static void leave_out(hlr_row *row, size_t from, hl_fate fate) {
    for (size_t i = from; i < row->allowed; i++) {
        row->fates[row->ranked[i].adapter] = (uint8_t)fate;
    }
}

void hlr_row_select(hlr_row *row) {
    const hlr_plan *plan = row->plan;
    test_familiarity(row);
    const bool base = row->fell_back && plan->fallback == HL_FALLBACK_BASE;
    const bool whole_order = row->places || plan->select == HL_SELECT_NUCLEUS;
    if (whole_order) {
        hlr_rank(row->ranked, row->allowed, row->allowed);
    }
    row->wanted = base ? 0 : row->wide ? plan->wide_k : wanted_by_rule(row);
    row->wanted = row->wanted < row->allowed ? row->wanted : row->allowed;
    row->count = row->wanted < plan->max_adapters ? row->wanted : plan->max_adapters;
    if (!whole_order) {
        hlr_rank(row->ranked, row->allowed, row->count);
    }
    for (size_t i = 0; row->places && i < row->allowed; i++) {
        row->places[row->ranked[i].adapter] = (uint32_t)i;
    }
    for (size_t i = 0; i < row->count; i++) {
        const uint32_t adapter = row->ranked[i].adapter;
        hlf_adapter_record record;
        hlf_index_adapter(&plan->pool->index, adapter, &record);
        row->candidates[i] = (hlr_candidate){.adapter = adapter, .rank = record.rank, .density = row->density[adapter]};
    }
    leave_out(row, row->count, base ? HL_FATE_UNFAMILIAR : HL_FATE_NOT_SELECTED);
}
