#include "tests/unit/ingest_fixture.h"

#include <math.h>

#include "compiler/ingest/peft_config.h"

static hlc_peft_config *config;

static void enter(void) {
    enter_folder();
    config = NULL;
}

static void leave(void) {
    hlc_peft_config_free(config);
    leave_folder();
}

/* text lives as long as the test. */
static void read_text(const char *text, bool drop_extras) {
    static hlc_string string;
    forget_faults();
    hlc_peft_config_free(config);
    free(string.bytes);
    ck_assert(hlc_string_copy(&string, text, strlen(text)));
    config = hlc_peft_config_read("adapter_config.json", NULL, &string, drop_extras, faults);
    ck_assert_ptr_nonnull(config);
    ck_assert_int_eq(config->state == HLC_CONFIG_GOOD, hlc_faults_errors(faults) == 0);
}

/* The fields between the braces, besides peft_type. */
static void read_fields(const char *fields) {
    char text[4096];
    snprintf(text, sizeof text, "{\"peft_type\": \"LORA\"%s%s}", fields[0] ? ", " : "", fields);
    read_text(text, false);
}

static void assert_good(const char *fields) {
    read_fields(fields);
    assert_silent();
    ck_assert_int_eq(config->state, HLC_CONFIG_GOOD);
}

static void assert_refused(const char *fields, const char *place, const char *part) {
    read_fields(fields);
    assert_error(place, part);
    ck_assert_int_eq(config->state, HLC_CONFIG_FAULTY);
    ck_assert_int_eq(hlc_faults_exit_status(faults), 1);
}

static void assert_resolved(const char *module, uint32_t expected_rank, double expected_scale) {
    uint32_t rank = 0;
    double scale = 0;
    ck_assert(hlc_peft_config_resolve(config, module, strlen(module), &rank, &scale, faults));
    ck_assert_uint_eq(rank, expected_rank);
    ck_assert(memcmp(&scale, &expected_scale, sizeof scale) == 0);
}

START_TEST(scale_is_alpha_over_rank_in_double) {
    assert_good("");
    assert_resolved("m", 8, 1.0);
    assert_good("\"r\": 16, \"lora_alpha\": 32");
    assert_resolved("m", 16, 2.0);
    assert_good("\"r\": 3, \"lora_alpha\": 1");
    assert_resolved("m", 3, 1.0 / 3.0);
    assert_good("\"r\": 3, \"lora_alpha\": 0.5");
    assert_resolved("m", 3, 0.5 / 3.0);
    assert_good("\"r\": 3, \"lora_alpha\": 0");
    assert_resolved("m", 3, 0.0);
    assert_good("\"lora_alpha\": 16, \"r\": 7, \"use_rslora\": true");
    assert_resolved("m", 7, 16.0 / sqrt(7.0));
    assert_good("\"r\": 65535, \"use_rslora\": null");
    assert_resolved("m", 65535, 8.0 / 65535.0);
}
END_TEST

START_TEST(ranks_and_alphas_that_are_no_such_numbers_are_refused) {
    static const char *const ranks[] = {
        "0", "-1", "8.0", "\"8\"", "null", "true", "65536", "[8]", "9223372036854775807"};
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        char fields[64];
        snprintf(fields, sizeof fields, "\"r\": %s", ranks[i]);
        assert_refused(fields, "key 'r'", "the rank must be an integer from 1 to 65535");
    }
    static const char *const alphas[] = {"null", "\"16\"", "true", "[]", "{}"};
    for (size_t i = 0; i < sizeof alphas / sizeof *alphas; i++) {
        char fields[64];
        snprintf(fields, sizeof fields, "\"lora_alpha\": %s", alphas[i]);
        assert_refused(fields, "key 'lora_alpha'", "must be a number");
    }
    assert_refused("\"use_rslora\": 1", "key 'use_rslora'", "must be true or false");
    uint32_t rank;
    double scale;
    read_fields("\"r\": 0");
    ck_assert(!hlc_peft_config_resolve(config, "m", 1, &rank, &scale, faults));
}
END_TEST

START_TEST(text_that_is_no_strict_json_is_refused) {
    static const struct {
        const char *text, *place, *part;
    } cases[] = {
        {"", "byte 0", "ends too early"},
        {"[]", "byte 0", "not an object"},
        {"{\"peft_type\": \"LORA\", \"r\": NaN}", "byte 27", "no JSON value"},
        {"{\"peft_type\": \"LORA\", \"lora_alpha\": Infinity}", "byte 36", "no JSON value"},
        {"{\"peft_type\": \"LORA\", \"lora_alpha\": 1e400}", "byte 36", "range of float64"},
        {"{\"peft_type\": \"LORA\", \"r\": 8, \"r\": 8}", "byte", "duplicate object key"},
        {"{\"peft_type\": \"LORA\", \"x\": {\"a\": 1, \"a\": 1}}", "byte", "duplicate object key"},
        {"{\"peft_type\": \"LORA\",}", "byte 21", "member's name"},
        {"{\"peft_type\": \"LORA\"} // so", "byte 22", "behind the end"},
        {"\xEF\xBB\xBF{}", "byte 0", "byte order mark"},
        {"{\"peft_type\": \"LO\xFFRA\"}", "byte 17", "not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        read_text(cases[i].text, false);
        assert_error(cases[i].place, cases[i].part);
        ck_assert_int_eq(config->state, HLC_CONFIG_FOREIGN);
    }
    char deep[1024];
    int at = snprintf(deep, sizeof deep, "{\"peft_type\": \"LORA\", \"x\": ");
    memset(deep + at, '[', 200);
    memset(deep + at + 200, ']', 200);
    strcpy(deep + at + 400, "}");
    read_text(deep, false);
    assert_error("byte", "nested more than 128 deep");
}
END_TEST

START_TEST(text_of_very_many_values_is_refused) {
    size_t count = 600000;
    char *text = malloc(4 * count);
    size_t at = (size_t)sprintf(text, "{\"peft_type\": \"LORA\", \"x\": [{}");
    for (size_t i = 0; i < count; i++)
        at += (size_t)sprintf(text + at, ",{}");
    strcpy(text + at, "]}");
    read_text(text, false);
    assert_error("byte", "too many values");
    free(text);
}
END_TEST

START_TEST(other_kinds_of_adapters_are_refused_by_name) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"{}", "the key is missing"},
        {"{\"r\": 8}", "the key is missing"},
        {"{\"peft_type\": 1}", "must be a string"},
        {"{\"peft_type\": null}", "must be a string"},
        {"{\"peft_type\": \"lora\"}", "type 'lora' is not LoRA"},
        {"{\"peft_type\": \"VERA\"}", "type 'VERA' is not LoRA but VeRA"},
        {"{\"peft_type\": \"IA3\", \"r\": \"nonsense\"}", "type 'IA3' is not LoRA but IA3"},
        {"{\"peft_type\": \"XLORA\"}", "X-LoRA is a mixture"},
        {"{\"fine_tune_type\": \"lora\", \"lora_parameters\": {\"rank\": 8, \"scale\": 20.0}}", "MLX"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        read_text(cases[i].text, false);
        assert_error(NULL, cases[i].part);
        ck_assert_uint_eq(hlc_faults_errors(faults), 1);
        ck_assert_int_eq(config->state, HLC_CONFIG_FOREIGN);
    }
}
END_TEST

START_TEST(features_that_are_no_plain_lora_are_refused_by_name) {
    static const char *const set[][2] = {
        {"use_dora", "true"},
        {"layer_replication", "[[0, 4], [2, 5]]"},
        {"alora_invocation_tokens", "[1, 2]"},
        {"kasa_config", "{\"beta\": 1}"},
        {"arrow_config", "{\"top_k\": 3}"},
        {"enable_lora", "[true, false, true]"},
        {"megatron_config", "{\"a\": 1}"},
        {"use_qalora", "true"},
        {"use_bdlora", "{\"nblocks\": 2}"},
        {"velora_config", "{\"num_groups\": 1}"},
        {"monteclora_config", "{\"num_samples\": 4}"},
    };
    for (size_t i = 0; i < sizeof set / sizeof *set; i++) {
        char fields[128];
        snprintf(fields, sizeof fields, "\"%s\": %s", set[i][0], set[i][1]);
        assert_refused(fields, set[i][0], "");
        static const char *const unset[] = {"null", "false", "[]", "{}"};
        for (size_t k = 0; k < sizeof unset / sizeof *unset; k++) {
            snprintf(fields, sizeof fields, "\"%s\": %s", set[i][0], unset[k]);
            assert_good(fields);
        }
    }
}
END_TEST

START_TEST(initialisations_that_change_the_base_are_refused) {
    static const char *const refused[] = {"pissa",   "pissa_niter_16", "olora",         "OLoRA", "corda",
                                          "lora_ga", "loftq",          "something_new", ""};
    static const char *const good[] = {"true",         "false",   "null",           "\"gaussian\"",
                                       "\"Gaussian\"", "\"eva\"", "\"orthogonal\"", "\"mica\""};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char fields[128];
        snprintf(fields, sizeof fields, "\"init_lora_weights\": \"%s\"", refused[i]);
        assert_refused(fields, "key 'init_lora_weights'", "initialisation");
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char fields[128];
        snprintf(fields, sizeof fields, "\"init_lora_weights\": %s", good[i]);
        assert_good(fields);
    }
    assert_refused("\"init_lora_weights\": 1", "key 'init_lora_weights'", "must be true, false or a string");
}
END_TEST

START_TEST(extras_are_refused_or_dropped_with_a_warning) {
    static const char *const extras[][2] = {
        {"\"modules_to_save\": [\"classifier\", \"score\"]",
         "modules saved whole are no low-rank update: classifier, score"},
        {"\"bias\": \"all\"", "trained biases"},
        {"\"bias\": \"lora_only\"", "trained biases"},
        {"\"trainable_token_indices\": [1, 2]", "trained tokens"},
        {"\"trainable_token_indices\": {\"embed_tokens\": [0]}", "trained tokens"},
        {"\"lora_bias\": true", "a bias of lora_B"},
    };
    for (size_t i = 0; i < sizeof extras / sizeof *extras; i++) {
        char text[256];
        assert_refused(extras[i][0], NULL, extras[i][1]);
        assert_error(NULL, "--drop-extras leaves it out");
        snprintf(text, sizeof text, "{\"peft_type\": \"LORA\", %s}", extras[i][0]);
        read_text(text, true);
        assert_warning(NULL, extras[i][1]);
        ck_assert_uint_eq(hlc_faults_errors(faults), 0);
    }
    assert_good(
        "\"modules_to_save\": null, \"bias\": \"none\", \"trainable_token_indices\": null, \"lora_bias\": false");
    assert_good("\"modules_to_save\": [], \"bias\": null, \"trainable_token_indices\": []");
    assert_refused("\"bias\": \"some\"", "key 'bias'", "must be \"none\"");
    assert_refused("\"modules_to_save\": \"score\"", "key 'modules_to_save'", "list of names");
    assert_refused("\"modules_to_save\": [1]", "key 'modules_to_save'", "list of names");
}
END_TEST

START_TEST(every_fault_of_a_config_is_reported) {
    read_fields("\"r\": 0, \"lora_alpha\": null, \"use_dora\": true, \"bias\": \"all\", \"rank_pattern\": {\"(\": 4}");
    ck_assert_uint_eq(hlc_faults_errors(faults), 5);
}
END_TEST

START_TEST(unknown_keys_are_warned_about_and_known_ones_are_not) {
    assert_good(
        "\"peft_version\": \"0.21.2\", \"auto_mapping\": null, \"task_type\": \"CAUSAL_LM\", \"inference_mode\": true, "
        "\"lora_dropout\": 0.05, \"fan_in_fan_out\": false, \"target_modules\": [\"q_proj\"], \"exclude_modules\": "
        "null, "
        "\"layers_to_transform\": null, \"layers_pattern\": null, \"megatron_core\": \"megatron.core\", "
        "\"loftq_config\": {}, "
        "\"eva_config\": null, \"corda_config\": null, \"lora_ga_config\": null, \"qalora_group_size\": 16, "
        "\"ensure_weight_tying\": false, \"base_model_name_or_path\": null, \"revision\": null");
    read_fields("\"something\": 1");
    assert_warning("key 'something'", "not known");
    ck_assert_uint_eq(hlc_faults_errors(faults), 0);
    char fields[4096] = "\"k0\": 0";
    for (int i = 1; i < 100; i++)
        sprintf(fields + strlen(fields), ", \"k%d\": 0", i);
    read_fields(fields);
    assert_warning(NULL, "and 80 more unknown keys");
    ck_assert_uint_eq(hlc_faults_warnings(faults), 21);
}
END_TEST

START_TEST(base_model_and_revision_are_kept) {
    assert_good("\"base_model_name_or_path\": \"org/base\", \"revision\": \"main\"");
    ck_assert_str_eq(config->base_model.bytes, "org/base");
    ck_assert_str_eq(config->revision.bytes, "main");
    assert_refused("\"base_model_name_or_path\": 7", "key 'base_model_name_or_path'", "must be a string");
    assert_refused("\"revision\": \"a\\u0000b\"", "key 'revision'", "without NUL");
}
END_TEST

START_TEST(patterns_match_as_python_does) {
    assert_good("\"r\": 8, \"lora_alpha\": 16, \"rank_pattern\": {\"q_proj\": 4, \"layers.1.v_proj\": 2, "
                "\"l.yers\\\\.[23]\\\\.v_proj\": 6}");
    assert_resolved("model.layers.0.q_proj", 4, 4.0);
    assert_resolved("q_proj", 4, 4.0);
    assert_resolved("model.layers.0.xq_proj", 8, 2.0);
    assert_resolved("model.layers.0.q_proj.x", 8, 2.0);
    assert_resolved("model.layers.1.v_proj", 2, 8.0);
    assert_resolved("model.layersX1Yv_proj", 2, 8.0);
    assert_resolved("model.layers.3.v_proj", 6, 16.0 / 6.0);
    assert_resolved("model.layers.4.v_proj", 8, 2.0);
    assert_resolved("model.\xC3\xA9q_proj", 8, 2.0);
    assert_resolved("\xC3\xA9.q_proj", 4, 4.0);
    assert_resolved("layers\xC3\xA9"
                    "1.v_proj",
                    2, 8.0);
    assert_resolved("q_proj\n", 4, 4.0);
    assert_resolved("q_proj\n\n", 8, 2.0);
    assert_resolved("a\nb.q_proj", 8, 2.0);
    assert_resolved("model.xlayers.3.v_proj", 8, 2.0);
    assert_resolved("layers.3.v_proj\n", 6, 16.0 / 6.0);
}
END_TEST

START_TEST(the_first_match_in_the_files_order_counts) {
    assert_good("\"rank_pattern\": {\"proj\": 2, \"q_proj\": 3, \".*\": 5, \"v\": 7}");
    assert_resolved("a.proj", 2, 4.0);
    assert_resolved("a.q_proj", 3, 8.0 / 3.0);
    assert_resolved("v", 5, 8.0 / 5.0);
    assert_good("\"rank_pattern\": {\"z|y\": 2, \"a\": 3, \"b\": 4}, \"alpha_pattern\": {\"b\": 1.5, \"a\": 2}");
    assert_resolved("m.z", 2, 4.0);
    assert_resolved("m.y", 2, 4.0);
    assert_resolved("m.a", 3, 2.0 / 3.0);
    assert_resolved("m.b", 4, 1.5 / 4.0);
    assert_good("\"rank_pattern\": {\"a+\": 2}");
    assert_resolved("m.aa", 2, 4.0);
    assert_resolved("a+", 2, 4.0);
    assert_resolved("m.a+", 8, 1.0);
    assert_good("\"use_rslora\": true, \"rank_pattern\": null, \"alpha_pattern\": {\"a\": 2}");
    assert_resolved("a", 8, 2.0 / sqrt(8.0));
}
END_TEST

START_TEST(patterns_that_are_none_are_refused) {
    static const char *const bad[] = {"(", "[", "a{2,1}", "(?P<x", "\\\\"};
    static const char *const not_pythons[] = {
        "\\\\Z",   "\\\\K", "\\\\Qa\\\\E", "[[:alpha:]]", "?",       "?:a",    "*a",      "(?i)a",     "(?R)",
        "(*FAIL)", "a{,3}", "\\\\1",       "\\\\pL",      "(?<x>a)", "\\\\x4", "(?|a|b)", "\\\\u0041", "[\\\\b]"};
    char fields[128];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(fields, sizeof fields, "\"rank_pattern\": {\"%s\": 4}", bad[i]);
        assert_refused(fields, "key 'rank_pattern'", "regular expression");
    }
    for (size_t i = 0; i < sizeof not_pythons / sizeof *not_pythons; i++) {
        snprintf(fields, sizeof fields, "\"alpha_pattern\": {\"%s\": 4}", not_pythons[i]);
        assert_refused(fields, "key 'alpha_pattern'", "not read here as Python reads it");
    }
    static const char *const good[] = {"a\\\\.b", "(?:a|b)", "(?=a)a",   "(?!b)a",  "[]a]",     "[^]a]",
                                       "a{2}",    "a{2,}",   "{",        "\\\\x41", "(?P<x>a)", "a$",
                                       "^a",      "a#b",     "[a\\\\]]", "\\\\bx",  "a*?",      "(?<=b)a"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(fields, sizeof fields, "\"alpha_pattern\": {\"%s\": 4}", good[i]);
        assert_good(fields);
    }
    assert_refused("\"rank_pattern\": {\"a\": 0}", "key 'rank_pattern'", "pattern 'a': the rank must be an integer");
    assert_refused("\"rank_pattern\": {\"a\": [true, false]}", "key 'rank_pattern'", "the rank must be an integer");
    assert_refused("\"alpha_pattern\": {\"a\": null}", "key 'alpha_pattern'", "must be a number");
    assert_refused("\"rank_pattern\": [1]", "key 'rank_pattern'", "an object");
}
END_TEST

START_TEST(patterns_that_explode_are_refused_in_bounded_time) {
    uint32_t rank;
    double scale;
    char path[64];
    memset(path, 'a', sizeof path);
    path[sizeof path - 1] = 'b';
    assert_good("\"rank_pattern\": {\"(a|a)*\": 4}");
    ck_assert(!hlc_peft_config_resolve(config, path, sizeof path, &rank, &scale, faults));
    assert_error("key 'rank_pattern'", "pattern '(a|a)*': it needs too many steps");
    ck_assert(!hlc_peft_config_resolve(config, path, sizeof path, &rank, &scale, faults));
    ck_assert_uint_eq(hlc_faults_errors(faults), 1);
}
END_TEST

START_TEST(very_many_patterns_spend_the_steps) {
    size_t count = 60000;
    char *text = malloc(32 * count);
    size_t at = (size_t)sprintf(text, "{\"peft_type\": \"LORA\", \"rank_pattern\": {\"x[a]\": 1");
    for (size_t i = 0; i < count; i++)
        at += (size_t)sprintf(text + at, ", \"%zux[b]\": 1", i);
    strcpy(text + at, "}}");
    read_text(text, false);
    uint32_t rank;
    double scale;
    size_t resolved = 0;
    while (resolved < 1000 && hlc_peft_config_resolve(config, "m.x", 3, &rank, &scale, faults))
        resolved++;
    ck_assert_uint_lt(resolved, 100);
    assert_error("key 'rank_pattern'", "all patterns together need too many steps");
    free(text);
}
END_TEST

START_TEST(patterns_that_fill_the_memory_are_refused) {
    size_t count = 60000;
    char *text = malloc(64 * count);
    size_t at = (size_t)sprintf(text, "{\"peft_type\": \"LORA\", \"rank_pattern\": {\"x[a]\": 1");
    for (size_t i = 0; i < count; i++)
        at += (size_t)sprintf(text + at, ", \"%zu(abcdefgh){1,400}\": 1", i);
    strcpy(text + at, "}}");
    read_text(text, false);
    assert_error("key 'rank_pattern'", "more than 64 MiB");
    free(text);
}
END_TEST

START_TEST(keys_of_json_text_are_found) {
    ck_assert(hlc_json_has_key("{\"a\": {\"b\": 1}, \"c\": 2}", 23, "c"));
    ck_assert(!hlc_json_has_key("{\"a\": {\"b\": 1}, \"c\": 2}", 23, "b"));
    ck_assert(!hlc_json_has_key("[\"c\"]", 5, "c"));
    ck_assert(!hlc_json_has_key("{\"c\": 2", 7, "c"));
    ck_assert(!hlc_json_has_key("", 0, "c"));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("peft_config");
    TCase *all = tcase_create("all");
    tcase_add_checked_fixture(all, enter, leave);
    tcase_set_timeout(all, 120);
    tcase_add_test(all, scale_is_alpha_over_rank_in_double);
    tcase_add_test(all, ranks_and_alphas_that_are_no_such_numbers_are_refused);
    tcase_add_test(all, text_that_is_no_strict_json_is_refused);
    tcase_add_test(all, text_of_very_many_values_is_refused);
    tcase_add_test(all, other_kinds_of_adapters_are_refused_by_name);
    tcase_add_test(all, features_that_are_no_plain_lora_are_refused_by_name);
    tcase_add_test(all, initialisations_that_change_the_base_are_refused);
    tcase_add_test(all, extras_are_refused_or_dropped_with_a_warning);
    tcase_add_test(all, every_fault_of_a_config_is_reported);
    tcase_add_test(all, unknown_keys_are_warned_about_and_known_ones_are_not);
    tcase_add_test(all, base_model_and_revision_are_kept);
    tcase_add_test(all, patterns_match_as_python_does);
    tcase_add_test(all, the_first_match_in_the_files_order_counts);
    tcase_add_test(all, patterns_that_are_none_are_refused);
    tcase_add_test(all, patterns_that_explode_are_refused_in_bounded_time);
    tcase_add_test(all, very_many_patterns_spend_the_steps);
    tcase_add_test(all, patterns_that_fill_the_memory_are_refused);
    tcase_add_test(all, keys_of_json_text_are_found);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
