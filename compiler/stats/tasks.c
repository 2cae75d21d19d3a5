#include "compiler/stats/tasks.h"

#include <stdatomic.h>

#include "compiler/base/workers.h"

typedef struct task_list {
    hlc_task task;
    void *context;
    atomic_bool failed;
} task_list;

static void run_one(void *context, size_t index, size_t worker) {
    task_list *list = context;
    if (!atomic_load(&list->failed) && !list->task(list->context, worker, index)) {
        atomic_store(&list->failed, true);
    }
}

bool hlc_tasks(size_t threads, size_t count, hlc_task task, void *context) {
    task_list list = {.task = task, .context = context};
    atomic_init(&list.failed, false);
    return hlc_parallel(threads, count, run_one, &list) && !atomic_load(&list.failed);
}
