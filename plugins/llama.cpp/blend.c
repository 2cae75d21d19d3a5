/* Mode B: a route's blend as a LoRA adapter of llama.cpp, through a GGUF file in memory. */
#include <gguf.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plugins/llama.cpp/shim.h"

/* The bytes of all tensors, with ggml's own. */
static size_t measure(const hl_lora *lora, uint32_t *modules) {
    hl_lora_view view = {.struct_size = sizeof view};
    size_t size = ggml_tensor_overhead();
    for (*modules = 0; hl_lora_at(lora, *modules, &view) == HL_OK; ++*modules) {
        size += view.rank * (view.d_in + view.d_out) * sizeof(float) + 2 * (ggml_tensor_overhead() + GGML_MEM_ALIGN);
    }
    return size;
}

static void add_module(const hl_llama *shim, struct gguf_context *file, struct ggml_context *memory,
                       const hl_lora_view *view) {
    const hlp_target *target = &shim->targets[shim->target_of_module[view->module]];
    char name[HLC_GGUF_NAME_SIZE + 8];
    struct ggml_tensor *a = ggml_new_tensor_2d(memory, GGML_TYPE_F32, (int64_t)view->d_in, view->rank);
    struct ggml_tensor *b = ggml_new_tensor_2d(memory, GGML_TYPE_F32, view->rank, (int64_t)view->d_out);
    memcpy(a->data, view->a, view->rank * view->d_in * sizeof(float));
    for (uint64_t o = 0; o < view->d_out; o++) {
        float *row = (float *)b->data + hlc_gguf_row(target->heads, view->d_out, o) * view->rank;
        for (uint32_t j = 0; j < view->rank; j++) {
            row[j] = view->b[j * view->d_out + o];
        }
    }
    snprintf(name, sizeof name, "%s.lora_a", target->weight);
    ggml_set_name(a, name);
    gguf_add_tensor(file, a);
    snprintf(name, sizeof name, "%s.lora_b", target->weight);
    ggml_set_name(b, name);
    gguf_add_tensor(file, b);
}

/* An alpha of 0 is a scale of 1 to llama.cpp, whatever the ranks. */
static bool write_gguf(const hl_llama *shim, const hl_lora *lora, const char *path) {
    uint32_t modules;
    const struct ggml_init_params params = {.mem_size = measure(lora, &modules)};
    struct ggml_context *memory = ggml_init(params);
    struct gguf_context *file = gguf_init_empty();
    hl_lora_view view = {.struct_size = sizeof view};
    bool good = memory && file;
    if (good) {
        gguf_set_val_str(file, "general.architecture", shim->architecture);
        gguf_set_val_str(file, "general.type", "adapter");
        gguf_set_val_str(file, "adapter.type", "lora");
        gguf_set_val_f32(file, "adapter.lora.alpha", 0);
        for (uint32_t i = 0; i < modules && hl_lora_at(lora, i, &view) == HL_OK; i++) {
            add_module(shim, file, memory, &view);
        }
        good = gguf_write_to_file(file, path, false);
    }
    if (file) {
        gguf_free(file);
    }
    ggml_free(memory);
    return good;
}

hl_status hl_llama_blend(hl_llama *shim, struct llama_model *model, const hl_route *route,
                         struct llama_adapter_lora **out, hl_diag *diag) {
    hl_lora *lora = NULL;
    char path[40];
    *out = NULL;
    hl_status status = hl_blend(shim->session, route, &lora, diag);
    if (status != HL_OK) {
        return status;
    }
    const int memory = memfd_create("hilora-blend", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    if (memory < 0 || !write_gguf(shim, lora, path)) {
        status = hlp_fail(diag, HL_ERR_IO, "no file in memory for the blended adapter");
    } else if (!(*out = llama_adapter_lora_init(model, path))) {
        status = hlp_fail(diag, HL_ERR_UNSUPPORTED, "llama.cpp refused the blended adapter");
    }
    if (memory >= 0) {
        close(memory);
    }
    hl_lora_free(lora);
    return status;
}
