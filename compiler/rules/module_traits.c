#include "compiler/rules/module_traits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/rules/small_svd.h"
#include "format/checksum.h"

enum { GRID = 256 };

/* ---- The kurtosis of the entries ---- */

/* Row-major rank x min(d, GRID): evenly spaced columns of x, all of them where there are few. */
static double *thin_out(const double *x, size_t rank, size_t d, size_t *width) {
    *width = d < GRID ? d : GRID;
    double *out = malloc((rank * *width + 1) * sizeof *out);
    for (size_t j = 0; out && j < rank; j++) {
        for (size_t i = 0; i < *width; i++) {
            out[j * *width + i] = x[j * d + i * d / *width];
        }
    }
    return out;
}

/* E[(x - mean)^4] / E[(x - mean)^2]^2; x is scaled. NaN where all are equal. */
static double kurtosis_of(double *x, size_t n) {
    double largest = 0, sum = 0, second = 0, fourth = 0;
    for (size_t i = 0; i < n; i++) {
        largest = fabs(x[i]) > largest ? fabs(x[i]) : largest;
    }
    for (size_t i = 0; i < n; i++) {
        x[i] /= largest;
        sum += x[i];
    }
    const double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        const double square = (x[i] - mean) * (x[i] - mean);
        second += square;
        fourth += square * square;
    }
    return second > 0 ? fourth / second * ((double)n / second) : NAN;
}

/* False when memory is out. */
static bool find_kurtosis(const hlc_member_module *m, const double *a, const double *bt, double *kurtosis) {
    size_t width, height;
    double *some_a = thin_out(a, m->rank, m->d_in, &width), *some_b = thin_out(bt, m->rank, m->d_out, &height);
    double *entries = calloc(width * height, sizeof *entries);
    const bool good = some_a && some_b && entries;
    for (size_t j = 0; good && j < m->rank; j++) {
        for (size_t i = 0; i < height; i++) {
            const double factor = some_b[j * height + i];
            for (size_t l = 0; l < width; l++) {
                entries[i * width + l] += factor * some_a[j * width + l];
            }
        }
    }
    if (good) {
        *kurtosis = kurtosis_of(entries, width * height);
    }
    free(entries);
    free(some_b);
    free(some_a);
    return good;
}

/* ---- The sketch ----
 *
 * Columns of A fall into 32 buckets with random signs, rows of B likewise, by a hash of the module's name: the 32 x 32
 * matrix of the sums is linear in the update, and inner products of such matrices are those of the updates in
 * expectation (a count sketch on both sides, Charikar, Chen and Farach-Colton 2002). */

static uint64_t mix(uint64_t x) { /* splitmix64's finaliser */
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* out: rank x HLC_SKETCH_SIDE. */
static void fold(const double *x, size_t rank, size_t d, uint64_t seed, double *out) {
    enum { BLOCK = 512 };
    uint8_t bucket[BLOCK];
    double sign[BLOCK];
    memset(out, 0, rank * HLC_SKETCH_SIDE * sizeof *out);
    for (size_t first = 0; first < d; first += BLOCK) {
        const size_t width = d - first < BLOCK ? d - first : BLOCK;
        for (size_t i = 0; i < width; i++) {
            const uint64_t hash = mix(seed + first + i);
            bucket[i] = (uint8_t)(hash % HLC_SKETCH_SIDE);
            sign[i] = hash >> 63 ? 1 : -1;
        }
        for (size_t j = 0; j < rank; j++) {
            double *sums = out + j * HLC_SKETCH_SIDE;
            const double *row = x + j * d + first;
            for (size_t i = 0; i < width; i++) {
                sums[bucket[i]] += sign[i] * row[i];
            }
        }
    }
}

static bool add_sketch(hlc_traits *traits, const hlc_member_module *m, const double *a, const double *bt) {
    const uint64_t seed = hlf_checksum(m->name, m->name_length);
    double *folded = malloc(2 * (size_t)m->rank * HLC_SKETCH_SIDE * sizeof *folded);
    if (!folded) {
        return false;
    }
    double *folded_b = folded + (size_t)m->rank * HLC_SKETCH_SIDE;
    fold(a, m->rank, m->d_in, seed, folded);
    fold(bt, m->rank, m->d_out, mix(seed), folded_b);
    for (size_t j = 0; j < m->rank; j++) {
        for (size_t i = 0; i < HLC_SKETCH; i++) {
            traits->sketch[i] += m->scale * folded_b[j * HLC_SKETCH_SIDE + i / HLC_SKETCH_SIDE] *
                                 folded[j * HLC_SKETCH_SIDE + i % HLC_SKETCH_SIDE];
        }
    }
    free(folded);
    return true;
}

double hlc_sketch_cosine(const hlc_traits *a, const hlc_traits *b) {
    double product = 0;
    for (size_t i = 0; i < HLC_SKETCH; i++) {
        product += a->sketch[i] * b->sketch[i];
    }
    return product;
}

/* ---- The spectrum ---- */

static void add_features(hlc_traits *traits, const double *sv, size_t n, double kurtosis) {
    double energy = 0, entropy = 0;
    for (size_t j = 0; j < n; j++) {
        energy += (sv[j] / sv[0]) * (sv[j] / sv[0]);
    }
    for (size_t j = 0; j < n && sv[j] > 0; j++) {
        const double share = (sv[j] / sv[0]) * (sv[j] / sv[0]) / energy;
        entropy -= share > 0 ? share * log(share) : 0;
    }
    traits->modules++;
    traits->feature[HLC_FEATURE_TOP] += log(sv[0]);
    traits->feature[HLC_FEATURE_NORM] += log(sv[0]) + 0.5 * log(energy);
    traits->feature[HLC_FEATURE_CONCENTRATION] += 1 / energy;
    traits->feature[HLC_FEATURE_ENTROPY] += n > 1 ? entropy / log((double)n) : 0;
    traits->feature[HLC_FEATURE_KURTOSIS] += isfinite(kurtosis) ? log(kurtosis) : 0;
    traits->norm2 += sv[0] * sv[0] * energy;
}

bool hlc_module_traits_add(hlc_traits *traits, const hlc_member_module *module, const double *a, const double *bt) {
    const size_t least = module->d_in < module->d_out ? module->d_in : module->d_out;
    const size_t n = module->rank < least ? module->rank : least;
    double kurtosis = NAN, *sv = malloc(n * sizeof *sv);
    bool good = sv && hlc_singular_values(a, bt, module->rank, module->d_in, module->d_out, module->scale, sv);
    if (good && sv[0] > 0) {
        good = find_kurtosis(module, a, bt, &kurtosis) && add_sketch(traits, module, a, bt);
        if (good) {
            add_features(traits, sv, n, kurtosis);
        }
    }
    free(sv);
    return good && isfinite(traits->norm2);
}

void hlc_traits_finish(hlc_traits *traits) {
    for (size_t i = 0; i < HLC_FEATURES && traits->modules; i++) {
        traits->feature[i] /= (double)traits->modules;
    }
    double square = 0;
    for (size_t i = 0; i < HLC_SKETCH; i++) {
        square += traits->sketch[i] * traits->sketch[i];
    }
    for (size_t i = 0; i < HLC_SKETCH && square > 0; i++) {
        traits->sketch[i] /= sqrt(square);
    }
}

/* ---- Two updates ---- */

double hlc_update_product(const hlc_member_module *m, const double *a, const double *bt, const hlc_member_module *other,
                          const double *other_a, const double *other_bt) {
    double sum = 0;
    for (size_t i = 0; i < m->rank; i++) {
        for (size_t k = 0; k < other->rank; k++) {
            sum += hlc_dot(a + i * m->d_in, other_a + k * m->d_in, m->d_in) *
                   hlc_dot(bt + i * m->d_out, other_bt + k * m->d_out, m->d_out);
        }
    }
    return m->scale * other->scale * sum;
}
