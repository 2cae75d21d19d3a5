/* Leave-one-out log-likelihoods of an adapter's own samples. */
#ifndef HILORA_COMPILER_CALIBRATION_H
#define HILORA_COMPILER_CALIBRATION_H

#include "compiler/stats/gaussian.h"

/* Fills out for one adapter (m = 0 included); rho, floor and whitening are kept, mean, scatter and tau are those of the other
 * samples. False when memory is out or LAPACK fails; *out is then empty. */
bool hlc_calibrate(const hlc_scatter *scatter, const hlc_gaussian *gaussian, double floor, double log_det, hlc_calibration *out);

#endif
