/* Work on several threads whose result never depends on how many there are. */
#ifndef HILORA_COMPILER_WORKERS_H
#define HILORA_COMPILER_WORKERS_H

#include <stdbool.h>
#include <stddef.h>

/* The cores at hand for this process; at least 1. */
size_t hlc_default_threads(void);

/* Calls work(context, i, worker) for every i < count, each once, on up to `threads` threads; worker < threads names the calling thread, for scratch.
 * Returns when all are done. False when not even one thread could be had (nothing was done then). */
bool hlc_parallel(size_t threads, size_t count, void (*work)(void *context, size_t i, size_t worker), void *context);

/* An ordered pipeline: `make` runs on the workers, for indices claimed in order and at most 2 x threads ahead of what was taken; `take` gets the results
 * in the order of i on the calling thread and owns them. make answers NULL for failure: the run then stops. When take answers false, the run stops, and what
 * was made and not taken goes to `drop`. True when all were taken. */
typedef struct hlc_pipeline {
    void *(*make)(void *context, size_t i, size_t worker);
    bool (*take)(void *context, size_t i, void *made);
    void (*drop)(void *context, void *made);
    void *context;
} hlc_pipeline;
bool hlc_ordered(size_t threads, size_t count, const hlc_pipeline *pipeline);

#endif
