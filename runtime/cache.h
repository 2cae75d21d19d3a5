/* Decoded rows, bounded in bytes: what the prepared routes need is pinned, of the rest the least recently used goes
 * first. */
#ifndef HILORA_RUNTIME_CACHE_H
#define HILORA_RUNTIME_CACHE_H

#include "runtime/rows.h"

typedef struct hlr_cached {
    hlr_rows *rows;
    uint32_t entry;                          /* of the index */
    uint64_t pin;                            /* the cache's `pin` of the time it was last pinned */
    struct hlr_cached *newer, *older, *next; /* by age; in a bucket, or in the list of spares */
} hlr_cached;

/* One thread at a time. */
typedef struct hlr_cache {
    const hl_pool *pool;
    uint64_t limit;               /* bytes */
    uint64_t bytes, pinned_bytes; /* in use */
    uint64_t rocs, pinned_rocs;   /* the same, in components */
    uint64_t pin;                 /* entries pinned with this number are in use */
    size_t count, buckets;        /* entries; a power of two, or 0 */
    hlr_cached **table;
    hlr_cached *newest, *oldest;
    hlr_cached *spares; /* let go of, memory and all, the oldest first; they count no more */
} hlr_cache;

void hlr_cache_init(hlr_cache *cache, const hl_pool *pool, uint64_t limit);
void hlr_cache_clear(hlr_cache *cache);

/* NULL when the rows are not there. */
hlr_cached *hlr_cache_find(const hlr_cache *cache, uint32_t entry, bool half);

/* Marks it as the newest and as in use, until the next hlr_cache_unpin. */
void hlr_cache_pin(hlr_cache *cache, hlr_cached *cached);
void hlr_cache_unpin(hlr_cache *cache);

/* Lets go of what is not pinned, the oldest first, until so many bytes can be added; they must fit beside what is
 * pinned. What goes becomes spare. */
void hlr_cache_make_room(hlr_cache *cache, uint64_t bytes);

/* Rows without content for an entry, which the cache does not hold: spare ones of the same size, as pools have them by
 * the hundred, or else new ones in the place of others. NULL when memory is out. The caller inserts or destroys them.
 */
hlr_cached *hlr_cache_create(hlr_cache *cache, uint32_t entry, bool half);
/* NULL is allowed. */
void hlr_cache_destroy(hlr_cache *cache, hlr_cached *cached);
void hlr_cache_release_spares(hlr_cache *cache);

/* Room in the table for so many more; false when memory is out. */
bool hlr_cache_reserve(hlr_cache *cache, size_t more);
/* Takes ownership of rows that it does not hold yet, in `cached`, and pins them; room was made and reserved. */
void hlr_cache_insert(hlr_cache *cache, hlr_cached *cached);

#endif
