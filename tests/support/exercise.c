#include "tests/support/exercise.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <hilora/hilora.h>

#include "format/checksum.h"

enum { MOST_ADAPTERS = 64, MOST_DIM = 256, MOST_RANK = 64, MOST_WIDTH = 1024, TOKENS = 3, ROUTES = 3, NAMED = 4 };

typedef struct exercise {
    hl_pool *pool;
    hl_pool_view view;
    hl_route *routes[ROUTES];
    hl_session *session;
    uint64_t result;
} exercise;

static void note(exercise *e, const void *bytes, size_t size) {
    const uint64_t pair[2] = {e->result, hlf_checksum(bytes, size)};
    e->result = hlf_checksum(pair, sizeof pair);
}

static hl_status open_pool(exercise *e, const void *bytes, size_t size) {
    const hl_pool_options limits = {.struct_size = sizeof limits,
                                    .max_adapters = MOST_ADAPTERS,
                                    .max_modules = 64,
                                    .max_entries = 512,
                                    .max_dim = MOST_DIM,
                                    .max_rank = MOST_RANK,
                                    .max_width = MOST_WIDTH,
                                    .max_chunk_bytes = 1 << 20};
    hl_status status = hl_pool_open_memory(bytes, size, &limits, &e->pool, NULL);
    e->view.struct_size = sizeof e->view;
    return status != HL_OK ? status : hl_pool_info(e->pool, &e->view);
}

static hl_status route_prompts(exercise *e) {
    float z[2 * MOST_DIM];
    for (size_t i = 0; i < 2 * (size_t)e->view.dim; i++) {
        z[i] = (float)cos((double)(i * i + 1)) / sqrtf((float)e->view.dim);
    }
    for (size_t row = 0; row < 2 && e->view.normalized == HL_NORMALIZED_YES; row++) {
        double square = 0;
        for (size_t i = 0; i < e->view.dim; i++) {
            square += (double)z[row * e->view.dim + i] * z[row * e->view.dim + i];
        }
        for (size_t i = 0; i < e->view.dim; i++) {
            z[row * e->view.dim + i] = (float)(z[row * e->view.dim + i] / sqrt(square));
        }
    }
    const hl_embeddings batch = {.data = z, .dtype = HL_DTYPE_F32, .count = 2, .dim = e->view.dim};
    const hl_route_options options = {.struct_size = sizeof options, .keep_all = 1};
    return hl_route_compute_batch(e->pool, &batch, &options, e->routes, NULL);
}

static hl_status route_names(exercise *e) {
    uint32_t adapters[NAMED], count = e->view.adapters < NAMED ? e->view.adapters : NAMED;
    for (uint32_t i = 0; i < count; i++) {
        adapters[i] = i;
    }
    const hl_route_options options = {.struct_size = sizeof options,
                                      .select = HL_SELECT_EXPLICIT,
                                      .weights = HL_WEIGHTS_MEAN,
                                      .gate = HL_GATE_CONTRIBUTION,
                                      .gamma = 0.5,
                                      .max_adapters = NAMED,
                                      .adapters = adapters,
                                      .adapter_count = count};
    return hl_route_compute(e->pool, NULL, 0, &options, &e->routes[2], NULL);
}

static void note_routes(exercise *e) {
    for (int r = 0; r < ROUTES; r++) {
        uint8_t digest[16];
        hl_route_digest(e->routes[r], digest);
        note(e, digest, sizeof digest);
    }
}

static hl_status apply(exercise *e) {
    static const uint32_t route_of_token[TOKENS] = {0, 1, 2};
    const hl_session_options options = {.struct_size = sizeof options, .cache_bytes = 64 << 20, .max_tokens = TOKENS};
    hl_status status = hl_session_create(e->pool, &options, &e->session, NULL);
    if (status == HL_OK) {
        status = hl_session_prepare(e->session, (const hl_route *const *)e->routes, ROUTES, NULL);
    }
    for (uint32_t m = 0; status == HL_OK && m < e->view.modules; m++) {
        hl_module_view module = {.struct_size = sizeof module};
        static float x[TOKENS * MOST_WIDTH], y[TOKENS * MOST_WIDTH];
        status = hl_module_at(e->pool, m, &module);
        for (size_t i = 0; i < TOKENS * MOST_WIDTH; i++) {
            x[i] = (float)((i * 7 + m) % 31) / 16 - 1;
            y[i] = 0;
        }
        if (status == HL_OK) {
            status = hl_session_apply(e->session, m, TOKENS, x, MOST_WIDTH, route_of_token, y, MOST_WIDTH, HL_DTYPE_F32,
                                      NULL);
            note(e, y, sizeof y);
        }
    }
    return status;
}

static hl_status blend(exercise *e) {
    hl_lora *lora;
    hl_status status = hl_blend(e->session, e->routes[2], &lora, NULL);
    hl_lora_view view = {.struct_size = sizeof view};
    for (uint32_t i = 0; status == HL_OK && hl_lora_at(lora, i, &view) == HL_OK; i++) {
        note(e, view.a, (size_t)(view.rank * view.d_in) * sizeof(float));
        note(e, view.b, (size_t)(view.rank * view.d_out) * sizeof(float));
    }
    hl_lora_free(lora);
    return status;
}

static hl_status read_text(exercise *e, uint32_t adapter, hl_text text, uint64_t size) {
    const size_t most = 1 << 20;
    char *buffer = size <= most ? malloc((size_t)size + 1) : NULL;
    hl_status status = buffer ? hl_text_read(e->pool, adapter, text, buffer, (size_t)size, NULL) : HL_ERR_LIMIT;
    if (status == HL_OK) {
        note(e, buffer, (size_t)size);
    }
    free(buffer);
    return status;
}

static hl_status read_weights(exercise *e, uint32_t adapter, uint32_t i) {
    hl_entry_view entry = {.struct_size = sizeof entry};
    hl_module_view module = {.struct_size = sizeof module};
    hl_status status = hl_entry_at(e->pool, adapter, i, &entry);
    if (status == HL_OK) {
        status = hl_module_at(e->pool, entry.module, &module);
    }
    const size_t size = status == HL_OK ? (size_t)(entry.rank * module.d_in) * 8 : 0;
    void *buffer = malloc(size + 1);
    if (status == HL_OK && buffer) {
        status = hl_tensor_read(e->pool, adapter, entry.module, HL_SIDE_A, HL_DTYPE_F64, buffer, size, NULL);
    }
    if (status == HL_OK && buffer) {
        note(e, buffer, size);
    }
    free(buffer);
    return status;
}

static hl_status read_adapter(exercise *e, uint32_t adapter) {
    hl_adapter_view view = {.struct_size = sizeof view};
    hl_status status = hl_adapter_at(e->pool, adapter, &view);
    if (status == HL_OK) {
        status = read_text(e, adapter, HL_TEXT_CONFIG, view.config_bytes);
    }
    if (status == HL_OK) {
        status = read_text(e, adapter, HL_TEXT_HEADER, view.header_bytes);
    }
    for (uint32_t i = 0; status == HL_OK && i < view.modules; i++) {
        status = read_weights(e, adapter, i);
    }
    return status;
}

hlt_outcome hlt_exercise(const void *bytes, size_t size) {
    exercise e = {.pool = NULL};
    hl_status status = open_pool(&e, bytes, size);
    if (status == HL_OK) {
        status = route_prompts(&e);
    }
    if (status == HL_OK) {
        status = route_names(&e);
    }
    if (status == HL_OK) {
        note_routes(&e);
        status = apply(&e);
    }
    if (status == HL_OK) {
        status = blend(&e);
    }
    for (uint32_t i = 0; status == HL_OK && i < e.view.adapters; i++) {
        status = read_adapter(&e, i);
    }
    hl_session_destroy(e.session);
    for (int r = 0; r < ROUTES; r++) {
        hl_route_free(e.routes[r]);
    }
    hl_pool_close(e.pool);
    return (hlt_outcome){status, e.result};
}
