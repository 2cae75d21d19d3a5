/* Does the pool fit the model file, and which weight does each module adapt? */
#include <gguf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/llama.cpp/shim.h"

hl_status hlp_fail(hl_diag *diag, hl_status status, const char *format, ...) {
    if (diag && diag->status == HL_OK) {
        va_list arguments;
        va_start(arguments, format);
        diag->status = status;
        diag->offset = HL_NO_OFFSET;
        vsnprintf(diag->message, sizeof diag->message, format, arguments);
        va_end(arguments);
    }
    return status;
}

typedef struct match {
    hl_llama *shim;
    const hl_llama_options *options;
    hl_diag *diag;
    struct gguf_context *file;
    struct ggml_context *tensors;
    hlc_gguf_base base;
    hl_status status; /* of the first fault */
} match;

/* Reports one of possibly many faults. */
static void fault(match *m, hl_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void fault(match *m, hl_status status, const char *format, ...) {
    char message[HL_DIAG_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (m->status == HL_OK) {
        m->status = hlp_fail(m->diag, status, "%s", message);
    }
    if (m->options && m->options->report) {
        hl_diag one;
        hl_diag_clear(&one);
        hlp_fail(&one, status, "%s", message);
        m->options->report(m->options->user, &one);
    }
}

static bool read_count(const match *m, const char *suffix, uint32_t *out) {
    char key[80];
    snprintf(key, sizeof key, "%s.%s", m->base.architecture, suffix);
    const int64_t id = gguf_find_key(m->file, key);
    if (id < 0 || gguf_get_kv_type(m->file, id) != GGUF_TYPE_UINT32) {
        return false;
    }
    *out = gguf_get_val_u32(m->file, id);
    return true;
}

static bool read_base(match *m) {
    const int64_t id = gguf_find_key(m->file, "general.architecture");
    const char *name = id >= 0 && gguf_get_kv_type(m->file, id) == GGUF_TYPE_STRING ? gguf_get_val_str(m->file, id) : "";
    if (gguf_find_key(m->file, "split.count") >= 0) {
        fault(m, HL_ERR_UNSUPPORTED, "the model is split over several files; merge them with llama-gguf-split --merge");
        return false;
    }
    m->base.architecture = hlc_gguf_architecture(name);
    if (!m->base.architecture) {
        fault(m, HL_ERR_UNSUPPORTED, "the names of architecture '%.60s' are not known", name);
        return false;
    }
    if (hlc_gguf_regroups(m->base.architecture)) {
        if (!read_count(m, "attention.head_count", &m->base.heads) || m->base.heads == 0) {
            fault(m, HL_ERR_UNSUPPORTED, "the model does not say one number of attention heads for all layers");
            return false;
        }
        if (!read_count(m, "attention.head_count_kv", &m->base.kv_heads) || m->base.kv_heads == 0) {
            m->base.kv_heads = m->base.heads;
        }
    }
    return true;
}

static bool match_module(match *m, uint32_t i) {
    hlp_target *target = &m->shim->targets[i];
    hl_module_view view = {.struct_size = sizeof view};
    hlc_gguf_target place;
    if (hl_module_at(m->shim->pool, i, &view) != HL_OK) {
        fault(m, HL_ERR_INTERNAL, "module %u cannot be described", i);
        return false;
    }
    const int length = view.name.size > 200 ? 200 : (int)view.name.size;
    if (view.kind != HL_MODULE_LINEAR || !hlc_gguf_find_target(&m->base, view.name.data, view.name.size, &place)) {
        fault(m, HL_ERR_UNSUPPORTED, "module '%.*s': no linear module of architecture '%s' as far as its names are known",
              length, view.name.data, m->base.architecture);
        return false;
    }
    const struct ggml_tensor *weight = ggml_get_tensor(m->tensors, place.tensor);
    if (!weight) {
        fault(m, HL_ERR_INPUT, "module '%.*s': the model has no weight '%s'; the pool is for another base model", length,
              view.name.data, place.tensor);
        return false;
    }
    if ((uint64_t)weight->ne[0] != view.d_in || (uint64_t)weight->ne[1] != view.d_out || weight->ne[2] != 1 ||
        (place.heads && view.d_out % (2 * (uint64_t)place.heads))) {
        fault(m, HL_ERR_INPUT,
              "module '%.*s' is %llu x %llu, and the model's '%s' is %lld x %lld; the pool is for another base model", length,
              view.name.data, (unsigned long long)view.d_out, (unsigned long long)view.d_in, place.tensor,
              (long long)weight->ne[1], (long long)weight->ne[0]);
        return false;
    }
    *target = (hlp_target){.module = i, .heads = place.heads, .d_in = view.d_in, .d_out = view.d_out};
    memcpy(target->weight, place.tensor, sizeof target->weight);
    return true;
}

/* NVFP4 and other formats keep a factor beside the weight, which llama.cpp multiplies into the product afterwards. */
static void refuse_scaled(match *m, const hlp_target *target) {
    char scale[HLC_GGUF_NAME_SIZE];
    snprintf(scale, sizeof scale, "%.*s.scale", (int)(strlen(target->weight) - strlen(".weight")), target->weight);
    if (ggml_get_tensor(m->tensors, scale)) {
        fault(m, HL_ERR_UNSUPPORTED, "the model scales the product of '%s' by '%s'", target->weight, scale);
    }
}

static int by_weight(const void *a, const void *b) {
    const hlp_target *x = a, *y = b;
    return strcmp(x->weight, y->weight);
}

static void match_modules(match *m) {
    hl_llama *shim = m->shim;
    bool good = true;
    for (uint32_t i = 0; i < shim->modules; i++) {
        good = match_module(m, i) && good;
    }
    if (!good) {
        return;
    }
    qsort(shim->targets, shim->modules, sizeof *shim->targets, by_weight);
    for (uint32_t i = 0; i < shim->modules; i++) {
        shim->target_of_module[shim->targets[i].module] = i;
        refuse_scaled(m, &shim->targets[i]);
        if (i > 0 && strcmp(shim->targets[i - 1].weight, shim->targets[i].weight) == 0) {
            fault(m, HL_ERR_INPUT, "two modules of the pool are the model's '%s'", shim->targets[i].weight);
        }
    }
    shim->target_count = shim->modules;
}

hl_status hlp_match(hl_llama *shim, const char *model_path, const hl_llama_options *options, hl_diag *diag) {
    match m = {.shim = shim, .options = options, .diag = diag};
    const struct gguf_init_params params = {.no_alloc = true, .ctx = &m.tensors};
    shim->targets = calloc(shim->modules + 1U, sizeof *shim->targets);
    shim->target_of_module = calloc(shim->modules + 1U, sizeof *shim->target_of_module);
    if (!shim->targets || !shim->target_of_module) {
        return hlp_fail(diag, HL_ERR_MEMORY, "no memory for %u modules", shim->modules);
    }
    m.file = gguf_init_from_file(model_path, params);
    if (!m.file) {
        fault(&m, HL_ERR_IO, "%.300s: cannot be read as GGUF", model_path);
        return m.status;
    }
    if (read_base(&m)) {
        match_modules(&m);
        shim->architecture = m.base.architecture;
    }
    ggml_free(m.tensors);
    gguf_free(m.file);
    return m.status;
}
