/* Adapters of other dialects than PEFT's, from files written here. */
#include "tests/unit/ingest_fixture.h"

#include "compiler/ingest/adapter.h"

static hlc_adapter *adapter;
static hlc_ingest_options options;
static char header[1 << 14];
static unsigned char data[1 << 16];
static size_t header_size, data_size;

static void enter(void) {
    enter_folder();
    adapter = NULL;
    options = (hlc_ingest_options){0};
}

static void leave(void) {
    hlc_adapter_close(adapter);
    leave_folder();
}

static void begin(const char *metadata) {
    header_size = (size_t)sprintf(header, "{%s", metadata);
    data_size = 0;
}

/* shape: "2,3". bytes: its data, or NULL for some. */
static void add(const char *name, const char *dtype, const char *shape, const void *bytes) {
    size_t size = strcmp(dtype, "F64") == 0 || strcmp(dtype, "I64") == 0 ? 8 : strstr(dtype, "16") ? 2 : 4;
    for (const char *at = shape; *at;) {
        char *end;
        size *= strtoull(at, &end, 10);
        at = *end == ',' ? end + 1 : end;
    }
    header_size +=
        (size_t)sprintf(header + header_size, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                        header_size > 1 ? "," : "", name, dtype, shape, data_size, data_size + size);
    ck_assert_uint_le(data_size + size, sizeof data);
    for (size_t i = 0; i < size; i++)
        data[data_size + i] = bytes ? ((const unsigned char *)bytes)[i] : (unsigned char)(i * 7 + 1);
    data_size += size;
}

static hlc_adapter *open_it(const char *config) {
    char name[] = "a", weights[] = "a.safetensors", config_path[] = "adapter_config.json";
    sprintf(header + header_size, "}");
    write_safetensors(weights, header, data, data_size);
    if (config)
        write_text(config_path, config);
    hlc_adapter_files files = {.name = {name, 1}, .weights = weights, .config = config ? config_path : NULL};
    hlc_adapter_close(adapter);
    forget_faults();
    adapter = hlc_adapter_open(&files, &options, faults);
    ck_assert((adapter != NULL) == (hlc_faults_errors(faults) == 0));
    return adapter;
}

static void must_open(const char *config) {
    if (!open_it(config)) {
        hlc_faults_print(faults, stderr);
        ck_abort_msg("refused");
    }
}

static const hlc_target *target_of(const char *module) {
    for (size_t i = 0; i < adapter->target_count; i++)
        if (strcmp(adapter->targets[i].module.bytes, module) == 0)
            return &adapter->targets[i];
    ck_abort_msg("no module '%s', the first is '%s'", module, adapter->targets[0].module.bytes);
    return NULL;
}

static void assert_geometry(const hlc_target *target, hlc_module_kind kind, const uint32_t expected[5]) {
    ck_assert_int_eq(target->kind, kind);
    for (size_t i = 0; i < HLF_GEOMETRY; i++)
        ck_assert_uint_eq(target->geometry[i], i < 5 ? expected[i] : 0);
}

/* ---- kohya-ss ---- */

START_TEST(kohya_scales_by_alpha_of_any_float_type) {
    const float f32 = 1;
    const double f64 = 0.5;
    const uint16_t f16 = 0x4100 /* 2.5 */, bf16 = 0x4100 /* 8 */, zero = 0;
    begin("");
    add("lora_unet_a.lora_down.weight", "F16", "4,3", NULL);
    add("lora_unet_a.lora_up.weight", "BF16", "5,4", NULL);
    add("lora_unet_a.alpha", "F32", "", &f32);
    add("lora_unet_b.lora_down.weight", "F32", "2,3", NULL);
    add("lora_unet_b.lora_up.weight", "F32", "5,2", NULL);
    add("lora_unet_b.alpha", "F64", "", &f64);
    add("lora_te_c.lora_down.weight", "F32", "2,3", NULL);
    add("lora_te_c.lora_up.weight", "F32", "5,2", NULL);
    add("lora_te_c.alpha", "F16", "", &f16);
    add("lora_te1_d.lora_down.weight", "F32", "2,3", NULL);
    add("lora_te1_d.lora_up.weight", "F32", "5,2", NULL);
    add("lora_te1_d.alpha", "BF16", "1", &bf16);
    add("lora_te2_e.lora_down.weight", "F32", "2,3", NULL);
    add("lora_te2_e.lora_up.weight", "F32", "5,2", NULL);
    add("lora_te2_e.alpha", "F16", "", &zero);
    add("lora_te2_f.lora_down.weight", "F32", "2,3", NULL);
    add("lora_te2_f.lora_up.weight", "F32", "5,2", NULL);
    must_open(NULL);
    assert_silent();
    ck_assert_int_eq(adapter->dialect, HLC_DIALECT_KOHYA);
    ck_assert_uint_eq(adapter->target_count, 6);
    ck_assert_uint_eq(adapter->rank, 4);
    ck_assert(!adapter->extras_dropped);
    ck_assert_double_eq(target_of("lora_unet_a")->scale, 0.25);
    ck_assert_double_eq(target_of("lora_unet_b")->scale, 0.25);
    ck_assert_double_eq(target_of("lora_te_c")->scale, 1.25);
    ck_assert_double_eq(target_of("lora_te1_d")->scale, 4);
    ck_assert_double_eq(target_of("lora_te2_e")->scale, 1);
    ck_assert_double_eq(target_of("lora_te2_f")->scale, 1);
    const hlc_target *a = target_of("lora_unet_a");
    ck_assert_uint_eq(a->d_in, 3);
    ck_assert_uint_eq(a->d_out, 5);
    ck_assert_int_eq(a->a.dtype, HLF_DTYPE_F16);
    ck_assert_int_eq(a->b.dtype, HLF_DTYPE_BF16);
    ck_assert(!a->a.transposed && !a->b.transposed);
}
END_TEST

START_TEST(kohya_convolutions_have_their_kernel) {
    begin("");
    add("lora_unet_one.lora_down.weight", "F32", "2,3,1,1", NULL);
    add("lora_unet_one.lora_up.weight", "F32", "5,2,1,1", NULL);
    add("lora_unet_three.lora_down.weight", "F32", "2,4,3,5", NULL);
    add("lora_unet_three.lora_up.weight", "F32", "6,2,1,1", NULL);
    must_open(NULL);
    const hlc_target *one = target_of("lora_unet_one"), *three = target_of("lora_unet_three");
    assert_geometry(one, HLC_MODULE_CONV2D, (uint32_t[]){3, 1, 1, 0, 1});
    assert_geometry(three, HLC_MODULE_CONV2D, (uint32_t[]){4, 3, 5, 0, 1});
    ck_assert_uint_eq(one->d_in, 3);
    ck_assert_uint_eq(three->d_in, 60);
    ck_assert_uint_eq(three->a.cols, 60);
    ck_assert_uint_eq(three->b.rows, 6);
}
END_TEST

START_TEST(kohya_pairs_that_do_not_fit_are_refused) {
    static const struct {
        const char *down, *up, *part;
    } cases[] = {
        {"2,3", "5,3", "its rank is 2 but that of the module's lora_up is 3"},
        {"2,3,3,3", "5,2", "no pair of a linear module or a convolution"},
        {"2,3,1,1", "5,2,3,3", "no pair of a linear module or a convolution"},
        {"2", "5,2", "shape [2] is that of no LoRA weight"},
        {"2,3,1,1,1,1", "5,2", "is that of no LoRA weight"},
        {"0,3", "5,0", "rank 0"},
        {"2,0", "5,2", "no elements"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin("");
        add("lora_unet_x.lora_down.weight", "F32", cases[i].down, NULL);
        add("lora_unet_x.lora_up.weight", "F32", cases[i].up, NULL);
        ck_assert_ptr_null(open_it(NULL));
        assert_error("tensor 'lora_unet_x.lora_", cases[i].part);
    }
}
END_TEST

START_TEST(kohya_halves_types_and_alphas_are_checked) {
    const float infinite = (float)(1e30 * 1e30);
    begin("");
    add("lora_unet_x.lora_down.weight", "F32", "2,3", NULL);
    ck_assert_ptr_null(open_it(NULL));
    assert_error("tensor 'lora_unet_x.lora_down.weight'", "the module has lora_down but no lora_up");
    begin("");
    add("lora_unet_x.alpha", "F32", "", NULL);
    ck_assert_ptr_null(open_it(NULL));
    assert_error("tensor 'lora_unet_x.alpha'", "the module has alpha but no lora_down");
    begin("");
    add("lora_unet_x.lora_down.weight", "I64", "2,3", NULL);
    add("lora_unet_x.lora_up.weight", "F32", "5,2", NULL);
    add("lora_unet_x.alpha", "F32", "2", NULL);
    ck_assert_ptr_null(open_it(NULL));
    assert_error("tensor 'lora_unet_x.lora_down.weight'", "the type I64 is none of a LoRA weight");
    assert_error("tensor 'lora_unet_x.alpha'", "an alpha must be one number");
    begin("");
    add("lora_unet_x.lora_down.weight", "F32", "2,3", NULL);
    add("lora_unet_x.lora_up.weight", "F32", "5,2", NULL);
    add("lora_unet_x.alpha", "F32", "", &infinite);
    ck_assert_ptr_null(open_it(NULL));
    assert_error("tensor 'lora_unet_x.alpha'", "the alpha is not finite");
}
END_TEST

START_TEST(lycoris_is_refused_by_name_and_other_tensors_are_extras) {
    static const struct {
        const char *name, *part;
    } cases[] = {{"lora_unet_x.hada_w1_a", "LoHa"}, {"lora_unet_x.lokr_w1", "LoKr"},
                 {"lora_unet_x.lora_mid.weight", "lora_mid"}, {"lora_unet_x.dora_scale", "DoRA"},
                 {"lora_unet_x.diff", "whole difference"}, {"lora_unet_x.diff_b", "whole difference"},
                 {"lora_unet_x.oft_blocks", "OFT"}, {"lora_unet_x.a1.weight", "GLoRA"}};
    options.drop_extras = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin("");
        add("lora_unet_x.lora_down.weight", "F32", "2,3", NULL);
        add("lora_unet_x.lora_up.weight", "F32", "5,2", NULL);
        add(cases[i].name, "F32", "2,2", NULL);
        ck_assert_ptr_null(open_it(NULL));
        assert_error(cases[i].name, cases[i].part);
        ck_assert_uint_eq(hlc_faults_errors(faults), 1);
    }
    begin("");
    add("lora_unet_x.lora_down.weight", "F32", "2,3", NULL);
    add("lora_unet_x.lora_up.weight", "F32", "5,2", NULL);
    add("bundle_emb.word.string_to_param", "F32", "1,8", NULL);
    must_open(NULL);
    assert_warning("bundle_emb", "left out");
    ck_assert(adapter->extras_dropped);
    options.drop_extras = false;
    ck_assert_ptr_null(open_it(NULL));
    assert_error("bundle_emb", "--drop-extras");
}
END_TEST

START_TEST(a_config_beside_a_kohya_file_is_not_used) {
    begin("");
    add("lora_unet_x.lora_down.weight", "F32", "2,3", NULL);
    add("lora_unet_x.lora_up.weight", "F32", "5,2", NULL);
    must_open("{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 32}");
    assert_warning(NULL, "it is not used");
    ck_assert_double_eq(adapter->targets[0].scale, 1);
}
END_TEST

/* ---- diffusers ---- */

START_TEST(every_form_of_diffusers_names_the_module) {
    static const struct {
        const char *a, *b, *module;
    } forms[] = {
        {"unet.down.0.attn1.to_q.lora_A.weight", "unet.down.0.attn1.to_q.lora_B.weight", "unet.down.0.attn1.to_q"},
        {"unet.down.0.attn1.to_k.lora.down.weight", "unet.down.0.attn1.to_k.lora.up.weight", "unet.down.0.attn1.to_k"},
        {"unet.mid.attn1.processor.to_v_lora.down.weight", "unet.mid.attn1.processor.to_v_lora.up.weight",
         "unet.mid.attn1.to_v"},
        {"unet.mid.attn1.processor.to_out_lora.down.weight", "unet.mid.attn1.processor.to_out_lora.up.weight",
         "unet.mid.attn1.to_out.0"},
        {"unet.up.attn1.processor.to_q.lora.down.weight", "unet.up.attn1.processor.to_q.lora.up.weight",
         "unet.up.attn1.to_q"},
        {"transformer.blocks.0.attn.to_q.lora_A.weight", "transformer.blocks.0.attn.to_q.lora_B.weight",
         "transformer.blocks.0.attn.to_q"},
        {"text_encoder.m.q_proj.lora_linear_layer.down.weight", "text_encoder.m.q_proj.lora_linear_layer.up.weight",
         "text_encoder.m.q_proj"},
        {"text_encoder_2.m.self_attn.to_out_lora.down.weight", "text_encoder_2.m.self_attn.to_out_lora.up.weight",
         "text_encoder_2.m.self_attn.out_proj"},
    };
    enum { FORMS = sizeof forms / sizeof *forms };
    begin("");
    for (size_t i = 0; i < FORMS; i++) {
        add(forms[i].a, "F32", "2,3", NULL);
        add(forms[i].b, "F32", "5,2", NULL);
    }
    must_open(NULL);
    assert_silent();
    ck_assert_int_eq(adapter->dialect, HLC_DIALECT_DIFFUSERS);
    ck_assert_uint_eq(adapter->target_count, FORMS);
    for (size_t i = 0; i < FORMS; i++) {
        ck_assert_str_eq(target_of(forms[i].module)->a.key.bytes, forms[i].a);
        ck_assert_double_eq(target_of(forms[i].module)->scale, 1);
    }
}
END_TEST

START_TEST(diffusers_scales_by_the_metadata_of_each_component) {
    begin("\"__metadata__\":{\"lora_adapter_metadata\":\"{\\\"text_encoder.lora_alpha\\\": 3, "
          "\\\"text_encoder.peft_type\\\": \\\"LORA\\\", \\\"text_encoder.r\\\": 2, "
          "\\\"unet.alpha_pattern\\\": {\\\"to_k\\\": 16}, \\\"unet.lora_alpha\\\": 4, "
          "\\\"unet.peft_type\\\": \\\"LORA\\\", \\\"unet.r\\\": 2, \\\"unet.rank_pattern\\\": {\\\"to_v\\\": 8}}\"}");
    add("unet.to_q.lora_A.weight", "F32", "2,3", NULL);
    add("unet.to_q.lora_B.weight", "F32", "5,2", NULL);
    add("unet.to_k.lora_A.weight", "F32", "2,3", NULL);
    add("unet.to_k.lora_B.weight", "F32", "5,2", NULL);
    add("unet.to_v.lora_A.weight", "F32", "8,3", NULL);
    add("unet.to_v.lora_B.weight", "F32", "5,8", NULL);
    add("text_encoder.q.lora_A.weight", "F32", "2,3", NULL);
    add("text_encoder.q.lora_B.weight", "F32", "5,2", NULL);
    add("text_encoder_2.q.lora_A.weight", "F32", "2,3", NULL);
    add("text_encoder_2.q.lora_B.weight", "F32", "5,2", NULL);
    must_open(NULL);
    ck_assert_double_eq(target_of("unet.to_q")->scale, 2);
    ck_assert_double_eq(target_of("unet.to_k")->scale, 8);
    ck_assert_double_eq(target_of("unet.to_v")->scale, 0.5);
    ck_assert_double_eq(target_of("text_encoder.q")->scale, 1.5);
    ck_assert_double_eq(target_of("text_encoder_2.q")->scale, 1); /* the metadata say nothing about it */
    ck_assert_uint_gt(adapter->config_text.length, 0);
}
END_TEST

START_TEST(diffusers_alphas_count_where_there_is_no_metadata) {
    const float eight = 8;
    begin("");
    add("unet.to_q.lora.down.weight", "F32", "2,3,1,1", NULL);
    add("unet.to_q.lora.up.weight", "F32", "5,2,1,1", NULL);
    add("unet.to_q.alpha", "F32", "", &eight);
    must_open(NULL);
    ck_assert_double_eq(target_of("unet.to_q")->scale, 4);
    assert_geometry(target_of("unet.to_q"), HLC_MODULE_CONV2D, (uint32_t[]){3, 1, 1, 0, 1});
}
END_TEST

START_TEST(diffusers_metadata_that_do_not_fit_are_refused) {
    static const struct {
        const char *metadata, *place, *part;
    } cases[] = {
        {"{\\\"unet.r\\\": 4, \\\"unet.peft_type\\\": \\\"LORA\\\"}", "tensor 'unet.q.lora_A.weight'",
         "the rank is 2, but the metadata say 4"},
        {"{\\\"unet.use_dora\\\": true, \\\"unet.r\\\": 2, \\\"unet.peft_type\\\": \\\"LORA\\\"}", "key 'use_dora'",
         "DoRA"},
        {"{\\\"unet.r\\\": 2", "lora_adapter_metadata", "not readable JSON"},
        {"[]", "lora_adapter_metadata", "not an object"},
        {"{\\\"\\\\u0075net.r\\\": 2, \\\"\\\\u0075net.lora_alpha\\\": 8}", "lora_adapter_metadata", "with escapes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char metadata[512];
        snprintf(metadata, sizeof metadata, "\"__metadata__\":{\"lora_adapter_metadata\":\"%s\"}", cases[i].metadata);
        begin(metadata);
        add("unet.q.lora_A.weight", "F32", "2,3", NULL);
        add("unet.q.lora_B.weight", "F32", "5,2", NULL);
        ck_assert_ptr_null(open_it(NULL));
        assert_error(cases[i].place, cases[i].part);
    }
}
END_TEST

START_TEST(diffusers_parts_that_are_no_lora_are_refused) {
    static const struct {
        const char *name, *part;
    } cases[] = {{"unet.q.lora_magnitude_vector", "DoRA"},
                 {"unet.q.lokr_w1", "LoKr"},
                 {"unet.x.attn1.processor.add_k_proj_lora.down.weight", "none of the LoRA weights that diffusers loads"},
                 {"unet.x.lora_down.weight", "none of the LoRA weights that diffusers loads"}};
    options.drop_extras = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin("");
        add("unet.q.lora.down.weight", "F32", "2,3", NULL);
        add("unet.q.lora.up.weight", "F32", "5,2", NULL);
        add(cases[i].name, "F32", "2,2", NULL);
        ck_assert_ptr_null(open_it(NULL));
        assert_error(cases[i].name, cases[i].part);
        ck_assert_uint_eq(hlc_faults_errors(faults), 1);
    }
}
END_TEST

START_TEST(names_of_both_are_peft_s_beside_a_config) {
    begin("");
    add("transformer.h.0.attn.c_attn.lora_A.weight", "F32", "2,3", NULL);
    add("transformer.h.0.attn.c_attn.lora_B.weight", "F32", "5,2", NULL);
    must_open("{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4}");
    ck_assert_int_eq(adapter->dialect, HLC_DIALECT_PEFT);
    ck_assert_double_eq(adapter->targets[0].scale, 2);
    must_open(NULL);
    ck_assert_int_eq(adapter->dialect, HLC_DIALECT_DIFFUSERS);
    ck_assert_double_eq(adapter->targets[0].scale, 1);
}
END_TEST

/* ---- MLX ---- */

#define MLX(parameters) "{\"fine_tune_type\": \"lora\", \"model\": \"base\", \"num_layers\": 4, \"lora_parameters\": " parameters "}"

static void begin_mlx(void) {
    begin("");
    add("model.layers.0.q_proj.lora_a", "F32", "3,2", NULL);
    add("model.layers.0.q_proj.lora_b", "F32", "2,5", NULL);
}

START_TEST(mlx_matrices_are_transposed_and_scaled_by_scale) {
    begin_mlx();
    add("model.embed_tokens.lora_a", "F16", "9,2", NULL);
    add("model.embed_tokens.lora_b", "F16", "2,5", NULL);
    must_open(MLX("{\"rank\": 2, \"scale\": 20.0, \"dropout\": 0.0}"));
    assert_silent();
    ck_assert_int_eq(adapter->dialect, HLC_DIALECT_MLX);
    ck_assert_str_eq(adapter->base_model.bytes, "base");
    const hlc_target *q = target_of("model.layers.0.q_proj"), *embedding = target_of("model.embed_tokens");
    ck_assert_uint_eq(q->d_in, 3);
    ck_assert_uint_eq(q->d_out, 5);
    ck_assert_uint_eq(q->a.rows, 3);
    ck_assert_uint_eq(q->a.cols, 2);
    ck_assert(q->a.transposed && q->b.transposed);
    ck_assert_double_eq(q->scale, 20);
    ck_assert_int_eq(q->kind, HLC_MODULE_LINEAR);
    ck_assert_int_eq(embedding->kind, HLC_MODULE_EMBEDDING);
    ck_assert_uint_eq(embedding->d_in, 9);
}
END_TEST

START_TEST(mlx_with_alpha_wants_an_answer) {
    const char config[] = MLX("{\"rank\": 2, \"scale\": 10.0, \"alpha\": 16.0}");
    begin_mlx();
    ck_assert_ptr_null(open_it(config));
    assert_error("key 'alpha'", "--mlx-alpha");
    options.mlx_alpha = HLC_MLX_ALPHA_IGNORE;
    must_open(config);
    ck_assert_double_eq(adapter->targets[0].scale, 10);
    options.mlx_alpha = HLC_MLX_ALPHA_APPLY;
    must_open(config);
    ck_assert_double_eq(adapter->targets[0].scale, 80);
}
END_TEST

START_TEST(mlx_configs_that_cannot_be_are_refused) {
    static const struct {
        const char *config, *place, *part;
    } cases[] = {
        {"{\"fine_tune_type\": \"dora\", \"lora_parameters\": {\"rank\": 2, \"scale\": 1}}", "key 'fine_tune_type'", "DoRA"},
        {"{\"fine_tune_type\": \"full\"}", "key 'fine_tune_type'", "fully trained"},
        {"{\"fine_tune_type\": 1}", "key 'fine_tune_type'", "must be \"lora\""},
        {"{\"fine_tune_type\": \"lora\"}", "key 'lora_parameters'", "missing"},
        {MLX("[]"), "key 'lora_parameters'", "must be an object"},
        {MLX("{\"rank\": 2}"), "key 'scale'", "no scale"},
        {MLX("{\"scale\": 2}"), "key 'rank'", "no rank"},
        {MLX("{\"rank\": 2, \"scale\": \"1\"}"), "key 'scale'", "must be a number"},
        {MLX("{\"rank\": 2, \"rank\": 2, \"scale\": 1}"), "key 'rank'", "twice"},
        {MLX("{\"rank\": 3, \"scale\": 1}"), "tensor 'model.layers.0.q_proj.lora_a'", "the configuration says 3"},
        {MLX("{\"rank\": 2, \"scale\": 1e999}"), "byte ", "beyond the range"},
        {"{\"lora_parameters\": {\"rank\": 2", "byte ", "not readable JSON"},
        {"[]", NULL, "not a JSON object"},
        {"", "byte 0", "not readable JSON"},
        {MLX("{\"rank\": 2, \"scale\": 1}") "x", "byte ", "not readable JSON"},
        {"{\"peft_type\": \"LORA\"}", "key 'lora_parameters'", "missing"},
        {"{\"use_dora\": true, \"lora_parameters\": {\"rank\": 2, \"scale\": 1}}", "key 'use_dora'", "DoRA"},
        {MLX("{\"rank\": 2, \"scale\": 1, \"sc\\u0061le\": 2}"), "key 'scale'", "twice"},
        {MLX("{\"rank\": 2, \"scale\": 1, \"\\u0061\\u006c\\u0070\\u0068\\u0061\": 2}"), "key 'alpha'", "--mlx-alpha"},
    };
    begin_mlx();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_ptr_null(open_it(cases[i].config));
        assert_error(cases[i].place, cases[i].part);
        ck_assert_uint_eq(hlc_faults_errors(faults), 1);
    }
    ck_assert_ptr_null(open_it(NULL));
    assert_error(NULL, "there is no configuration");
}
END_TEST

START_TEST(mlx_without_an_effect_is_warned_about) {
    begin_mlx();
    must_open("{\"use_dora\": false, \"lora_parameters\": {\"rank\": 2, \"scale\": 0}}");
    assert_warning(NULL, "the scale is 0");
    ck_assert_double_eq(adapter->targets[0].scale, 0);
}
END_TEST

START_TEST(mlx_tensors_that_are_no_lora_are_refused) {
    begin_mlx();
    add("model.layers.0.q_proj.m", "F32", "5", NULL);
    add("model.layers.0.experts.lora_a", "F32", "2,2,3", NULL);
    ck_assert_ptr_null(open_it(MLX("{\"rank\": 2, \"scale\": 1}")));
    assert_error("q_proj.m", "DoRA");
    assert_error("experts.lora_a", "switched experts");
}
END_TEST

/* ---- All ---- */

START_TEST(mixed_dialects_are_refused) {
    static const char *const pairs[][2] = {
        {"m.lora_A.weight", "m.lora_B.weight"},
        {"lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight"},
        {"unet.x.lora.down.weight", "unet.x.lora.up.weight"},
        {"x.lora_a", "x.lora_b"},
        {"m.lora_embedding_A", "m.lora_embedding_B"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (size_t j = i == 4; j < i; j++) { /* the first and the last are one dialect */
            begin("");
            for (size_t k = 0; k < 2; k++) {
                add(pairs[i][k], "F32", "2,2", NULL);
                add(pairs[j][k], "F32", "2,2", NULL);
            }
            ck_assert_ptr_null(open_it("{\"peft_type\": \"LORA\", \"r\": 2}"));
            assert_error("tensor ", "the file mixes dialects");
            ck_assert_uint_eq(hlc_faults_errors(faults), 1);
        }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("dialects");
    TCase *all = tcase_create("all");
    tcase_add_checked_fixture(all, enter, leave);
    tcase_add_test(all, kohya_scales_by_alpha_of_any_float_type);
    tcase_add_test(all, kohya_convolutions_have_their_kernel);
    tcase_add_test(all, kohya_pairs_that_do_not_fit_are_refused);
    tcase_add_test(all, kohya_halves_types_and_alphas_are_checked);
    tcase_add_test(all, lycoris_is_refused_by_name_and_other_tensors_are_extras);
    tcase_add_test(all, a_config_beside_a_kohya_file_is_not_used);
    tcase_add_test(all, every_form_of_diffusers_names_the_module);
    tcase_add_test(all, diffusers_scales_by_the_metadata_of_each_component);
    tcase_add_test(all, diffusers_alphas_count_where_there_is_no_metadata);
    tcase_add_test(all, diffusers_metadata_that_do_not_fit_are_refused);
    tcase_add_test(all, diffusers_parts_that_are_no_lora_are_refused);
    tcase_add_test(all, names_of_both_are_peft_s_beside_a_config);
    tcase_add_test(all, mlx_matrices_are_transposed_and_scaled_by_scale);
    tcase_add_test(all, mlx_with_alpha_wants_an_answer);
    tcase_add_test(all, mlx_configs_that_cannot_be_are_refused);
    tcase_add_test(all, mlx_without_an_effect_is_warned_about);
    tcase_add_test(all, mlx_tensors_that_are_no_lora_are_refused);
    tcase_add_test(all, mixed_dialects_are_refused);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
