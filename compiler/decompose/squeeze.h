/* Components that are stored themselves, --energy and --max-rank: their element type, and what rounding and dropping
 * cost. */
#ifndef HILORA_COMPILER_SQUEEZE_H
#define HILORA_COMPILER_SQUEEZE_H

#include <stdbool.h>
#include <stddef.h>

#include "format/dtype.h"

/* The components of one module in float64: A (rank x d_in) and B transposed (rank x d_out), row-major, times scale. */
typedef struct hlc_factors {
    const double *a, *bt;
    size_t rank;
    double scale;
} hlc_factors;

/* Whether dtype (16 or 32 bits) keeps every row to 2^-11 of its length. float16 does when no entry is above 65504 and
 * none that matters is below its normal numbers, float32 for anything but rows shorter than some 10^-42. */
bool hlc_rows_fit(const double *rows, size_t count, size_t width, hlf_dtype dtype);

/* *error = |whole - part|_F / |whole|_F, 0 for a whole of zeros: from the triangles of the stacked factors, so that its
 * own error is some 2^-52 rank |s| |B|_F |A|_F / |s B A|_F. NaN when part is not finite. False when memory is out or
 * LAPACK fails. */
bool hlc_relative_error(const hlc_factors *whole, const hlc_factors *part, size_t d_in, size_t d_out, double *error);

#endif
