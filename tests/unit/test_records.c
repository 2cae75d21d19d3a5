/* Records: the field tables are sane, encoding and decoding are inverse, and the two decoders written out agree with the tables. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "format/records.h"

static const hlf_section_id record_sections[] = {HLF_SECTION_POOL,   HLF_SECTION_ADAPTERS, HLF_SECTION_MODULES, HLF_SECTION_ENTRIES,
                                                 HLF_SECTION_CHUNKS, HLF_SECTION_STATS,    HLF_SECTION_RIVALS};
enum { RECORD_SECTIONS = sizeof record_sections / sizeof record_sections[0] };

static uint32_t width_of(const hlf_field *field) {
    static const uint32_t width[] = {[HLF_FIELD_U8] = 1, [HLF_FIELD_U32] = 4, [HLF_FIELD_U64] = 8, [HLF_FIELD_F64] = 8};
    return width[field->type];
}

START_TEST(fields_ascend_aligned_and_inside) {
    const hlf_record_type *type = hlf_record_type_of(record_sections[_i]);
    uint32_t end = 0;
    ck_assert_uint_eq(type->size % 8, 0);
    for (uint32_t i = 0; i < type->field_count; i++) {
        const hlf_field *field = &type->fields[i];
        ck_assert_uint_ge(field->position, end);
        ck_assert_uint_eq(field->position % width_of(field), 0);
        end = field->position + width_of(field) * field->count;
    }
    ck_assert_uint_le(end, type->size);
}
END_TEST

START_TEST(reserved_bytes_are_those_of_no_field) {
    const hlf_record_type *type = hlf_record_type_of(record_sections[_i]);
    uint8_t record[512] = {0};
    uint8_t belongs[512] = {0};
    for (uint32_t i = 0; i < type->field_count; i++) {
        memset(belongs + type->fields[i].position, 1, width_of(&type->fields[i]) * type->fields[i].count);
    }
    ck_assert(hlf_record_reserved_is_zero(type, record));
    for (uint32_t at = 0; at < type->size; at++) {
        record[at] = 0x40;
        ck_assert_int_eq(hlf_record_reserved_is_zero(type, record), belongs[at]);
        record[at] = 0;
    }
}
END_TEST

/* Random bytes in the fields, zero elsewhere: what decoding followed by encoding must give back. */
static void random_record(const hlf_record_type *type, uint8_t *record) {
    memset(record, 0, type->size);
    for (uint32_t i = 0; i < type->field_count; i++) {
        for (uint32_t k = 0; k < width_of(&type->fields[i]) * type->fields[i].count; k++) {
            record[type->fields[i].position + k] = (uint8_t)rand();
        }
    }
}

#define ROUND_TRIP(name, section)                                                                                                \
    do {                                                                                                                         \
        uint8_t before[512], after[512];                                                                                         \
        hlf_##name##_record record;                                                                                              \
        random_record(hlf_record_type_of(section), before);                                                                      \
        hlf_##name##_decode(&record, before);                                                                                    \
        hlf_##name##_encode(&record, after);                                                                                     \
        ck_assert_mem_eq(before, after, hlf_record_type_of(section)->size);                                                      \
    } while (0)

START_TEST(decoding_and_encoding_are_inverse) {
    for (int i = 0; i < 100; i++) {
        ROUND_TRIP(pool, HLF_SECTION_POOL);
        ROUND_TRIP(adapter, HLF_SECTION_ADAPTERS);
        ROUND_TRIP(module, HLF_SECTION_MODULES);
        ROUND_TRIP(entry, HLF_SECTION_ENTRIES);
        ROUND_TRIP(chunk, HLF_SECTION_CHUNKS);
        ROUND_TRIP(stats, HLF_SECTION_STATS);
        ROUND_TRIP(rival, HLF_SECTION_RIVALS);
    }
}
END_TEST

START_TEST(sections_are_described) {
    for (int id = 1; id <= HLF_SECTION_LAST; id++) {
        ck_assert_ptr_nonnull(hlf_section_path((hlf_section_id)id));
        ck_assert_uint_gt(hlf_section_element_size((hlf_section_id)id), 0);
        ck_assert_int_eq(hlf_section_element((hlf_section_id)id) == HLF_ELEMENT_RECORD,
                         hlf_record_type_of((hlf_section_id)id) != NULL);
    }
    ck_assert_ptr_null(hlf_section_path((hlf_section_id)0));
    ck_assert_ptr_null(hlf_section_path((hlf_section_id)(HLF_SECTION_LAST + 1)));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("records");
    TCase *tests = tcase_create("records");
    tcase_add_loop_test(tests, fields_ascend_aligned_and_inside, 0, RECORD_SECTIONS);
    tcase_add_loop_test(tests, reserved_bytes_are_those_of_no_field, 0, RECORD_SECTIONS);
    tcase_add_test(tests, decoding_and_encoding_are_inverse);
    tcase_add_test(tests, sections_are_described);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
