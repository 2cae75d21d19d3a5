#include "compiler/decompose/core.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/decompose/magnitude.h"
#include "compiler/linalg.h"

/* Two factors whose largest entries lie within 2^-256 .. 2^256 are taken as they are: no product below leaves float64. */
enum { ORDINARY_EXPONENT = 256 };

/* One factor, x: rank rows of d, and its triangle. */
typedef struct factor {
    const double *x;
    size_t rank, d, k; /* k = min(rank, d) */
    int exponent;      /* even; x = 2^exponent x0 */
    double *triangle;  /* R of x0^T = Q R: k x rank, column-major */
} factor;

static int even_exponent(double largest) {
    int exponent = 0;
    (void)frexp(largest, &exponent);
    return exponent - exponent % 2;
}

static bool ordinary(const factor *side) {
    return abs(side->exponent) <= ORDINARY_EXPONENT;
}

/* out = x0, n numbers. */
static void load(const double *x, int exponent, size_t n, double *out) {
    if (exponent == 0) {
        memcpy(out, x, n * sizeof *out);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = ldexp(x[i], -exponent);
    }
}

static double frobenius(const factor *side) {
    return hlc_norm(side->triangle, side->k * side->rank);
}

/* Row-major rows are the columns of what LAPACK sees: x is its d x rank matrix. */
static bool triangularise(const factor *side, double *scratch) {
    load(side->x, side->exponent, side->rank * side->d, scratch);
    return hlc_qr_r(side->d, side->rank, scratch, side->triangle);
}

/* g^T x0[.., column] in one fixed order. */
static double entry(const factor *side, const double *g, size_t column) {
    double sum = 0;
    for (size_t l = 0; l < side->rank; l++) {
        sum += g[l] * ldexp(side->x[l * side->d + column], -side->exponent);
    }
    return sum;
}

/* Whether the largest entry of g^T x0 is negative, ties to the lower column. product: that row as BLAS made it, whose error
 * `bound` covers; entries that it can not tell apart are computed anew. */
static bool largest_is_negative(const factor *side, const double *g, const double *product, double bound) {
    const double least = hlc_largest(product, side->d) - 2 * bound;
    double largest = 0;
    bool negative = false;
    for (size_t column = 0; column < side->d; column++) {
        if (fabs(product[column]) >= least) {
            const double value = entry(side, g, column);
            if (fabs(value) > largest) {
                largest = fabs(value);
                negative = value < 0;
            }
        }
    }
    return negative;
}

bool hlc_core_rows(const double *x, int exponent, size_t rank, size_t d, const double *weights, size_t rows, double *out) {
    double *scaled = NULL;
    if (exponent != 0) {
        scaled = malloc((rank * d + 1) * sizeof *scaled);
        if (!scaled) {
            return false;
        }
        load(x, exponent, rank * d, scaled);
    }
    const bool ok = hlc_gemm(false, false, d, rows, rank, 1, scaled ? scaled : x, d, weights, rank, 0, out, d);
    free(scaled);
    return ok;
}

/* Turns components whose row of A' is negative at its largest entry. products: scratch, kept rows of d_in. */
static bool canonical_signs(const factor *in, hlc_core *core, double *products) {
    const size_t rank = core->rank, d = in->d;
    if (!hlc_core_rows(in->x, in->exponent, rank, d, core->to_a, core->kept, products)) {
        return false;
    }
    const double largest = ldexp(hlc_largest(in->x, rank * d), -in->exponent);
    for (size_t j = 0; j < core->kept; j++) {
        double *g = core->to_a + j * rank, *h = core->to_b + j * rank;
        const double bound = 4 * (double)rank * DBL_EPSILON * sqrt((double)rank) * hlc_norm(g, rank) * largest;
        if (largest_is_negative(in, g, products + j * d, bound)) {
            for (size_t l = 0; l < rank; l++) {
                g[l] = -g[l];
                h[l] = -h[l];
            }
        }
    }
    return true;
}

/* The SVD of R_B R_A^T, and how many of its values rise above the rounding. p: k_out x k, qt: k x k_in. */
static bool decompose_core(const factor *in, const factor *out, double *product, double *p, double *s, double *qt, size_t *kept) {
    const size_t k = in->k < out->k ? in->k : out->k;
    if (!hlc_gemm(false, true, out->k, in->k, in->rank, 1, out->triangle, out->k, in->triangle, in->k, 0, product, out->k) ||
        !hlc_svd(out->k, in->k, product, p, s, qt)) {
        return false;
    }
    const double threshold = 8 * (double)in->rank * DBL_EPSILON * frobenius(out) * frobenius(in);
    *kept = 0;
    while (*kept < k && s[*kept] > threshold) {
        (*kept)++;
    }
    return true;
}

static bool allocate(hlc_core *core, size_t rank, size_t kept) {
    core->storage = calloc(2 * kept * rank + kept + rank + 1, sizeof *core->storage);
    if (!core->storage) {
        return false;
    }
    core->rank = rank;
    core->kept = kept;
    core->to_a = core->storage;
    core->to_b = core->to_a + kept * rank;
    core->weight = core->to_b + kept * rank;
    core->sv = core->weight + kept;
    return true;
}

/* to_a = P^T R_B and to_b = Q^T R_A, row by row: column-major, their transposes. */
static bool project(const factor *in, const factor *out, const double *p, const double *s, const double *qt, double scale,
                    hlc_core *core) {
    const size_t rank = core->rank, kept = core->kept, k = in->k < out->k ? in->k : out->k;
    for (size_t j = 0; j < kept; j++) {
        core->weight[j] = sqrt(fabs(scale)) / sqrt(s[j]);
        core->sv[j] = ldexp(fabs(scale) * s[j], in->exponent + out->exponent);
    }
    core->exponent_a = in->exponent;
    core->exponent_b = out->exponent;
    return hlc_gemm(true, false, rank, kept, out->k, 1, out->triangle, out->k, p, out->k, 0, core->to_a, rank) &&
           hlc_gemm(true, true, rank, kept, in->k, 1, in->triangle, in->k, qt, k, 0, core->to_b, rank);
}

/* small: room for both triangles and the core's SVD; large: for the larger factor; products: for rank rows of d_in. */
static hlc_decompose_status solve(factor *in, factor *out, double scale, double *small, double *large, double *products,
                                  hlc_core *core) {
    const size_t rank = in->rank, k = in->k < out->k ? in->k : out->k;
    in->triangle = small;
    out->triangle = in->triangle + in->k * rank;
    double *product = out->triangle + out->k * rank, *p = product + out->k * in->k, *s = p + out->k * k, *qt = s + k;
    size_t kept = 0;
    if (!triangularise(in, large) || !triangularise(out, large) ||
        !decompose_core(in, out, product, p, s, qt, &kept)) {
        return HLC_DECOMPOSE_LAPACK;
    }
    if (!allocate(core, rank, scale == 0 ? 0 : kept)) {
        return HLC_DECOMPOSE_NO_MEMORY;
    }
    if (!project(in, out, p, s, qt, scale, core) || !canonical_signs(in, core, products)) {
        return HLC_DECOMPOSE_LAPACK;
    }
    return HLC_DECOMPOSE_OK;
}

hlc_decompose_status hlc_core_solve(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale,
                                    hlc_core *out) {
    *out = (hlc_core){0};
    if (!hlc_all_finite(a, rank * d_in) || !hlc_all_finite(bt, rank * d_out) || !isfinite(scale)) {
        return HLC_DECOMPOSE_NON_FINITE_INPUT;
    }
    factor in = {.x = a, .rank = rank, .d = d_in, .k = rank < d_in ? rank : d_in};
    factor from = {.x = bt, .rank = rank, .d = d_out, .k = rank < d_out ? rank : d_out};
    in.exponent = even_exponent(hlc_largest(a, rank * d_in));
    from.exponent = even_exponent(hlc_largest(bt, rank * d_out));
    if (ordinary(&in) && ordinary(&from)) {
        in.exponent = from.exponent = 0;
    }

    const size_t longer = d_in > d_out ? d_in : d_out;
    double *small = malloc((5 * rank * rank + rank + 1) * sizeof *small);
    double *large = malloc((rank * longer + 1) * sizeof *large);
    double *products = malloc((rank * d_in + 1) * sizeof *products);
    hlc_decompose_status status = HLC_DECOMPOSE_NO_MEMORY;
    if (small && large && products) {
        status = solve(&in, &from, scale, small, large, products, out);
    }
    free(small);
    free(large);
    free(products);
    if (status != HLC_DECOMPOSE_OK) {
        hlc_core_free(out);
    }
    return status;
}

void hlc_core_free(hlc_core *core) {
    free(core->storage);
    *core = (hlc_core){0};
}
