/* Pools, routes and calls for the tests of sessions. Included by one file each. */
#ifndef HILORA_TESTS_SESSION_FIXTURE_H
#define HILORA_TESTS_SESSION_FIXTURE_H

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <hilora/hilora.h>

#include "tests/support/pool_builder.h"
#include "tests/support/random.h"

#define UNUSED __attribute__((unused))

typedef struct fixture {
    hlt_pool file;
    hl_pool *pool;
    hlt_pool_spec spec;
} fixture;

static UNUSED void *memory_of(size_t n, size_t size) {
    void *memory = calloc(n ? n : 1, size);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

static UNUSED fixture open_fixture(const hlt_pool_spec *spec, const hl_pool_options *options) {
    fixture f = {hlt_pool_build(spec), NULL, *spec};
    hl_diag diag;
    hl_diag_clear(&diag);
    ck_assert_msg(hl_pool_open_memory(f.file.bytes, f.file.size, options, &f.pool, &diag) == HL_OK, "%s", diag.message);
    return f;
}

static UNUSED void close_fixture(fixture *f) {
    hl_pool_close(f->pool);
    hlt_pool_free(&f->file);
}

/* A route over the named adapters; the rest of the options as given. */
static UNUSED hl_route *explicit_route(const hl_pool *pool, const uint32_t *adapters, size_t count,
                                       const double *weights, hl_route_options options) {
    options.struct_size = sizeof options;
    options.select = HL_SELECT_EXPLICIT;
    options.adapters = adapters;
    options.adapter_count = count;
    options.adapter_weights = weights;
    hl_route *route;
    hl_diag diag;
    hl_diag_clear(&diag);
    ck_assert_msg(hl_route_compute(pool, NULL, 0, &options, &route, &diag) == HL_OK, "%s", diag.message);
    return route;
}

static UNUSED hl_session *create_session(const hl_pool *pool, hl_session_options options) {
    options.struct_size = sizeof options;
    hl_session *session;
    hl_diag diag;
    hl_diag_clear(&diag);
    ck_assert_msg(hl_session_create(pool, &options, &session, &diag) == HL_OK, "%s", diag.message);
    return session;
}

static UNUSED void prepare(hl_session *session, hl_route *const *routes, size_t count) {
    hl_diag diag;
    hl_diag_clear(&diag);
    ck_assert_msg(hl_session_prepare(session, (const hl_route *const *)routes, count, &diag) == HL_OK, "%s",
                  diag.message);
}

static UNUSED hl_session_view info_of(const hl_session *session) {
    hl_session_view view = {.struct_size = sizeof view};
    ck_assert_int_eq(hl_session_info(session, &view), HL_OK);
    return view;
}

static UNUSED hl_module_view module_of(const hl_pool *pool, uint32_t module) {
    hl_module_view view = {.struct_size = sizeof view};
    ck_assert_int_eq(hl_module_at(pool, module, &view), HL_OK);
    return view;
}

static UNUSED float *normal_floats(size_t n, uint64_t seed) {
    hlt_rng rng = {seed};
    float *values = memory_of(n, sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)hlt_normal(&rng);
    }
    return values;
}

/* The float32 update of one token, added to zeros; the caller frees it. */
static UNUSED float *update_of(hl_session *session, const hl_pool *pool, uint32_t module, const float *x,
                               uint32_t route) {
    const hl_module_view view = module_of(pool, module);
    float *y = memory_of((size_t)view.d_out, sizeof *y);
    ck_assert_int_eq(
        hl_session_apply(session, module, 1, x, (size_t)view.d_in, &route, y, (size_t)view.d_out, HL_DTYPE_F32, NULL),
        HL_OK);
    return y;
}

static UNUSED int run_suite(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
