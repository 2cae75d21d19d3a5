/* From (A, B, s) to rank-one components: the gauge of the thin SVD of s B A (docs/ROUTING.md, "Decomposition").
 *
 * With B = Q_B R_B, A^T = Q_A R_A and s R_B R_A^T = P S Q^T: G_A = s S^-1/2 P^T R_B, G_B = s R_A^T Q S^-1/2, so that
 * A' = G_A A and B' = B G_B have B' A' = s B A, and row j of A' and column j of B' carry singular value S_j evenly. */
#ifndef HILORA_COMPILER_DECOMPOSE_H
#define HILORA_COMPILER_DECOMPOSE_H

#include <stdbool.h>
#include <stddef.h>

typedef enum hlc_decomposition { HLC_DECOMPOSE_RAW = 0, HLC_DECOMPOSE_SVD = 1 } hlc_decomposition;

typedef enum hlc_decompose_status {
    HLC_DECOMPOSE_OK = 0,
    HLC_DECOMPOSE_NO_MEMORY,
    HLC_DECOMPOSE_NON_FINITE_INPUT, /* A, B or s holds NaN or infinity */
    HLC_DECOMPOSE_NON_FINITE_GAUGE, /* an entry of G overflows float32, or one of sv, A', B' float64; remedy: raw */
    HLC_DECOMPOSE_LAPACK            /* no convergence */
} hlc_decompose_status;

/* a: rank x d_in row-major; bt: rank x d_out row-major (B transposed, so a component is a row on both sides); scale s.
 * ga, gb: rank x rank row-major float32 out; A' = ga a, B'^T = gb^T bt. Rows of ga and columns of gb whose S_j is at or below
 * 8 rank eps64 |s| |R_B|_F |R_A|_F, or j >= min(rank, d_in, d_out), are zero. Signs: the entry of largest magnitude of each row of A' (float64) is
 * positive, ties to the lower column. sv: rank singular values of s B A, descending, zeros for the dropped. */
hlc_decompose_status hlc_gauge(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale, float *ga,
                               float *gb, double *sv);

/* Importance of raw components: out[j] = |s| |a_j| |b_j|. */
void hlc_raw_importance(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale, double *out);

/* The truncated factors: a_out (keep x d_in) and bt_out (keep x d_out), row-major float64, of the thin SVD of s B A: A' and B'^T, first `keep` rows
 * (keep <= rank; zero rows where the singular value is dropped as above). sv as above (all rank). */
hlc_decompose_status hlc_truncate(const double *a, const double *bt, size_t rank, size_t d_in, size_t d_out, double scale, size_t keep,
                                  double *a_out, double *bt_out, double *sv);
/* --energy: the smallest k >= 1 with sum_{j<k} sv_j^2 >= energy * total, at most max_rank (0: no bound). */
size_t hlc_squeezed_rank(const double *sv, size_t rank, double energy, size_t max_rank);

#endif
