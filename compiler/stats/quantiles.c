#include "compiler/stats/quantiles.h"

#include <stdlib.h>

const double hlc_quantile_levels[HLC_QUANTILES] = {0, 0.01, 0.02, 0.05, 0.10, 0.25, 0.50};

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void hlc_sort(double *values, size_t n) {
    qsort(values, n, sizeof *values, ascending);
}

double hlc_quantile(const double *sorted, size_t n, double level) {
    const double position = level * (double)(n - 1);
    const size_t below = (size_t)position;
    if (below + 1 >= n) {
        return sorted[n - 1];
    }
    const double t = position - (double)below, step = sorted[below + 1] - sorted[below];
    return t < 0.5 ? sorted[below] + step * t : sorted[below + 1] - step * (1 - t);
}

double hlc_median(double *values, size_t n) {
    hlc_sort(values, n);
    return hlc_quantile(values, n, 0.5);
}
