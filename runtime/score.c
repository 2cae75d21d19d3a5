#include "runtime/score.h"

#include <float.h>
#include <math.h>

#include "format/bytes.h"

enum { ROWS = 8 }; /* of a basis at a time */

hl_status hlr_gaussian_of(const hl_pool *pool, uint32_t adapter, hlr_gaussian *out, hl_diag *diag) {
    const hlf_index *index = &pool->index;
    hl_status status = hlr_pool_check_stats(pool, adapter, diag);
    if (status != HL_OK) {
        return status;
    }
    const size_t stride = index->pool.stride;
    const uint8_t *mean = hlf_index_section(index, HLF_SECTION_MEAN),
                  *basis = hlf_index_section(index, HLF_SECTION_BASIS);
    const uint8_t *singular = hlf_index_section(index, HLF_SECTION_SINGULAR);
    hlf_index_stats(index, adapter, &out->stats);
    const size_t first = (size_t)out->stats.first_row;
    /* Sections are page-aligned in bytes that are aligned to 64. No basis of the pool needs to have rows. */
    out->mean = (const float *)(const void *)mean + adapter * stride;
    out->basis = basis ? (const float *)(const void *)basis + first * stride : NULL;
    out->singular = singular ? singular + first * sizeof(double) : NULL;
    return HL_OK;
}

/* t_j, the shrunk variance along direction j. In this order no finite singular value gives NaN. */
static double variance(const hlf_stats_record *stats, double sv) {
    return ((1.0 - stats->rho) * sv) * (sv / (double)(stats->m - 1));
}

double hlr_log_density(const hl_pool *pool, const hlr_gaussian *gaussian, const float *z, double *scratch) {
    const hlf_stats_record *stats = &gaussian->stats;
    const size_t stride = pool->index.pool.stride, q = stats->q;
    const double total = pool->kernels->center(scratch, z, gaussian->mean, stride);
    double along = 0, captured = 0; /* sum p_j^2 / (lambda + t_j), sum p_j^2 */
    for (size_t j = 0; j < q; j += ROWS) {
        double p[ROWS];
        const size_t n = q - j < ROWS ? q - j : ROWS;
        pool->kernels->project(p, scratch, gaussian->basis + j * stride, stride, n);
        for (size_t k = 0; k < n; k++) {
            const double square = p[k] * p[k], sv = hlf_load_f64(gaussian->singular + (j + k) * sizeof(double));
            along += square / (stats->lambda + variance(stats, sv));
            captured += square;
        }
    }
    const double rest = q < pool->index.pool.dim && total > captured ? total - captured : 0;
    const double value = stats->log_norm - 0.5 * (along + rest / stats->lambda);
    return value < -DBL_MAX ? -DBL_MAX : value;
}

double hlr_cosine(const hl_pool *pool, const hlr_gaussian *gaussian, const float *z, double *scratch) {
    const size_t stride = pool->index.pool.stride;
    const double mean = pool->kernels->center(scratch, gaussian->mean, NULL, stride);
    const double length = pool->kernels->center(scratch, z, NULL, stride);
    double dot;
    pool->kernels->project(&dot, scratch, gaussian->mean, stride, 1);
    return mean > 0 && length > 0 ? dot / (sqrt(length) * sqrt(mean)) : 0;
}
