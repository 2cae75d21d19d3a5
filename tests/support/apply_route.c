/* apply_route MODE POOL X Y TOKENS ROWS GATE GAMMA NORM {NAME WEIGHT}...
 *
 * Applies a route over the named adapters to every module of a pool, for the NumPy reference
 * (tests/interop/test_apply.py). X holds, module after module, TOKENS rows of d_in float32; Y gets TOKENS rows of
 * d_out, the updates. MODE: apply, or blend, which multiplies by the blended LoRA in float64. ROWS, GATE, NORM: the
 * numbers of hl_rows, hl_gate and hl_switch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hilora/hilora.h>

enum { MOST_ADAPTERS = 64 };

typedef struct run {
    hl_pool *pool;
    hl_route *route;
    hl_session *session;
    hl_lora *lora; /* NULL unless blending */
    size_t tokens;
} run;

static void check(hl_status status, const hl_diag *diag) {
    if (status != HL_OK) {
        fprintf(stderr, "apply_route: %s: %s\n", hl_status_name(status), diag->message);
        exit(1);
    }
}

static void *allocate(size_t n) {
    void *memory = calloc(n ? n : 1, 1);
    if (!memory) {
        fputs("apply_route: out of memory\n", stderr);
        exit(3);
    }
    return memory;
}

static FILE *open_file(const char *path, const char *mode) {
    FILE *file = fopen(path, mode);
    if (!file) {
        perror(path);
        exit(3);
    }
    return file;
}

static void make_route(run *r, char **arguments, int count) {
    hl_route_options options = {.struct_size = sizeof options,
                                .select = HL_SELECT_EXPLICIT,
                                .rows = (hl_rows)atoi(arguments[0]),
                                .gate = (hl_gate)atoi(arguments[1]),
                                .gamma = atof(arguments[2]),
                                .variance_norm = (hl_switch)atoi(arguments[3]),
                                .max_adapters = MOST_ADAPTERS};
    uint32_t adapters[MOST_ADAPTERS];
    double weights[MOST_ADAPTERS];
    hl_diag diag;
    hl_diag_clear(&diag);
    for (int i = 4; i + 1 < count && options.adapter_count < MOST_ADAPTERS; i += 2) {
        adapters[options.adapter_count] = hl_adapter_find(r->pool, arguments[i], strlen(arguments[i]));
        weights[options.adapter_count++] = atof(arguments[i + 1]);
    }
    options.adapters = adapters;
    options.adapter_weights = weights;
    check(hl_route_compute(r->pool, NULL, 0, &options, &r->route, &diag), &diag);
}

/* y += B (A x) of the blended LoRA, if it has the module. */
static void multiply_blended(const run *r, const hl_module_view *m, uint32_t module, const float *x, float *y) {
    hl_lora_view view = {.struct_size = sizeof view};
    uint32_t i = 0;
    while (hl_lora_at(r->lora, i, &view) == HL_OK && view.module != module) {
        i++;
    }
    if (hl_lora_at(r->lora, i, &view) != HL_OK) {
        return;
    }
    double *sum = allocate(m->d_out * sizeof *sum);
    for (size_t t = 0; t < r->tokens; t++) {
        memset(sum, 0, m->d_out * sizeof *sum);
        for (uint32_t j = 0; j < view.rank; j++) {
            double u = 0;
            for (size_t c = 0; c < m->d_in; c++) {
                u += (double)view.a[j * m->d_in + c] * x[t * m->d_in + c];
            }
            for (size_t c = 0; c < m->d_out; c++) {
                sum[c] += u * view.b[j * m->d_out + c];
            }
        }
        for (size_t c = 0; c < m->d_out; c++) {
            y[t * m->d_out + c] = (float)sum[c];
        }
    }
    free(sum);
}

static void run_module(const run *r, uint32_t module, FILE *in, FILE *out) {
    hl_module_view m = {.struct_size = sizeof m};
    hl_diag diag;
    hl_diag_clear(&diag);
    check(hl_module_at(r->pool, module, &m), &diag);
    float *x = allocate(r->tokens * m.d_in * sizeof *x), *y = allocate(r->tokens * m.d_out * sizeof *y);
    if (fread(x, sizeof *x * m.d_in, r->tokens, in) != r->tokens) {
        fputs("apply_route: X is too short\n", stderr);
        exit(3);
    }
    if (r->lora) {
        multiply_blended(r, &m, module, x, y);
    } else {
        check(hl_session_apply(r->session, module, r->tokens, x, m.d_in, NULL, y, m.d_out, HL_DTYPE_F32, &diag), &diag);
    }
    if (fwrite(y, sizeof *y * m.d_out, r->tokens, out) != r->tokens) {
        perror("Y");
        exit(3);
    }
    free(x);
    free(y);
}

int main(int argc, char **argv) {
    if (argc < 12) {
        fputs("usage: apply_route MODE POOL X Y TOKENS ROWS GATE GAMMA NORM {NAME WEIGHT}...\n", stderr);
        return 2;
    }
    hl_diag diag;
    hl_diag_clear(&diag);
    run r = {.tokens = (size_t)atol(argv[5])};
    check(hl_pool_open(argv[2], NULL, &r.pool, &diag), &diag);
    make_route(&r, argv + 6, argc - 6);
    check(hl_session_create(r.pool, NULL, &r.session, &diag), &diag);
    if (strcmp(argv[1], "blend") == 0) {
        check(hl_blend(r.session, r.route, &r.lora, &diag), &diag);
    } else {
        check(hl_session_prepare(r.session, (const hl_route *const *)&r.route, 1, &diag), &diag);
    }
    FILE *in = open_file(argv[3], "rb"), *out = open_file(argv[4], "wb");
    hl_pool_view view = {.struct_size = sizeof view};
    check(hl_pool_info(r.pool, &view), &diag);
    for (uint32_t module = 0; module < view.modules; module++) {
        run_module(&r, module, in, out);
    }
    fclose(in);
    if (fclose(out) != 0) {
        perror(argv[4]);
        return 3;
    }
    hl_lora_free(r.lora);
    hl_session_destroy(r.session);
    hl_route_free(r.route);
    hl_pool_close(r.pool);
    return 0;
}
