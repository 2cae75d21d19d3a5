/* An engine in a hundred lines: a stack of matrix products stands for the model, a pool hangs on it, and two prompts with different
 * routes go through in one batch.
 *
 *     tiny_engine POOL.hlp FIRST.npy SECOND.npy
 *
 * Every module of the pool that is a linear layer becomes a layer of seeded random weights. A real engine has its own
 * weights and kernels; what it adds for hilora is marked (1) to (4). */
#include <hilora/hilora.h>
#include <math.h>

#include "npy.h"

enum { PROMPTS = 2, TOKENS_EACH = 3, TOKENS = PROMPTS * TOKENS_EACH };

static float next_weight(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

/* y = W x of one layer, for all tokens: the base model. */
static void base_layer(const hl_module_view *module, uint32_t seed, const float *x, float *y) {
    for (uint64_t o = 0; o < module->d_out; o++) {
        uint32_t state = seed * 2654435761u + (uint32_t)o;
        for (int t = 0; t < TOKENS; t++) {
            y[t * module->d_out + o] = 0;
        }
        for (uint64_t i = 0; i < module->d_in; i++) {
            const float w = next_weight(&state) / sqrtf((float)module->d_in);
            for (int t = 0; t < TOKENS; t++) {
                y[t * module->d_out + o] += w * x[t * module->d_in + i];
            }
        }
    }
}

/* Runs the stack; answers how far the adapters moved each prompt's outputs, root mean square over all layers. */
static hl_status run(const hl_pool *pool, hl_session *session, double moved[PROMPTS], hl_diag *diag) {
    static const uint32_t route_of_token[TOKENS] = {0, 0, 0, 1, 1, 1};
    double square[PROMPTS] = {0}, count[PROMPTS] = {0};
    hl_module_view module = {.struct_size = sizeof module};
    hl_status status = HL_OK;
    for (uint32_t m = 0; status == HL_OK && hl_module_at(pool, m, &module) == HL_OK; m++) {
        if (module.kind != HL_MODULE_LINEAR) {
            continue;
        }
        float *x = malloc(TOKENS * module.d_in * sizeof *x), *y = malloc(TOKENS * module.d_out * sizeof *y);
        float *base = malloc(TOKENS * module.d_out * sizeof *base);
        uint32_t state = m;
        for (uint64_t i = 0; x && i < TOKENS * module.d_in; i++) {
            x[i] = next_weight(&state);
        }
        if (!x || !y || !base) {
            status = HL_ERR_MEMORY;
        } else {
            base_layer(&module, m, x, y);
            memcpy(base, y, TOKENS * module.d_out * sizeof *y);
            /* (4) after each matrix product: y += the routed update, tokens of several routes in one call */
            status = hl_session_apply(session, m, TOKENS, x, module.d_in, route_of_token, y, module.d_out, HL_DTYPE_F32, diag);
        }
        for (uint64_t i = 0; status == HL_OK && i < TOKENS * module.d_out; i++) {
            const int prompt = i < TOKENS_EACH * module.d_out ? 0 : 1;
            square[prompt] += (double)(y[i] - base[i]) * (y[i] - base[i]);
            count[prompt]++;
        }
        free(x);
        free(y);
        free(base);
    }
    for (int p = 0; p < PROMPTS; p++) {
        moved[p] = sqrt(square[p] / (count[p] > 0 ? count[p] : 1));
    }
    return status;
}

int main(int argc, char **argv) {
    hl_pool *pool = NULL;
    hl_session *session = NULL;
    hl_route *routes[PROMPTS] = {NULL};
    double moved[PROMPTS];
    hl_diag diag;
    hl_diag_clear(&diag);
    if (argc != 2 + PROMPTS) {
        fprintf(stderr, "usage: tiny_engine POOL.hlp FIRST.npy SECOND.npy\n");
        return 2;
    }
    hl_status status = hl_pool_open(argv[1], NULL, &pool, &diag); /* (1) once */
    for (int p = 0; p < PROMPTS && status == HL_OK; p++) {
        size_t dim = 0;
        float *z = read_npy(argv[2 + p], &dim);
        status = z ? hl_route_compute(pool, z, dim, NULL, &routes[p], &diag) : HL_ERR_INPUT; /* (2) once per prompt */
        free(z);
    }
    if (status == HL_OK && (status = hl_session_create(pool, NULL, &session, &diag)) == HL_OK) {
        status = hl_session_prepare(session, (const hl_route *const *)routes, PROMPTS, &diag); /* (3) once per batch */
    }
    if (status == HL_OK && (status = run(pool, session, moved, &diag)) == HL_OK) {
        for (int p = 0; p < PROMPTS; p++) {
            uint8_t digest[16];
            hl_route_digest(routes[p], digest); /* belongs into the key of a prefix cache */
            printf("%s: outputs moved by %.6f, digest %02x%02x%02x%02x...\n", argv[2 + p], moved[p], digest[0], digest[1], digest[2],
                   digest[3]);
        }
    } else {
        fprintf(stderr, "tiny_engine: %s%s%s\n", hl_status_name(status), diag.message[0] ? ": " : "", diag.message);
    }
    hl_session_destroy(session);
    for (int p = 0; p < PROMPTS; p++) {
        hl_route_free(routes[p]);
    }
    hl_pool_close(pool);
    return status != HL_OK;
}
