/* An open pool, as the runtime sees it. */
#ifndef HILORA_RUNTIME_POOL_H
#define HILORA_RUNTIME_POOL_H

#include <stdatomic.h>

#include <hilora/pool.h>

#include "format/index.h"
#include "runtime/map.h"
#include "runtime/score_kernels.h"

/* Places among the marks of what has been checked. */
enum { HLR_MARK_WHITEN, HLR_MARK_RIVALS, HLR_MARK_STATS /* of adapter 0; the others follow */ };

/* Immutable but for the marks, which go from 0 to 1 once. */
struct hl_pool {
    hlf_index index;
    hl_allocator allocator;
    hl_log_function *log;
    void *log_user;
    hlr_mapping mapping; /* empty when the bytes are the caller's */
    uint64_t max_chunk_bytes;
    const hlr_score_kernels *kernels;
    atomic_uchar *marks;
};

/* First-use checks, each made once and safe from any thread: two threads that come first at the same time both check.
 */
HL_NODISCARD hl_status hlr_pool_check_stats(const hl_pool *pool, uint32_t adapter, hl_diag *diag);
HL_NODISCARD hl_status hlr_pool_check_whiten(const hl_pool *pool, hl_diag *diag);
HL_NODISCARD hl_status hlr_pool_check_rivals(const hl_pool *pool, hl_diag *diag);

void hlr_log(const hl_pool *pool, hl_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
