/* Routes a prompt: which adapters of a pool serve it, with how many rank-one components (ROCs) and which weight.
 *
 *     route_prompt POOL.hlp EMBEDDING.npy */
#include <hilora/hilora.h>

#include "npy.h"

static void show(const hl_pool *pool, const hl_route *route) {
    hl_route_view view = {.struct_size = sizeof view};
    if (hl_route_info(route, &view) != HL_OK) {
        return;
    }
    printf("%s prompt, %u adapters\n", view.familiar ? "familiar" : "unfamiliar", (unsigned)view.count);
    for (uint32_t i = 0; i < view.count; i++) {
        hl_route_item item = {.struct_size = sizeof item};
        hl_adapter_view adapter = {.struct_size = sizeof adapter};
        if (hl_route_item_at(route, i, &item) == HL_OK && hl_adapter_at(pool, item.adapter, &adapter) == HL_OK) {
            printf("  %-24.*s weight %.3f, %u of %u ROCs\n", (int)adapter.name.size, adapter.name.data, item.weight,
                   (unsigned)item.rocs, (unsigned)item.rank);
        }
    }
}

int main(int argc, char **argv) {
    hl_pool *pool = NULL;
    hl_route *route = NULL;
    hl_diag diag;
    size_t dim = 0;
    int status = 1;
    hl_diag_clear(&diag);
    float *z = argc == 3 ? read_npy(argv[2], &dim) : NULL;
    if (!z) {
        fprintf(stderr, "usage: route_prompt POOL.hlp EMBEDDING.npy (one float32 row)\n");
        return 2;
    }
    if (hl_pool_open(argv[1], NULL, &pool, &diag) != HL_OK || hl_route_compute(pool, z, dim, NULL, &route, &diag) != HL_OK) {
        fprintf(stderr, "route_prompt: %s\n", diag.message);
    } else {
        show(pool, route);
        status = 0;
    }
    hl_route_free(route);
    hl_pool_close(pool);
    free(z);
    return status;
}
