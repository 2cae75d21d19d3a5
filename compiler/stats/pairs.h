/* The inner products between two adapters' scatters, for every pair: what the miss rates and the certificate are made of. */
#ifndef HILORA_COMPILER_PAIRS_H
#define HILORA_COMPILER_PAIRS_H

#include "compiler/stats/gaussian.h"

/* With step = mu_i - mu_j: */
typedef struct hlc_pair {
    size_t i, j;           /* i < j */
    double distance2;      /* |step|^2 */
    const double *cross;   /* U_i^T U_j: entry (a, b) at cross[b * stride + a], a < q_i, b < q_j */
    size_t stride;
    const double *along_i; /* U_i^T step, q_i */
    const double *along_j; /* U_j^T step, q_j */
} hlc_pair;

/* Called from up to `threads` threads at once, never twice at once with the same worker < threads; the pair lives until it returns.
 * False stops everything. */
typedef bool (*hlc_pair_visit)(void *context, size_t worker, const hlc_pair *pair);

/* visit for each pair i < j of adapters with m > 0. The numbers do not depend on the thread count, the order of the visits does.
 * False when memory is out or a visit returned false. O(count^2 q^2 d). */
bool hlc_pairs(const hlc_scatter *scatters, size_t count, size_t d, size_t threads, hlc_pair_visit visit, void *context);

#endif
