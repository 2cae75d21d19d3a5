#include "compiler/stats/rivals.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/linalg.h"
#include "compiler/stats/density.h"
#include "compiler/stats/pairs.h"
#include "compiler/stats/tasks.h"

/* One adapter's part in every pair: half of its covariance, in the coordinates of its basis, without lambda. */
typedef struct half {
    double *root;   /* q: sqrt(t_j / 2) */
    double *square; /* q x q: diag(root) U^T U diag(root); U^T U is the identity but for its rounding to float32 */
    double log_det; /* log|Sigma| */
} half;

/* Per worker: the factorisation of a pair, and the nearest rivals it has met, per adapter. */
typedef struct scratch {
    double *factor; /* room for (q_i + q_j)^2 */
    double *along;  /* q_i + q_j */
    uint32_t *nearest;
    double *distance;
} scratch;

typedef struct search {
    const hlc_pool_stats *stats;
    size_t kept, most_q;
    half *halves;
    scratch *scratch;
    double *triangle; /* B_ij, i < j, at j (j - 1) / 2 + i; NULL beyond `most` */
} search;

/* factor: n x n, its upper triangle the matrix; becomes its Cholesky factor. */
static bool factorise(size_t n, double *factor, double *log_det) {
    if (!hlc_cholesky(n, factor)) {
        return false;
    }
    *log_det = 0;
    for (size_t j = 0; j < n; j++) {
        *log_det += 2 * log(factor[j * n + j]);
    }
    return true;
}

static bool prepare(void *context, size_t worker, size_t i) {
    const search *all = context;
    const hlc_scatter *scatter = &all->stats->scatter[i];
    const hlc_gaussian *gaussian = &all->stats->gaussian[i];
    half *own = &all->halves[i];
    const size_t q = scatter->q, d = scatter->d;
    double *factor = all->scratch[worker].factor;
    if (scatter->m == 0) {
        return true;
    }
    double *rows = malloc((q * d + 1) * sizeof *rows);
    own->root = malloc((q + 1) * sizeof *own->root);
    own->square = malloc((q * q + 1) * sizeof *own->square);
    bool ok = rows && own->root && own->square;
    for (size_t j = 0; ok && j < q; j++) {
        own->root[j] = sqrt(hlc_excess(scatter, gaussian, j) / 2);
        for (size_t at = j * d; at < (j + 1) * d; at++) {
            rows[at] = own->root[j] * (double)scatter->basis[at];
        }
    }
    ok = ok && hlc_gemm(true, false, q, q, d, 1, rows, d, rows, d, 0, own->square, q);
    for (size_t at = 0; ok && at < q * q; at++) {
        factor[at] = 2 * own->square[at] + (at % (q + 1) == 0 ? gaussian->lambda : 0);
    }
    ok = ok && factorise(q, factor, &own->log_det);
    own->log_det += (double)(d - q) * log(gaussian->lambda);
    free(rows);
    return ok;
}

/* lambda I + D^1/2 V^T V D^1/2 with V = [U_i U_j] and D = diag(t_i, t_j) / 2, upper triangle, and D^1/2 V^T (mu_i - mu_j). */
static void assemble(const half *a, size_t qa, const half *b, size_t qb, double lambda, const hlc_pair *pair, double *factor,
                     double *along) {
    const size_t n = qa + qb;
    for (size_t column = 0; column < qa; column++) {
        memcpy(factor + column * n, a->square + column * qa, qa * sizeof *factor);
        factor[column * (n + 1)] += lambda;
        along[column] = a->root[column] * pair->along_i[column];
    }
    for (size_t column = 0; column < qb; column++) {
        double *out = factor + (qa + column) * n;
        for (size_t row = 0; row < qa; row++) {
            out[row] = a->root[row] * pair->cross[column * pair->stride + row] * b->root[column];
        }
        memcpy(out + qa, b->square + column * qb, qb * sizeof *out);
        out[qa + column] += lambda;
        along[qa + column] = b->root[column] * pair->along_j[column];
    }
}

/* |F^-T x|^2 for the upper factor of F^T F; x is lost. */
static double inverse_form(size_t n, const double *factor, double *x) {
    double sum = 0;
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < j; i++) {
            x[j] -= factor[j * n + i] * x[i];
        }
        x[j] /= factor[j * n + j];
        sum += x[j] * x[j];
    }
    return sum;
}

/* A matrix without a factor belongs to two adapters of one direction whose t is 10^16 times lambda and more (no shrinkage,
 * scales far above the floor): float64 cannot tell them apart. Distance 0 claims nothing. */
static double bhattacharyya(const search *all, const hlc_pair *pair, scratch *own) {
    const hlc_gaussian *gaussian = all->stats->gaussian;
    const half *a = &all->halves[pair->i], *b = &all->halves[pair->j];
    const size_t qa = all->stats->scatter[pair->i].q, qb = all->stats->scatter[pair->j].q, n = qa + qb;
    const double lambda = 0.5 * (gaussian[pair->i].lambda + gaussian[pair->j].lambda);
    double log_det = 0;
    assemble(a, qa, b, qb, lambda, pair, own->factor, own->along);
    if (!factorise(n, own->factor, &log_det)) {
        return 0;
    }
    log_det += ((double)all->stats->d - (double)n) * log(lambda);
    const double form = fmax(0, (pair->distance2 - inverse_form(n, own->factor, own->along)) / lambda);
    return fmax(0, form / 8 + 0.5 * (log_det - 0.5 * (a->log_det + b->log_det)));
}

/* Into a list sorted by distance, then index. */
static void remember(uint32_t *nearest, double *distance, size_t kept, uint32_t rival, double b) {
    size_t at = kept;
    while (at > 0 && (nearest[at - 1] == HLC_NO_RIVAL || b < distance[at - 1] ||
                      (b == distance[at - 1] && rival < nearest[at - 1]))) {
        at--;
    }
    if (at == kept) {
        return;
    }
    memmove(nearest + at + 1, nearest + at, (kept - at - 1) * sizeof *nearest);
    memmove(distance + at + 1, distance + at, (kept - at - 1) * sizeof *distance);
    nearest[at] = rival;
    distance[at] = b;
}

static bool compare(void *context, size_t worker, const hlc_pair *pair) {
    const search *all = context;
    scratch *own = &all->scratch[worker];
    const size_t i = pair->i, j = pair->j, kept = all->kept;
    const double b = bhattacharyya(all, pair, own);
    remember(own->nearest + i * kept, own->distance + i * kept, kept, (uint32_t)j, b);
    remember(own->nearest + j * kept, own->distance + j * kept, kept, (uint32_t)i, b);
    if (all->triangle) {
        all->triangle[j * (j - 1) / 2 + i] = b;
    }
    return true;
}

static void merge_nearest(const search *all, size_t threads, hlc_rivals *out) {
    for (size_t worker = 0; worker < threads; worker++) {
        for (size_t at = 0; at < out->count * out->kept; at++) {
            const scratch *own = &all->scratch[worker];
            if (own->nearest[at] != HLC_NO_RIVAL) {
                const size_t first = at - at % out->kept;
                remember(out->nearest + first, out->distance + first, out->kept, own->nearest[at], own->distance[at]);
            }
        }
    }
}

static void add_up(const search *all, double *sum) {
    for (size_t i = 0; i < all->stats->count; i++) {
        sum[i] = all->triangle && all->stats->scatter[i].m > 0 ? 0 : NAN;
        for (size_t j = 0; all->triangle && j < all->stats->count; j++) {
            if (j != i && all->stats->scatter[j].m > 0) {
                sum[i] += exp(-all->triangle[j > i ? j * (j - 1) / 2 + i : i * (i - 1) / 2 + j]);
            }
        }
    }
}

static bool empty_lists(size_t n, uint32_t **nearest, double **distance) {
    *nearest = malloc((n + 1) * sizeof **nearest);
    *distance = malloc((n + 1) * sizeof **distance);
    for (size_t at = 0; *nearest && *distance && at < n; at++) {
        (*nearest)[at] = HLC_NO_RIVAL;
        (*distance)[at] = NAN;
    }
    return *nearest && *distance;
}

static bool open_search(search *all, size_t most, size_t threads) {
    const size_t count = all->stats->count;
    for (size_t i = 0; i < count; i++) {
        all->most_q = all->stats->scatter[i].q > all->most_q ? all->stats->scatter[i].q : all->most_q;
    }
    all->halves = calloc(count + 1, sizeof *all->halves);
    all->scratch = calloc(threads, sizeof *all->scratch);
    if (count <= most) {
        all->triangle = malloc((count * (count + 1) / 2 + 1) * sizeof *all->triangle);
    }
    bool ok = all->halves && all->scratch && (all->triangle || count > most);
    for (size_t i = 0; ok && i < threads; i++) {
        scratch *own = &all->scratch[i];
        own->factor = malloc((4 * all->most_q * all->most_q + 1) * sizeof *own->factor);
        own->along = malloc((2 * all->most_q + 1) * sizeof *own->along);
        ok = own->factor && own->along && empty_lists(count * all->kept, &own->nearest, &own->distance);
    }
    return ok;
}

static void close_search(search *all, size_t threads) {
    for (size_t i = 0; all->halves && i < all->stats->count; i++) {
        free(all->halves[i].root);
        free(all->halves[i].square);
    }
    for (size_t i = 0; all->scratch && i < threads; i++) {
        free(all->scratch[i].factor);
        free(all->scratch[i].along);
        free(all->scratch[i].nearest);
        free(all->scratch[i].distance);
    }
    free(all->halves);
    free(all->scratch);
    free(all->triangle);
}

bool hlc_rivals_find(const hlc_pool_stats *stats, size_t kept, size_t most, size_t threads, hlc_rivals *out) {
    const size_t count = stats->count;
    search all = {.stats = stats, .kept = kept};
    *out = (hlc_rivals){.count = count, .kept = kept, .sum = malloc((count + 1) * sizeof *out->sum)};
    const bool ok = out->sum && empty_lists(count * kept, &out->nearest, &out->distance) && open_search(&all, most, threads) &&
                    hlc_tasks(threads, count, prepare, &all) &&
                    hlc_pairs(stats->scatter, count, stats->d, threads, compare, &all);
    if (ok) {
        merge_nearest(&all, threads, out);
        add_up(&all, out->sum);
    }
    close_search(&all, threads);
    if (!ok) {
        hlc_rivals_free(out);
    }
    return ok;
}

void hlc_rivals_free(hlc_rivals *rivals) {
    free(rivals->sum);
    free(rivals->nearest);
    free(rivals->distance);
    *rivals = (hlc_rivals){0};
}

double hlc_certificate(double sum, size_t k) {
    return fmin(1, sum / (double)k);
}
