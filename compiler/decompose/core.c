#include "compiler/decompose/core.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/decompose/magnitude.h"
#include "compiler/linalg.h"

/* Factors are read in blocks of this many columns, which stay in the cache with all that is made of them: 1,024 were as quick as any for
 * LAPACK's geqrf at ranks 8 to 64 (quicker than one call over the whole, geqrt, or a tree of smaller blocks). A Gram matrix in
 * place of QR would be twice as quick and lose half of the digits: dependent rows would not come out as zero. */
enum { BLOCK = 1024 };

/* Two factors whose largest entries lie within 2^-256 .. 2^256 are taken as they are: no product below leaves float64. */
enum { ORDINARY_EXPONENT = 256 };

/* One factor, x: rank rows of d, and its triangle. */
typedef struct factor {
    const double *x;
    size_t rank, d, k; /* k = min(rank, d) */
    int exponent;      /* even; x = 2^exponent x0 */
    double largest;    /* entry of x, later of x0 */
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

static size_t block_width(size_t d, size_t first) {
    return d - first < BLOCK ? d - first : BLOCK;
}

/* Block after block under the triangle so far. Row-major rows are the columns of what LAPACK sees. buffer: (rank + BLOCK) x rank. */
static bool triangularise(factor *side, double *buffer) {
    const size_t rank = side->rank;
    size_t have = 0;
    for (size_t first = 0; first < side->d; first += BLOCK) {
        const size_t width = block_width(side->d, first), rows = have + width;
        for (size_t l = 0; l < rank; l++) {
            memcpy(buffer + l * rows, side->triangle + l * have, have * sizeof *buffer);
            load(side->x + l * side->d + first, side->exponent, width, buffer + l * rows + have);
        }
        if (!hlc_qr_r(rows, rank, buffer, side->triangle)) {
            return false;
        }
        have = rows < rank ? rows : rank;
    }
    return true;
}

/* The largest entry of one row of weights x0 so far. */
typedef struct peak {
    double bound; /* of BLAS's error in an entry */
    double size;
    bool negative;
} peak;

/* g^T x0[.., column] in one fixed order. */
static double entry(const factor *side, const double *g, size_t column) {
    double sum = 0;
    for (size_t l = 0; l < side->rank; l++) {
        sum += g[l] * ldexp(side->x[l * side->d + column], -side->exponent);
    }
    return sum;
}

/* Moves the peak to the largest entry of g^T x0 in columns first .. first + width, ties to the lower column. product: these entries as BLAS
 * made them; those that its error leaves in question are computed anew. */
static void raise_peak(const factor *side, const double *g, const double *product, size_t first, size_t width, peak *top) {
    const double least = fmax(hlc_largest(product, width), top->size) - 2 * top->bound;
    for (size_t i = 0; i < width; i++) {
        if (fabs(product[i]) >= least) {
            const double value = entry(side, g, first + i);
            if (fabs(value) > top->size) {
                top->size = fabs(value);
                top->negative = value < 0;
            }
        }
    }
}

bool hlc_core_rows(const double *x, size_t stride, int exponent, size_t rank, size_t d, const double *weights, size_t rows,
                   double *out) {
    double *scaled = NULL;
    if (exponent != 0) {
        scaled = malloc((rank * d + 1) * sizeof *scaled);
        if (!scaled) {
            return false;
        }
        for (size_t l = 0; l < rank; l++) {
            load(x + l * stride, exponent, d, scaled + l * d);
        }
    }
    const bool ok = hlc_gemm(false, false, d, rows, rank, 1, scaled ? scaled : x, scaled ? d : stride, weights, rank, 0, out, d);
    free(scaled);
    return ok;
}

/* Turns components whose row of A' is negative at its largest entry. tops: kept; buffer: kept rows of BLOCK. */
static bool canonical_signs(const factor *in, hlc_core *core, peak *tops, double *buffer) {
    const size_t rank = core->rank;
    for (size_t j = 0; j < core->kept; j++) {
        const double norms = hlc_norm(core->to_a + j * rank, rank) * sqrt((double)rank) * in->largest;
        tops[j] = (peak){.bound = 4 * (double)rank * DBL_EPSILON * norms};
    }
    for (size_t first = 0; first < in->d; first += BLOCK) {
        const size_t width = block_width(in->d, first);
        if (!hlc_core_rows(in->x + first, in->d, in->exponent, rank, width, core->to_a, core->kept, buffer)) {
            return false;
        }
        for (size_t j = 0; j < core->kept; j++) {
            raise_peak(in, core->to_a + j * rank, buffer + j * width, first, width, &tops[j]);
        }
    }
    for (size_t at = 0; at < core->kept * rank; at++) {
        if (tops[at / rank].negative) {
            core->to_a[at] = -core->to_a[at];
            core->to_b[at] = -core->to_b[at];
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

/* small: room for both triangles and the core's SVD; buffer: (rank + BLOCK) x rank. */
static hlc_decompose_status solve(factor *in, factor *out, double scale, double *small, double *buffer, peak *tops,
                                  hlc_core *core) {
    const size_t rank = in->rank, k = in->k < out->k ? in->k : out->k;
    in->triangle = small;
    out->triangle = in->triangle + in->k * rank;
    double *product = out->triangle + out->k * rank, *p = product + out->k * in->k, *s = p + out->k * k, *qt = s + k;
    size_t kept = 0;
    if (!triangularise(in, buffer) || !triangularise(out, buffer) || !decompose_core(in, out, product, p, s, qt, &kept)) {
        return HLC_DECOMPOSE_LAPACK;
    }
    if (!allocate(core, rank, scale == 0 ? 0 : kept)) {
        return HLC_DECOMPOSE_NO_MEMORY;
    }
    if (!project(in, out, p, s, qt, scale, core) || !canonical_signs(in, core, tops, buffer)) {
        return HLC_DECOMPOSE_LAPACK;
    }
    return HLC_DECOMPOSE_OK;
}

static bool survey(factor *side) {
    side->k = side->rank < side->d ? side->rank : side->d;
    if (!hlc_finite_largest(side->x, side->rank * side->d, &side->largest)) {
        return false;
    }
    side->exponent = even_exponent(side->largest);
    return true;
}

hlc_decompose_status hlc_core_solve(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale,
                                    hlc_core *out) {
    *out = (hlc_core){0};
    factor in = {.x = a, .rank = rank, .d = d_in}, from = {.x = bt, .rank = rank, .d = d_out};
    if (!survey(&in) || !survey(&from) || !isfinite(scale)) {
        return HLC_DECOMPOSE_NON_FINITE_INPUT;
    }
    if (ordinary(&in) && ordinary(&from)) {
        in.exponent = from.exponent = 0;
    }
    in.largest = ldexp(in.largest, -in.exponent);

    double *small = malloc((5 * rank * rank + rank + 1) * sizeof *small);
    double *buffer = malloc((rank + BLOCK) * (rank + 1) * sizeof *buffer);
    peak *tops = malloc((rank + 1) * sizeof *tops);
    hlc_decompose_status status = HLC_DECOMPOSE_NO_MEMORY;
    if (small && buffer && tops) {
        status = solve(&in, &from, scale, small, buffer, tops, out);
    }
    free(small);
    free(buffer);
    free(tops);
    if (status != HLC_DECOMPOSE_OK) {
        hlc_core_free(out);
    }
    return status;
}

bool hlc_core_product_norm(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double *norm) {
    factor in = {.x = a, .rank = rank, .d = d_in}, out = {.x = bt, .rank = rank, .d = d_out};
    *norm = NAN;
    if (!survey(&in) || !survey(&out)) {
        return true;
    }
    double *small = malloc(3 * rank * rank * sizeof *small);
    double *buffer = malloc((rank + BLOCK) * rank * sizeof *buffer);
    bool ok = small && buffer;
    if (ok) {
        in.triangle = small;
        out.triangle = in.triangle + in.k * rank;
        double *product = out.triangle + out.k * rank;
        ok = triangularise(&in, buffer) && triangularise(&out, buffer) &&
             hlc_gemm(false, true, out.k, in.k, rank, 1, out.triangle, out.k, in.triangle, in.k, 0, product, out.k);
        *norm = ok ? ldexp(hlc_norm(product, out.k * in.k), in.exponent + out.exponent) : NAN;
    }
    free(small);
    free(buffer);
    return ok;
}

void hlc_core_free(hlc_core *core) {
    free(core->storage);
    *core = (hlc_core){0};
}
