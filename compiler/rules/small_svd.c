#include "compiler/rules/small_svd.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8, MOST_SWEEPS = 60 };

double hlc_dot(const double *a, const double *b, size_t n) {
    double lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            lanes[lane] += a[i + lane] * b[i + lane];
        }
    }
    for (size_t lane = 0; i + lane < n; lane++) {
        lanes[lane] += a[i + lane] * b[i + lane];
    }
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

static void add_multiple(double *y, double factor, const double *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] += factor * x[i];
    }
}

static double largest_of(const double *x, size_t n) {
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        largest = fabs(x[i]) > largest ? fabs(x[i]) : largest;
    }
    return largest;
}

/* The triangle R of x^T = Q R for the rank rows of x, which are destroyed: r is k x rank row-major, k = min(rank, d),
 * with zeros below the diagonal. Row j of x is column j of what is factored. */
static void triangularise(double *x, size_t rank, size_t d, double *r) {
    const size_t k = rank < d ? rank : d;
    for (size_t j = 0; j < k; j++) {
        double *v = x + j * d + j;
        const size_t n = d - j;
        const double norm = sqrt(hlc_dot(v, v, n)), head = v[0];
        const double diagonal = head > 0 ? -norm : norm;
        v[0] -= diagonal;
        const double square = hlc_dot(v, v, n);
        for (size_t l = j + 1; l < rank && square > 0; l++) {
            double *other = x + l * d + j;
            add_multiple(other, -2 * hlc_dot(v, other, n) / square, v, n);
        }
        memset(r + j * rank, 0, j * sizeof *r);
        r[j * rank + j] = diagonal;
        for (size_t l = j + 1; l < rank; l++) {
            r[j * rank + l] = x[l * d + j];
        }
    }
}

/* Turns rows p and q of m, of n numbers, until they are orthogonal. True when they already were. */
static bool rotate(double *p, double *q, size_t n) {
    const double alpha = hlc_dot(p, p, n), beta = hlc_dot(q, q, n), gamma = hlc_dot(p, q, n);
    if (fabs(gamma) <= DBL_EPSILON * sqrt(alpha * beta)) {
        return true;
    }
    const double zeta = (beta - alpha) / (2 * gamma);
    const double t = (zeta >= 0 ? 1 : -1) / (fabs(zeta) + sqrt(1 + zeta * zeta));
    const double c = 1 / sqrt(1 + t * t), s = c * t;
    for (size_t i = 0; i < n; i++) {
        const double x = p[i];
        p[i] = c * x - s * q[i];
        q[i] = s * x + c * q[i];
    }
    return false;
}

static int compare_descending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* m: rows x n, destroyed; sv: rows of them, descending. */
static void jacobi(double *m, size_t rows, size_t n, double *sv) {
    bool orthogonal = false;
    for (int sweep = 0; sweep < MOST_SWEEPS && !orthogonal; sweep++) {
        orthogonal = true;
        for (size_t p = 0; p + 1 < rows; p++) {
            for (size_t q = p + 1; q < rows; q++) {
                orthogonal = rotate(m + p * n, m + q * n, n) && orthogonal;
            }
        }
    }
    for (size_t j = 0; j < rows; j++) {
        sv[j] = sqrt(hlc_dot(m + j * n, m + j * n, n));
    }
    qsort(sv, rows, sizeof *sv, compare_descending);
}

/* A copy of n numbers with largest magnitude 1; NULL when memory is out. */
static double *scaled_copy(const double *x, size_t n, double largest) {
    double *out = malloc((n + 1) * sizeof *out);
    for (size_t i = 0; out && i < n; i++) {
        out[i] = largest > 0 ? x[i] / largest : 0;
    }
    return out;
}

/* m = the product of the triangles, rows the smaller number, k_out x k_in or its transpose. */
static void multiply(const double *from_a, const double *from_b, size_t rank, size_t k_in, size_t k_out, double *m) {
    const bool turned = k_in < k_out;
    for (size_t i = 0; i < (turned ? k_in : k_out); i++) {
        for (size_t j = 0; j < (turned ? k_out : k_in); j++) {
            m[i * (turned ? k_out : k_in) + j] =
                hlc_dot((turned ? from_a : from_b) + i * rank, (turned ? from_b : from_a) + j * rank, rank);
        }
    }
}

bool hlc_singular_values(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale,
                         double *sv) {
    const size_t k_in = rank < d_in ? rank : d_in, k_out = rank < d_out ? rank : d_out;
    const size_t few = k_in < k_out ? k_in : k_out, many = k_in < k_out ? k_out : k_in;
    const double size_a = largest_of(a, rank * d_in), size_b = largest_of(bt, rank * d_out);
    double *own_a = scaled_copy(a, rank * d_in, size_a), *own_b = scaled_copy(bt, rank * d_out, size_b);
    double *small = malloc(3 * rank * rank * sizeof *small);
    bool good = own_a && own_b && small;
    if (good) {
        double *from_a = small, *from_b = from_a + rank * rank, *m = from_b + rank * rank;
        triangularise(own_a, rank, d_in, from_a);
        triangularise(own_b, rank, d_out, from_b);
        multiply(from_a, from_b, rank, k_in, k_out, m);
        jacobi(m, few, many, sv);
        for (size_t j = 0; j < few; j++) {
            sv[j] = fabs(scale) * (sv[j] * size_a) * size_b;
            good = good && isfinite(sv[j]);
        }
    }
    free(small);
    free(own_b);
    free(own_a);
    return good;
}
