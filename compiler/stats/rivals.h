/* How well the adapters of a pool can be told apart: Bhattacharyya distances between their Gaussians, and the certificate that
 * follows from them (docs/ROUTING.md). */
#ifndef HILORA_COMPILER_RIVALS_H
#define HILORA_COMPILER_RIVALS_H

#include "compiler/stats/gaussian.h"

enum { HLC_CERTIFIED_ADAPTERS = 4000 }; /* up to so many the sums are made by default: 64 MB, and O(count^2) time anyway */
#define HLC_NO_RIVAL UINT32_MAX

typedef struct hlc_rivals {
    size_t count, kept;
    double *sum;       /* count: sum over j != i of exp(-B_ij), in the order of j; NaN without samples, or all beyond `most` */
    uint32_t *nearest; /* count x kept: rivals by ascending B_ij, ties to the lower index; HLC_NO_RIVAL past the last */
    double *distance;  /* count x kept: their B_ij in nats, >= 0, 0 where float64 cannot tell; NaN past the last */
} hlc_rivals;

/* Adapters without samples have no rivals and are none. More than `most` adapters: no sums. threads never changes a result. False when
 * memory is out or LAPACK fails; *out is then empty. O(count^2 (q^2 d + q^3)). */
bool hlc_rivals_find(const hlc_pool_stats *stats, size_t kept, size_t most, size_t threads, hlc_rivals *out);
void hlc_rivals_free(hlc_rivals *rivals);

/* For inputs drawn from Gaussian i: at most this is the chance that i is not among the k best scores. */
double hlc_certificate(double sum, size_t k);

#endif
