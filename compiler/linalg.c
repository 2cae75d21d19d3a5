#include "compiler/linalg.h"

#include <cblas.h>
#include <lapacke.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* LAPACK is called with its 32-bit integers, in which it also counts its own workspace: up to 8 k^2 numbers for an SVD. */
static bool addressable(size_t dimension) {
    return dimension <= INT_MAX;
}

static bool svd_workspace_addressable(size_t k) {
    return k == 0 || k <= (size_t)INT_MAX / 8 / k;
}

static lapack_int at_least_one(size_t leading_dimension) {
    return leading_dimension > 0 ? (lapack_int)leading_dimension : 1;
}

void hlc_linalg_setup(void) {
    openblas_set_num_threads(1);
    LAPACKE_set_nancheck(0);
}

bool hlc_linalg_has_room(size_t threads) {
    enum { BUFFER = (128 << 20) + (1 << 16) };
    void **buffers = calloc(threads, sizeof *buffers);
    size_t count = 0;
    while (buffers && count < threads && (buffers[count] = malloc(BUFFER))) { /* never touched: no memory is used */
        count++;
    }
    const bool room = buffers && count == threads;
    while (count) {
        free(buffers[--count]);
    }
    free(buffers);
    return room;
}

bool hlc_qr_r(size_t m, size_t n, double *a, double *r) {
    const size_t k = m < n ? m : n;
    if (!addressable(m) || !addressable(n)) {
        return false;
    }
    if (k == 0) {
        return true;
    }
    double *tau = malloc(k * sizeof *tau);
    if (!tau) {
        return false;
    }
    const lapack_int info = LAPACKE_dgeqrf(LAPACK_COL_MAJOR, (lapack_int)m, (lapack_int)n, a, (lapack_int)m, tau);
    free(tau);
    if (info != 0) {
        return false;
    }
    for (size_t column = 0; column < n; column++) {
        const size_t filled = column + 1 < k ? column + 1 : k;
        memcpy(r + column * k, a + column * m, filled * sizeof *r);
        memset(r + column * k + filled, 0, (k - filled) * sizeof *r);
    }
    return true;
}

bool hlc_svd(size_t m, size_t n, double *a, double *u, double *s, double *vt) {
    const size_t k = m < n ? m : n;
    if (!addressable(m) || !addressable(n) || !svd_workspace_addressable(k)) {
        return false;
    }
    if (k == 0) {
        return true;
    }
    return LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', (lapack_int)m, (lapack_int)n, a, (lapack_int)m, s, u, (lapack_int)m, vt,
                          (lapack_int)k) == 0;
}

bool hlc_cholesky(size_t n, double *a) {
    if (!addressable(n)) {
        return false;
    }
    if (LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', (lapack_int)n, a, at_least_one(n)) != 0) {
        return false;
    }
    for (size_t column = 0; column < n; column++) {
        memset(a + column * n + column + 1, 0, (n - column - 1) * sizeof *a);
    }
    return true;
}

bool hlc_invert_upper(size_t n, double *a) {
    return addressable(n) &&
           LAPACKE_dtrtri(LAPACK_COL_MAJOR, 'U', 'N', (lapack_int)n, a, at_least_one(n)) == 0;
}

bool hlc_gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda,
              const double *b, size_t ldb, double beta, double *c, size_t ldc) {
    if (!addressable(m) || !addressable(n) || !addressable(k) || !addressable(lda) || !addressable(ldb) ||
        !addressable(ldc)) {
        return false;
    }
    cblas_dgemm(CblasColMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
                (blasint)m, (blasint)n, (blasint)k, alpha, a, at_least_one(lda), b, at_least_one(ldb), beta, c,
                at_least_one(ldc));
    return true;
}
