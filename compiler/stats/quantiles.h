/* Quantiles. Apart from what is fitted with LAPACK, so that programs which only read them do without it. */
#ifndef HILORA_COMPILER_QUANTILES_H
#define HILORA_COMPILER_QUANTILES_H

#include <stddef.h>

#include "compiler/stats/gaussian.h"

extern const double hlc_quantile_levels[HLC_QUANTILES];

void hlc_sort(double *values, size_t n);
/* Of sorted values, n >= 1, level in [0, 1]: numpy's default, Hyndman and Fan's type 7. */
double hlc_quantile(const double *sorted, size_t n, double level);
/* values: n >= 1, sorted in place. */
double hlc_median(double *values, size_t n);

#endif
