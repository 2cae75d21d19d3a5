/* libhilora: pools of LoRA adapters, routed per prompt and applied per token.
 *
 * - hl_pool_open maps a pool and checks its tables; hl_pool_close.
 * - hl_route_compute decides, once per prompt, which adapters serve it and how strongly; hl_route_free.
 * - hl_session_create makes what a thread works in; hl_session_destroy.
 * - hl_session_prepare decodes what some routes need.
 * - hl_session_apply adds, in every layer, the routed update to the layer's output.
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

#include <hilora/api.h>
#include <hilora/pool.h>
#include <hilora/route.h>
#include <hilora/session.h>
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
