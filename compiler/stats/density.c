#include "compiler/stats/density.h"

#include <math.h>

#include "compiler/stats/lanes.h"

static const double log_two_pi = 1.8378770664093453;

hlc_gaussian hlc_gaussian_of(const hlc_scatter *scatter, double rho, double floor, double log_det) {
    hlc_gaussian gaussian = {.rho = rho, .lambda = fmax(rho * scatter->tau, floor)};
    double sum = (double)scatter->d * log_two_pi + (double)(scatter->d - scatter->q) * log(gaussian.lambda);
    for (size_t j = 0; j < scatter->q; j++) {
        sum += log(gaussian.lambda + hlc_excess(scatter, &gaussian, j));
    }
    gaussian.log_norm = -0.5 * sum - log_det;
    return gaussian;
}

double hlc_residual(const hlc_scatter *scatter, const hlc_gaussian *gaussian, double square, double projected) {
    if (scatter->q == scatter->d || !(square > projected)) {
        return 0;
    }
    return (square - projected) / gaussian->lambda;
}

double hlc_log_density(const hlc_scatter *scatter, const hlc_gaussian *gaussian, const float *z) {
    double form = 0, projected = 0;
    for (size_t j = 0; j < scatter->q; j++) {
        const double p = hlc_projection(scatter->basis + j * scatter->d, z, scatter->mean, scatter->d);
        projected += p * p;
        form += p * p / (gaussian->lambda + hlc_excess(scatter, gaussian, j));
    }
    form += hlc_residual(scatter, gaussian, hlc_distance2(z, scatter->mean, scatter->d), projected);
    return gaussian->log_norm - 0.5 * form;
}
