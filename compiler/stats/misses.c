#include "compiler/stats/misses.h"

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/stats/density.h"
#include "compiler/stats/lanes.h"
#include "compiler/stats/pairs.h"
#include "compiler/stats/tasks.h"
#include "compiler/stats/scatter.h"

/* One adapter in the tournament. */
typedef struct contender {
    double *y;             /* m x q: its samples in its own coordinates; NULL when it is not calibrated */
    double *square;        /* m: |x_k - mu|^2 */
    double *precision;     /* q: 1 / (lambda + t_j) */
    atomic_uint *beaten;   /* m: how many rivals score the sample higher than its own adapter does; 3 is as good as more */
} contender;

typedef struct tournament {
    const hlc_pool_stats *stats;
    contender *contenders;
    double **scratch; /* per worker */
    size_t most_q;
} tournament;

static bool enter(void *context, size_t worker, size_t index) {
    const tournament *all = context;
    const hlc_scatter *scatter = &all->stats->scatter[index];
    contender *own = &all->contenders[index];
    (void)worker;
    if (scatter->m == 0) {
        return true;
    }
    own->precision = malloc((scatter->q + 1) * sizeof *own->precision);
    if (!own->precision) {
        return false;
    }
    const hlc_gaussian *gaussian = &all->stats->gaussian[index];
    for (size_t j = 0; j < scatter->q; j++) {
        own->precision[j] = 1 / (gaussian->lambda + hlc_excess(scatter, gaussian, j));
    }
    if (!all->stats->calibration[index].calibrated) {
        return true;
    }
    double *deviation = malloc(scatter->d * sizeof *deviation);
    own->y = malloc(scatter->m * scatter->q * sizeof *own->y);
    own->square = malloc(scatter->m * sizeof *own->square);
    own->beaten = malloc(scatter->m * sizeof *own->beaten);
    const bool ok = deviation && own->y && own->square && own->beaten;
    if (ok) {
        hlc_scatter_coordinates(scatter, own->y);
        for (size_t k = 0; k < scatter->m; k++) {
            hlc_scatter_deviation(scatter, k, deviation);
            own->square[k] = hlc_norm2(deviation, scatter->d);
            atomic_init(&own->beaten[k], 0);
        }
    }
    free(deviation);
    return ok;
}

/* The samples of `owner` before the judgement of `rival`. cross: q_owner rows of q_rival; step = mu_owner - mu_rival times
 * sign; p: scratch, q_rival. */
static void challenge(const tournament *all, size_t owner, size_t rival, const double *cross, size_t stride, double sign,
                      const double *along_owner, const double *along_rival, double distance2, double *p) {
    const hlc_scatter *mine = &all->stats->scatter[owner], *theirs = &all->stats->scatter[rival];
    const hlc_gaussian *gaussian = &all->stats->gaussian[rival];
    const contender *own = &all->contenders[owner];
    const double *precision = all->contenders[rival].precision;
    for (size_t k = 0; k < mine->m; k++) {
        const double *y = own->y + k * mine->q;
        double along = 0, projected = 0, form = 0;
        for (size_t b = 0; b < theirs->q; b++) {
            p[b] = sign * along_rival[b];
        }
        for (size_t a = 0; a < mine->q; a++) {
            along += sign * y[a] * along_owner[a];
            for (size_t b = 0; b < theirs->q; b++) {
                p[b] += y[a] * cross[a * stride + b];
            }
        }
        for (size_t b = 0; b < theirs->q; b++) {
            projected += p[b] * p[b];
            form += p[b] * p[b] * precision[b];
        }
        form += hlc_residual(theirs, gaussian, distance2 + 2 * along + own->square[k], projected);
        const double score = gaussian->log_norm - 0.5 * form, held = all->stats->calibration[owner].values[k];
        if (score > held || (score == held && rival < owner)) {
            atomic_fetch_add_explicit(&own->beaten[k], 1, memory_order_relaxed);
        }
    }
}

/* Both ways: i's samples under j, and j's under i. The cross product is stored with i running fastest. */
static bool meet(void *context, size_t worker, const hlc_pair *pair) {
    const tournament *all = context;
    const size_t qi = all->stats->scatter[pair->i].q, qj = all->stats->scatter[pair->j].q;
    double *p = all->scratch[worker], *turned = p + all->most_q;
    if (all->contenders[pair->i].y) {
        for (size_t b = 0; b < qj; b++) {
            for (size_t a = 0; a < qi; a++) {
                turned[a * qj + b] = pair->cross[b * pair->stride + a];
            }
        }
        challenge(all, pair->i, pair->j, turned, qj, 1, pair->along_i, pair->along_j, pair->distance2, p);
    }
    if (all->contenders[pair->j].y) {
        challenge(all, pair->j, pair->i, pair->cross, pair->stride, -1, pair->along_j, pair->along_i, pair->distance2, p);
    }
    return true;
}

static void count_misses(const tournament *all, hlc_pool_stats *stats) {
    size_t samples = 0, first = 0, third = 0;
    for (size_t i = 0; i < stats->count; i++) {
        for (size_t k = 0; all->contenders[i].y && k < stats->scatter[i].m; k++) {
            const unsigned beaten = atomic_load(&all->contenders[i].beaten[k]);
            samples++;
            first += beaten >= 1;
            third += beaten >= 3;
        }
    }
    stats->miss_samples = samples;
    stats->miss_first = samples > 0 ? (double)first / (double)samples : NAN;
    stats->miss_third = samples > 0 ? (double)third / (double)samples : NAN;
}

static void dismiss(tournament *all, size_t threads) {
    for (size_t i = 0; all->contenders && i < all->stats->count; i++) {
        free(all->contenders[i].y);
        free(all->contenders[i].square);
        free(all->contenders[i].precision);
        free(all->contenders[i].beaten);
    }
    for (size_t i = 0; all->scratch && i < threads; i++) {
        free(all->scratch[i]);
    }
    free(all->contenders);
    free(all->scratch);
}

bool hlc_miss_rates(hlc_pool_stats *stats, size_t threads) {
    tournament all = {.stats = stats,
                      .contenders = calloc(stats->count + 1, sizeof *all.contenders),
                      .scratch = calloc(threads, sizeof *all.scratch)};
    for (size_t i = 0; i < stats->count; i++) {
        all.most_q = stats->scatter[i].q > all.most_q ? stats->scatter[i].q : all.most_q;
    }
    bool ok = all.contenders && all.scratch;
    for (size_t i = 0; ok && i < threads; i++) {
        all.scratch[i] = malloc((all.most_q + 1) * (all.most_q + 1) * sizeof **all.scratch);
        ok = all.scratch[i] != NULL;
    }
    ok = ok && hlc_tasks(threads, stats->count, enter, &all) &&
         (stats->calibrated == 0 || hlc_pairs(stats->scatter, stats->count, stats->d, threads, meet, &all));
    if (ok) {
        count_misses(&all, stats);
    }
    dismiss(&all, threads);
    return ok;
}
