/* hl_session_apply: y += the routed update (docs/ROUTING.md, "Token level").
 *
 * The tokens of a call are sorted by route and taken in blocks, on any thread. A block's tokens of one route are a run.
 * First every run finds its terms, the adapters of its route that change the module. Then the scores u of all tokens,
 * one adapter at a time, whatever route wants it, so that rows are read once per block. Then the choice of components,
 * and last y, in strips of columns. Nothing that a token gets depends on its company: kernels see to that for sums, the
 * order of terms for the rest. */
#include <math.h>
#include <string.h>

#include "format/bytes.h"
#include "format/diag.h"
#include "runtime/memory.h"
#include "runtime/session.h"
#include "runtime/sort.h"

enum {
    BLOCK_TOKENS = 512,                  /* that share a pass over the rows of B, where routes are alike */
    SCORED_TOKENS = 64,                  /* of them, that share a pass over the rows of A */
    LEAST_BLOCK_TOKENS = 16,             /* when threads share the tokens of a call */
    BLOCK_SCORES = 1 << 20,              /* fewer tokens when routes are so wide that their scores would take more */
    X_FLOATS = SCORED_TOKENS * HLR_SPAN, /* of x at a time */
    DIRECT_COLUMNS = 2048,               /* of y at a time */
    PACKED_COLUMNS = 64,                 /* of a strip of rows that is copied together, as float32, for a run */
    PACKED_ROWS = 1024,                  /* at most */
    PACKED_RUN = 4                       /* tokens that make the copy worth while */
};

/* What a run does with one adapter. */
typedef struct term {
    const hlr_rows *rows;
    uint32_t use;    /* of the session: terms with one use share rows */
    uint32_t first;  /* where its scores begin among the token's, and its rows among the run's */
    uint32_t chosen; /* where its active components begin among the token's */
    uint32_t count;  /* o_l */
    float scale;     /* s_l c_i n_i */
} term;

/* Tokens of one route that stand together in the block. */
typedef struct run {
    const hlr_prepared_route *route;
    uint32_t first, tokens;
    uint32_t first_term, terms;
    uint32_t rows, chosen; /* of all terms: rows, each term's rounded up to HLR_ROW_UNIT; active components */
    bool packed;           /* strips of the rows are copied together */
} run;

struct hlr_apply_scratch {
    uint32_t block_tokens; /* that there is room for */
    size_t score_stride;   /* scores per token */
    size_t max_terms;      /* of a block */
    run *runs;
    term *terms;
    uint64_t *pairs;    /* (use, term), to be sorted */
    float **scores_of;  /* for the tokens of one use: where their scores go */
    const float **x_of; /* and their part of x */
    float *x;           /* X_FLOATS: some columns of all tokens */
    float *scores;      /* block_tokens x score_stride: u, then the weights of the active components */
    uint32_t *active;   /* block_tokens x score_stride: rows of the run */
    float *packed;      /* PACKED_ROWS x PACKED_COLUMNS */
    uint32_t runs_used, terms_used;
};

/* One hl_session_apply. */
typedef struct call {
    hl_session *session;
    uint32_t module;
    uint64_t d_in, d_out;
    const uint8_t *x;
    uint8_t *y;
    size_t x_bytes, y_bytes; /* from one token to the next */
    hlf_dtype dtype;
    const uint32_t *route_of_token; /* NULL: all route 0 */
    const uint32_t *order;          /* tokens by route */
    size_t tokens;                  /* in `order` */
    size_t block_tokens;
} call;

/* ---- scratch ---- */

static void release_scratch(const hl_allocator *allocator, hlr_apply_scratch *s) {
    hlr_release(allocator, s->runs);
    hlr_release(allocator, s->terms);
    hlr_release(allocator, s->pairs);
    hlr_release(allocator, s->scores_of);
    hlr_release(allocator, s->x_of);
    hlr_release(allocator, s->x);
    hlr_release(allocator, s->scores);
    hlr_release(allocator, s->active);
    hlr_release(allocator, s->packed);
    *s = (hlr_apply_scratch){.runs = NULL};
}

/* Room for blocks of the prepared routes. */
static bool reserve_scratch(const hl_allocator *allocator, const hlr_prepared *prepared, uint32_t max_tokens,
                            hlr_apply_scratch *s) {
    const uint64_t stride = prepared->max_rank_sum ? prepared->max_rank_sum : HLR_ROW_UNIT;
    const uint64_t affordable = BLOCK_SCORES / stride ? BLOCK_SCORES / stride : 1;
    uint32_t tokens = affordable < BLOCK_TOKENS ? (uint32_t)affordable : BLOCK_TOKENS;
    tokens = tokens < max_tokens ? tokens : max_tokens;
    const size_t terms = (size_t)tokens * prepared->max_items;
    if (s->runs && s->block_tokens == tokens && s->score_stride >= stride && s->max_terms >= terms) {
        return true;
    }
    release_scratch(allocator, s);
    s->block_tokens = tokens;
    s->score_stride = (size_t)stride;
    s->max_terms = terms;
    s->runs = hlr_allocate(allocator, tokens, sizeof *s->runs);
    s->terms = hlr_allocate(allocator, terms, sizeof *s->terms);
    s->pairs = hlr_allocate(allocator, terms, sizeof *s->pairs);
    s->scores_of = hlr_allocate(allocator, SCORED_TOKENS, sizeof *s->scores_of);
    s->x_of = hlr_allocate(allocator, SCORED_TOKENS, sizeof *s->x_of);
    s->x = hlr_allocate(allocator, X_FLOATS, sizeof *s->x);
    s->scores = hlr_allocate(allocator, tokens * (size_t)stride, sizeof *s->scores);
    s->active = hlr_allocate(allocator, tokens * (size_t)stride, sizeof *s->active);
    s->packed = hlr_allocate(allocator, (size_t)PACKED_ROWS * PACKED_COLUMNS, sizeof *s->packed);
    if (s->runs && s->terms && s->pairs && s->scores_of && s->x_of && s->x && s->scores && s->active && s->packed) {
        return true;
    }
    release_scratch(allocator, s);
    return false;
}

bool hlr_apply_reserve(hl_session *session) {
    const hl_allocator *allocator = &session->pool->allocator;
    const uint32_t threads = hlr_workers_count(session->workers), routes = session->prepared.route_count;
    if (!session->scratch) {
        session->scratch = hlr_allocate(allocator, threads, sizeof *session->scratch);
        if (!session->scratch) {
            return false;
        }
        memset(session->scratch, 0, threads * sizeof *session->scratch);
    }
    if (!session->order) {
        session->order = hlr_allocate(allocator, session->max_tokens, sizeof *session->order);
    }
    if (!session->route_start || session->route_capacity < routes) {
        hlr_release(allocator, session->route_start);
        session->route_start = hlr_allocate(allocator, (size_t)routes + 1, sizeof *session->route_start);
        session->route_capacity = routes;
    }
    bool ok = session->order && session->route_start;
    for (uint32_t i = 0; ok && i < threads; i++) {
        ok = reserve_scratch(allocator, &session->prepared, session->max_tokens, &session->scratch[i]);
    }
    return ok;
}

void hlr_apply_release(hl_session *session) {
    const hl_allocator *allocator = &session->pool->allocator;
    for (uint32_t i = 0; session->scratch && i < hlr_workers_count(session->workers); i++) {
        release_scratch(allocator, &session->scratch[i]);
    }
    hlr_release(allocator, session->scratch);
    hlr_release(allocator, session->order);
    hlr_release(allocator, session->route_start);
}

/* ---- runs and terms ---- */

static uint32_t route_of(const call *c, uint32_t token) {
    return c->route_of_token ? c->route_of_token[token] : 0;
}

static float term_scale(const hlr_prepared_route *route, const hlr_item *item, const hlr_rows *rows, uint32_t count) {
    const double norm = route->variance_norm ? sqrt((double)rows->rank / count) : 1;
    return (float)(rows->scale * item->weight * norm);
}

/* The adapters of a route that change the module, in ascending order. */
static void find_terms(const call *c, hlr_apply_scratch *s, run *r) {
    const hlr_prepared *prepared = &c->session->prepared;
    r->first_term = s->terms_used;
    for (uint32_t i = 0; i < r->route->items; i++) {
        const hlr_item *item = &prepared->items[r->route->first_item + i];
        const hlr_use *use = hlr_prepared_use(prepared, c->module, item->group);
        if (!use) {
            continue;
        }
        const uint32_t count = hl_route_module_rocs(item->rocs, item->rank, use->rows->rank);
        s->terms[s->terms_used++] = (term){
            .rows = use->rows,
            .use = (uint32_t)(use - prepared->uses),
            .first = r->rows,
            .chosen = r->chosen,
            .count = count,
            .scale = term_scale(r->route, item, use->rows, count),
        };
        r->rows += (uint32_t)hlf_align_up(use->rows->rank, HLR_ROW_UNIT);
        r->chosen += count;
    }
    r->terms = s->terms_used - r->first_term;
    r->packed = r->tokens >= PACKED_RUN && r->rows <= PACKED_ROWS;
}

/* Rows of a term that may become active. */
static uint32_t rows_needed(const run *r, const term *t) {
    return r->route->gate == HL_GATE_STATIC ? t->count : t->rows->rank;
}

static void find_runs(const call *c, hlr_apply_scratch *s, const uint32_t *order, uint32_t tokens) {
    s->runs_used = s->terms_used = 0;
    for (uint32_t i = 0; i < tokens;) {
        const uint32_t route = route_of(c, order[i]);
        run *r = &s->runs[s->runs_used++];
        *r = (run){.route = &c->session->prepared.routes[route], .first = i};
        while (i < tokens && route_of(c, order[i]) == route) {
            i++;
        }
        r->tokens = i - r->first;
        find_terms(c, s, r);
    }
}

static size_t element_size(bool half) {
    return half ? sizeof(uint16_t) : sizeof(float);
}

static hlr_span columns_from(const hlr_matrix *matrix, bool half, size_t column) {
    return (hlr_span){(const uint8_t *)matrix->rows + column * element_size(half), matrix->stride, 0, half};
}

/* ---- scores ---- */

/* Some tokens of the block, first to last - 1, and some columns of x. */
typedef struct part {
    const uint32_t *order; /* of the block */
    uint32_t first, last;
    size_t at, columns;
} part;

/* The part's tokens of all runs whose terms share a use, against its rows; pairs holds these terms. */
static void score_use(const call *c, hlr_apply_scratch *s, const part *p, const uint64_t *pairs, size_t count) {
    const hlr_rows *rows = s->terms[pairs[0] & UINT32_MAX].rows;
    uint32_t tokens = 0, needed = 0, r = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t place = (uint32_t)(pairs[i] & UINT32_MAX);
        const term *t = &s->terms[place];
        while (place >= s->runs[r].first_term + s->runs[r].terms) {
            r++;
        }
        const run *own = &s->runs[r];
        const uint32_t end = own->first + own->tokens < p->last ? own->first + own->tokens : p->last;
        for (uint32_t k = own->first > p->first ? own->first : p->first; k < end; k++, tokens++) {
            s->scores_of[tokens] = s->scores + k * s->score_stride + t->first;
            s->x_of[tokens] = s->x + (k - p->first) * p->columns;
            needed = rows_needed(own, t) > needed ? rows_needed(own, t) : needed;
        }
    }
    const hlr_span span = columns_from(&rows->a, rows->half, p->at);
    c->session->kernels->dot(s->scores_of, s->x_of, tokens, &span, needed, p->columns);
}

/* The part's columns of its tokens as float32, with zeros behind the last of x. */
static void load_x(const call *c, const hlr_apply_scratch *s, const part *p) {
    const size_t there = c->d_in - p->at < p->columns ? (size_t)(c->d_in - p->at) : p->columns;
    const uint8_t *x = c->x + p->at * hlf_dtype_size(c->dtype);
    for (uint32_t k = p->first; k < p->last; k++) {
        float *to = s->x + (k - p->first) * p->columns;
        c->session->kernels->widen(to, x + p->order[k] * c->x_bytes, c->dtype, there);
        memset(to + there, 0, (p->columns - there) * sizeof *to);
    }
}

static void score_part(const call *c, hlr_apply_scratch *s, const part *p) {
    load_x(c, s, p);
    for (size_t i = 0, end; i < s->terms_used; i = end) {
        for (end = i + 1; end < s->terms_used && s->pairs[end] >> 32 == s->pairs[i] >> 32; end++) {
        }
        score_use(c, s, p, s->pairs + i, end - i);
    }
}

/* How many columns of x to take at a time, whole spans: all for one token, so that rows are read in one go; else so
 * many that what a tile of tokens shares stays in the first-level cache, and for many tokens the rows in the second. */
static size_t columns_at_once(uint32_t tokens) {
    const size_t spans = tokens == 1 ? X_FLOATS / HLR_SPAN : tokens <= 6 ? 12 / tokens : tokens <= 24 ? 2 : 1;
    return spans * HLR_SPAN;
}

static void score(const call *c, hlr_apply_scratch *s, const uint32_t *order, uint32_t tokens) {
    for (uint32_t i = 0; i < s->terms_used; i++) {
        s->pairs[i] = (uint64_t)s->terms[i].use << 32 | i;
    }
    hlr_sort(s->pairs, s->terms_used);
    memset(s->scores, 0, tokens * s->score_stride * sizeof *s->scores);
    const size_t width = (size_t)hlf_align_up(c->d_in, HLR_ROW_UNIT);
    for (uint32_t first = 0; first < tokens; first += SCORED_TOKENS) {
        const uint32_t last = tokens - first < SCORED_TOKENS ? tokens : first + SCORED_TOKENS;
        const size_t step = columns_at_once(last - first);
        for (size_t at = 0; at < width; at += step) {
            const part p = {order, first, last, at, width - at < step ? width - at : step};
            score_part(c, s, &p);
        }
    }
}

/* ---- the choice ---- */

/* From a token's scores of a term to the active components and their weights. Both are moved together term after term:
 * u and active are the token's. A weight never takes the place of a score that is still needed, as active rows ascend.
 */
static void choose(const run *r, const term *t, float *u, uint32_t *active) {
    const hlr_rows *rows = t->rows;
    const float *a_factor = rows->a.factor, *b_factor = rows->b.factor;
    float *score = u + t->first, *weight = u + t->chosen;
    uint32_t *chosen = active + t->chosen;
    for (uint32_t j = 0; a_factor && j < rows_needed(r, t); j++) {
        score[j] *= a_factor[j];
    }
    hl_gate_select(r->route->gate, score, rows->b_norm, rows->rank, t->count, chosen);
    for (uint32_t i = 0; i < t->count; i++) {
        const uint32_t j = chosen[i];
        const float scaled = t->scale * score[j];
        weight[i] = b_factor ? scaled * b_factor[j] : scaled;
        chosen[i] = t->first + j;
    }
}

static void choose_all(const hlr_apply_scratch *s) {
    for (const run *r = s->runs; r < s->runs + s->runs_used; r++) {
        for (const term *t = s->terms + r->first_term; t < s->terms + r->first_term + r->terms; t++) {
            for (uint32_t k = r->first; k < r->first + r->tokens; k++) {
                choose(r, t, s->scores + k * s->score_stride, s->active + k * s->score_stride);
            }
        }
    }
}

/* ---- y ---- */

static uint8_t *y_at(const call *c, uint32_t token, size_t column) {
    return c->y + token * c->y_bytes + column * hlf_dtype_size(c->dtype);
}

/* n columns of y for a token, from the rows where they are. */
static void add_direct(const call *c, const hlr_apply_scratch *s, const run *r, uint32_t k, uint32_t token,
                       size_t column, size_t n) {
    float sum[DIRECT_COLUMNS];
    const size_t padded = (size_t)hlf_align_up(n, HLR_ROW_UNIT), own = k * s->score_stride;
    memset(sum, 0, padded * sizeof *sum);
    for (const term *t = s->terms + r->first_term; t < s->terms + r->first_term + r->terms; t++) {
        hlr_span span = columns_from(&t->rows->b, t->rows->half, column);
        span.first = t->first;
        c->session->kernels->accumulate(sum, padded, &span, s->active + own + t->chosen, s->scores + own + t->chosen,
                                        t->count);
    }
    c->session->kernels->add(y_at(c, token, column), c->dtype, sum, n);
}

static void prefetch(const uint8_t *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += HLR_ALIGNMENT) {
        __builtin_prefetch(at + i);
    }
}

/* Columns of all rows of a run as float32, side by side. Asks for the strip that comes next, too: rows are far apart.
 */
static void pack(const call *c, const hlr_apply_scratch *s, const run *r, size_t column, size_t n) {
    const size_t padded = (size_t)hlf_align_up(n, HLR_ROW_UNIT);
    for (const term *t = s->terms + r->first_term; t < s->terms + r->first_term + r->terms; t++) {
        const bool half = t->rows->half;
        const hlf_dtype dtype = half ? HLF_DTYPE_F16 : HLF_DTYPE_F32;
        const hlr_span span = columns_from(&t->rows->b, half, column);
        for (size_t j = 0; j < rows_needed(r, t); j++) {
            const uint8_t *row = (const uint8_t *)span.at + j * span.stride * element_size(half);
            c->session->kernels->widen(s->packed + (t->first + j) * PACKED_COLUMNS, row, dtype, padded);
            if (n == PACKED_COLUMNS) {
                prefetch(row + PACKED_COLUMNS * element_size(half), PACKED_COLUMNS * element_size(half));
            }
        }
    }
}

/* The same for all tokens of a run, a packed strip at a time. */
static void add_packed(const call *c, const hlr_apply_scratch *s, const run *r, const uint32_t *order, size_t column,
                       size_t n) {
    enum { AHEAD = 2 }; /* tokens: y is spread over memory, a strip of it in each */
    for (size_t at = column; at < column + n; at += PACKED_COLUMNS) {
        const size_t now = column + n - at < PACKED_COLUMNS ? column + n - at : PACKED_COLUMNS;
        pack(c, s, r, at, now);
        for (uint32_t k = r->first; k < r->first + r->tokens; k++) {
            const size_t own = k * s->score_stride;
            if (k + AHEAD < r->first + r->tokens) {
                prefetch(y_at(c, order[k + AHEAD], at), PACKED_COLUMNS * hlf_dtype_size(c->dtype));
            }
            c->session->kernels->update(y_at(c, order[k], at), c->dtype, now, s->packed, PACKED_COLUMNS,
                                        s->active + own, s->scores + own, r->chosen);
        }
    }
}

static void add_run(const call *c, const hlr_apply_scratch *s, const run *r, const uint32_t *order, size_t column,
                    size_t n) {
    if (r->packed) {
        add_packed(c, s, r, order, column, n);
        return;
    }
    for (uint32_t k = r->first; k < r->first + r->tokens; k++) {
        add_direct(c, s, r, k, order[k], column, n);
    }
}

/* ---- the call ---- */

static void apply_block(void *context, uint32_t thread, size_t block) {
    const call *c = context;
    hlr_apply_scratch *s = &c->session->scratch[thread];
    const size_t first = block * c->block_tokens, left = c->tokens - first;
    const uint32_t tokens = (uint32_t)(left < c->block_tokens ? left : c->block_tokens);
    const uint32_t *order = c->order + first;
    find_runs(c, s, order, tokens);
    if (s->terms_used == 0) {
        return;
    }
    score(c, s, order, tokens);
    choose_all(s);
    for (size_t column = 0; column < c->d_out; column += DIRECT_COLUMNS) {
        const size_t n = c->d_out - column < DIRECT_COLUMNS ? (size_t)(c->d_out - column) : DIRECT_COLUMNS;
        for (const run *r = s->runs; r < s->runs + s->runs_used; r++) {
            if (r->terms) {
                add_run(c, s, r, order, column, n);
            }
        }
    }
}

/* Sorts the tokens that have a route by it, in the order of the call; false when one names a route that there is not.
 */
static bool sort_tokens(call *c, size_t n_tokens) {
    hl_session *session = c->session;
    const uint32_t routes = session->prepared.route_count;
    uint32_t *start = session->route_start, *order = session->order;
    memset(start, 0, ((size_t)routes + 1) * sizeof *start);
    for (uint32_t i = 0; i < n_tokens; i++) {
        const uint32_t route = route_of(c, i);
        if (route < routes) {
            start[route + 1]++;
            c->tokens++;
        } else if (route != HL_NONE) {
            return false;
        }
    }
    for (uint32_t r = 0; r < routes; r++) {
        start[r + 1] += start[r];
    }
    for (uint32_t i = 0; i < n_tokens; i++) {
        const uint32_t route = route_of(c, i);
        if (route != HL_NONE) {
            order[start[route]++] = i;
        }
    }
    c->order = order;
    return true;
}

static hl_status check_call(const hl_session *session, uint32_t module, size_t n_tokens, const void *x, size_t x_stride,
                            const void *y, size_t y_stride, hl_dtype dtype, hl_diag *diag) {
    if (!session || ((!x || !y) && n_tokens) ||
        (dtype != HL_DTYPE_F32 && dtype != HL_DTYPE_BF16 && dtype != HL_DTYPE_F16)) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET,
                        "no session, x or y, or an element type that activations cannot have");
    }
    if (module >= session->pool->index.modules) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "the pool has no module %u", module);
    }
    if (n_tokens > session->max_tokens) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "%zu tokens, over the session's max_tokens of %u",
                        n_tokens, session->max_tokens);
    }
    hlf_module_record record;
    hlf_index_module(&session->pool->index, module, &record);
    if (n_tokens > 1 && (x_stride < record.d_in || y_stride < record.d_out)) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "strides of %zu and %zu for rows of %llu and %llu",
                        x_stride, y_stride, (unsigned long long)record.d_in, (unsigned long long)record.d_out);
    }
    return HL_OK;
}

/* All tokens at once, or smaller blocks when there are threads to share them. */
static size_t block_tokens(const hl_session *session, size_t tokens) {
    const uint32_t threads = hlr_workers_count(session->workers);
    const size_t share = (tokens + threads - 1) / threads, room = session->scratch[0].block_tokens;
    const size_t least = LEAST_BLOCK_TOKENS < room ? LEAST_BLOCK_TOKENS : room;
    return share > room ? room : share < least ? least : share;
}

hl_status hl_session_apply(hl_session *session, uint32_t module, size_t n_tokens, const void *x, size_t x_stride,
                           const uint32_t *route_of_token, void *y, size_t y_stride, hl_dtype dtype, hl_diag *diag) {
    hl_status status = check_call(session, module, n_tokens, x, x_stride, y, y_stride, dtype, diag);
    if (status != HL_OK || n_tokens == 0) {
        return status;
    }
    hlf_module_record record;
    hlf_index_module(&session->pool->index, module, &record);
    call c = {.session = session,
              .module = module,
              .d_in = record.d_in,
              .d_out = record.d_out,
              .x = x,
              .y = y,
              .dtype = (hlf_dtype)dtype,
              .route_of_token = route_of_token};
    c.x_bytes = x_stride * hlf_dtype_size(c.dtype);
    c.y_bytes = y_stride * hlf_dtype_size(c.dtype);
    if (session->prepared.route_count == 0) {
        for (size_t i = 0; i < n_tokens; i++) {
            if (!route_of_token || route_of_token[i] != HL_NONE) {
                return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "token %zu has a route, but none is prepared", i);
            }
        }
        return HL_OK;
    }
    if (!sort_tokens(&c, n_tokens)) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "a token has a route that is not prepared");
    }
    if (session->prepared.module_first[module] < session->prepared.module_first[module + 1] && c.tokens) {
        c.block_tokens = block_tokens(session, c.tokens);
        hlr_workers_run(session->workers, apply_block, &c, (c.tokens + c.block_tokens - 1) / c.block_tokens);
    }
    return HL_OK;
}
