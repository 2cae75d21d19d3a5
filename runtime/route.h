/* A finished route. Internal to the runtime. */
#ifndef HILORA_RUNTIME_ROUTE_H
#define HILORA_RUNTIME_ROUTE_H

#include "runtime/route_row.h"

/* One allocation; the arrays lie behind the structure. */
struct hl_route {
    const hl_pool *pool;
    hl_route_view view;
    hlr_candidate *items; /* view.count, best first */
    /* By adapter of the pool; NULL without keep_all. */
    double *density, *cosine, *thresholds; /* cosine: NULL unless ranked by it */
    uint32_t *places;
    uint8_t *fates;
};

/* From a row that has been through all its steps. row->places is not NULL exactly when the plan keeps all. */
HL_NODISCARD hl_status hlr_route_create(const hlr_row *row, hl_route **out, hl_diag *diag);

#endif
