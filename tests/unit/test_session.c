/* Applying routes: against float64 arithmetic on decoded rows and on the weights that went in; the same whatever else
 * is in the call. */
#include "format/dtype.h"
#include "tests/unit/session_fixture.h"

static const hlt_pool_spec base_spec = {.seed = 77,
                                        .adapters = 5,
                                        .modules = 4,
                                        .modules_per_adapter = 3,
                                        .min_rank = 3,
                                        .max_rank = 20,
                                        .min_width = 5,
                                        .max_width = 1100,
                                        .zstd = true};

/* ---- one token in float64 ---- */

typedef struct expectation {
    double *update;    /* d_out */
    double *magnitude; /* sum of the absolute values of all products behind an element */
    bool close_call;   /* two components so near each other that rounding may decide */
} expectation;

typedef struct scored {
    double key;
    uint32_t at;
} scored;

static int best_first(const void *a, const void *b) {
    const scored *x = a, *y = b;
    return x->key != y->key ? (x->key < y->key) - (x->key > y->key) : (x->at > y->at) - (x->at < y->at);
}

static double row_element(const hl_rows_view *v, bool side_b, size_t j, size_t c) {
    const void *rows = side_b ? v->b : v->a;
    const size_t at = j * (side_b ? v->b_stride : v->a_stride) + c;
    const int16_t *exponent = side_b ? v->b_exponent : v->a_exponent;
    if (v->dtype == HL_DTYPE_F32) {
        return (double)((const float *)rows)[at];
    }
    return ldexp((double)hlf_f16_to_f32(((const uint16_t *)rows)[at]), exponent ? exponent[j] : 0);
}

static void add_adapter(expectation *e, const hl_rows_view *v, const hl_route_view *route, double weight,
                        const double *x) {
    scored *list = memory_of(v->rows, sizeof *list);
    double *u = memory_of(v->rows, sizeof *u), *size = memory_of(v->rows, sizeof *size);
    for (uint32_t j = 0; j < v->rows; j++) {
        double norm = 0;
        for (size_t c = 0; c < v->d_in; c++) {
            u[j] += row_element(v, false, j, c) * x[c];
            size[j] += fabs(row_element(v, false, j, c) * x[c]);
        }
        for (size_t c = 0; c < v->d_out; c++) {
            norm += row_element(v, true, j, c) * row_element(v, true, j, c);
        }
        const double key = route->gate == HL_GATE_CONTRIBUTION ? fabs(u[j]) * sqrt(norm) : fabs(u[j]);
        list[j] = (scored){route->gate == HL_GATE_STATIC ? -(double)j : key, j};
    }
    qsort(list, v->rows, sizeof *list, best_first);
    if (v->rocs < v->rows && route->gate != HL_GATE_STATIC) {
        e->close_call |= list[v->rocs - 1].key - list[v->rocs].key <= 1e-4 * list[v->rocs - 1].key;
    }
    const double n = route->variance_norm ? sqrt((double)v->rows / v->rocs) : 1;
    for (uint32_t i = 0; i < v->rocs; i++) {
        const uint32_t j = list[i].at;
        for (size_t c = 0; c < v->d_out; c++) {
            e->update[c] += v->scale * weight * n * row_element(v, true, j, c) * u[j];
            e->magnitude[c] += fabs(v->scale * weight * n * row_element(v, true, j, c)) * size[j];
        }
    }
    free(list);
    free(u);
    free(size);
}

/* What the formula of docs/ROUTING.md gives for the rows that the session has decoded. */
static expectation expect(const hl_session *session, const hl_pool *pool, const hl_route *route, uint32_t position,
                          uint32_t module, const double *x) {
    const hl_module_view m = module_of(pool, module);
    expectation e = {memory_of((size_t)m.d_out, sizeof(double)), memory_of((size_t)m.d_out, sizeof(double)), false};
    hl_route_view view = {.struct_size = sizeof view};
    ck_assert_int_eq(hl_route_info(route, &view), HL_OK);
    for (uint32_t i = 0; i < view.count; i++) {
        hl_route_item item = {.struct_size = sizeof item};
        hl_rows_view rows = {.struct_size = sizeof rows};
        hl_entry_view entry = {.struct_size = sizeof entry};
        ck_assert_int_eq(hl_route_item_at(route, i, &item), HL_OK);
        const hl_status there = hl_entry_find(pool, item.adapter, module, &entry);
        ck_assert_int_eq(hl_session_rows(session, position, item.adapter, module, &rows, NULL), there);
        if (there == HL_OK) {
            ck_assert_uint_eq(rows.rows, entry.rank);
            ck_assert_uint_eq(rows.rocs, (item.rocs * entry.rank + item.rank - 1) / item.rank);
            add_adapter(&e, &rows, &view, item.weight, x);
        }
    }
    return e;
}

/* ---- calls against it ---- */

enum { TOKENS = 23, ROUTES = 4, PAD = 7 };

typedef struct batch {
    uint32_t route[TOKENS];
    void *x, *y;
    size_t x_stride, y_stride;
    double *x_wide, *y_before;
    hl_dtype dtype;
} batch;

static batch make_batch(const hl_module_view *m, hl_dtype dtype, uint64_t seed) {
    hlt_rng rng = {seed};
    batch b = {.dtype = dtype, .x_stride = (size_t)m->d_in + PAD, .y_stride = (size_t)m->d_out + PAD};
    const size_t nx = TOKENS * b.x_stride, ny = TOKENS * b.y_stride;
    b.x = memory_of(nx, 4);
    b.y = memory_of(ny, 4);
    b.x_wide = memory_of(nx, sizeof(double));
    b.y_before = memory_of(ny, sizeof(double));
    for (size_t i = 0; i < nx; i++) {
        b.x_wide[i] = hlt_normal(&rng);
    }
    for (size_t i = 0; i < ny; i++) {
        b.y_before[i] = hlt_normal(&rng);
    }
    hlf_convert(b.x, (hlf_dtype)dtype, b.x_wide, HLF_DTYPE_F64, nx);
    hlf_convert(b.y, (hlf_dtype)dtype, b.y_before, HLF_DTYPE_F64, ny);
    hlf_to_f64(b.x_wide, b.x, (hlf_dtype)dtype, nx);
    hlf_to_f64(b.y_before, b.y, (hlf_dtype)dtype, ny);
    for (size_t t = 0; t < TOKENS; t++) {
        const uint32_t route = hlt_between(&rng, 0, ROUTES);
        b.route[t] = route == ROUTES ? HL_NONE : route;
    }
    return b;
}

static void free_batch(batch *b) {
    free(b->x);
    free(b->y);
    free(b->x_wide);
    free(b->y_before);
}

static void apply_batch(hl_session *session, uint32_t module, batch *b) {
    hl_diag diag;
    hl_diag_clear(&diag);
    ck_assert_msg(hl_session_apply(session, module, TOKENS, b->x, b->x_stride, b->route, b->y, b->y_stride, b->dtype,
                                   &diag) == HL_OK,
                  "%s", diag.message);
}

/* Rounding of a sum of n products in any order, of the few products that make a weight, and of y. */
static double tolerance(const hl_module_view *m, hl_dtype dtype, double magnitude, double result) {
    const double unit = dtype == HL_DTYPE_F16 ? 0x1p-11 : dtype == HL_DTYPE_BF16 ? 0x1p-8 : 0x1p-24;
    return ((double)m->d_in / 8 + 120) * 0x1p-24 * magnitude + unit * fabs(result) + 0x1p-25;
}

static void check_batch(const hl_session *session, const fixture *f, hl_route *const *routes, uint32_t module,
                        const batch *b, int *close_calls) {
    const hl_module_view m = module_of(f->pool, module);
    double *after = memory_of(TOKENS * b->y_stride, sizeof *after);
    hlf_to_f64(after, b->y, (hlf_dtype)b->dtype, TOKENS * b->y_stride);
    for (size_t t = 0; t < TOKENS; t++) {
        expectation e = {NULL, NULL, false};
        if (b->route[t] != HL_NONE) {
            e = expect(session, f->pool, routes[b->route[t]], b->route[t], module, b->x_wide + t * b->x_stride);
        }
        for (size_t c = 0; c < b->y_stride && !e.close_call; c++) {
            const size_t at = t * b->y_stride + c;
            const bool touched = e.update && c < m.d_out;
            const double expected = b->y_before[at] + (touched ? e.update[c] : 0);
            const double bound = touched ? tolerance(&m, b->dtype, e.magnitude[c], expected) : 0;
            ck_assert_msg(fabs(after[at] - expected) <= bound,
                          "module %u, token %zu, column %zu: %.9g, not %.9g (%.3g)", module, t, c, after[at], expected,
                          bound);
        }
        *close_calls += e.close_call;
        free(e.update);
        free(e.magnitude);
    }
    free(after);
}

static void make_routes(const fixture *f, hl_gate gate, hl_rows rows, bool norm, hl_route *routes[ROUTES]) {
    const uint32_t all[] = {0, 1, 2, 3, 4}, two[] = {4, 1}, one[] = {2};
    const double uneven[] = {5, 1, 3, 2, 2}, heavy[] = {1, 3};
    hl_route_options o = {
        .gate = gate, .rows = rows, .variance_norm = norm ? HL_SWITCH_ON : HL_SWITCH_OFF, .gamma = 0.4};
    routes[0] = explicit_route(f->pool, all, 5, uneven, o);
    routes[1] = explicit_route(f->pool, two, 2, heavy, o);
    o.gamma = 1;
    routes[2] = explicit_route(f->pool, one, 1, NULL, o);
    o.gate = HL_GATE_STATIC;
    o.rows = HL_ROWS_F16;
    o.gamma = 0.6;
    routes[3] = explicit_route(f->pool, two, 2, NULL, o);
}

static void free_routes(hl_route *routes[ROUTES]) {
    for (size_t r = 0; r < ROUTES; r++) {
        hl_route_free(routes[r]);
    }
}

START_TEST(updates_follow_the_formula) {
    static const hl_dtype dtypes[] = {HL_DTYPE_F32, HL_DTYPE_BF16, HL_DTYPE_F16};
    int close_calls = 0, tokens = 0;
    for (int variant = 0; variant < 18; variant++) {
        hlt_pool_spec spec = base_spec;
        spec.seed += (uint64_t)variant;
        spec.svd = variant % 2 == 1;
        spec.mixed_dtypes = variant % 3 == 2;
        spec.zstd = variant % 5 != 0;
        fixture f = open_fixture(&spec, NULL);
        hl_route *routes[ROUTES];
        make_routes(&f, (hl_gate)(HL_GATE_ACTIVATION + variant % 3), (hl_rows)(HL_ROWS_SOURCE + variant / 3 % 3),
                    variant % 4 == 0, routes);
        hl_session *session =
            create_session(f.pool, (hl_session_options){.isa = variant < 9 ? HL_ISA_AUTO : HL_ISA_SCALAR,
                                                        .threads = 1 + (uint32_t)variant % 3});
        prepare(session, routes, ROUTES);
        for (uint32_t module = 0; module < spec.modules; module++) {
            const hl_module_view m = module_of(f.pool, module);
            batch b = make_batch(&m, dtypes[(variant + (int)module) % 3], spec.seed + module);
            apply_batch(session, module, &b);
            check_batch(session, &f, routes, module, &b, &close_calls);
            tokens += TOKENS;
            free_batch(&b);
        }
        hl_session_destroy(session);
        free_routes(routes);
        close_fixture(&f);
    }
    ck_assert_int_le(100 * close_calls, tokens);
}
END_TEST

/* y = sum c_i s_i B_i A_i x from what was put into the pool, nothing decoded in between. */
START_TEST(all_components_are_the_plain_loras) {
    hlt_pool_spec spec = base_spec;
    spec.modules_per_adapter = 0;
    fixture f = open_fixture(&spec, NULL);
    const uint32_t adapters[] = {3, 0, 2};
    const double weights[] = {0.5, 0.375, 0.125};
    hl_route *route = explicit_route(f.pool, adapters, 3, weights, (hl_route_options){.gamma = 1, .rows = HL_ROWS_F32});
    hl_session *session = create_session(f.pool, (hl_session_options){0});
    prepare(session, &route, 1);
    for (uint32_t module = 0; module < spec.modules; module++) {
        const hl_module_view m = module_of(f.pool, module);
        const size_t d_in = (size_t)m.d_in, d_out = (size_t)m.d_out;
        float *x = normal_floats(d_in, module), *y = update_of(session, f.pool, module, x, 0);
        double *expected = memory_of(d_out, sizeof *expected), norm = 0, error = 0;
        for (size_t i = 0; i < 3; i++) {
            hl_entry_view entry = {.struct_size = sizeof entry};
            ck_assert_int_eq(hl_entry_find(f.pool, adapters[i], module, &entry), HL_OK);
            float *a = memory_of(entry.rank * d_in, 4), *b = memory_of(entry.rank * d_out, 4);
            hlt_fill(a, HL_DTYPE_F32, HL_DTYPE_F32, entry.rank * d_in, spec.seed, adapters[i], module, HL_SIDE_A);
            hlt_fill(b, HL_DTYPE_F32, HL_DTYPE_F32, entry.rank * d_out, spec.seed, adapters[i], module, HL_SIDE_B);
            for (uint32_t j = 0; j < entry.rank; j++) {
                double u = 0;
                for (size_t c = 0; c < d_in; c++) {
                    u += (double)a[j * d_in + c] * x[c];
                }
                for (size_t c = 0; c < d_out; c++) {
                    expected[c] += weights[i] * entry.scale * u * b[j * d_out + c];
                }
            }
            free(a);
            free(b);
        }
        for (size_t c = 0; c < d_out; c++) {
            norm += expected[c] * expected[c];
            error += (y[c] - expected[c]) * (y[c] - expected[c]);
        }
        ck_assert_double_le(sqrt(error), 1e-6 * sqrt(norm));
        free(x);
        free(y);
        free(expected);
    }
    hl_session_destroy(session);
    hl_route_free(route);
    close_fixture(&f);
}
END_TEST

/* a . x in the order of docs/ROUTING.md. */
static float ordered_dot(const float *a, const float *x, size_t n) {
    float u = 0;
    for (size_t at = 0; at < n; at += 512) {
        float s[8] = {0};
        for (size_t i = at; i < n && i < at + 512; i++) {
            s[i % 8] += a[i] * x[i];
        }
        u += ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    }
    return u;
}

/* Portable C, to the last bit: also a token in a batch, where rows are packed. */
START_TEST(operations_have_the_documented_order) {
    enum { TOKENS_OF_ONE = 9 };
    fixture f = open_fixture(&base_spec, NULL);
    const uint32_t adapters[] = {1, 4, 3, 0}, ascending[] = {0, 1, 3, 4};
    const double weights[] = {4, 3, 8, 1}, ascending_weights[] = {1 / 16.0, 4 / 16.0, 8 / 16.0, 3 / 16.0};
    hl_route *route = explicit_route(f.pool, adapters, 4, weights,
                                     (hl_route_options){.gate = HL_GATE_STATIC, .rows = HL_ROWS_F32, .gamma = 0.7});
    hl_session *session = create_session(f.pool, (hl_session_options){.isa = HL_ISA_SCALAR});
    prepare(session, &route, 1);
    for (uint32_t module = 0; module < base_spec.modules; module++) {
        const hl_module_view m = module_of(f.pool, module);
        const size_t d_in = (size_t)m.d_in, d_out = (size_t)m.d_out;
        float *x = normal_floats(TOKENS_OF_ONE * d_in, module), *y = normal_floats(TOKENS_OF_ONE * d_out, 99);
        float *expected = normal_floats(TOKENS_OF_ONE * d_out, 99), *sum = memory_of(d_out, sizeof *sum);
        for (size_t t = 0; t < TOKENS_OF_ONE; t++) {
            memset(sum, 0, d_out * sizeof *sum);
            for (size_t i = 0; i < 4; i++) {
                hl_rows_view rows = {.struct_size = sizeof rows};
                if (hl_session_rows(session, 0, ascending[i], module, &rows, NULL) != HL_OK) {
                    continue;
                }
                for (uint32_t j = 0; j < rows.rocs; j++) {
                    const float *a = (const float *)rows.a + j * rows.a_stride,
                                *b = (const float *)rows.b + j * rows.b_stride;
                    const float weight =
                        (float)(rows.scale * ascending_weights[i]) * ordered_dot(a, x + t * d_in, d_in);
                    for (size_t c = 0; c < d_out; c++) {
                        sum[c] += weight * b[c];
                    }
                }
            }
            for (size_t c = 0; c < d_out; c++) {
                expected[t * d_out + c] += sum[c];
            }
        }
        ck_assert_int_eq(hl_session_apply(session, module, TOKENS_OF_ONE, x, d_in, NULL, y, d_out, HL_DTYPE_F32, NULL),
                         HL_OK);
        ck_assert_mem_eq(y, expected, TOKENS_OF_ONE * d_out * sizeof *y);
        free(x);
        free(y);
        free(expected);
        free(sum);
    }
    hl_session_destroy(session);
    hl_route_free(route);
    close_fixture(&f);
}
END_TEST

/* Many tokens of many routes on several threads, and each of them alone. */
START_TEST(a_token_does_not_depend_on_its_company) {
    enum { MANY = 700 };
    hlt_pool_spec spec = base_spec;
    spec.mixed_dtypes = true;
    fixture f = open_fixture(&spec, NULL);
    hl_route *routes[ROUTES];
    make_routes(&f, HL_GATE_ACTIVATION, HL_ROWS_SOURCE, false, routes);
    for (int variant = 0; variant < 4; variant++) {
        const hl_isa isa = variant % 2 ? HL_ISA_SCALAR : HL_ISA_AUTO;
        hl_session *many = create_session(f.pool, (hl_session_options){.threads = variant < 2 ? 1 : 3, .isa = isa});
        hl_session *single = create_session(f.pool, (hl_session_options){.max_tokens = 1, .isa = isa});
        prepare(many, routes, ROUTES);
        prepare(single, routes, ROUTES);
        for (uint32_t module = 0; module < spec.modules; module++) {
            const hl_module_view m = module_of(f.pool, module);
            const size_t d_in = (size_t)m.d_in, d_out = (size_t)m.d_out;
            uint32_t route[MANY];
            hlt_rng rng = {module};
            float *x = normal_floats(MANY * d_in, 5), *y = normal_floats(MANY * d_out, 6),
                  *z = normal_floats(MANY * d_out, 6);
            for (size_t t = 0; t < MANY; t++) {
                route[t] = hlt_between(&rng, 0, ROUTES + 1);
                route[t] = route[t] >= ROUTES ? (t % 2 ? 0 : HL_NONE) : route[t];
            }
            ck_assert_int_eq(hl_session_apply(many, module, MANY, x, d_in, route, y, d_out, HL_DTYPE_F32, NULL), HL_OK);
            for (size_t t = 0; t < MANY; t++) {
                ck_assert_int_eq(hl_session_apply(single, module, 1, x + t * d_in, 0, &route[t], z + t * d_out, 0,
                                                  HL_DTYPE_F32, NULL),
                                 HL_OK);
            }
            ck_assert_mem_eq(y, z, MANY * d_out * sizeof *y);
            free(x);
            free(y);
            free(z);
        }
        hl_session_destroy(many);
        hl_session_destroy(single);
    }
    free_routes(routes);
    close_fixture(&f);
}
END_TEST

START_TEST(what_no_route_adapts_stays_as_it_is) {
    fixture f = open_fixture(&base_spec, NULL);
    const uint32_t adapter = 0;
    hl_route *route = explicit_route(f.pool, &adapter, 1, NULL, (hl_route_options){.gamma = 1});
    hl_session *session = create_session(f.pool, (hl_session_options){0});
    prepare(session, &route, 1);
    int untouched = 0;
    for (uint32_t module = 0; module < base_spec.modules; module++) {
        const hl_module_view m = module_of(f.pool, module);
        hl_entry_view entry = {.struct_size = sizeof entry};
        const bool adapted = hl_entry_find(f.pool, adapter, module, &entry) == HL_OK;
        float *x = normal_floats((size_t)m.d_in, 1), *y = memory_of((size_t)m.d_out, 4);
        for (size_t c = 0; c < m.d_out; c++) {
            y[c] = c % 2 ? -0.0f : NAN;
        }
        float *before = memory_of((size_t)m.d_out, 4);
        memcpy(before, y, (size_t)m.d_out * 4);
        const uint32_t none = HL_NONE;
        ck_assert_int_eq(hl_session_apply(session, module, 1, x, 0, &none, y, 0, HL_DTYPE_F32, NULL), HL_OK);
        ck_assert_mem_eq(y, before, (size_t)m.d_out * 4);
        if (!adapted) {
            ck_assert_int_eq(hl_session_apply(session, module, 1, x, 0, NULL, y, 0, HL_DTYPE_F32, NULL), HL_OK);
            ck_assert_mem_eq(y, before, (size_t)m.d_out * 4);
            untouched++;
        }
        free(x);
        free(y);
        free(before);
    }
    ck_assert_int_eq(untouched, 1);
    hl_session_destroy(session);
    hl_route_free(route);
    close_fixture(&f);
}
END_TEST

START_TEST(strange_activations_bring_no_crash) {
    fixture f = open_fixture(&base_spec, NULL);
    hl_route *routes[ROUTES];
    make_routes(&f, HL_GATE_CONTRIBUTION, HL_ROWS_SOURCE, false, routes);
    hl_session *session = create_session(f.pool, (hl_session_options){0});
    prepare(session, routes, ROUTES);
    for (uint32_t module = 0; module < base_spec.modules; module++) {
        const hl_module_view m = module_of(f.pool, module);
        float *x = normal_floats((size_t)m.d_in, 1);
        x[0] = NAN;
        float *y = update_of(session, f.pool, module, x, 0);
        ck_assert(isnan(y[0]));
        free(y);
        x[0] = INFINITY;
        y = update_of(session, f.pool, module, x, 0);
        ck_assert(!isfinite(y[0]));
        free(y);
        memset(x, 0, (size_t)m.d_in * sizeof *x);
        y = update_of(session, f.pool, module, x, 0);
        ck_assert_float_eq(y[0], 0);
        free(y);
        free(x);
    }
    hl_session_destroy(session);
    free_routes(routes);
    close_fixture(&f);
}
END_TEST

static hl_status apply_bad(hl_session *session, uint32_t module, size_t tokens, size_t stride, uint32_t route,
                           int dtype) {
    float x[64] = {0}, y[64] = {0};
    const uint32_t routes[2] = {0, route};
    hl_diag diag;
    hl_diag_clear(&diag);
    hl_status status = hl_session_apply(session, module, tokens, x, stride, routes, y, stride, (hl_dtype)dtype, &diag);
    ck_assert(status == HL_OK || diag.message[0]);
    return status;
}

START_TEST(wrong_arguments_are_refused) {
    const hlt_pool_spec spec = {
        .seed = 1, .adapters = 2, .modules = 1, .min_rank = 2, .max_rank = 2, .min_width = 16, .max_width = 16};
    fixture f = open_fixture(&spec, NULL), other = open_fixture(&spec, NULL);
    const uint32_t adapter = 0;
    hl_route *route = explicit_route(f.pool, &adapter, 1, NULL, (hl_route_options){0});
    hl_route *foreign = explicit_route(other.pool, &adapter, 1, NULL, (hl_route_options){0});
    hl_session *session = create_session(f.pool, (hl_session_options){.max_tokens = 2});
    ck_assert_int_eq(apply_bad(session, 0, 1, 16, 0, HL_DTYPE_F32), HL_ERR_ARGUMENT); /* nothing is prepared */
    prepare(session, &route, 1);
    ck_assert_int_eq(apply_bad(session, 0, 2, 16, 0, HL_DTYPE_F32), HL_OK);
    ck_assert_int_eq(apply_bad(session, 0, 0, 16, 0, HL_DTYPE_F32), HL_OK);
    ck_assert_int_eq(apply_bad(session, 0, 2, 16, HL_NONE, HL_DTYPE_F32), HL_OK);
    ck_assert_int_eq(apply_bad(session, 1, 2, 16, 0, HL_DTYPE_F32), HL_ERR_ARGUMENT);
    ck_assert_int_eq(apply_bad(session, 0, 3, 16, 0, HL_DTYPE_F32), HL_ERR_ARGUMENT);
    ck_assert_int_eq(apply_bad(session, 0, 2, 15, 0, HL_DTYPE_F32), HL_ERR_ARGUMENT);
    ck_assert_int_eq(apply_bad(session, 0, 2, 16, 1, HL_DTYPE_F32), HL_ERR_ARGUMENT);
    ck_assert_int_eq(apply_bad(session, 0, 2, 16, 0, HL_DTYPE_F64), HL_ERR_ARGUMENT);
    ck_assert_int_eq(apply_bad(session, 0, 2, 16, 0, 9), HL_ERR_ARGUMENT);
    ck_assert_int_eq(apply_bad(NULL, 0, 1, 16, 0, HL_DTYPE_F32), HL_ERR_ARGUMENT);

    const hl_route *wrong[] = {route, foreign}, *missing[] = {NULL};
    ck_assert_int_eq(hl_session_prepare(session, wrong, 2, NULL), HL_ERR_ARGUMENT);
    ck_assert_int_eq(hl_session_prepare(session, missing, 1, NULL), HL_ERR_ARGUMENT);
    ck_assert_int_eq(hl_session_prepare(session, NULL, 1, NULL), HL_ERR_ARGUMENT);
    ck_assert_int_eq(hl_session_prepare(NULL, wrong, 1, NULL), HL_ERR_ARGUMENT);
    ck_assert_int_eq(apply_bad(session, 0, 2, 16, 0, HL_DTYPE_F32), HL_OK); /* still prepared */

    hl_rows_view rows = {.struct_size = sizeof rows};
    ck_assert_int_eq(hl_session_rows(session, 0, 0, 0, &rows, NULL), HL_OK);
    ck_assert_int_eq(hl_session_rows(session, 0, 1, 0, &rows, NULL), HL_ERR_NOT_FOUND);
    ck_assert_int_eq(hl_session_rows(session, 0, 0, 1, &rows, NULL), HL_ERR_NOT_FOUND);
    ck_assert_int_eq(hl_session_rows(session, 1, 0, 0, &rows, NULL), HL_ERR_ARGUMENT);
    rows.struct_size = 8;
    ck_assert_int_eq(hl_session_rows(session, 0, 0, 0, &rows, NULL), HL_ERR_ARGUMENT);

    ck_assert_int_eq(hl_session_prepare(session, NULL, 0, NULL), HL_OK);
    ck_assert_int_eq(apply_bad(session, 0, 1, 16, 0, HL_DTYPE_F32), HL_ERR_ARGUMENT);
    hl_session_destroy(session);
    hl_session_destroy(NULL);

    const hl_session_options isa = {.struct_size = sizeof isa, .isa = (hl_isa)77}, small = {.struct_size = 4},
                             crowd = {.struct_size = sizeof crowd, .threads = 1000000};
    ck_assert_int_eq(hl_session_create(f.pool, &isa, &session, NULL), HL_ERR_ARGUMENT);
    ck_assert_ptr_null(session);
    ck_assert_int_eq(hl_session_create(f.pool, &small, &session, NULL), HL_ERR_ARGUMENT);
    ck_assert_int_eq(hl_session_create(f.pool, &crowd, &session, NULL), HL_ERR_ARGUMENT);
    ck_assert_int_eq(hl_session_create(NULL, NULL, &session, NULL), HL_ERR_ARGUMENT);
    ck_assert_int_eq(hl_session_create(f.pool, NULL, NULL, NULL), HL_ERR_ARGUMENT);
    hl_route_free(route);
    hl_route_free(foreign);
    close_fixture(&f);
    close_fixture(&other);
}
END_TEST

/* ---- blending ---- */

/* B A x of a blended module. */
static void lora_update(const hl_lora_view *lora, const float *x, double *y) {
    for (uint32_t j = 0; j < lora->rank; j++) {
        double u = 0;
        for (size_t c = 0; c < lora->d_in; c++) {
            u += (double)lora->a[j * lora->d_in + c] * x[c];
        }
        for (size_t c = 0; c < lora->d_out; c++) {
            y[c] += u * lora->b[j * lora->d_out + c];
        }
    }
}

START_TEST(a_blend_is_the_static_route) {
    for (int variant = 0; variant < 4; variant++) {
        hlt_pool_spec spec = base_spec;
        spec.svd = variant % 2 == 1;
        spec.mixed_dtypes = variant >= 2;
        fixture f = open_fixture(&spec, NULL);
        const uint32_t adapters[] = {4, 0, 3};
        const double weights[] = {4, 3, 1};
        hl_route_options options = {
            .gate = HL_GATE_STATIC, .rows = HL_ROWS_F32, .gamma = 0.3, .variance_norm = HL_SWITCH_ON};
        hl_route *fixed = explicit_route(f.pool, adapters, 3, weights, options);
        options.gate = HL_GATE_ACTIVATION; /* the gate and the precision do not matter to a blend */
        options.rows = HL_ROWS_F16;
        hl_route *route = explicit_route(f.pool, adapters, 3, weights, options);
        hl_session *session = create_session(f.pool, (hl_session_options){0});
        prepare(session, &fixed, 1);
        hl_lora *lora;
        ck_assert_int_eq(hl_blend(session, route, &lora, NULL), HL_OK);
        uint32_t next = 0;
        for (uint32_t module = 0; module < spec.modules; module++) {
            const hl_module_view m = module_of(f.pool, module);
            hl_lora_view view = {.struct_size = sizeof view};
            ck_assert_int_eq(hl_lora_at(lora, next, &view), HL_OK);
            ck_assert_uint_eq(view.module, module); /* three adapters of three modules each reach all four */
            next++;
            float *x = normal_floats((size_t)m.d_in, module), *y = update_of(session, f.pool, module, x, 0);
            double *expected = memory_of((size_t)m.d_out, sizeof *expected), norm = 0, error = 0;
            lora_update(&view, x, expected);
            for (size_t c = 0; c < m.d_out; c++) {
                norm += expected[c] * expected[c];
                error += (y[c] - expected[c]) * (y[c] - expected[c]);
            }
            ck_assert_double_gt(norm, 0);
            ck_assert_double_le(sqrt(error), 1e-6 * sqrt(norm));
            free(x);
            free(y);
            free(expected);
        }
        hl_lora_view view = {.struct_size = sizeof view};
        ck_assert_int_eq(hl_lora_at(lora, next, &view), HL_ERR_NOT_FOUND);
        ck_assert_int_eq(hl_lora_at(NULL, 0, &view), HL_ERR_ARGUMENT);
        ck_assert_uint_eq(info_of(session).routes, 1);
        hl_session_destroy(session);
        hl_lora_free(lora);
        hl_lora_free(NULL);
        hl_route_free(fixed);
        hl_route_free(route);
        close_fixture(&f);
    }
}
END_TEST

START_TEST(an_empty_route_is_prepared_and_not_blended) {
    hlt_pool_spec spec = base_spec;
    spec.dim = 16;
    spec.min_samples = spec.max_samples = 8;
    fixture f = open_fixture(&spec, NULL);
    float z[16];
    for (int i = 0; i < 16; i++) {
        z[i] = 1e4f;
    }
    const hl_route_options options = {.struct_size = sizeof options, .fallback = HL_FALLBACK_BASE};
    hl_route *route;
    ck_assert_int_eq(hl_route_compute(f.pool, z, 16, &options, &route, NULL), HL_OK);
    hl_session *session = create_session(f.pool, (hl_session_options){0});
    prepare(session, &route, 1);
    ck_assert_uint_eq(info_of(session).routes, 1);
    ck_assert_uint_eq(info_of(session).needed_bytes, 0);
    const hl_module_view m = module_of(f.pool, 0);
    float *x = normal_floats((size_t)m.d_in, 1), *y = update_of(session, f.pool, 0, x, 0);
    ck_assert_float_eq(y[0], 0);
    hl_lora *lora;
    ck_assert_int_eq(hl_blend(session, route, &lora, NULL), HL_ERR_ARGUMENT);
    ck_assert_ptr_null(lora);
    free(x);
    free(y);
    hl_session_destroy(session);
    hl_route_free(route);
    close_fixture(&f);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("session");
    TCase *tests = tcase_create("session");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, updates_follow_the_formula);
    tcase_add_test(tests, all_components_are_the_plain_loras);
    tcase_add_test(tests, operations_have_the_documented_order);
    tcase_add_test(tests, a_token_does_not_depend_on_its_company);
    tcase_add_test(tests, what_no_route_adapts_stays_as_it_is);
    tcase_add_test(tests, strange_activations_bring_no_crash);
    tcase_add_test(tests, wrong_arguments_are_refused);
    tcase_add_test(tests, a_blend_is_the_static_route);
    tcase_add_test(tests, an_empty_route_is_prepared_and_not_blended);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
