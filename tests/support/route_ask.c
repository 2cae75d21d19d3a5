/* route_ask POOL [ISA]
 *
 * Answers the requests on standard input, one per line, with one JSON object per line: the driver is
 * tests/interop/routing.py. A request is words between spaces: a key and its number, or a key, a count and so many
 * numbers. Keys: those below, and `z` (the embedding; without it there is none) of the type `dtype`. ISA: the number of
 * an hl_isa. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hilora/hilora.h>

#include "format/dtype.h"
#include "tests/support/route_json.h"

typedef struct request {
    hl_route_options options;
    hl_dtype dtype;
    double *z;
    size_t z_count;
    /* What the options point to. */
    uint32_t *positions[4];
    double *numbers[2];
} request;

static void give_up(const char *what, const char *word) {
    fprintf(stderr, "route_ask: %s '%s'\n", what, word ? word : "");
    exit(2);
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        give_up("out of", "memory");
    }
    return memory;
}

static const char *next_word(void) {
    const char *word = strtok(NULL, " \n");
    if (!word) {
        give_up("the line ends after", "a key");
    }
    return word;
}

static double *read_numbers(size_t *count) {
    *count = strtoul(next_word(), NULL, 10);
    double *numbers = allocate(*count, sizeof *numbers);
    for (size_t i = 0; i < *count; i++) {
        numbers[i] = strtod(next_word(), NULL);
    }
    return numbers;
}

static uint32_t *read_positions(size_t *count) {
    *count = strtoul(next_word(), NULL, 10);
    uint32_t *positions = allocate(*count, sizeof *positions);
    for (size_t i = 0; i < *count; i++) {
        positions[i] = (uint32_t)strtoul(next_word(), NULL, 10);
    }
    return positions;
}

static bool read_list(request *r, const char *key) {
    hl_route_options *o = &r->options;
    size_t count;
    if (strcmp(key, "allow") == 0) {
        o->allow = r->positions[0] = read_positions(&o->allow_count);
    } else if (strcmp(key, "deny") == 0) {
        o->deny = r->positions[1] = read_positions(&o->deny_count);
    } else if (strcmp(key, "adapters") == 0) {
        o->adapters = r->positions[2] = read_positions(&o->adapter_count);
    } else if (strcmp(key, "conditional") == 0) {
        o->conditional = r->positions[3] = read_positions(&o->conditional_count);
    } else if (strcmp(key, "adapter_weights") == 0) {
        o->adapter_weights = r->numbers[0] = read_numbers(&count);
    } else if (strcmp(key, "thresholds") == 0) {
        o->thresholds = r->numbers[1] = read_numbers(&count);
    } else if (strcmp(key, "z") == 0) {
        r->z = read_numbers(&r->z_count);
    } else {
        return false;
    }
    return true;
}

static void read_number(request *r, const char *key, const char *word) {
    hl_route_options *o = &r->options;
    const uint64_t whole = strtoull(word, NULL, 10);
    const struct {
        const char *key;
        uint32_t *count;
        double *number;
    } fields[] = {
        {"k", &o->k, NULL},           {"wide_k", &o->wide_k, NULL},
        {"max_adapters", &o->max_adapters, NULL}, {"keep_all", &o->keep_all, NULL},
        {"p", NULL, &o->p},           {"gamma", NULL, &o->gamma},
        {"temperature", NULL, &o->temperature},   {"familiar", NULL, &o->familiar},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (strcmp(key, fields[i].key) == 0) {
            if (fields[i].count) {
                *fields[i].count = (uint32_t)whole;
            } else {
                *fields[i].number = strtod(word, NULL);
            }
            return;
        }
    }
    if (strcmp(key, "select") == 0) {
        o->select = (hl_select)whole;
    } else if (strcmp(key, "fallback") == 0) {
        o->fallback = (hl_fallback)whole;
    } else if (strcmp(key, "weights") == 0) {
        o->weights = (hl_weights)whole;
    } else if (strcmp(key, "allocate") == 0) {
        o->allocate = (hl_allocate)whole;
    } else if (strcmp(key, "gate") == 0) {
        o->gate = (hl_gate)whole;
    } else if (strcmp(key, "rows") == 0) {
        o->rows = (hl_rows)whole;
    } else if (strcmp(key, "variance_norm") == 0) {
        o->variance_norm = (hl_switch)whole;
    } else if (strcmp(key, "seed") == 0) {
        o->seed = whole;
    } else if (strcmp(key, "dtype") == 0) {
        r->dtype = (hl_dtype)whole;
    } else {
        give_up("no such key:", key);
    }
}

static void read_request(char *line, request *r) {
    *r = (request){.options = {.struct_size = sizeof r->options}, .dtype = HL_DTYPE_F32};
    for (const char *key = strtok(line, " \n"); key; key = strtok(NULL, " \n")) {
        if (!read_list(r, key)) {
            read_number(r, key, next_word());
        }
    }
}

static void free_request(request *r) {
    for (int i = 0; i < 4; i++) {
        free(r->positions[i]);
    }
    free(r->numbers[0]);
    free(r->numbers[1]);
    free(r->z);
}

static hl_status compute(const hl_pool *pool, const request *r, hl_route **route, hl_diag *diag) {
    if (!r->z) {
        return hl_route_compute(pool, NULL, 0, &r->options, route, diag);
    }
    void *elements = allocate(r->z_count, hlf_dtype_size((hlf_dtype)r->dtype));
    hlf_convert(elements, (hlf_dtype)r->dtype, r->z, HLF_DTYPE_F64, r->z_count);
    const hl_embeddings one = {.data = elements, .dtype = r->dtype, .count = 1, .dim = r->z_count};
    hl_status status = hl_route_compute_batch(pool, &one, &r->options, route, diag);
    free(elements);
    return status;
}

static void answer(const hl_pool *pool, char *line) {
    request r;
    read_request(line, &r);
    hl_route *route = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    const hl_status status = compute(pool, &r, &route, &diag);
    printf("{\"status\": %d, \"message\": \"%s\"", (int)status, diag.message);
    if (status == HL_OK) {
        hlt_put_route(stdout, route);
    }
    puts("}");
    hl_route_free(route);
    free_request(&r);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        fputs("usage: route_ask POOL [ISA]\n", stderr);
        return 2;
    }
    hl_pool *pool = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    const hl_isa isa = argc > 2 ? (hl_isa)atoi(argv[2]) : HL_ISA_AUTO;
    const hl_pool_options options = {.struct_size = sizeof options, .isa = isa};
    const hl_status status = hl_pool_open(argv[1], &options, &pool, &diag);
    if (status != HL_OK) {
        fprintf(stderr, "route_ask: %s: %s\n", argv[1], diag.message);
        return status == HL_ERR_UNSUPPORTED ? 77 : 1;
    }
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, stdin) > 0) {
        answer(pool, line);
    }
    free(line);
    hl_pool_close(pool);
    return fflush(stdout) == 0 ? 0 : 3;
}
