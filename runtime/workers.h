/* A few threads that do numbered tasks together with the caller. */
#ifndef HILORA_RUNTIME_WORKERS_H
#define HILORA_RUNTIME_WORKERS_H

#include <stddef.h>
#include <stdint.h>

#include <hilora/pool.h>

typedef struct hlr_workers hlr_workers;

/* thread: below hlr_workers_count, and no two tasks run on one at the same time. */
typedef void hlr_task(void *context, uint32_t thread, size_t task);

/* `threads` in all, the caller's included; fewer when the system has no more to give. NULL when memory is out. */
hlr_workers *hlr_workers_create(const hl_allocator *allocator, uint32_t threads);
/* NULL is allowed. */
void hlr_workers_destroy(hlr_workers *workers);

uint32_t hlr_workers_count(const hlr_workers *workers);

/* Runs tasks 0 to count - 1, in any order on any thread, and returns when all are done. Allocates nothing. One caller
 * at a time. */
void hlr_workers_run(hlr_workers *workers, hlr_task *task, void *context, size_t count);

#endif
