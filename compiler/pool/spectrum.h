/* How the importance of an adapter's rank-one components is spread. Pure. */
#ifndef HILORA_COMPILER_SPECTRUM_H
#define HILORA_COMPILER_SPECTRUM_H

#include <stddef.h>

/* All NaN where an importance is NaN or infinite, and for an all-zero spectrum but for `energy`, which is 0. */
typedef struct hlc_spectrum {
    double energy;         /* sum of squares: |s B A|_F^2 where the components are those of the SVD */
    double stable_rank;    /* sum of squares over the largest square */
    double entropy;        /* of the values scaled to sum 1, in nats */
    double effective_rank; /* its exponential (Roy and Vetterli, EUSIPCO 2007) */
} hlc_spectrum;

/* importance: n values >= 0, in any order. */
hlc_spectrum hlc_spectrum_of(const float *importance, size_t n);
/* The share of the energy that the first k of n components carry; NaN where the energy is zero or not finite. */
double hlc_energy_share(const float *importance, size_t n, size_t k);

#endif
