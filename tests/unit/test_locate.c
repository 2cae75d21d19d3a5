#include "tests/unit/ingest_fixture.h"

#include "compiler/ingest/locate.h"

static hlc_adapter_files *files;
static size_t count;

static void enter(void) {
    enter_folder();
    files = NULL;
    count = 0;
}

static void leave(void) {
    hlc_adapter_files_free(files, count);
    leave_folder();
}

#define OPERANDS(...)                                                                                                  \
    (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)

static void locate(const char *const *operands, size_t operand_count, const char *embeddings) {
    hlc_adapter_files_free(files, count);
    forget_faults();
    ck_assert(hlc_locate(operands, operand_count, embeddings, faults, &files, &count));
}

static void touch(const char *path) {
    write_text(path, "x");
}

static void make_folder(const char *path) {
    ck_assert_int_eq(mkdir(path, 0700), 0);
}

/* A folder with an adapter of the standard names. */
static void make_adapter(const char *path) {
    char file[256];
    make_folder(path);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", path);
    write_safetensors(file, "{}", NULL, 0);
    snprintf(file, sizeof file, "%s/adapter_config.json", path);
    write_text(file, "{\"peft_type\": \"LORA\"}");
}

static void assert_text(const char *text, const char *expected) {
    if (expected)
        ck_assert_str_eq(text, expected);
    else
        ck_assert_ptr_null(text);
}

static void assert_files(size_t i, const char *name, const char *weights, const char *config, const char *embeddings,
                         const char *key) {
    ck_assert_uint_lt(i, count);
    ck_assert_str_eq(files[i].name.bytes, name);
    ck_assert_uint_eq(files[i].name.length, strlen(name));
    ck_assert_str_eq(files[i].weights, weights);
    assert_text(files[i].config, config);
    assert_text(files[i].embeddings, embeddings);
    assert_text(files[i].embeddings_key, key);
}

START_TEST(folders_and_files_are_found_and_sorted_by_name) {
    make_adapter("zeta");
    make_adapter("Alpha");
    make_adapter("beta");
    write_safetensors("gamma.safetensors", "{}", NULL, 0);
    write_text("gamma.adapter_config.json", "{}");
    locate(OPERANDS("zeta", "beta/", "gamma.safetensors", "Alpha/adapter_model.safetensors"), NULL);
    assert_silent();
    ck_assert_uint_eq(count, 4);
    assert_files(0, "Alpha", "Alpha/adapter_model.safetensors", "Alpha/adapter_config.json", NULL, NULL);
    assert_files(1, "beta", "beta/adapter_model.safetensors", "beta/adapter_config.json", NULL, NULL);
    assert_files(2, "gamma", "gamma.safetensors", "gamma.adapter_config.json", NULL, NULL);
    assert_files(3, "zeta", "zeta/adapter_model.safetensors", "zeta/adapter_config.json", NULL, NULL);
}
END_TEST

START_TEST(names_come_from_stems_or_from_folders) {
    make_adapter("one");
    make_folder("one/two");
    rename("one/adapter_model.safetensors", "one/two/pytorch_lora_weights.safetensors");
    locate(OPERANDS("one/two"), NULL);
    assert_files(0, "two", "one/two/pytorch_lora_weights.safetensors", NULL, NULL, NULL);
    rename("one/two/pytorch_lora_weights.safetensors", "one/adapters.safetensors");
    locate(OPERANDS("one/two/.."), NULL);
    assert_files(0, "one", "one/two/../adapters.safetensors", "one/two/../adapter_config.json", NULL, NULL);
    rename("one/adapters.safetensors", "one/my.model.safetensors");
    locate(OPERANDS("one/my.model.safetensors"), NULL);
    assert_files(0, "my.model", "one/my.model.safetensors", "one/adapter_config.json", NULL, NULL);
    rename("one/my.model.safetensors", "one/adapter_model.safetensors");
    ck_assert_int_eq(chdir("one"), 0);
    locate(OPERANDS("."), NULL);
    assert_files(0, "one", "./adapter_model.safetensors", "./adapter_config.json", NULL, NULL);
    locate(OPERANDS("adapter_model.safetensors"), NULL);
    assert_files(0, "one", "adapter_model.safetensors", "adapter_config.json", NULL, NULL);
    touch("adapter_model.bin");
    locate(OPERANDS("adapter_model.bin"), NULL);
    ck_assert_str_eq(files[0].name.bytes, "one");
    touch(".safetensors");
    locate(OPERANDS(".safetensors"), NULL);
    ck_assert_uint_eq(count, 0);
    assert_error(NULL, "name is empty");
    touch("\xFF.safetensors");
    locate(OPERANDS("\xFF.safetensors"), NULL);
    assert_error(NULL, "not UTF-8");
}
END_TEST

START_TEST(equal_names_are_refused_and_both_files_named) {
    make_folder("a");
    make_folder("b");
    make_adapter("a/same");
    make_adapter("b/same");
    locate(OPERANDS("a/same", "b/same"), NULL);
    ck_assert_uint_eq(count, 2);
    assert_error(NULL, "the name 'same' is also that of a/same/adapter_model.safetensors");
    hlc_fault_view view;
    hlc_faults_get(faults, 0, &view);
    ck_assert_str_eq(view.file, "b/same/adapter_model.safetensors");
    ck_assert_int_eq(hlc_faults_exit_status(faults), 1);
    locate(OPERANDS("a/same", "a/same"), NULL);
    assert_error(NULL, "is also that of");
}
END_TEST

START_TEST(missing_paths_are_resource_faults) {
    make_adapter("good");
    locate(OPERANDS("gone", "good", "good/adapter_model.safetensors/x"), NULL);
    ck_assert_uint_eq(count, 1);
    ck_assert_uint_eq(hlc_faults_errors(faults), 2);
    assert_error(NULL, "cannot open: No such file or directory");
    assert_error(NULL, "cannot open: Not a directory");
    ck_assert_int_eq(hlc_faults_exit_status(faults), 3);
    locate(OPERANDS("good"), "gone");
    ck_assert_uint_eq(count, 1);
    ck_assert_int_eq(hlc_faults_exit_status(faults), 3);
}
END_TEST

START_TEST(folders_without_an_adapter_are_refused) {
    make_folder("empty");
    locate(OPERANDS("empty"), NULL);
    assert_error(NULL, "the folder holds no adapter");
    touch("empty/adapter_model.bin");
    locate(OPERANDS("empty"), NULL);
    assert_error(NULL, "the folder holds adapter_model.bin, which is not read");
    touch("empty/adapter_model.safetensors");
    touch("empty/adapters.safetensors");
    locate(OPERANDS("empty"), NULL);
    assert_error(NULL, "two adapters, adapter_model.safetensors and adapters.safetensors");
    ck_assert_int_eq(hlc_faults_exit_status(faults), 1);
    ck_assert_int_eq(mkfifo("pipe", 0600), 0);
    locate(OPERANDS("pipe"), NULL);
    assert_error(NULL, "neither a file nor a folder");
}
END_TEST

START_TEST(the_configuration_beside_the_file_comes_first_then_the_metadata_then_the_folders) {
    make_folder("d");
    write_safetensors("d/x.safetensors", "{}", NULL, 0);
    locate(OPERANDS("d/x.safetensors"), NULL);
    assert_files(0, "x", "d/x.safetensors", NULL, NULL, NULL);
    touch("d/adapter_config.json");
    locate(OPERANDS("d/x.safetensors"), NULL);
    assert_silent();
    assert_files(0, "x", "d/x.safetensors", "d/adapter_config.json", NULL, NULL);
    write_safetensors("d/y.safetensors", "{}", NULL, 0);
    locate(OPERANDS("d/x.safetensors"), NULL);
    assert_files(0, "x", "d/x.safetensors", "d/adapter_config.json", NULL, NULL);
    assert_warning(NULL, "adapter_config.json is used, which several .safetensors files share");
    write_safetensors("d/x.safetensors", "{\"__metadata__\":{\"k\":\"{\\\"peft_type\\\":\\\"LORA\\\"}\"}}", NULL, 0);
    locate(OPERANDS("d/x.safetensors"), NULL);
    assert_silent();
    assert_files(0, "x", "d/x.safetensors", NULL, NULL, NULL);
    touch("d/x.adapter_config.json");
    locate(OPERANDS("d/x.safetensors"), NULL);
    assert_silent();
    assert_files(0, "x", "d/x.safetensors", "d/x.adapter_config.json", NULL, NULL);
}
END_TEST

START_TEST(embeddings_are_found_beside_an_adapter) {
    static const char *const suffixes[] = {"safetensors", "npy", "h5"};
    make_adapter("d");
    for (size_t i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "d/embeddings.%s", suffixes[i]);
        touch(path);
        locate(OPERANDS("d"), NULL);
        assert_silent();
        assert_files(0, "d", "d/adapter_model.safetensors", "d/adapter_config.json", path, "embeddings");
        ck_assert_int_eq(unlink(path), 0);
    }
    touch("d/adapter_model.embeddings.npy");
    locate(OPERANDS("d"), NULL);
    assert_files(0, "d", "d/adapter_model.safetensors", "d/adapter_config.json", "d/adapter_model.embeddings.npy",
                 "embeddings");
}
END_TEST

START_TEST(two_candidates_are_refused_and_both_named) {
    make_adapter("d");
    touch("d/embeddings.npy");
    touch("d/embeddings.h5");
    locate(OPERANDS("d"), NULL);
    ck_assert_uint_eq(count, 1);
    ck_assert_ptr_null(files[0].embeddings);
    assert_error(NULL, "two embeddings files for this adapter: d/embeddings.npy and d/embeddings.h5");
    ck_assert_int_eq(hlc_faults_exit_status(faults), 1);
    unlink("d/embeddings.h5");
    make_folder("e");
    touch("e/d.npy");
    locate(OPERANDS("d"), "e");
    assert_error(NULL, "d/embeddings.npy and e/d.npy");
}
END_TEST

START_TEST(files_with_company_have_their_own_embeddings) {
    make_folder("d");
    write_safetensors("d/x.safetensors", "{}", NULL, 0);
    touch("d/embeddings.npy");
    touch("d/x.embeddings.safetensors");
    unlink("d/x.embeddings.safetensors");
    locate(OPERANDS("d/x.safetensors"), NULL);
    ck_assert_str_eq(files[0].embeddings, "d/embeddings.npy");
    write_safetensors("d/y.safetensors", "{}", NULL, 0);
    touch("d/y.embeddings.h5");
    touch("d/x.embeddings.safetensors");
    locate(OPERANDS("d/x.safetensors", "d/y.safetensors"), NULL);
    assert_silent();
    assert_files(0, "x", "d/x.safetensors", NULL, "d/x.embeddings.safetensors", "embeddings");
    assert_files(1, "y", "d/y.safetensors", NULL, "d/y.embeddings.h5", "embeddings");
    unlink("d/x.embeddings.safetensors");
    locate(OPERANDS("d/x.safetensors"), NULL);
    ck_assert_ptr_null(files[0].embeddings);
}
END_TEST

START_TEST(embeddings_do_not_count_as_company) {
    make_folder("d");
    write_safetensors("d/x.safetensors", "{}", NULL, 0);
    touch("d/embeddings.safetensors");
    touch("d/adapter_config.json");
    locate(OPERANDS("d/x.safetensors"), NULL);
    assert_silent();
    ck_assert_str_eq(files[0].embeddings, "d/embeddings.safetensors");
}
END_TEST

START_TEST(a_folder_of_embeddings_is_searched_by_name) {
    make_adapter("a");
    make_adapter("b");
    make_folder("e");
    touch("e/a.npy");
    touch("e/b.safetensors");
    locate(OPERANDS("b", "a"), "e");
    assert_silent();
    assert_files(0, "a", "a/adapter_model.safetensors", "a/adapter_config.json", "e/a.npy", "embeddings");
    assert_files(1, "b", "b/adapter_model.safetensors", "b/adapter_config.json", "e/b.safetensors", "embeddings");
}
END_TEST

START_TEST(an_adapter_is_not_its_own_embeddings) {
    make_folder("d");
    write_safetensors("d/x.safetensors", "{}", NULL, 0);
    locate(OPERANDS("d/x.safetensors"), "d");
    ck_assert_ptr_null(files[0].embeddings);
    touch("d/x.npy");
    locate(OPERANDS("d/x.safetensors"), "d/");
    ck_assert_str_eq(files[0].embeddings, "d/x.npy");
    touch("d/x.embeddings.npy");
    unlink("d/x.npy");
    ck_assert_int_eq(symlink("x.embeddings.npy", "d/x.npy"), 0);
    locate(OPERANDS("d/x.safetensors"), "d");
    assert_silent();
    ck_assert_str_eq(files[0].embeddings, "d/x.embeddings.npy");
}
END_TEST

START_TEST(one_file_may_hold_the_embeddings_of_all) {
    static const char tensors[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]},"
                                  "\"embeddings\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[4,8]}}";
    make_adapter("a");
    make_adapter("b");
    write_safetensors("all.safetensors", tensors, NULL, 8);
    locate(OPERANDS("a", "b"), "all.safetensors");
    assert_silent();
    assert_files(0, "a", "a/adapter_model.safetensors", "a/adapter_config.json", "all.safetensors", "a");
    assert_files(1, "b", "b/adapter_model.safetensors", "b/adapter_config.json", "all.safetensors", "b");
    touch("b/embeddings.npy");
    locate(OPERANDS("a", "b"), "all.safetensors");
    assert_silent();
    ck_assert_str_eq(files[1].embeddings, "b/embeddings.npy");
    ck_assert_str_eq(files[1].embeddings_key, "embeddings");
    touch("a/embeddings.npy");
    locate(OPERANDS("a", "b"), "all.safetensors");
    assert_error(NULL, "a/embeddings.npy and all.safetensors");
    unlink("b/embeddings.npy");
    locate(OPERANDS("b"), "all.safetensors");
    assert_files(0, "b", "b/adapter_model.safetensors", "b/adapter_config.json", "all.safetensors", "embeddings");
    touch("one.npy");
    locate(OPERANDS("b"), "one.npy");
    assert_silent();
    ck_assert_str_eq(files[0].embeddings, "one.npy");
    locate(OPERANDS("a", "b"), "one.npy");
    assert_error(NULL, "holds the embeddings of one adapter, and 2 are given");
    touch("all.h5");
    locate(OPERANDS("b"), "all.h5");
    ck_assert_str_eq(files[0].embeddings_key, "b");
}
END_TEST

START_TEST(broken_files_are_left_to_their_readers) {
    make_adapter("a");
    touch("a/adapter_model.safetensors");
    touch("bad.safetensors");
    locate(OPERANDS("a"), "bad.safetensors");
    assert_silent();
    assert_files(0, "a", "a/adapter_model.safetensors", "a/adapter_config.json", "bad.safetensors", "a");
}
END_TEST

START_TEST(no_operand_gives_no_adapter) {
    locate(NULL, 0, NULL);
    assert_silent();
    ck_assert_uint_eq(count, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("locate");
    TCase *all = tcase_create("all");
    tcase_add_checked_fixture(all, enter, leave);
    tcase_add_test(all, folders_and_files_are_found_and_sorted_by_name);
    tcase_add_test(all, names_come_from_stems_or_from_folders);
    tcase_add_test(all, equal_names_are_refused_and_both_files_named);
    tcase_add_test(all, missing_paths_are_resource_faults);
    tcase_add_test(all, folders_without_an_adapter_are_refused);
    tcase_add_test(all, the_configuration_beside_the_file_comes_first_then_the_metadata_then_the_folders);
    tcase_add_test(all, embeddings_are_found_beside_an_adapter);
    tcase_add_test(all, two_candidates_are_refused_and_both_named);
    tcase_add_test(all, files_with_company_have_their_own_embeddings);
    tcase_add_test(all, embeddings_do_not_count_as_company);
    tcase_add_test(all, a_folder_of_embeddings_is_searched_by_name);
    tcase_add_test(all, an_adapter_is_not_its_own_embeddings);
    tcase_add_test(all, one_file_may_hold_the_embeddings_of_all);
    tcase_add_test(all, broken_files_are_left_to_their_readers);
    tcase_add_test(all, no_operand_gives_no_adapter);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
