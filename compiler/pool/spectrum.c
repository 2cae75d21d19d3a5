#include "compiler/pool/spectrum.h"

#include <math.h>

static double energy_of(const float *importance, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)importance[i] * importance[i];
    }
    return sum;
}

/* log N - (sum of v log v) / N with N the sum of all v: the entropy of v / N without dividing each. */
static double entropy_of(const float *importance, size_t n) {
    double sum = 0, weighted = 0;
    for (size_t i = 0; i < n; i++) {
        const double v = importance[i];
        sum += v;
        weighted += v > 0 ? v * log(v) : 0;
    }
    return log(sum) - weighted / sum;
}

hlc_spectrum hlc_spectrum_of(const float *importance, size_t n) {
    hlc_spectrum out = {energy_of(importance, n), NAN, NAN, NAN};
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        largest = importance[i] > largest ? importance[i] : largest;
    }
    if (!isfinite(out.energy)) {
        out.energy = NAN;
    } else if (largest > 0) {
        out.stable_rank = out.energy / (largest * largest);
        out.entropy = fmax(0, entropy_of(importance, n)); /* rounding can leave it just below */
        out.effective_rank = exp(out.entropy);
    }
    return out;
}

double hlc_energy_share(const float *importance, size_t n, size_t k) {
    const double total = energy_of(importance, n);
    return total > 0 && isfinite(total) ? energy_of(importance, k < n ? k : n) / total : NAN;
}
