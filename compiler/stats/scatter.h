/* The parts of a scatter that the rest of compiler/stats builds on. */
#ifndef HILORA_COMPILER_SCATTER_H
#define HILORA_COMPILER_SCATTER_H

#include "compiler/stats/gaussian.h"

/* mean: d; centred: m x d row-major, the samples minus their mean, to the rounding of their scatter. False when memory is out. */
bool hlc_center(const float *samples, size_t m, size_t d, double *mean, double *centred);

/* Fills oas and ledoit_wolf from m, d, q, w, sv and tau. */
void hlc_scatter_coefficients(hlc_scatter *scatter);

/* The Oracle Approximating Shrinkage as scikit-learn computes it, of a d x d covariance: the mean of its squared entries, of its
 * diagonal, and the number of samples. 0 for d = 1, 1 where there is nothing but the target. */
double hlc_oas(double mean_square, double mean_variance, double samples, size_t d);

/* y: m x q row-major, W diag(sv): the samples in the coordinates of the basis. */
void hlc_scatter_coordinates(const hlc_scatter *scatter, double *y);
/* deviation: d, sum_j W_kj sv_j u_j: sample k less the mean, rebuilt from what a pool stores. */
void hlc_scatter_deviation(const hlc_scatter *scatter, size_t k, double *deviation);

#endif
