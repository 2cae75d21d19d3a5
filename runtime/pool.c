#include "runtime/pool.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "format/bytes.h"
#include "format/cpu.h"
#include "format/diag.h"
#include "runtime/memory.h"
#include "runtime/structs.h"

static const uint64_t default_file_bytes = UINT64_C(1) << 46, default_chunk_bytes = UINT64_C(1) << 30;

/* Whatever the options say: within these no product of the index can overflow. */
static const uint64_t hard_file_bytes = UINT64_C(1) << 46, hard_dim = UINT64_C(1) << 18, hard_rank = UINT64_C(1) << 20,
                      hard_width = UINT64_C(1) << 38, hard_count = UINT64_C(1) << 30;

static uint64_t limit(uint64_t option, uint64_t standard, uint64_t hard) {
    uint64_t value = option ? option : standard;
    return value < hard ? value : hard;
}

static hlf_limits limits_of(const hl_pool_options *o) {
    const hlf_limits *standard = &hlf_default_limits;
    return (hlf_limits){
        .max_adapters = limit(o->max_adapters, standard->max_adapters, hard_count),
        .max_modules = limit(o->max_modules, standard->max_modules, hard_count),
        .max_entries = limit(o->max_entries, standard->max_entries, hard_count),
        .max_dim = (uint32_t)limit(o->max_dim, standard->max_dim, hard_dim),
        .max_rank = (uint32_t)limit(o->max_rank, standard->max_rank, hard_rank),
        .max_width = limit(o->max_width, standard->max_width, hard_width),
    };
}

void hlr_log(const hl_pool *pool, hl_log_level level, const char *format, ...) {
    if (!pool->log) {
        return;
    }
    char message[HL_DIAG_MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (n >= 0) {
        pool->log(pool->log_user, level, message);
    }
}

static hl_status choose_kernels(hl_isa isa, const hlr_score_kernels **out, hl_diag *diag) {
    const hlr_score_kernels *x86 = hlr_score_x86(hlf_cpu_features());
    if (isa == HL_ISA_AUTO || isa == HL_ISA_SCALAR) {
        *out = isa == HL_ISA_AUTO && x86 ? x86 : &hlr_score_scalar;
        return HL_OK;
    }
    *out = x86;
    if (isa != HL_ISA_AVX2) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "there is no instruction set of number %d", (int)isa);
    }
    return x86 ? HL_OK : hlf_fail(diag, HL_ERR_UNSUPPORTED, HL_NO_OFFSET, "this processor or build has no AVX2");
}

/* A pool without content, from the caller's allocator. */
static hl_status create(const hl_pool_options *options, hl_pool **out, hl_diag *diag) {
    const hl_allocator *allocator = options->allocator ? options->allocator : &hlr_default_allocator;
    if (!allocator->allocate || !allocator->release) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "the allocator lacks a function");
    }
    hl_pool *pool = hlr_allocate(allocator, 1, sizeof *pool);
    if (!pool) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory");
    }
    memset(pool, 0, sizeof *pool);
    pool->allocator = *allocator;
    pool->log = options->log;
    pool->log_user = options->log_user;
    pool->max_chunk_bytes = limit(options->max_chunk_bytes, default_chunk_bytes, PTRDIFF_MAX);
    hl_status status = choose_kernels(options->isa, &pool->kernels, diag);
    if (status != HL_OK) {
        hl_pool_close(pool);
        pool = NULL;
    }
    *out = pool;
    return status;
}

static hl_status index_bytes(hl_pool *pool, const uint8_t *bytes, uint64_t size, const hl_pool_options *options,
                             hl_diag *diag) {
    const hlf_limits limits = limits_of(options);
    hl_status status = hlf_index_open(bytes, size, &limits, &pool->index, diag);
    if (status != HL_OK) {
        return status;
    }
    const size_t marks = HLR_MARK_STATS + (size_t)pool->index.adapters;
    pool->marks = hlr_allocate(&pool->allocator, marks, sizeof *pool->marks);
    if (!pool->marks) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for %u adapters", pool->index.adapters);
    }
    for (size_t i = 0; i < marks; i++) {
        atomic_init(&pool->marks[i], 0);
    }
    if (pool->index.header.minor > HLF_VERSION_MINOR) {
        hlr_log(pool, HL_LOG_WARNING,
                "the pool has format version %u.%u; this build knows %d.%d and ignores what is newer",
                pool->index.header.major, pool->index.header.minor, HLF_VERSION_MAJOR, HLF_VERSION_MINOR);
    }
    hlr_log(pool, HL_LOG_INFO, "opened a pool of %u adapters, %u modules and %u entries", pool->index.adapters,
            pool->index.modules, pool->index.entries);
    return HL_OK;
}

static hl_status open_with(const char *path, const void *bytes, size_t size, const hl_pool_options *options,
                           hl_pool **out, hl_diag *diag) {
    hl_pool_options own;
    hl_pool *pool = NULL;
    hl_status status = hlr_options_read(&own, offsetof(hl_pool_options, reserved), sizeof own, options, diag);
    if (status != HL_OK || (status = create(&own, &pool, diag)) != HL_OK) {
        return status;
    }
    const uint64_t max_bytes = limit(own.max_file_bytes, default_file_bytes, hard_file_bytes);
    if (path) {
        status = hlr_map(path, max_bytes, &pool->mapping, diag);
        bytes = pool->mapping.bytes;
        size = (size_t)pool->mapping.size;
    } else if (size > max_bytes) {
        status = hlf_fail(diag, HL_ERR_LIMIT, HL_NO_OFFSET, "%zu bytes, over the limit", size);
    }
    if (status == HL_OK) {
        status = index_bytes(pool, bytes, size, &own, diag);
    }
    if (status != HL_OK) {
        hl_pool_close(pool);
        return status;
    }
    *out = pool;
    return HL_OK;
}

hl_status hl_pool_open(const char *path, const hl_pool_options *options, hl_pool **out, hl_diag *diag) {
    if (!out) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no place for the pool");
    }
    *out = NULL;
    return path ? open_with(path, NULL, 0, options, out, diag)
                : hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no path");
}

hl_status hl_pool_open_memory(const void *bytes, size_t size, const hl_pool_options *options, hl_pool **out,
                              hl_diag *diag) {
    if (!out) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "no place for the pool");
    }
    *out = NULL;
    if ((!bytes && size) || (uintptr_t)bytes % HLR_ALIGNMENT != 0) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "the bytes of a pool must be aligned to %d",
                        HLR_ALIGNMENT);
    }
    return open_with(NULL, bytes, size, options, out, diag);
}

void hl_pool_close(hl_pool *pool) {
    if (!pool) {
        return;
    }
    hl_allocator allocator = pool->allocator;
    hlr_release(&allocator, pool->marks);
    hlr_unmap(&pool->mapping);
    hlr_release(&allocator, pool);
}

static hl_status check_whiten(const hlf_index *index, hl_diag *diag) {
    const uint8_t *matrix = hlf_index_section(index, HLF_SECTION_WHITEN);
    const uint64_t n = index->header.sections[HLF_SECTION_WHITEN].length / sizeof(double);
    hl_status status = n ? hlf_index_verify_section(index, HLF_SECTION_WHITEN, diag) : HL_OK;
    for (uint64_t i = 0; status == HL_OK && i < n; i++) {
        if (!isfinite(hlf_load_f64(matrix + 8 * i))) {
            uint64_t offset = index->header.sections[HLF_SECTION_WHITEN].offset + 8 * i;
            status = hlf_fail(diag, HL_ERR_INPUT, offset, "the whitening matrix holds NaN or infinity");
        }
    }
    return status;
}

static hl_status check_rivals(const hlf_index *index, hl_diag *diag) {
    const uint8_t *table = hlf_index_section(index, HLF_SECTION_RIVALS);
    const uint64_t n = (uint64_t)index->adapters * index->pool.rivals;
    hl_status status = n ? hlf_index_verify_section(index, HLF_SECTION_RIVALS, diag) : HL_OK;
    for (uint64_t i = 0; status == HL_OK && i < n; i++) {
        hlf_rival_record rival;
        hlf_rival_decode(&rival, table + i * HLF_RIVAL_RECORD);
        if (rival.adapter != HLF_NONE && (rival.adapter >= index->adapters || !(rival.distance >= 0))) {
            uint64_t offset = index->header.sections[HLF_SECTION_RIVALS].offset + i * HLF_RIVAL_RECORD;
            status = hlf_fail(diag, HL_ERR_CORRUPT, offset, "a rival that does not exist, or at a negative distance");
        }
    }
    return status;
}

static hl_status check_once(const hl_pool *pool, size_t place, hl_diag *diag) {
    atomic_uchar *mark = &pool->marks[place];
    if (atomic_load_explicit(mark, memory_order_acquire)) {
        return HL_OK;
    }
    hl_status status = place == HLR_MARK_WHITEN ? check_whiten(&pool->index, diag)
                       : place == HLR_MARK_RIVALS
                           ? check_rivals(&pool->index, diag)
                           : hlf_index_verify_stats(&pool->index, (uint32_t)(place - HLR_MARK_STATS), diag);
    if (status == HL_OK) {
        atomic_store_explicit(mark, 1, memory_order_release);
    }
    return status;
}

hl_status hlr_pool_check_stats(const hl_pool *pool, uint32_t adapter, hl_diag *diag) {
    return check_once(pool, HLR_MARK_STATS + (size_t)adapter, diag);
}

hl_status hlr_pool_check_whiten(const hl_pool *pool, hl_diag *diag) {
    return check_once(pool, HLR_MARK_WHITEN, diag);
}

hl_status hlr_pool_check_rivals(const hl_pool *pool, hl_diag *diag) {
    return check_once(pool, HLR_MARK_RIVALS, diag);
}
