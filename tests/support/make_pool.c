/* make_pool FILE KEY=NUMBER...
 *
 * Writes a random pool (hlt_pool_spec) for the tests in tests/interop. Keys are the members of the structure. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/pool_builder.h"

typedef struct member {
    const char *name;
    size_t offset;
    enum { SEED, COUNT, FLAG, NUMBER } kind;
} member;

#define MEMBER(name, kind) {#name, offsetof(hlt_pool_spec, name), kind}
static const member members[] = {
    MEMBER(seed, SEED),          MEMBER(adapters, COUNT),     MEMBER(modules, COUNT),
    MEMBER(modules_per_adapter, COUNT), MEMBER(min_rank, COUNT), MEMBER(max_rank, COUNT),
    MEMBER(min_width, COUNT),    MEMBER(max_width, COUNT),    MEMBER(dim, COUNT),
    MEMBER(min_samples, COUNT),  MEMBER(max_samples, COUNT),  MEMBER(zstd, FLAG),
    MEMBER(svd, FLAG),           MEMBER(squeezed, FLAG),      MEMBER(mixed_dtypes, FLAG),
    MEMBER(normalized, FLAG),    MEMBER(whiten, FLAG),        MEMBER(lattice, FLAG),
    MEMBER(duplicate, NUMBER),   MEMBER(unroutable, NUMBER),  MEMBER(conditional, NUMBER),
    MEMBER(uncalibrated, NUMBER), MEMBER(rivals, COUNT),      MEMBER(gate, COUNT),
    MEMBER(temperature, NUMBER), MEMBER(coarse, FLAG),
};

/* False when there is no such member. */
static int set_member(hlt_pool_spec *spec, const char *text) {
    const char *equals = strchr(text, '=');
    for (size_t i = 0; equals && i < sizeof members / sizeof members[0]; i++) {
        const member *m = &members[i];
        if (strlen(m->name) != (size_t)(equals - text) || strncmp(m->name, text, (size_t)(equals - text)) != 0) {
            continue;
        }
        char *at = (char *)spec + m->offset;
        const uint64_t seed = strtoull(equals + 1, NULL, 10);
        const uint32_t count = (uint32_t)seed;
        const bool flag = seed != 0;
        const double number = strtod(equals + 1, NULL);
        switch (m->kind) {
        case SEED:
            memcpy(at, &seed, sizeof seed);
            break;
        case COUNT:
            memcpy(at, &count, sizeof count);
            break;
        case FLAG:
            memcpy(at, &flag, sizeof flag);
            break;
        case NUMBER:
            memcpy(at, &number, sizeof number);
            break;
        }
        return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    hlt_pool_spec spec = {.adapters = 1,
                          .modules = 1,
                          .min_rank = 1,
                          .max_rank = 1,
                          .min_width = 1,
                          .max_width = 1,
                          .min_samples = 2,
                          .max_samples = 2};
    for (int i = 2; i < argc; i++) {
        if (!set_member(&spec, argv[i])) {
            fprintf(stderr, "make_pool: %s?\n", argv[i]);
            return 2;
        }
    }
    if (argc < 2) {
        fputs("usage: make_pool FILE KEY=NUMBER...\n", stderr);
        return 2;
    }
    hlt_pool pool = hlt_pool_build(&spec);
    hlt_pool_write(&pool, argv[1]);
    hlt_pool_free(&pool);
    return 0;
}
