/* hlc_parallel for work that can fail. */
#ifndef HILORA_COMPILER_TASKS_H
#define HILORA_COMPILER_TASKS_H

#include <stdbool.h>
#include <stddef.h>

/* False stops the loop early. worker < threads names the calling thread, for scratch. */
typedef bool (*hlc_task)(void *context, size_t worker, size_t index);

/* task(context, worker, i) once for each i < count; false when any returned false, with some of the others then left out, or when
 * memory is out. Which worker runs which task varies: results must not depend on it. */
bool hlc_tasks(size_t threads, size_t count, hlc_task task, void *context);

#endif
