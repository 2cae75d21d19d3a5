/* Opening the tables of a pool: what is right is read, and every rule of docs/FORMAT.md that is broken is refused.
 *
 * Broken pools are sealed again (checksums made right), so that the rule itself must notice, not the checksum. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "format/bytes.h"
#include "format/index.h"
#include "tests/support/pool_builder.h"

static hlt_pool pool;
static hl_diag diag;
static const hlt_pool_spec spec = {.seed = 7,
                                   .adapters = 5,
                                   .modules = 4,
                                   .modules_per_adapter = 3,
                                   .min_rank = 2,
                                   .max_rank = 4,
                                   .min_width = 8,
                                   .max_width = 24,
                                   .dim = 24,
                                   .min_samples = 4,
                                   .max_samples = 6,
                                   .zstd = true,
                                   .svd = true,
                                   .mixed_dtypes = true,
                                   .rivals = 2};

static void setup(void) {
    pool = hlt_pool_build(&spec);
    hl_diag_clear(&diag);
}

static void teardown(void) {
    hlt_pool_free(&pool);
}

static hl_status open_pool(hlf_index *index) {
    hl_diag_clear(&diag);
    return hlf_index_open(pool.bytes, pool.size, NULL, index, &diag);
}

START_TEST(reads_what_is_right) {
    hlf_index index;
    ck_assert_msg(open_pool(&index) == HL_OK, "%s", diag.message);
    ck_assert_uint_eq(index.adapters, spec.adapters);
    ck_assert_uint_eq(index.modules, spec.modules);
    ck_assert_uint_eq(index.entries, spec.adapters * spec.modules_per_adapter);
    ck_assert_uint_eq(index.chunks, 3 * index.entries);
    for (uint32_t i = 0; i < index.adapters; i++) {
        hlf_adapter_record adapter;
        hlf_index_adapter(&index, i, &adapter);
        const char *name = hlf_index_string(&index, adapter.name);
        ck_assert_uint_eq(hlf_index_find_adapter(&index, name, adapter.name.length), i);
        ck_assert_uint_eq(hlf_index_find_adapter(&index, name, adapter.name.length - 1), HLF_NONE);
        ck_assert_int_eq(hlf_index_verify_stats(&index, i, &diag), HL_OK);
        uint32_t found = 0;
        for (uint32_t m = 0; m < index.modules; m++) {
            uint32_t e = hlf_index_find_entry(&index, i, m);
            if (e != HLF_NONE) {
                hlf_entry_record entry;
                hlf_index_entry(&index, e, &entry);
                ck_assert_uint_eq(entry.module, m);
                ck_assert_uint_ge(e, adapter.first_entry);
                found++;
            }
        }
        ck_assert_uint_eq(found, adapter.entries);
    }
    for (uint32_t i = 0; i < index.chunks; i++) {
        ck_assert_int_eq(hlf_index_verify_chunk(&index, i, &diag), HL_OK);
    }
    ck_assert_uint_eq(hlf_index_find_adapter(&index, "", 0), HLF_NONE);
    ck_assert_uint_eq(hlf_index_find_module(&index, "zzz", 3), HLF_NONE);
}
END_TEST

START_TEST(every_bit_of_header_and_tables_is_guarded) {
    hlf_index index;
    ck_assert_int_eq(open_pool(&index), HL_OK);
    const hlf_header header = index.header;
    for (uint64_t at = 0; at < HLF_HEADER_SIZE + HLF_SUPERBLOCK_SIZE; at++) {
        pool.bytes[at] ^= (uint8_t)(1 << at % 8);
        ck_assert_msg(open_pool(&index) != HL_OK, "header byte %llu", (unsigned long long)at);
        pool.bytes[at] ^= (uint8_t)(1 << at % 8);
    }
    for (int id = HLF_SECTION_POOL; id <= HLF_SECTION_STATS; id++) {
        for (uint64_t at = 0; at < header.sections[id].length; at += 3) {
            uint8_t *byte = pool.bytes + header.sections[id].offset + at;
            *byte ^= 0x10;
            ck_assert_msg(open_pool(&index) == HL_ERR_CORRUPT, "section %d byte %llu", id, (unsigned long long)at);
            *byte ^= 0x10;
        }
    }
    ck_assert_int_eq(open_pool(&index), HL_OK);
}
END_TEST

START_TEST(every_truncation_is_refused) {
    hlf_index index;
    for (size_t size = 0; size < pool.size; size += size < 5000 ? 1 : 997) {
        hl_diag_clear(&diag);
        ck_assert_msg(hlf_index_open(pool.bytes, size, NULL, &index, &diag) != HL_OK, "%zu bytes", size);
        ck_assert_str_ne(diag.message, "");
    }
}
END_TEST

/* A field of a record, by its name in the HDF5 view. */
static uint8_t *field_at(hlf_section_id section, uint32_t record, const char *name) {
    hlf_header header;
    ck_assert_int_eq(hlf_header_parse(pool.bytes, pool.size, pool.size, &header, NULL), HL_OK);
    const hlf_record_type *type = hlf_record_type_of(section);
    for (uint32_t i = 0; i < type->field_count; i++) {
        if (strcmp(type->fields[i].name, name) == 0) {
            return pool.bytes + header.sections[section].offset + (uint64_t)record * type->size + type->fields[i].position;
        }
    }
    ck_abort_msg("no field %s", name);
    return NULL;
}

typedef struct breakage {
    hlf_section_id section;
    uint32_t record;
    const char *field;
    uint32_t width;
    uint64_t value;
    const char *reason; /* a part of the message */
} breakage;

#define NAN_BITS UINT64_C(0x7FF8000000000000)

static const breakage breakages[] = {
    {HLF_SECTION_POOL, 0, "base_model_offset", 4, 0xFFFFFFFF, "string"},
    {HLF_SECTION_POOL, 0, "prefix_length", 4, 0xFFFFFFFF, "string"},
    {HLF_SECTION_POOL, 0, "dim", 4, 40, "stride"},
    {HLF_SECTION_POOL, 0, "dim", 4, 70000, "dimensions"},
    {HLF_SECTION_POOL, 0, "stride", 4, 48, "stride"},
    {HLF_SECTION_POOL, 0, "normalized", 4, 3, "enumeration"},
    {HLF_SECTION_POOL, 0, "shrinkage", 4, 4, "enumeration"},
    {HLF_SECTION_POOL, 0, "whitening", 4, 1, "whitening"},
    {HLF_SECTION_POOL, 0, "gate", 4, 3, "enumeration"},
    {HLF_SECTION_POOL, 0, "floor", 8, NAN_BITS, "finite"},
    {HLF_SECTION_POOL, 0, "temperature", 8, 0, "positive"},
    {HLF_SECTION_POOL, 0, "quantiles", 8, NAN_BITS, "quantiles"},
    {HLF_SECTION_POOL, 0, "gamma", 8, 0, "default"},
    {HLF_SECTION_POOL, 0, "top_k", 4, 0, "default"},
    {HLF_SECTION_POOL, 0, "rivals", 4, 3, "rivals"},
    {HLF_SECTION_POOL, 0, "calibrated", 4, 99, "statistics"},
    {HLF_SECTION_ADAPTERS, 1, "name_offset", 4, 0xFFFFFF00, "string"},
    {HLF_SECTION_ADAPTERS, 1, "name_length", 4, 0, "string"},
    {HLF_SECTION_ADAPTERS, 1, "first_entry", 8, 4, "entries"},
    {HLF_SECTION_ADAPTERS, 1, "entries", 8, 0, "entries"},
    {HLF_SECTION_ADAPTERS, 1, "entries", 8, UINT64_MAX, "entries"},
    {HLF_SECTION_ADAPTERS, 1, "rank", 4, 77, "rank"},
    {HLF_SECTION_ADAPTERS, 1, "rocs", 8, 77, "rank"},
    {HLF_SECTION_ADAPTERS, 1, "flags", 4, 64, "flags"},
    {HLF_SECTION_ADAPTERS, 1, "decomposition", 4, 2, "decomposition"},
    {HLF_SECTION_ADAPTERS, 1, "decomposition", 4, 0, "decomposition"},
    {HLF_SECTION_ADAPTERS, 1, "config_offset", 8, UINT64_MAX, "blob"},
    {HLF_SECTION_ADAPTERS, 1, "header_stored", 8, UINT64_MAX, "blob"},
    {HLF_SECTION_ADAPTERS, 1, "header_stored", 8, 0, "blob"},
    {HLF_SECTION_ADAPTERS, 1, "threshold", 8, NAN_BITS, "NaN"},
    {HLF_SECTION_ADAPTERS, 1, "flags", 4, HLF_ADAPTER_CONDITIONAL, "without statistics"},
    {HLF_SECTION_ADAPTERS, 1, "dialect", 4, 4, "dialect"},
    {HLF_SECTION_MODULES, 1, "geometry", 4, 1, "geometry"},
    {HLF_SECTION_STATS, 1, "deviation", 8, NAN_BITS, "range"},
    {HLF_SECTION_MODULES, 1, "name_length", 4, 0, "name"},
    {HLF_SECTION_MODULES, 1, "kind", 4, 7, "kind"},
    {HLF_SECTION_MODULES, 1, "d_in", 8, 0, "width"},
    {HLF_SECTION_MODULES, 1, "d_out", 8, UINT64_C(1) << 31, "width"},
    {HLF_SECTION_ENTRIES, 2, "module", 4, 4, "module"},
    {HLF_SECTION_ENTRIES, 2, "rank", 4, 0, "rank"},
    {HLF_SECTION_ENTRIES, 2, "rank", 4, 70000, "rank"},
    {HLF_SECTION_ENTRIES, 2, "source_rank", 4, 1, "rank"},
    {HLF_SECTION_ENTRIES, 2, "flags", 4, 4, "flags"},
    {HLF_SECTION_ENTRIES, 2, "flags", 4, 0, "flags"},
    {HLF_SECTION_ENTRIES, 2, "stored_dtype_a", 1, 0, "element type"},
    {HLF_SECTION_ENTRIES, 2, "source_dtype_b", 1, 5, "element type"},
    {HLF_SECTION_ENTRIES, 2, "chunk_a", 4, 0xFFFF, "chunk"},
    {HLF_SECTION_ENTRIES, 2, "chunk_b", 4, 0xFFFFFFFF, "chunk"},
    {HLF_SECTION_ENTRIES, 2, "chunk_gauge", 4, 0xFFFFFFFF, "flags"},
    {HLF_SECTION_ENTRIES, 2, "scale", 8, NAN_BITS, "scale"},
    {HLF_SECTION_ENTRIES, 2, "squeeze_error", 8, NAN_BITS, "squeeze error"},
    {HLF_SECTION_ENTRIES, 2, "first_roc", 8, 1, "ROC"},
    {HLF_SECTION_CHUNKS, 1, "offset", 8, 0, "order"},
    {HLF_SECTION_CHUNKS, 1, "offset", 8, UINT64_MAX - 10, "outside"},
    {HLF_SECTION_CHUNKS, 1, "stored", 4, 0, "empty"},
    {HLF_SECTION_CHUNKS, 1, "stored", 4, 0xFFFFFFFF, "outside"},
    {HLF_SECTION_CHUNKS, 1, "filter_mask", 4, 3, "mask"},
    {HLF_SECTION_STATS, 1, "m", 4, 0, "samples"},
    {HLF_SECTION_STATS, 1, "m", 4, 1, "samples"},
    {HLF_SECTION_STATS, 1, "q", 4, 25, "basis"},
    {HLF_SECTION_STATS, 1, "first_row", 8, 1000, "rows"},
    {HLF_SECTION_STATS, 1, "first_leverage", 8, 1000, "rows"},
    {HLF_SECTION_STATS, 1, "rho", 8, NAN_BITS, "range"},
    {HLF_SECTION_STATS, 1, "lambda", 8, 0, "range"},
    {HLF_SECTION_STATS, 1, "log_norm", 8, NAN_BITS, "range"},
};

START_TEST(a_broken_rule_is_refused) {
    const breakage *b = &breakages[_i];
    hlf_index index;
    ck_assert_int_eq(open_pool(&index), HL_OK);
    memcpy(field_at(b->section, b->record, b->field), &b->value, b->width);
    hlt_pool_seal(pool.bytes, pool.size);
    hl_status status = open_pool(&index);
    ck_assert_msg(status == HL_ERR_CORRUPT || status == HL_ERR_LIMIT, "%s: status %d", b->field, status);
    ck_assert_msg(strstr(diag.message, b->reason) != NULL, "%s: \"%s\" lacks \"%s\"", b->field, diag.message, b->reason);
    ck_assert_ptr_null(index.bytes);
}
END_TEST

/* A module of width 8 x 24 with a kind and a geometry. */
typedef struct form {
    uint32_t kind, geometry[HLF_GEOMETRY];
    bool good;
} form;

static const form forms[] = {
    {HLF_MODULE_LINEAR, {0}, true},
    {HLF_MODULE_LINEAR, {0, 0, 0, 0, 0, 0, 0, 1}, false},
    {HLF_MODULE_EMBEDDING, {0}, true},
    {HLF_MODULE_EMBEDDING, {1}, false},
    {HLF_MODULE_CONV1D, {2, 4, 0, 0, 1}, true},
    {HLF_MODULE_CONV1D, {2, 4, 0, 0, 2}, true},
    {HLF_MODULE_CONV1D, {2, 4, 1, 0, 1}, false},
    {HLF_MODULE_CONV1D, {2, 4, 0, 0, 0}, false},
    {HLF_MODULE_CONV1D, {2, 4, 0, 0, 3}, false},
    {HLF_MODULE_CONV1D, {2, 4, 0, 0, 1, 1}, false},
    {HLF_MODULE_CONV1D, {2, 3, 0, 0, 1}, false},
    {HLF_MODULE_CONV2D, {2, 2, 2, 0, 1}, true},
    {HLF_MODULE_CONV2D, {2, 2, 0, 0, 1}, false},
    {HLF_MODULE_CONV3D, {1, 2, 2, 2, 1}, true},
    {HLF_MODULE_CONV3D, {0, 2, 2, 2, 1}, false},
    {HLF_MODULE_CONV3D, {65536, 65536, 65536, 65536, 1}, false},
    {HLF_MODULE_ATTENTION_QKV, {3}, true},
    {HLF_MODULE_ATTENTION_QKV, {2}, false},
    {HLF_MODULE_ATTENTION_QKV, {0}, false},
    {HLF_MODULE_EXPERTS, {8, 7}, true},
    {HLF_MODULE_EXPERTS, {8, 8}, false},
    {HLF_MODULE_EXPERTS, {1, 0}, false},
};

START_TEST(a_geometry_fits_its_kind) {
    static const hlt_pool_spec one = {.seed = 3, .adapters = 1, .modules = 1, .min_rank = 2, .max_rank = 2, .min_width = 8, .max_width = 8};
    const form *f = &forms[_i];
    hlf_index index;
    hlt_pool_free(&pool);
    pool = hlt_pool_build(&one);
    ck_assert_int_eq(open_pool(&index), HL_OK);
    uint8_t *record = pool.bytes + (hlf_index_section(&index, HLF_SECTION_MODULES) - pool.bytes);
    uint64_t width = f->kind == HLF_MODULE_ATTENTION_QKV ? 24 : 8;
    hlf_store_u32(record + 8, f->kind);
    hlf_store_u64(record + 24, width);
    for (int i = 0; i < HLF_GEOMETRY; i++) {
        hlf_store_u32(record + 32 + 4 * i, f->geometry[i]);
    }
    hlt_pool_seal(pool.bytes, pool.size);
    hl_status status = open_pool(&index);
    if (width != 8 && f->good) { /* the chunks are those of another width */
        ck_assert_ptr_nonnull(strstr(diag.message, "chunk"));
    } else if (f->good) {
        ck_assert_msg(status == HL_OK, "%s", diag.message);
    } else {
        ck_assert_int_eq(status, HL_ERR_CORRUPT);
        ck_assert_msg(strstr(diag.message, "geometry") != NULL, "%s", diag.message);
    }
}
END_TEST

/* A source type that does not hold every number of the stored one, for each entry and side. */
START_TEST(a_stored_type_is_the_source_s_or_a_narrower_one) {
    hlf_index index;
    for (uint32_t i = 0; i < spec.adapters * spec.modules_per_adapter; i++) {
        for (int side = 0; side < 2; side++) {
            uint8_t *source = field_at(HLF_SECTION_ENTRIES, i, side ? "source_dtype_b" : "source_dtype_a");
            const uint8_t stored = *field_at(HLF_SECTION_ENTRIES, i, side ? "stored_dtype_b" : "stored_dtype_a");
            const uint8_t kept = *source;
            *source = stored == HLF_DTYPE_F16 ? HLF_DTYPE_BF16 : (uint8_t)(stored - 1);
            hlt_pool_seal(pool.bytes, pool.size);
            ck_assert_int_eq(open_pool(&index), HL_ERR_CORRUPT);
            ck_assert_msg(strstr(diag.message, "wider") != NULL, "%s", diag.message);
            *source = kept;
        }
    }
}
END_TEST

START_TEST(reserved_bytes_must_be_zero) {
    static const struct {
        hlf_section_id section;
        uint32_t at;
    } gaps[] = {{HLF_SECTION_POOL, HLF_POOL_RECORD - 1},     {HLF_SECTION_ADAPTERS, HLF_ADAPTER_RECORD - 1},
                {HLF_SECTION_MODULES, HLF_MODULE_RECORD - 1}, {HLF_SECTION_ENTRIES, HLF_ENTRY_RECORD - 1},
                {HLF_SECTION_CHUNKS, HLF_CHUNK_RECORD - 1},   {HLF_SECTION_STATS, HLF_STATS_RECORD - 1}};
    hlf_index index;
    hlf_header header;
    ck_assert_int_eq(hlf_header_parse(pool.bytes, pool.size, pool.size, &header, NULL), HL_OK);
    uint8_t *byte = pool.bytes + header.sections[gaps[_i].section].offset + gaps[_i].at;
    *byte = 1;
    hlt_pool_seal(pool.bytes, pool.size);
    ck_assert_int_eq(open_pool(&index), HL_ERR_CORRUPT);
    ck_assert_msg(strstr(diag.message, "reserved") != NULL, "%s", diag.message);
    hlf_store_u16(pool.bytes + HLF_AT_MINOR, HLF_VERSION_MINOR + 1); /* a later minor version may use them */
    hlt_pool_seal(pool.bytes, pool.size);
    ck_assert_msg(open_pool(&index) == HL_OK, "%s", diag.message);
}
END_TEST

START_TEST(other_versions_and_features) {
    hlf_index index;
    hlf_store_u64(pool.bytes + HLF_AT_OPTIONAL, 0xFF);
    hlt_pool_seal(pool.bytes, pool.size);
    ck_assert_int_eq(open_pool(&index), HL_OK);
    hlf_store_u64(pool.bytes + HLF_AT_REQUIRED, 1);
    hlt_pool_seal(pool.bytes, pool.size);
    ck_assert_int_eq(open_pool(&index), HL_ERR_UNSUPPORTED);
    hlf_store_u64(pool.bytes + HLF_AT_REQUIRED, 0);
    hlf_store_u16(pool.bytes + HLF_AT_MAJOR, 2);
    hlt_pool_seal(pool.bytes, pool.size);
    ck_assert_int_eq(open_pool(&index), HL_ERR_UNSUPPORTED);
}
END_TEST

START_TEST(limits_are_kept) {
    hlf_index index;
    hlf_limits limits = hlf_default_limits;
    limits.max_adapters = spec.adapters - 1;
    ck_assert_int_eq(hlf_index_open(pool.bytes, pool.size, &limits, &index, &diag), HL_ERR_LIMIT);
    limits = hlf_default_limits;
    limits.max_dim = spec.dim - 1;
    hl_diag_clear(&diag);
    ck_assert_int_eq(hlf_index_open(pool.bytes, pool.size, &limits, &index, &diag), HL_ERR_LIMIT);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("index");
    TCase *tests = tcase_create("index");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, reads_what_is_right);
    tcase_add_test(tests, every_bit_of_header_and_tables_is_guarded);
    tcase_add_test(tests, every_truncation_is_refused);
    tcase_add_loop_test(tests, a_broken_rule_is_refused, 0, sizeof breakages / sizeof breakages[0]);
    tcase_add_loop_test(tests, a_geometry_fits_its_kind, 0, sizeof forms / sizeof forms[0]);
    tcase_add_test(tests, a_stored_type_is_the_source_s_or_a_narrower_one);
    tcase_add_loop_test(tests, reserved_bytes_must_be_zero, 0, 6);
    tcase_add_test(tests, other_versions_and_features);
    tcase_add_test(tests, limits_are_kept);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
