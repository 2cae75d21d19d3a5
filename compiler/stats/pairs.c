#include "compiler/stats/pairs.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/linalg.h"
#include "compiler/stats/lanes.h"
#include "compiler/stats/tasks.h"

/* Adapters go through one matrix product in blocks of about this many rows of their bases, fewer where rows are long. */
enum { BLOCK_ROWS = 512, BLOCK_BYTES = 32 << 20 };

/* Adapters [first, last). Its matrix holds, per adapter, the rows of the basis and then mu. U^T (mu_i - mu_j) as a difference of two
 * products is right to 1e-16 |mu|, which beside the scatter of float32 samples is at most 1e-8. */
typedef struct row_block {
    size_t first, last, rows;
} row_block;

typedef struct pair_pass {
    const hlc_scatter *scatters;
    size_t d;
    const size_t *row;       /* per adapter: its first row within its block */
    const row_block *block;
    double *const *along;    /* per adapter: U^T mu, q */
    hlc_pair_visit visit;
    void *context;
} pair_pass;

static size_t rows_of(const hlc_scatter *scatter) {
    return scatter->m > 0 ? scatter->q + 1 : 0;
}

static size_t cut_blocks(const hlc_scatter *scatters, size_t count, size_t d, row_block *blocks, size_t *row) {
    const size_t by_bytes = BLOCK_BYTES / sizeof(double) / d;
    const size_t most = by_bytes < BLOCK_ROWS ? by_bytes : BLOCK_ROWS;
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t rows = rows_of(&scatters[i]);
        if (used == 0 || (blocks[used - 1].rows > 0 && blocks[used - 1].rows + rows > most)) {
            blocks[used++] = (row_block){.first = i, .last = i};
        }
        row[i] = blocks[used - 1].rows;
        blocks[used - 1].rows += rows;
        blocks[used - 1].last = i + 1;
    }
    return used;
}

/* out: rows of d. */
static void load_block(const pair_pass *pass, const row_block *block, double *out) {
    for (size_t i = block->first; i < block->last; i++) {
        const hlc_scatter *scatter = &pass->scatters[i];
        const size_t size = scatter->q * scatter->d;
        for (size_t at = 0; at < size; at++) {
            *out++ = (double)scatter->basis[at];
        }
        for (size_t at = 0; at < scatter->d; at++) {
            *out++ = (double)scatter->mean[at];
        }
    }
}

/* products: rows(left) x rows(right), column-major with ld = rows(left); step: scratch for q_i + q_j numbers. */
static bool visit_pair(const pair_pass *pass, size_t worker, size_t i, size_t j, const double *products, size_t stride,
                       double *step) {
    const hlc_scatter *a = &pass->scatters[i], *b = &pass->scatters[j];
    const double *corner = products + pass->row[j] * stride + pass->row[i];
    double *along_i = step, *along_j = step + a->q;
    for (size_t r = 0; r < a->q; r++) {
        along_i[r] = pass->along[i][r] - corner[b->q * stride + r];
    }
    for (size_t r = 0; r < b->q; r++) {
        along_j[r] = corner[r * stride + a->q] - pass->along[j][r];
    }
    const hlc_pair pair = {.i = i,
                           .j = j,
                           .distance2 = hlc_distance2(a->mean, b->mean, pass->d),
                           .cross = corner,
                           .stride = stride,
                           .along_i = along_i,
                           .along_j = along_j};
    return pass->visit(pass->context, worker, &pair);
}

static bool visit_blocks(const pair_pass *pass, size_t worker, const row_block *left, const row_block *right, const double *products,
                         double *step) {
    for (size_t i = left->first; i < left->last; i++) {
        for (size_t j = left == right ? i + 1 : right->first; j < right->last; j++) {
            if (pass->scatters[i].m > 0 && pass->scatters[j].m > 0 &&
                !visit_pair(pass, worker, i, j, products, left->rows, step)) {
                return false;
            }
        }
    }
    return true;
}

/* The index-th pair of blocks left <= right, counted row by row of the triangle of right. */
static void block_pair(size_t index, size_t *left, size_t *right) {
    *right = 0;
    while (index > *right) {
        index -= *right + 1;
        (*right)++;
    }
    *left = index;
}

static bool multiply_blocks(void *context, size_t worker, size_t index) {
    const pair_pass *pass = context;
    size_t l, r;
    block_pair(index, &l, &r);
    const row_block *left = &pass->block[l], *right = &pass->block[r];
    const size_t d = pass->d;
    double *left_rows = malloc((left->rows * d + 1) * sizeof *left_rows);
    double *right_rows = l == r ? left_rows : malloc((right->rows * d + 1) * sizeof *right_rows);
    double *products = malloc((left->rows * right->rows + 1) * sizeof *products);
    double *step = malloc((left->rows + right->rows + 1) * sizeof *step);
    bool ok = left_rows && right_rows && products && step;
    if (ok) {
        load_block(pass, left, left_rows);
        if (l != r) {
            load_block(pass, right, right_rows);
        }
        ok = hlc_gemm(true, false, left->rows, right->rows, d, 1, left_rows, d, right_rows, d, 0, products, left->rows) &&
             visit_blocks(pass, worker, left, right, products, step);
    }
    if (l != r) {
        free(right_rows);
    }
    free(left_rows);
    free(products);
    free(step);
    return ok;
}

/* storage: room for all q. */
static void project_means(const hlc_scatter *scatters, size_t count, size_t d, double *storage, double **along) {
    for (size_t i = 0; i < count; i++) {
        along[i] = storage;
        for (size_t j = 0; j < scatters[i].q; j++) {
            *storage++ = hlc_dot_rows(scatters[i].basis + j * d, scatters[i].mean, d);
        }
    }
}

bool hlc_pairs(const hlc_scatter *scatters, size_t count, size_t d, size_t threads, hlc_pair_visit visit, void *context) {
    size_t directions = 0;
    for (size_t i = 0; i < count; i++) {
        directions += scatters[i].q;
    }
    size_t *row = malloc((count + 1) * sizeof *row);
    row_block *blocks = malloc((count + 1) * sizeof *blocks);
    double *storage = malloc((directions + 1) * sizeof *storage);
    double **along = malloc((count + 1) * sizeof *along);
    bool ok = row && blocks && storage && along;
    if (ok) {
        project_means(scatters, count, d, storage, along);
        const size_t used = cut_blocks(scatters, count, d, blocks, row);
        pair_pass pass = {.scatters = scatters,
                          .d = d,
                          .row = row,
                          .block = blocks,
                          .along = along,
                          .visit = visit,
                          .context = context};
        ok = hlc_tasks(threads, used * (used + 1) / 2, multiply_blocks, &pass);
    }
    free(row);
    free(blocks);
    free(storage);
    free(along);
    return ok;
}
