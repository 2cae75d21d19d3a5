/* hilora-route: which adapters of a pool serve a prompt, and how strongly. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/cli/route.h"
#include "compiler/ingest/embeddings.h"

static const hlc_program program = {
    "hilora-route",
    "Usage: hilora-route [OPTION]... POOL --embedding FILE\n"
    "Show which adapters of a pool a prompt is routed to, with how many rank-one components (ROCs) and which weight.\n"
    "\n"
    "      --embedding FILE       the prompt's embedding: .npy, .safetensors or .h5 (tensor \"embeddings\")\n"
    "      --row N                which row of it (default 0)\n"
    "\n"
    "Selection:\n"
    "      --select posterior|paper|calibrated|nucleus|top-k|cosine|explicit   (default posterior)\n"
    "      --adapter NAME[=W]     name an adapter, with a weight; again for more (--select explicit)\n"
    "      --k N                  how many candidates (default 3)\n"
    "      --p P                  mass of nucleus (default 0.9)\n"
    "      --max-adapters N       of any route (default 16)\n"
    "      --allow NAME,...       the only adapters that may be used; again for more (a comma in a name: \\,)\n"
    "      --deny NAME,...        adapters that may not be used\n"
    "      --threshold NAME=SCORE the least score at which NAME may be used, over what the pool says; NAME=q0.05: at a\n"
    "                             quantile of its own samples; NAME=none: no condition; again for more\n"
    "      --familiar Q           quantile of the familiarity test, 0 to 0.5 (default 0.05)\n"
    "      --fallback wide|base|none   for an unfamiliar prompt (default wide)\n"
    "      --wide-k N             candidates of the wide fallback (default 8)\n"
    "\n"
    "Weights and components:\n"
    "      --weights posterior|mean|sum   (default: by the selection)\n"
    "      --temperature T        of the posterior weights, nats (default: the pool's)\n"
    "      --gamma G              components to use, as a part of all (default 0.4)\n"
    "      --allocate proportional|multinomial   (default proportional)\n"
    "      --seed S               of the multinomial draw (default 0)\n"
    "      --gate magnitude|contribution|static  how a token chooses components (default: the pool's)\n"
    "      --rows source|f32|f16  precision of decoded rows (default source)\n"
    "      --variance-norm on|off (default: the pool's)\n"
    "\n"
    "Output:\n"
    "      --all-scores           the score of every adapter\n"
    "      --explain              also why each adapter is in the route or not, and how its score compares\n"
    "      --json                 one JSON document\n"
    "  -q, --quiet                accepted; there is no progress\n"
    "  -h, --help                 this text\n"
    "      --version              the version\n"
    "\n"
    "Exit status: 0 done (an empty route is a result), 1 a bad embedding or pool, 2 misuse, 3 a missing file.\n"};

/* The row as the caller's float32; NULL after a fault. */
static const float *choose_row(const hlc_route_settings *s, const hlc_embeddings *embeddings, hlc_faults *faults) {
    if (s->row >= embeddings->samples) {
        hlc_bad_input(faults, s->embedding, NULL, "there is no row %llu: the file holds %zu", (unsigned long long)s->row, embeddings->samples);
        return NULL;
    }
    return embeddings->values + s->row * embeddings->dim;
}

static bool compute(const hlc_route_settings *s, const hl_pool *pool, const hlc_embeddings *embeddings, hl_route **route, hlc_faults *faults) {
    hl_diag diag;
    hl_diag_clear(&diag);
    const float *z = embeddings ? choose_row(s, embeddings, faults) : NULL;
    if (embeddings && !z) {
        return false;
    }
    if (hl_route_compute(pool, z, embeddings ? embeddings->dim : 0, &s->options, route, &diag) != HL_OK) {
        const bool about_embedding = diag.status == HL_ERR_INPUT && s->embedding;
        hlc_route_fault(faults, about_embedding ? s->embedding : s->pool, &diag);
        return false;
    }
    return true;
}

static bool fill_views(hlc_routing *routing) {
    routing->view.struct_size = sizeof routing->view;
    routing->pool_view.struct_size = sizeof routing->pool_view;
    return hl_route_info(routing->route, &routing->view) == HL_OK && hl_pool_info(routing->pool, &routing->pool_view) == HL_OK;
}

static int show(const hlc_route_settings *s, const hl_pool *pool, const hl_route *route) {
    hlc_routing routing = {.pool = pool, .route = route, .explained = s->options.keep_all};
    if (!fill_views(&routing)) {
        fprintf(stderr, "%s: the library is older than this program\n", program.name);
        return HLC_EXIT_RESOURCE;
    }
    if (s->json) {
        return hlc_cli_write_json(&program, hlc_route_json(s, &routing), HLC_EXIT_DONE);
    }
    hlc_route_print(stdout, &routing);
    return hlc_cli_finish(&program, HLC_EXIT_DONE);
}

static int fail(const hlc_route_settings *s, const hlc_faults *faults) {
    const int status = hlc_faults_exit_status(faults);
    hlc_faults_print(faults, stderr);
    return s->json ? hlc_cli_write_json(&program, json_pack("{s:o}", "faults", hlc_cli_faults_json(faults)), status) : status;
}

static int run(hlc_route_settings *s, hlc_faults *faults) {
    hl_pool *pool = NULL;
    hl_route *route = NULL;
    hl_diag diag;
    hl_diag_clear(&diag);
    int status;
    hlc_embeddings *embeddings = s->embedding ? hlc_embeddings_read(s->embedding, "embeddings", faults) : NULL;
    if (hl_pool_open(s->pool, NULL, &pool, &diag) != HL_OK) {
        hlc_route_fault(faults, s->pool, &diag);
    }
    if (pool && hlc_route_resolve(s, pool, faults) && (embeddings || !s->embedding) && compute(s, pool, embeddings, &route, faults)) {
        hlc_faults_print(faults, stderr);
        status = show(s, pool, route);
    } else {
        status = fail(s, faults);
    }
    hl_route_free(route);
    hl_pool_close(pool);
    hlc_embeddings_free(embeddings);
    return status;
}

int main(int argc, char **argv) {
    hlc_route_settings settings;
    hlc_cli_setup();
    int status = hlc_route_parse(&program, argc, argv, &settings);
    if (status < 0) {
        hlc_faults *faults = hlc_faults_create();
        if (faults) {
            status = run(&settings, faults);
        } else {
            fprintf(stderr, "%s: out of memory\n", program.name);
            status = HLC_EXIT_RESOURCE;
        }
        hlc_faults_destroy(faults);
    }
    hlc_route_settings_free(&settings);
    return status;
}
