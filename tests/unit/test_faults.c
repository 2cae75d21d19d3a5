#include "tests/unit/ingest_fixture.h"

#include <errno.h>
#include <pthread.h>

#include "compiler/base/text.h"

static char *printed(void) {
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    hlc_faults_print(faults, stream);
    fclose(stream);
    return text;
}

static void assert_printed(const char *expected) {
    char *text = printed();
    ck_assert_str_eq(text, expected);
    free(text);
}

START_TEST(lines_have_file_place_reason_and_remedy) {
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, "a.json", "key 'r'", "write a number", "not %d but %s", 8, "text");
    hlc_fault(faults, HLC_WARNING, HLC_FAULT_INPUT, "a.json", NULL, NULL, "odd");
    hlc_fault(faults, HLC_NOTE, HLC_FAULT_INPUT, NULL, NULL, NULL, "by the way");
    assert_printed("note: by the way\n"
                   "error: a.json: key 'r': not 8 but text (remedy: write a number)\n"
                   "warning: a.json: odd\n");
    ck_assert_uint_eq(hlc_faults_errors(faults), 1);
    ck_assert_uint_eq(hlc_faults_warnings(faults), 1);
    ck_assert_uint_eq(hlc_faults_count(faults), 3);
    ck_assert_uint_eq(hlc_faults_omitted(faults), 0);
}
END_TEST

START_TEST(printing_sorts_by_file_and_keeps_the_order_within) {
    hlc_bad_input(faults, "b", NULL, "first");
    hlc_bad_input(faults, "a", NULL, "second");
    hlc_bad_input(faults, "b", NULL, "third");
    hlc_bad_input(faults, "a", NULL, "a fourth");
    assert_printed("error: a: second\nerror: a: a fourth\nerror: b: first\nerror: b: third\n");
}
END_TEST

START_TEST(the_gravest_kind_gives_the_exit_status) {
    ck_assert_int_eq(hlc_faults_exit_status(faults), 0);
    hlc_fault(faults, HLC_WARNING, HLC_FAULT_RESOURCE, NULL, NULL, NULL, "only a warning");
    ck_assert_int_eq(hlc_faults_exit_status(faults), 0);
    hlc_bad_input(faults, NULL, NULL, "input");
    ck_assert_int_eq(hlc_faults_exit_status(faults), 1);
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_MISUSE, NULL, NULL, NULL, "misuse");
    ck_assert_int_eq(hlc_faults_exit_status(faults), 2);
    hlc_bad_io(faults, "x", "cannot open", ENOENT);
    ck_assert_int_eq(hlc_faults_exit_status(faults), 3);
    hlc_bad_input(faults, NULL, NULL, "input again");
    ck_assert_int_eq(hlc_faults_exit_status(faults), 3);
    assert_error(NULL, "cannot open: No such file or directory");
}
END_TEST

START_TEST(hostile_text_cannot_forge_lines) {
    hlc_bad_input(faults, "a\nerror: b", "tensor '\x1B[2J\x7F'", "%s",
                  "tab\t, C1 \xC2\x9B, bad \xFF, override \xE2\x80\xAE, fine \xC3\xA9");
    assert_printed("error: a\\x0Aerror: b: tensor '\\x1B[2J\\x7F': tab\\x09, C1 \\xC2\\x9B, bad \\xFF, override "
                   "\\xE2\\x80\\xAE, fine \xC3\xA9\n");
}
END_TEST

START_TEST(a_flood_is_counted_and_cannot_crowd_out_errors) {
    for (int i = 0; i < 25000; i++)
        hlc_fault(faults, HLC_WARNING, HLC_FAULT_INPUT, "w", NULL, NULL, "warning %d", i);
    for (int i = 0; i < 10005; i++)
        hlc_bad_input(faults, "e", NULL, "error %d", i);
    ck_assert_uint_eq(hlc_faults_errors(faults), 10005);
    ck_assert_uint_eq(hlc_faults_warnings(faults), 25000);
    ck_assert_uint_eq(hlc_faults_count(faults), 20000);
    ck_assert_uint_eq(hlc_faults_omitted(faults), 15005);
    ck_assert_int_eq(hlc_faults_exit_status(faults), 1);
    char *text = printed();
    ck_assert_ptr_nonnull(strstr(text, "error: e: error 9999\n"));
    ck_assert_ptr_null(strstr(text, "error: e: error 10000\n"));
    ck_assert_ptr_nonnull(strstr(text, "error: and 5 more errors\nwarning: and 15000 more warnings and notes\n"));
    free(text);
}
END_TEST

START_TEST(long_texts_are_cut) {
    char *name = malloc(1 << 20);
    memset(name, 'x', (1 << 20) - 1);
    name[(1 << 20) - 1] = '\0';
    hlc_bad_input(faults, name, name, "%s", name);
    hlc_fault_view view;
    hlc_faults_get(faults, 0, &view);
    ck_assert_uint_eq(strlen(view.file), 4095);
    ck_assert_uint_eq(strlen(view.place), 4095);
    ck_assert_uint_eq(strlen(view.reason), 4095);
    ck_assert_ptr_null(view.remedy);
    free(name);
}
END_TEST

START_TEST(a_list_can_be_taken_with_all_it_counted) {
    hlc_faults *own = hlc_faults_create();
    hlc_bad_input(faults, "a", NULL, "first");
    hlc_bad_input(own, "a", "here", "second");
    hlc_fault(own, HLC_NOTE, HLC_FAULT_INPUT, "b", NULL, NULL, "noted");
    for (int i = 0; i < 10010; i++)
        hlc_fault(own, HLC_WARNING, HLC_FAULT_INPUT, "c", NULL, NULL, "%d", i);
    hlc_fault(own, HLC_ERROR, HLC_FAULT_RESOURCE, "a", NULL, "try", "third");
    hlc_faults_take(faults, own);
    hlc_faults_take(faults, NULL);
    ck_assert_uint_eq(hlc_faults_errors(faults), 3);
    ck_assert_uint_eq(hlc_faults_warnings(faults), 10010);
    ck_assert_uint_eq(hlc_faults_omitted(faults), 11);
    ck_assert_int_eq(hlc_faults_exit_status(faults), 3);
    char *text = printed();
    const char expected[] = "error: a: first\nerror: a: here: second\nerror: a: third (remedy: try)\nnote: b: noted\nwarning: c: 0\n";
    ck_assert_int_eq(strncmp(text, expected, strlen(expected)), 0);
    ck_assert_ptr_nonnull(strstr(text, "warning: c: 9998\nwarning: and 11 more"));
    free(text);
}
END_TEST

static void *add_many(void *context) {
    for (int i = 0; i < 500; i++)
        hlc_bad_input(faults, context, NULL, "%d", i);
    return NULL;
}

START_TEST(threads_may_add_at_once) {
    char *files[] = {"a", "b", "c", "d"};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, add_many, files[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(hlc_faults_errors(faults), 2000);
    char *text = printed();
    ck_assert_int_eq(strncmp(text, "error: a: 0\nerror: a: 1\n", 24), 0);
    ck_assert_ptr_nonnull(strstr(text, "error: c: 499\nerror: d: 0\n"));
    free(text);
}
END_TEST

START_TEST(places_are_printable_and_bounded) {
    char buffer[HLC_PLACE_SIZE];
    ck_assert_str_eq(hlc_place(buffer, "tensor", "a\0b\n", 4), "tensor 'a\\x00b\\x0A'");
    ck_assert_str_eq(hlc_place(buffer, "tensor", "", 0), "tensor ''");
    char name[1000];
    for (int fill = 0; fill < 2; fill++) {
        memset(name, fill == 0 ? 'x' : '\n', sizeof name);
        for (size_t length = 0; length < sizeof name; length++)
            ck_assert_uint_lt(strlen(hlc_place(buffer, "tensor", name, length)), HLC_PLACE_SIZE);
    }
    ck_assert_ptr_nonnull(strstr(buffer, "\\x0A...'"));
}
END_TEST

START_TEST(utf8_is_what_unicode_says) {
    static const struct {
        const char *bytes;
        size_t length, prefix;
    } cases[] = {
        {"", 0, 0},
        {"plain text of more than eight bytes", 35, 35},
        {"12345678\xC3\xA9"
         "9",
         11, 11},
        {"\xF0\x9F\x98\x80", 4, 4},
        {"\xF4\x8F\xBF\xBF", 4, 4},
        {"\xED\x9F\xBF\xEE\x80\x80", 6, 6},
        {"a\x80", 2, 1},
        {"a\xC3", 2, 1},
        {"ab\xE2\x82", 4, 2},
        {"\xC0\x80", 2, 0},
        {"\xC1\xBF", 2, 0},
        {"\xE0\x9F\xBF", 3, 0},
        {"\xED\xA0\x80", 3, 0},
        {"\xF0\x8F\xBF\xBF", 4, 0},
        {"\xF4\x90\x80\x80", 4, 0},
        {"\xF5\x80\x80\x80", 4, 0},
        {"12345678abc\xFF"
         "5678",
         16, 11},
        {"\xE2\x82\x41", 3, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_uint_eq(hlc_utf8_prefix(cases[i].bytes, cases[i].length), cases[i].prefix);
}
END_TEST

START_TEST(text_grows) {
    hlc_text text = {0};
    for (int i = 0; i < 1000; i++)
        ck_assert(hlc_text_printf(&text, "%03d", i) && hlc_text_append(&text, "\0", 1));
    ck_assert_uint_eq(text.length, 4000);
    ck_assert_int_eq(memcmp(text.bytes + 3996, "999\0", 4), 0);
    ck_assert_int_eq(text.bytes[text.length], '\0');
    hlc_text_free(&text);
    ck_assert_ptr_null(text.bytes);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("faults");
    TCase *list = tcase_create("list");
    tcase_add_checked_fixture(list, enter_folder, leave_folder);
    tcase_add_test(list, lines_have_file_place_reason_and_remedy);
    tcase_add_test(list, printing_sorts_by_file_and_keeps_the_order_within);
    tcase_add_test(list, the_gravest_kind_gives_the_exit_status);
    tcase_add_test(list, hostile_text_cannot_forge_lines);
    tcase_add_test(list, a_flood_is_counted_and_cannot_crowd_out_errors);
    tcase_add_test(list, long_texts_are_cut);
    tcase_add_test(list, a_list_can_be_taken_with_all_it_counted);
    tcase_add_test(list, threads_may_add_at_once);
    suite_add_tcase(suite, list);
    TCase *text = tcase_create("text");
    tcase_add_test(text, places_are_printable_and_bounded);
    tcase_add_test(text, utf8_is_what_unicode_says);
    tcase_add_test(text, text_grows);
    suite_add_tcase(suite, text);
    return run_suite(suite);
}
