/* How many ROCs each candidate gets. */
#include "runtime/route_row.h"

enum { WHOLE = 256 };

/* SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* Uniform in [0, bound): the lowest 2^64 mod bound outputs are drawn again, so that no remainder is favoured. */
static uint64_t random_below(uint64_t *state, uint64_t bound) {
    const uint64_t excess = (0 - bound) % bound;
    uint64_t value;
    do {
        value = next_random(state);
    } while (value < excess);
    return value % bound;
}

/* What a candidate draws by: its parts, or 1 when all that remain have none. */
static uint64_t stake(const hlr_candidate *candidate, bool all_zero) {
    return all_zero ? 1 : candidate->parts;
}

static void deal_proportional(hlr_row *row, uint64_t budget, uint64_t stakes, bool all_zero) {
    uint64_t dealt = 0;
    size_t n = 0;
    for (size_t i = 0; i < row->count; i++) {
        hlr_candidate *c = &row->candidates[i];
        if (!c->capped) {
            const uint64_t scaled = budget * stake(c, all_zero);
            c->rocs = scaled / stakes;
            dealt += c->rocs;
            row->ranked[n++] = (hlr_ranked){(double)(scaled % stakes), c->adapter, (uint32_t)i}; /* below 2^38: exact */
        }
    }
    hlr_rank(row->ranked, n, (size_t)(budget - dealt));
    for (size_t i = 0; i < budget - dealt; i++) {
        row->candidates[row->ranked[i].place].rocs++;
    }
}

/* Each draw finds its candidate in one step: there are at most 256 stakes, or one per candidate. */
static void deal_multinomial(hlr_row *row, uint64_t budget, uint64_t stakes, bool all_zero, uint64_t *random) {
    uint32_t owners[WHOLE];
    size_t n = 0;
    for (size_t i = 0; i < row->count; i++) {
        hlr_candidate *c = &row->candidates[i];
        for (uint64_t s = c->capped ? 0 : stake(c, all_zero); s > 0; s--) {
            *(all_zero ? &row->ranked[n].place : &owners[n]) = (uint32_t)i;
            n++;
        }
        c->rocs = c->capped ? c->rocs : 0;
    }
    for (uint64_t drawn = 0; drawn < budget; drawn++) {
        const uint64_t at = random_below(random, stakes);
        row->candidates[all_zero ? row->ranked[at].place : owners[at]].rocs++;
    }
}

/* Fixes the candidates that got more than their rank; answers what is then left to deal, or the same when none did. */
static uint64_t cap(hlr_row *row, uint64_t budget) {
    for (size_t i = 0; i < row->count; i++) {
        hlr_candidate *c = &row->candidates[i];
        if (!c->capped && c->rocs > c->rank) {
            c->rocs = c->rank;
            c->capped = true;
            budget -= c->rank;
        }
    }
    return budget;
}

static void deal(hlr_row *row, uint64_t budget) {
    uint64_t random = row->plan->seed, left = budget, before;
    do {
        uint64_t stakes = 0, open = 0;
        for (size_t i = 0; i < row->count; i++) {
            stakes += row->candidates[i].capped ? 0 : row->candidates[i].parts;
            open += !row->candidates[i].capped;
        }
        if (open == 0) {
            return;
        }
        const bool all_zero = stakes == 0;
        if (row->plan->allocate == HL_ALLOCATE_MULTINOMIAL) {
            deal_multinomial(row, left, all_zero ? open : stakes, all_zero, &random);
        } else {
            deal_proportional(row, left, all_zero ? open : stakes, all_zero);
        }
        before = left;
        left = cap(row, left);
    } while (left != before);
}

void hlr_row_allocate(hlr_row *row) {
    uint64_t ranks = 0;
    for (size_t i = 0; i < row->count; i++) {
        ranks += row->candidates[i].rank;
    }
    row->budget = (uint64_t)(row->plan->gamma * (double)ranks + 0.5);
    row->budget = row->budget > row->count ? row->budget : row->count;
    deal(row, row->budget < ranks ? row->budget : ranks);
    size_t kept = 0;
    for (size_t i = 0; i < row->count; i++) {
        if (row->candidates[i].rocs) {
            row->candidates[kept++] = row->candidates[i];
        } else {
            row->fates[row->candidates[i].adapter] = HL_FATE_NO_ROC;
        }
    }
    const bool dropped = kept < row->count;
    row->count = kept;
    if (row->weights == HL_WEIGHTS_SUM) {
        for (size_t i = 0; i < kept; i++) {
            row->candidates[i].parts = WHOLE;
        }
    } else if (dropped) {
        hlr_rescale_parts(row->candidates, kept, row->ranked);
    }
}
