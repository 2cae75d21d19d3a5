#include "runtime/cache.h"

#include <string.h>

#include "runtime/memory.h"

enum { LEAST_BUCKETS = 64 };

void hlr_cache_init(hlr_cache *cache, const hl_pool *pool, uint64_t limit) {
    *cache = (hlr_cache){.pool = pool, .limit = limit, .pin = 1};
}

static hlr_cached **bucket_of(const hlr_cache *cache, uint32_t entry) {
    const uint64_t golden = UINT64_C(0x9E3779B97F4A7C15);
    return &cache->table[(entry * golden >> 32) & (cache->buckets - 1)];
}

hlr_cached *hlr_cache_find(const hlr_cache *cache, uint32_t entry, bool half) {
    hlr_cached *at = cache->buckets ? *bucket_of(cache, entry) : NULL;
    while (at && (at->entry != entry || at->rows->half != half)) {
        at = at->next;
    }
    return at;
}

static void unlink_age(hlr_cache *cache, hlr_cached *cached) {
    *(cached->newer ? &cached->newer->older : &cache->newest) = cached->older;
    *(cached->older ? &cached->older->newer : &cache->oldest) = cached->newer;
}

static void link_newest(hlr_cache *cache, hlr_cached *cached) {
    cached->newer = NULL;
    cached->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = cached;
    cache->newest = cached;
}

/* Takes it out of the cache. */
static void take_out(hlr_cache *cache, hlr_cached *cached) {
    hlr_cached **at = bucket_of(cache, cached->entry);
    while (*at != cached) {
        at = &(*at)->next;
    }
    *at = cached->next;
    unlink_age(cache, cached);
    cache->bytes -= cached->rows->bytes;
    cache->rocs -= cached->rows->rank;
    cache->count--;
}

void hlr_cache_destroy(hlr_cache *cache, hlr_cached *cached) {
    if (cached) {
        hlr_rows_destroy(cache->pool, cached->rows);
        hlr_release(&cache->pool->allocator, cached);
    }
}

void hlr_cache_release_spares(hlr_cache *cache) {
    while (cache->spares) {
        hlr_cached *spare = cache->spares;
        cache->spares = spare->next;
        hlr_cache_destroy(cache, spare);
    }
}

void hlr_cache_clear(hlr_cache *cache) {
    while (cache->oldest) {
        hlr_cached *cached = cache->oldest;
        take_out(cache, cached);
        hlr_cache_destroy(cache, cached);
    }
    hlr_cache_release_spares(cache);
    hlr_release(&cache->pool->allocator, cache->table);
    hlr_cache_init(cache, cache->pool, cache->limit);
}

void hlr_cache_pin(hlr_cache *cache, hlr_cached *cached) {
    unlink_age(cache, cached);
    link_newest(cache, cached);
    if (cached->pin != cache->pin) {
        cached->pin = cache->pin;
        cache->pinned_bytes += cached->rows->bytes;
        cache->pinned_rocs += cached->rows->rank;
    }
}

void hlr_cache_unpin(hlr_cache *cache) {
    cache->pin++;
    cache->pinned_bytes = 0;
    cache->pinned_rocs = 0;
}

/* What is pinned is newer than what is not. */
void hlr_cache_make_room(hlr_cache *cache, uint64_t bytes) {
    hlr_cached **end = &cache->spares;
    while (*end) {
        end = &(*end)->next;
    }
    while (cache->oldest && cache->oldest->pin != cache->pin && bytes > cache->limit - cache->bytes) {
        hlr_cached *cached = cache->oldest;
        take_out(cache, cached);
        cached->next = NULL;
        *end = cached;
        end = &cached->next;
    }
}

hlr_cached *hlr_cache_create(hlr_cache *cache, uint32_t entry, bool half) {
    const hl_pool *pool = cache->pool;
    hlf_entry_record record;
    hlf_index_entry(&pool->index, entry, &record);
    const uint64_t bytes = hlr_rows_bytes(&pool->index, &record, half);
    for (uint64_t released = 0; cache->spares && released < bytes;) {
        hlr_cached *spare = cache->spares;
        cache->spares = spare->next;
        if (spare->rows->bytes == bytes) {
            hlr_rows_recycle(pool, &record, half, spare->rows);
            spare->entry = entry;
            return spare;
        }
        released += spare->rows->bytes;
        hlr_cache_destroy(cache, spare);
    }
    hlr_cached *cached = hlr_allocate(&pool->allocator, 1, sizeof *cached);
    if (cached) {
        *cached = (hlr_cached){.rows = hlr_rows_create(pool, &record, half), .entry = entry};
        if (cached->rows) {
            return cached;
        }
        hlr_release(&pool->allocator, cached);
    }
    return NULL;
}

bool hlr_cache_reserve(hlr_cache *cache, size_t more) {
    if (more > SIZE_MAX / 4 - cache->count) {
        return false;
    }
    size_t buckets = cache->buckets ? cache->buckets : LEAST_BUCKETS;
    while (buckets < cache->count + more) {
        buckets *= 2;
    }
    if (buckets == cache->buckets) {
        return true;
    }
    hlr_cached **table = hlr_allocate(&cache->pool->allocator, buckets, sizeof *table);
    if (!table) {
        return false;
    }
    for (size_t i = 0; i < buckets; i++) {
        table[i] = NULL;
    }
    hlr_release(&cache->pool->allocator, cache->table);
    cache->table = table;
    cache->buckets = buckets;
    for (hlr_cached *at = cache->newest; at; at = at->older) {
        hlr_cached **bucket = bucket_of(cache, at->entry);
        at->next = *bucket;
        *bucket = at;
    }
    return true;
}

void hlr_cache_insert(hlr_cache *cache, hlr_cached *cached) {
    hlr_cached **bucket = bucket_of(cache, cached->entry);
    cached->next = *bucket;
    *bucket = cached;
    cached->pin = 0;
    cache->bytes += cached->rows->bytes;
    cache->rocs += cached->rows->rank;
    cache->count++;
    cached->newer = cached->older = NULL;
    link_newest(cache, cached);
    hlr_cache_pin(cache, cached);
}
