#include "compiler/decompose/squeeze.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "compiler/decompose/core.h"
#include "compiler/decompose/magnitude.h"

enum { BLOCK = 512 };

/* |row - rounded row|^2 by 2^(-2 exponent), so that no square leaves float64; infinite where an entry leaves dtype. */
static double rounding_of(const double *row, size_t width, int exponent, hlf_dtype dtype) {
    float rounded[BLOCK]; /* room for either type */
    double back[BLOCK], sum = 0;
    for (size_t at = 0; at < width; at += BLOCK) {
        const size_t n = width - at < BLOCK ? width - at : BLOCK;
        hlf_convert(rounded, dtype, row + at, HLF_DTYPE_F64, n);
        hlf_to_f64(back, rounded, dtype, n);
        for (size_t i = 0; i < n; i++) {
            const double off = ldexp(row[at + i] - back[i], -exponent);
            sum += off * off;
        }
    }
    return sum;
}

bool hlc_rows_fit(const double *rows, size_t count, size_t width, hlf_dtype dtype) {
    for (size_t j = 0; j < count; j++) {
        const double *row = rows + j * width, norm = hlc_norm(row, width);
        int exponent = 0;
        const double size = frexp(norm, &exponent), allowed = ldexp(size, -11);
        if (norm > 0 && !(rounding_of(row, width, exponent, dtype) <= allowed * allowed)) {
            return false;
        }
    }
    return true;
}

static int exponent_of(const double *row, size_t width) {
    int exponent = 0;
    (void)frexp(hlc_largest(row, width), &exponent);
    return exponent;
}

/* Appends scale * factors to the rows of a and bt, a power of two moved between the two rows of each component so that
 * both are of one size: neither side is then lost beside the components that stand there already. */
static void append(const hlc_factors *factors, size_t d_in, size_t d_out, double scale, double *a, double *bt) {
    for (size_t j = 0; j < factors->rank; j++) {
        const double *from_a = factors->a + j * d_in, *from_b = factors->bt + j * d_out;
        const int lift = (exponent_of(from_b, d_out) - exponent_of(from_a, d_in)) / 2;
        for (size_t i = 0; i < d_in; i++) {
            a[j * d_in + i] = ldexp(from_a[i], lift);
        }
        for (size_t i = 0; i < d_out; i++) {
            bt[j * d_out + i] = scale * ldexp(from_b[i], -lift);
        }
    }
}

bool hlc_relative_error(const hlc_factors *whole, const hlc_factors *part, size_t d_in, size_t d_out, double *error) {
    const size_t rank = whole->rank + part->rank;
    double *a = malloc(rank * d_in * sizeof *a), *bt = malloc(rank * d_out * sizeof *bt);
    double size = 0, off = 0;
    bool ok = a && bt;
    if (ok) {
        append(whole, d_in, d_out, whole->scale, a, bt);
        append(part, d_in, d_out, -part->scale, a + whole->rank * d_in, bt + whole->rank * d_out);
        ok = hlc_core_product_norm(a, bt, whole->rank, d_in, d_out, &size) &&
             hlc_core_product_norm(a, bt, rank, d_in, d_out, &off);
    }
    free(a);
    free(bt);
    *error = off == 0 ? 0 : off / size;
    return ok;
}
