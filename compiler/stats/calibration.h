/* Leave-one-out log-likelihoods of an adapter's own samples, and quantiles. */
#ifndef HILORA_COMPILER_CALIBRATION_H
#define HILORA_COMPILER_CALIBRATION_H

#include "compiler/stats/gaussian.h"

/* Fills out for one adapter (m = 0 included); rho, floor and whitening are kept, mean, scatter and tau are those of the other
 * samples. False when memory is out or LAPACK fails; *out is then empty. */
bool hlc_calibrate(const hlc_scatter *scatter, const hlc_gaussian *gaussian, double floor, double log_det, hlc_calibration *out);

void hlc_sort(double *values, size_t n);
/* Of sorted values, n >= 1, level in [0, 1]: numpy's default, Hyndman and Fan's type 7. */
double hlc_quantile(const double *sorted, size_t n, double level);
/* values: n >= 1, sorted in place. */
double hlc_median(double *values, size_t n);

#endif
