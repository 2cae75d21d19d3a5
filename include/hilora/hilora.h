/* libhilora: pools of LoRA adapters, routed per prompt and applied per token.
 *
 * hl_pool *pool;  hl_route *route;  hl_session *session;  hl_diag diag; hl_diag_clear(&diag); hl_pool_open("pool.hlp",
 * NULL, &pool, &diag);                  map and check the tables hl_route_compute(pool, z, d, NULL, &route, &diag);
 * once per prompt: which adapters, how strongly hl_session_create(pool, NULL, &session, &diag);                one per
 * thread hl_session_prepare(session, &route, 1, &diag);                 decode what the route needs
 * hl_session_apply(session, module, tokens, x, ...);             every layer: y += the routed update
 *
 * The library never prints, exits, reads the environment or installs a signal handler. A function that can fail
 * answers an hl_status and fills the diagnostic it is given; its output is then NULL or untouched, as its comment
 * says.
 *
 * Structures that grow with the library begin with `size_t struct_size`, which the caller sets to sizeof the
 * structure, in options as in results. In options zero means the default, so `{0}` with struct_size set asks for all
 * defaults, and a NULL options pointer means the same. A library that is older than its caller's header refuses
 * options that it does not know unless they are zero.
 *
 * Routing follows HiLoRA (arXiv 2510.12266); where this project departs from it, docs/ROUTING.md says so and why. */
#ifndef HILORA_HILORA_H
#define HILORA_HILORA_H

#include <hilora/pool.h>
#include <hilora/route.h>
#include <hilora/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library in use, "MAJOR.MINOR.PATCH"; static storage. */
HL_API const char *hl_version(void);

#ifdef __cplusplus
}
#endif
#endif
