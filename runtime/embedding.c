/* What happens to an embedding before it is scored. */
#include <math.h>
#include <string.h>

#include "format/bytes.h"
#include "format/diag.h"
#include "format/dtype.h"
#include "runtime/score.h"

static const double norm_tolerance = 1e-3;

static hl_status bad_element(const float *z, const void *src, hl_dtype dtype, size_t dim, size_t row, hl_diag *diag) {
    for (size_t i = 0; i < dim; i++) {
        if (!isfinite(z[i])) {
            double source;
            hlf_to_f64(&source, (const char *)src + i * hlf_dtype_size((hlf_dtype)dtype), (hlf_dtype)dtype, 1);
            return hlf_fail(diag, HL_ERR_INPUT, HL_NO_OFFSET, "embedding %zu: element %zu is %s", row, i,
                            isfinite(source) ? "too large for float32" : "NaN or infinity");
        }
    }
    return HL_OK;
}

/* z = C^-1 x, each sum in the order of the kernels (runtime/score_kernels.h), rounded to float32. */
static hl_status whiten(const hl_pool *pool, const double *x, size_t row, float *z, hl_diag *diag) {
    const uint8_t *matrix = hlf_index_section(&pool->index, HLF_SECTION_WHITEN);
    const size_t d = pool->index.pool.dim;
    for (size_t i = 0; i < d; i++) {
        double s[8] = {0};
        for (size_t j = 0; j < d; j++) {
            s[j % 8] += hlf_load_f64(matrix + (i * d + j) * sizeof(double)) * x[j];
        }
        z[i] = (float)(((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])));
        if (!isfinite(z[i])) {
            return hlf_fail(diag, HL_ERR_INPUT, HL_NO_OFFSET, "embedding %zu overflows when it is whitened", row);
        }
    }
    return HL_OK;
}

hl_status hlr_embedding_prepare(const hl_pool *pool, const void *src, hl_dtype dtype, size_t dim, size_t row, float *z,
                                double *scratch, hl_diag *diag) {
    const hlf_pool_record *record = &pool->index.pool;
    if (dim != record->dim) {
        return hlf_fail(diag, HL_ERR_INPUT, HL_NO_OFFSET, "embedding %zu has %zu elements; those of the pool have %u",
                        row, dim, record->dim);
    }
    memset(z, 0, record->stride * sizeof *z);
    hlf_to_f32(z, src, (hlf_dtype)dtype, dim);
    hl_status status = bad_element(z, src, dtype, dim, row, diag);
    if (status != HL_OK) {
        return status;
    }
    const double norm = sqrt(pool->kernels->center(scratch, z, NULL, record->stride));
    if (record->normalized == HL_NORMALIZED_YES && !(fabs(norm - 1) <= norm_tolerance)) {
        return hlf_fail(diag, HL_ERR_INPUT, HL_NO_OFFSET,
                        "embedding %zu has length %.6g; those of the pool are normalised to 1", row, norm);
    }
    if (record->whitening == 0) {
        return HL_OK;
    }
    status = hlr_pool_check_whiten(pool, diag);
    return status == HL_OK ? whiten(pool, scratch, row, z, diag) : status;
}
