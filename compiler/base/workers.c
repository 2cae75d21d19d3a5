#include "compiler/base/workers.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

size_t hlc_default_threads(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        return 1;
    }
    int cores = CPU_COUNT(&set);
    return cores > 0 ? (size_t)cores : 1;
}

typedef struct parallel_run {
    void (*work)(void *, size_t, size_t);
    void *context;
    size_t count;
    atomic_size_t next;
} parallel_run;

typedef struct parallel_worker {
    parallel_run *run;
    size_t number;
    pthread_t thread;
} parallel_worker;

static void *parallel_main(void *argument) {
    parallel_worker *worker = argument;
    parallel_run *run = worker->run;
    for (size_t i; (i = atomic_fetch_add(&run->next, 1)) < run->count;) {
        run->work(run->context, i, worker->number);
    }
    return NULL;
}

bool hlc_parallel(size_t threads, size_t count, void (*work)(void *, size_t, size_t), void *context) {
    parallel_run run = {.work = work, .context = context, .count = count};
    size_t wanted = threads < count ? threads : count, started = 1; /* the caller is worker 0 */
    parallel_worker *workers = calloc(wanted ? wanted : 1, sizeof *workers);
    if (!workers) {
        return false;
    }
    workers[0] = (parallel_worker){.run = &run};
    for (; started < wanted; started++) {
        workers[started] = (parallel_worker){.run = &run, .number = started};
        if (pthread_create(&workers[started].thread, NULL, parallel_main, &workers[started]) != 0) {
            break; /* fewer threads do the same work */
        }
    }
    parallel_main(&workers[0]);
    for (size_t i = 1; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    free(workers);
    return true;
}

typedef struct ordered_run {
    const hlc_pipeline *pipeline;
    size_t count, window;
    pthread_mutex_t mutex;
    pthread_cond_t room, ready;
    size_t claimed, taken;
    bool stop;
    void **slots; /* window of them; slot i % window belongs to index i */
    bool *filled;
} ordered_run;

typedef struct ordered_worker {
    ordered_run *run;
    size_t number;
    pthread_t thread;
} ordered_worker;

static void *ordered_main(void *argument) {
    ordered_worker *worker = argument;
    ordered_run *run = worker->run;
    pthread_mutex_lock(&run->mutex);
    for (;;) {
        while (!run->stop && run->claimed < run->count && run->claimed >= run->taken + run->window) {
            pthread_cond_wait(&run->room, &run->mutex);
        }
        if (run->stop || run->claimed >= run->count) {
            break;
        }
        size_t i = run->claimed++;
        pthread_mutex_unlock(&run->mutex);
        void *made = run->pipeline->make(run->pipeline->context, i, worker->number);
        pthread_mutex_lock(&run->mutex);
        run->slots[i % run->window] = made;
        run->filled[i % run->window] = true;
        pthread_cond_broadcast(&run->ready);
    }
    pthread_mutex_unlock(&run->mutex);
    return NULL;
}

/* Takes results in order on the calling thread until all are taken or the run stops. */
static bool take_all(ordered_run *run) {
    bool good = true;
    for (size_t i = 0; good && i < run->count; i++) {
        pthread_mutex_lock(&run->mutex);
        while (!run->filled[i % run->window]) {
            pthread_cond_wait(&run->ready, &run->mutex);
        }
        void *made = run->slots[i % run->window];
        run->filled[i % run->window] = false;
        pthread_mutex_unlock(&run->mutex);
        good = made && run->pipeline->take(run->pipeline->context, i, made);
        pthread_mutex_lock(&run->mutex);
        run->taken = i + 1;
        run->stop = !good;
        pthread_cond_broadcast(&run->room);
        pthread_mutex_unlock(&run->mutex);
    }
    return good;
}

bool hlc_ordered(size_t threads, size_t count, const hlc_pipeline *pipeline) {
    ordered_run run = {.pipeline = pipeline, .count = count, .window = 2 * threads};
    pthread_mutex_init(&run.mutex, NULL);
    pthread_cond_init(&run.room, NULL);
    pthread_cond_init(&run.ready, NULL);
    ordered_worker *workers = calloc(threads, sizeof *workers);
    run.slots = calloc(run.window, sizeof *run.slots);
    run.filled = calloc(run.window, sizeof *run.filled);
    size_t started = 0;
    bool good = workers && run.slots && run.filled;
    for (; good && started < threads; started++) {
        workers[started] = (ordered_worker){.run = &run, .number = started};
        if (pthread_create(&workers[started].thread, NULL, ordered_main, &workers[started]) != 0) {
            break;
        }
    }
    good = good && started && take_all(&run);
    for (size_t i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    for (size_t i = 0; run.slots && run.filled && i < run.window; i++) {
        if (run.filled[i] && run.slots[i]) {
            pipeline->drop(pipeline->context, run.slots[i]);
        }
    }
    free(run.filled);
    free(run.slots);
    free(workers);
    pthread_cond_destroy(&run.ready);
    pthread_cond_destroy(&run.room);
    pthread_mutex_destroy(&run.mutex);
    return good;
}
