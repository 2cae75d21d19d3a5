/* Decoded components against float64 arithmetic on the weights that went in. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "format/bytes.h"
#include "format/cpu.h"
#include "runtime/memory.h"
#include "runtime/rows.h"
#include "tests/support/pool_builder.h"

static const hlt_pool_spec base_spec = {.seed = 21,
                                        .adapters = 3,
                                        .modules = 6,
                                        .min_rank = 1,
                                        .max_rank = 21,
                                        .min_width = 1,
                                        .max_width = 700,
                                        .mixed_dtypes = true};

typedef struct opened {
    hlt_pool file;
    hl_pool *pool;
    hlt_pool_spec spec;
} opened;

static opened open_spec(hlt_pool_spec spec) {
    opened o = {hlt_pool_build(&spec), NULL, spec};
    hl_diag diag;
    hl_diag_clear(&diag);
    ck_assert_msg(hl_pool_open_memory(o.file.bytes, o.file.size, NULL, &o.pool, &diag) == HL_OK, "%s", diag.message);
    return o;
}

static void close_spec(opened *o) {
    hl_pool_close(o->pool);
    hlt_pool_free(&o->file);
}

static double *doubles(size_t n) {
    double *memory = calloc(n ? n : 1, sizeof *memory);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

/* The stored matrix of a side, as the pool's maker wrote it. */
static double *weights_of(const opened *o, uint32_t adapter, const hlf_entry_record *entry, hlf_side side) {
    hlf_chunk_shape shape;
    ck_assert(hlf_index_chunk_shape(&o->pool->index, entry, side, &shape));
    const size_t n = (size_t)(shape.rows * shape.width);
    void *plain = malloc(n * 8);
    double *wide = doubles(n);
    hlt_fill(plain, (int)shape.dtype, (int)shape.dtype, n, o->spec.seed, adapter, entry->module, (int)side);
    hlf_to_f64(wide, plain, shape.dtype, n);
    free(plain);
    return wide;
}

/* What a side's components are in exact arithmetic, and in `magnitude` the sum of |products| behind each. */
static double *components_of(const opened *o, uint32_t adapter, const hlf_entry_record *entry, hlf_side side,
                             size_t width, double *magnitude) {
    double *plain = weights_of(o, adapter, entry, side);
    const size_t rank = entry->rank;
    if (!(entry->flags & HLF_ENTRY_GAUGE)) {
        for (size_t i = 0; i < rank * width; i++) {
            magnitude[i] = fabs(plain[i]);
        }
        return plain;
    }
    double *both = weights_of(o, adapter, entry, HLF_SIDE_GAUGE),
           *gauge = both + (side == HLF_SIDE_B ? rank * rank : 0);
    double *out = doubles(rank * width);
    for (size_t i = 0; i < rank; i++) {
        for (size_t k = 0; k < rank; k++) {
            for (size_t c = 0; c < width; c++) {
                out[i * width + c] += gauge[i * rank + k] * plain[k * width + c];
                magnitude[i * width + c] += fabs(gauge[i * rank + k] * plain[k * width + c]);
            }
        }
    }
    free(plain);
    free(both);
    return out;
}

static double element_of(const hlr_rows *rows, const hlr_matrix *m, size_t j, size_t c) {
    if (rows->half) {
        return ldexp((double)hlf_f16_to_f32(((const uint16_t *)m->rows)[j * m->stride + c]), m->exponent[j]);
    }
    return (double)((const float *)m->rows)[j * m->stride + c];
}

/* float32: rank + 1 roundings of the sum, one of the weights when they are float64. float16: half a unit in the last
 * place on top, or of the least subnormal of a row whose largest element has 15 as exponent. */
static double bound(const hlr_rows *rows, const hlr_matrix *m, size_t j, double value, double magnitude) {
    const double wide = ((double)rows->rank + 2) * 0x1p-24 * magnitude + 0x1p-149;
    return rows->half ? wide + 0x1.01p-11 * fabs(value) + ldexp(0x1p-25, m->exponent[j]) : wide;
}

static void assert_matrix(const opened *o, uint32_t adapter, const hlf_entry_record *entry, const hlr_rows *rows,
                          hlf_side side) {
    const hlr_matrix *m = side == HLF_SIDE_A ? &rows->a : &rows->b;
    hlf_module_record module;
    hlf_index_module(&o->pool->index, entry->module, &module);
    const size_t width = (size_t)(side == HLF_SIDE_A ? module.d_in : module.d_out);
    double *magnitude = doubles(rows->rank * width), *exact = components_of(o, adapter, entry, side, width, magnitude);
    ck_assert_uint_eq(m->width, width);
    ck_assert_uint_eq((uintptr_t)m->rows % HLR_ALIGNMENT, 0);
    ck_assert_uint_eq(m->stride * (rows->half ? 2 : 4) % HLR_ALIGNMENT, 0);
    for (size_t j = 0; j < rows->rank; j++) {
        double norm = 0;
        for (size_t c = 0; c < width; c++) {
            const double value = exact[j * width + c], got = element_of(rows, m, j, c);
            if (!(fabs(got - value) <= bound(rows, m, j, value, magnitude[j * width + c]))) {
                ck_abort_msg("adapter %u, module %u, side %d, row %zu, column %zu: %.9g, not %.9g", adapter,
                             entry->module, (int)side, j, c, got, value);
            }
            norm += value * value;
        }
        for (size_t c = width; c < m->stride; c++) {
            ck_assert_double_eq(element_of(rows, m, j, c), 0);
        }
        if (side == HLF_SIDE_B) {
            ck_assert_double_le(fabs(rows->b_norm[j] - sqrt(norm)), 2e-5 * sqrt(norm));
        }
        ck_assert(!rows->half || m->factor[j] == ldexpf(1, m->exponent[j]));
    }
    free(magnitude);
    free(exact);
}

static void assert_entries(const opened *o, hl_rows mode, const hlr_row_kernels *kernels, int *halves) {
    hlr_rows_builder builder;
    ck_assert(hlr_rows_builder_create(&builder, o->pool, kernels));
    for (uint32_t a = 0; a < o->pool->index.adapters; a++) {
        hlf_adapter_record adapter;
        hlf_index_adapter(&o->pool->index, a, &adapter);
        for (uint64_t e = adapter.first_entry; e < adapter.first_entry + adapter.entries; e++) {
            hlf_entry_record entry;
            hlf_index_entry(&o->pool->index, (uint32_t)e, &entry);
            const bool half = hlr_rows_are_half(&entry, mode);
            hlr_rows *rows = hlr_rows_create(o->pool, &entry, half);
            ck_assert_ptr_nonnull(rows);
            hl_diag diag;
            hl_diag_clear(&diag);
            ck_assert_msg(hlr_rows_build(&builder, &entry, rows, &diag) == HL_OK, "%s", diag.message);
            ck_assert_double_eq(rows->scale, entry.flags & HLF_ENTRY_GAUGE ? 1 : entry.scale);
            assert_matrix(o, a, &entry, rows, HLF_SIDE_A);
            assert_matrix(o, a, &entry, rows, HLF_SIDE_B);
            halves[half]++;
            hlr_rows_destroy(o->pool, rows);
        }
    }
    hlr_rows_builder_destroy(&builder);
}

START_TEST(components_are_right) {
    const hlr_row_kernels *kernels[] = {&hlr_rows_portable, hlr_rows_x86(hlf_cpu_features())};
    int halves[2] = {0, 0}, forced[2] = {0, 0}; /* entries decoded to float32 and to float16 */
    for (int variant = 0; variant < 12; variant++) {
        hlt_pool_spec spec = base_spec;
        spec.seed += (uint64_t)variant;
        spec.zstd = variant % 2 == 0;
        spec.svd = variant % 3 != 0;
        spec.squeezed = variant % 6 == 5;
        opened o = open_spec(spec);
        for (size_t k = 0; k < 2 && kernels[k]; k++) {
            assert_entries(&o, HL_ROWS_SOURCE, kernels[k], halves);
            assert_entries(&o, HL_ROWS_F32, kernels[k], forced);
            assert_entries(&o, HL_ROWS_F16, kernels[k], forced);
        }
        close_spec(&o);
    }
    ck_assert_int_gt(halves[0], 0);
    ck_assert_int_gt(halves[1], 0);
    ck_assert_int_eq(forced[0], forced[1]);
}
END_TEST

/* Rows of one entry of one adapter whose A is given, decoded to float16. */
static hlr_rows *decode_crafted(const float *row, size_t width, hlf_dtype stored, opened *o) {
    const hlt_pool_spec spec = {.seed = 3,
                                .adapters = 1,
                                .modules = 1,
                                .min_rank = 1,
                                .max_rank = 1,
                                .min_width = (uint32_t)width,
                                .max_width = (uint32_t)width};
    *o = open_spec(spec);
    hlf_entry_record entry;
    hlf_chunk_record chunk;
    hlf_index_entry(&o->pool->index, 0, &entry);
    hlf_index_chunk(&o->pool->index, entry.chunk_a, &chunk);
    hlf_convert(o->file.bytes + chunk.offset, stored, row, HLF_DTYPE_F32, width);
    hlt_pool_seal(o->file.bytes, o->file.size);
    hl_pool_close(o->pool);
    ck_assert_int_eq(hl_pool_open_memory(o->file.bytes, o->file.size, NULL, &o->pool, NULL), HL_OK);
    hlr_rows_builder builder;
    ck_assert(hlr_rows_builder_create(&builder, o->pool, &hlr_rows_portable));
    hlr_rows *rows = hlr_rows_create(o->pool, &entry, true);
    ck_assert_int_eq(hlr_rows_build(&builder, &entry, rows, NULL), HL_OK);
    hlr_rows_builder_destroy(&builder);
    return rows;
}

static void assert_crafted(const float *row, size_t n, double relative) {
    opened o;
    hlr_rows *rows = decode_crafted(row, n, HLF_DTYPE_F32, &o);
    for (size_t c = 0; c < n; c++) {
        const double got = element_of(rows, &rows->a, 0, c), value = (double)row[c];
        if (isnan(value)) {
            ck_assert(isnan(got));
        } else if (isinf(value)) {
            ck_assert_double_eq(got, value);
        } else {
            ck_assert_msg(fabs(got - value) <= relative * fabs(value), "%a became %a", value, got);
        }
    }
    hlr_rows_destroy(o.pool, rows);
    close_spec(&o);
}

START_TEST(halves_hold_rows_of_any_magnitude) {
    assert_crafted((float[]){65504, 1, -0x1p-14f, 0x1p-24f, 0}, 5, 0); /* what float16 holds, it holds on */
    assert_crafted((float[]){65519, 1.5f, -3}, 3, 0x1p-11); /* would round to infinity without another power of two */
    assert_crafted((float[]){65535.99f, 1.5f, -3}, 3, 0x1p-11);
    assert_crafted((float[]){3.4e38f, -1e38f, 1e35f}, 3, 0x1p-11);
    assert_crafted((float[]){1e-38f, -3e-39f, 2e-38f}, 3, 0x1p-11);
    assert_crafted((float[]){0, -0.0f, 0}, 3, 0);
    assert_crafted((float[]){NAN, 1, -INFINITY, 0.5f}, 4, 0);
    assert_crafted((float[]){INFINITY, NAN}, 2, 0);
    assert_crafted((float[]){0x1.FEp127f, 0x1.02p100f, -0x1.8p105f}, 3,
                   0); /* bfloat16, 28 powers of two apart: exact */
}
END_TEST

/* Numbers of which no float32 row can be made without loss stay as near as a row allows. */
START_TEST(tiny_rows_lose_what_is_below_their_scale) {
    const float row[] = {0x1p-149f, 0x3p-149f};
    opened o;
    hlr_rows *rows = decode_crafted(row, 2, HLF_DTYPE_F32, &o);
    ck_assert_int_ge(rows->a.exponent[0], -126);
    for (size_t c = 0; c < 2; c++) {
        ck_assert_double_le(fabs(element_of(rows, &rows->a, 0, c) - (double)row[c]), 0x1p-150);
    }
    hlr_rows_destroy(o.pool, rows);
    close_spec(&o);
}
END_TEST

START_TEST(limits_and_damage_are_noticed) {
    hlt_pool_spec spec = base_spec;
    spec.svd = spec.zstd = true;
    hlt_pool file = hlt_pool_build(&spec);
    const hl_pool_options options = {.struct_size = sizeof options, .max_chunk_bytes = 64};
    for (int round = 0; round < 2; round++) {
        hl_pool *pool;
        hl_diag diag;
        hl_diag_clear(&diag);
        ck_assert_int_eq(hl_pool_open_memory(file.bytes, file.size, round == 0 ? &options : NULL, &pool, NULL), HL_OK);
        hlr_rows_builder builder;
        ck_assert(hlr_rows_builder_create(&builder, pool, &hlr_rows_portable));
        hlf_entry_record entry;
        hlf_chunk_record chunk;
        hlf_index_entry(&pool->index, 1, &entry);
        hlf_index_chunk(&pool->index, entry.chunk_b, &chunk);
        file.bytes[chunk.offset + chunk.stored / 2] ^= 1;
        hlr_rows *rows = hlr_rows_create(pool, &entry, false);
        ck_assert_int_eq(hlr_rows_build(&builder, &entry, rows, &diag), round == 0 ? HL_ERR_LIMIT : HL_ERR_CORRUPT);
        ck_assert(round == 0 || diag.offset == chunk.offset);
        file.bytes[chunk.offset + chunk.stored / 2] ^= 1;
        hlr_rows_destroy(pool, rows);
        hlr_rows_builder_destroy(&builder);
        hl_pool_close(pool);
    }
    hlt_pool_free(&file);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("rows");
    TCase *tests = tcase_create("rows");
    tcase_set_timeout(tests, 180);
    tcase_add_test(tests, components_are_right);
    tcase_add_test(tests, halves_hold_rows_of_any_magnitude);
    tcase_add_test(tests, tiny_rows_lose_what_is_below_their_scale);
    tcase_add_test(tests, limits_and_damage_are_noticed);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
