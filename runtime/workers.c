#include "runtime/workers.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "runtime/memory.h"

struct hlr_workers {
    hl_allocator allocator;
    uint32_t threads;   /* the caller's included */
    uint32_t next_name; /* of a thread that starts */
    pthread_t *handles; /* threads - 1 */
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    uint64_t round; /* of work; grows by one with every run */
    uint32_t busy;  /* threads that have not finished this round */
    bool stop;
    hlr_task *task;
    void *context;
    size_t count;
    atomic_size_t next; /* task */
};

static void work(hlr_workers *workers, uint32_t thread) {
    for (;;) {
        size_t task = atomic_fetch_add_explicit(&workers->next, 1, memory_order_relaxed);
        if (task >= workers->count) {
            return;
        }
        workers->task(workers->context, thread, task);
    }
}

static void *serve(void *argument) {
    hlr_workers *workers = argument;
    pthread_mutex_lock(&workers->mutex);
    const uint32_t thread = workers->next_name++;
    for (uint64_t seen = 0;;) {
        while (workers->round == seen && !workers->stop) {
            pthread_cond_wait(&workers->wake, &workers->mutex);
        }
        if (workers->stop) {
            break;
        }
        seen = workers->round;
        pthread_mutex_unlock(&workers->mutex);
        work(workers, thread);
        pthread_mutex_lock(&workers->mutex);
        if (--workers->busy == 0) {
            pthread_cond_signal(&workers->done);
        }
    }
    pthread_mutex_unlock(&workers->mutex);
    return NULL;
}

static bool create_locks(hlr_workers *workers) {
    if (pthread_mutex_init(&workers->mutex, NULL) != 0) {
        return false;
    }
    if (pthread_cond_init(&workers->wake, NULL) == 0) {
        if (pthread_cond_init(&workers->done, NULL) == 0) {
            return true;
        }
        pthread_cond_destroy(&workers->wake);
    }
    pthread_mutex_destroy(&workers->mutex);
    return false;
}

/* Starts threads until there are so many, or the system has no more. Signals to the process are left to the caller's
 * threads; those of a thread's own faults (SIGBUS of a file cut short) still reach the program's handlers. */
static void start(hlr_workers *workers, uint32_t threads) {
    static const int faults[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        sigdelset(&blocked, faults[i]);
    }
    const bool masked = pthread_sigmask(SIG_BLOCK, &blocked, &before) == 0;
    while (workers->threads < threads &&
           pthread_create(&workers->handles[workers->threads - 1], NULL, serve, workers) == 0) {
        workers->threads++;
    }
    if (masked) {
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
}

hlr_workers *hlr_workers_create(const hl_allocator *allocator, uint32_t threads) {
    hlr_workers *workers = hlr_allocate(allocator, 1, sizeof *workers);
    if (!workers) {
        return NULL;
    }
    *workers = (hlr_workers){.allocator = *allocator, .threads = 1, .next_name = 1};
    atomic_init(&workers->next, 0);
    workers->handles = hlr_allocate(allocator, threads > 1 ? threads - 1 : 0, sizeof *workers->handles);
    if (!workers->handles || !create_locks(workers)) {
        hlr_release(allocator, workers->handles);
        hlr_release(allocator, workers);
        return NULL;
    }
    start(workers, threads);
    return workers;
}

void hlr_workers_destroy(hlr_workers *workers) {
    if (!workers) {
        return;
    }
    pthread_mutex_lock(&workers->mutex);
    workers->stop = true;
    pthread_cond_broadcast(&workers->wake);
    pthread_mutex_unlock(&workers->mutex);
    for (uint32_t i = 0; i + 1 < workers->threads; i++) {
        pthread_join(workers->handles[i], NULL);
    }
    pthread_cond_destroy(&workers->done);
    pthread_cond_destroy(&workers->wake);
    pthread_mutex_destroy(&workers->mutex);
    hl_allocator allocator = workers->allocator;
    hlr_release(&allocator, workers->handles);
    hlr_release(&allocator, workers);
}

uint32_t hlr_workers_count(const hlr_workers *workers) {
    return workers->threads;
}

void hlr_workers_run(hlr_workers *workers, hlr_task *task, void *context, size_t count) {
    if (workers->threads == 1 || count < 2) {
        for (size_t i = 0; i < count; i++) {
            task(context, 0, i);
        }
        return;
    }
    pthread_mutex_lock(&workers->mutex);
    workers->task = task;
    workers->context = context;
    workers->count = count;
    atomic_store_explicit(&workers->next, 0, memory_order_relaxed);
    workers->busy = workers->threads - 1;
    workers->round++;
    pthread_cond_broadcast(&workers->wake);
    pthread_mutex_unlock(&workers->mutex);
    work(workers, 0);
    pthread_mutex_lock(&workers->mutex);
    while (workers->busy) {
        pthread_cond_wait(&workers->done, &workers->mutex);
    }
    pthread_mutex_unlock(&workers->mutex);
}
