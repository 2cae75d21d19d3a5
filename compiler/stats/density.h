/* What depends on rho. */
#ifndef HILORA_COMPILER_DENSITY_H
#define HILORA_COMPILER_DENSITY_H

#include "compiler/stats/gaussian.h"

/* The Gaussian of a scatter; log_det: log|det C| of the pool's whitening, 0 without. */
hlc_gaussian hlc_gaussian_of(const hlc_scatter *scatter, double rho, double floor, double log_det);

/* t_j, what direction j has beyond lambda; in the order of operations that scoring defines (docs/ROUTING.md, "Scoring"). */
static inline double hlc_excess(const hlc_scatter *scatter, const hlc_gaussian *gaussian, size_t j) {
    return (1 - gaussian->rho) * scatter->sv[j] * (scatter->sv[j] / (double)(scatter->m - 1));
}

/* The quadratic form beyond the basis: what |v|^2 has left after |p|^2, over lambda. */
double hlc_residual(const hlc_scatter *scatter, const hlc_gaussian *gaussian, double square, double projected);

#endif
