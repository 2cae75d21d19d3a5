#include "format/index.h"

#include <math.h>
#include <string.h>

#include "format/bytes.h"
#include "format/checksum.h"
#include "format/diag.h"
#include "format/sha256.h"

const hlf_limits hlf_default_limits = {
    .max_adapters = 1000000,
    .max_modules = 1000000,
    .max_entries = 100000000,
    .max_dim = 65536,
    .max_rank = 65535,
    .max_width = INT32_MAX,
};

/* hlf_section_element_size for records, where the compiler can fold it. */
static inline uint64_t record_size(hlf_section_id section) {
    switch (section) {
    case HLF_SECTION_POOL:
        return HLF_POOL_RECORD;
    case HLF_SECTION_ADAPTERS:
        return HLF_ADAPTER_RECORD;
    case HLF_SECTION_MODULES:
        return HLF_MODULE_RECORD;
    case HLF_SECTION_ENTRIES:
        return HLF_ENTRY_RECORD;
    case HLF_SECTION_CHUNKS:
        return HLF_CHUNK_RECORD;
    case HLF_SECTION_STATS:
        return HLF_STATS_RECORD;
    default:
        return hlf_section_element_size(section);
    }
}

static inline uint64_t record_offset(const hlf_index *index, hlf_section_id section, uint64_t i) {
    return index->header.sections[section].offset + i * record_size(section);
}

static inline const uint8_t *record_at(const hlf_index *index, hlf_section_id section, uint64_t i) {
    return index->bytes + record_offset(index, section, i);
}

static uint64_t section_count(const hlf_index *index, hlf_section_id section) {
    return index->header.sections[section].length / record_size(section);
}

void hlf_index_adapter(const hlf_index *index, uint32_t i, hlf_adapter_record *out) {
    hlf_adapter_decode(out, record_at(index, HLF_SECTION_ADAPTERS, i));
}

uint32_t hlf_index_adapter_flags(const hlf_index *index, uint32_t i) {
    return hlf_load_u32(record_at(index, HLF_SECTION_ADAPTERS, i) + HLF_ADAPTER_AT_FLAGS);
}

void hlf_index_module(const hlf_index *index, uint32_t i, hlf_module_record *out) {
    hlf_module_decode(out, record_at(index, HLF_SECTION_MODULES, i));
}

void hlf_index_entry(const hlf_index *index, uint32_t i, hlf_entry_record *out) {
    hlf_entry_decode(out, record_at(index, HLF_SECTION_ENTRIES, i));
}

void hlf_index_chunk(const hlf_index *index, uint32_t i, hlf_chunk_record *out) {
    hlf_chunk_decode(out, record_at(index, HLF_SECTION_CHUNKS, i));
}

void hlf_index_stats(const hlf_index *index, uint32_t i, hlf_stats_record *out) {
    hlf_stats_decode(out, record_at(index, HLF_SECTION_STATS, i));
}

const char *hlf_index_string(const hlf_index *index, hlf_string_ref ref) {
    return (const char *)index->bytes + index->header.sections[HLF_SECTION_STRINGS].offset + ref.offset;
}

const uint8_t *hlf_index_section(const hlf_index *index, hlf_section_id section) {
    const hlf_section *s = &index->header.sections[section];
    return s->length ? index->bytes + s->offset : NULL;
}

const uint8_t *hlf_index_blob(const hlf_index *index, const hlf_blob_ref *blob) {
    return blob->stored ? index->bytes + index->header.sections[HLF_SECTION_BLOBS].offset + blob->offset : NULL;
}

static int compare_names(const char *a, size_t a_length, const char *b, size_t b_length) {
    size_t n = a_length < b_length ? a_length : b_length;
    int order = n ? memcmp(a, b, n) : 0;
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

/* Binary search in a table whose records begin with the reference to their name. */
static uint32_t find_name(const hlf_index *index, hlf_section_id section, uint32_t count, const char *name, size_t length) {
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const uint8_t *at = record_at(index, section, middle);
        hlf_string_ref ref = {hlf_load_u32(at), hlf_load_u32(at + 4)};
        int order = compare_names(hlf_index_string(index, ref), ref.length, name, length);
        if (order == 0) {
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return HLF_NONE;
}

uint32_t hlf_index_find_adapter(const hlf_index *index, const char *name, size_t length) {
    return find_name(index, HLF_SECTION_ADAPTERS, index->adapters, name, length);
}

uint32_t hlf_index_find_module(const hlf_index *index, const char *name, size_t length) {
    return find_name(index, HLF_SECTION_MODULES, index->modules, name, length);
}

uint32_t hlf_index_find_entry(const hlf_index *index, uint32_t adapter, uint32_t module) {
    hlf_adapter_record record;
    hlf_index_adapter(index, adapter, &record);
    uint32_t low = (uint32_t)record.first_entry, high = low + (uint32_t)record.entries;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint32_t found = hlf_load_u32(record_at(index, HLF_SECTION_ENTRIES, middle));
        if (found == module) {
            return middle;
        }
        if (found < module) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return HLF_NONE;
}

bool hlf_index_chunk_shape(const hlf_index *index, const hlf_entry_record *entry, hlf_side side, hlf_chunk_shape *out) {
    hlf_module_record module;
    out->rows = entry->rank;
    switch (side) {
    case HLF_SIDE_A:
        hlf_index_module(index, entry->module, &module);
        out->chunk = entry->chunk_a;
        out->dtype = (hlf_dtype)entry->stored_dtype_a;
        out->width = module.d_in;
        break;
    case HLF_SIDE_B:
        hlf_index_module(index, entry->module, &module);
        out->chunk = entry->chunk_b;
        out->dtype = (hlf_dtype)entry->stored_dtype_b;
        out->width = module.d_out;
        break;
    case HLF_SIDE_GAUGE:
        out->chunk = entry->chunk_gauge;
        out->dtype = HLF_DTYPE_F32;
        out->rows = 2 * (uint64_t)entry->rank;
        out->width = entry->rank;
        break;
    }
    out->bytes = out->rows * out->width * hlf_dtype_size(out->dtype);
    return out->chunk != HLF_NONE;
}

hl_status hlf_index_verify_section(const hlf_index *index, hlf_section_id section, hl_diag *diag) {
    const hlf_section *s = &index->header.sections[section];
    if (hlf_checksum(index->bytes + s->offset, s->length) != s->checksum) {
        return hlf_fail(diag, HL_ERR_CORRUPT, s->offset, "section %s is damaged: its checksum is wrong", hlf_section_path(section));
    }
    return HL_OK;
}

hl_status hlf_index_verify_chunk(const hlf_index *index, uint32_t chunk, hl_diag *diag) {
    hlf_chunk_record record;
    hlf_index_chunk(index, chunk, &record);
    if (hlf_checksum(index->bytes + record.offset, record.stored) != record.checksum) {
        return hlf_fail(diag, HL_ERR_CORRUPT, record.offset, "chunk %u is damaged: its checksum is wrong", chunk);
    }
    return HL_OK;
}

hl_status hlf_index_verify_blob(const hlf_index *index, const hlf_blob_ref *blob, hl_diag *diag) {
    uint64_t offset = index->header.sections[HLF_SECTION_BLOBS].offset + blob->offset;
    if (blob->stored && hlf_checksum(index->bytes + offset, blob->stored) != blob->checksum) {
        return hlf_fail(diag, HL_ERR_CORRUPT, offset, "a blob of %llu bytes is damaged: its checksum is wrong",
                        (unsigned long long)blob->stored);
    }
    return HL_OK;
}

/* Finite exactly when no exponent is all ones; integer arithmetic, so it vectorises and minds no NaN. */
static bool floats_finite(const uint8_t *bytes, uint64_t n) {
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        bad |= (hlf_load_u32(bytes + 4 * i) & 0x7F800000u) == 0x7F800000u;
    }
    return bad == 0;
}

static bool doubles_finite(const uint8_t *bytes, uint64_t n) {
    uint64_t bad = 0;
    const uint64_t exponent = UINT64_C(0x7FF0000000000000);
    for (uint64_t i = 0; i < n; i++) {
        bad |= (hlf_load_u64(bytes + 8 * i) & exponent) == exponent;
    }
    return bad == 0;
}

/* Sums run over whole rows, so what stands behind the last dimension must be zero. */
static bool padding_is_zero(const uint8_t *bytes, uint64_t rows, uint32_t dim, uint32_t stride) {
    uint32_t seen = 0;
    for (uint64_t row = 0; row < rows; row++) {
        for (uint32_t i = dim; i < stride; i++) {
            seen |= hlf_load_u32(bytes + 4 * (row * stride + i));
        }
    }
    return seen == 0;
}

hl_status hlf_index_verify_stats(const hlf_index *index, uint32_t adapter, hl_diag *diag) {
    hlf_stats_record stats;
    hlf_index_stats(index, adapter, &stats);
    if (stats.m == 0) {
        return HL_OK;
    }
    const uint64_t row_bytes = 4 * (uint64_t)index->pool.stride, q = stats.q;
    const uint64_t mean = index->header.sections[HLF_SECTION_MEAN].offset + adapter * row_bytes;
    const uint64_t basis = index->header.sections[HLF_SECTION_BASIS].offset + stats.first_row * row_bytes;
    const uint64_t singular = index->header.sections[HLF_SECTION_SINGULAR].offset + stats.first_row * 8;
    const uint64_t leverage = index->header.sections[HLF_SECTION_LEVERAGE].offset + stats.first_leverage * 8;
    const uint8_t *bytes = index->bytes;
    if (hlf_checksum(bytes + mean, row_bytes) != stats.mean_checksum) {
        return hlf_fail(diag, HL_ERR_CORRUPT, mean, "the mean of adapter %u is damaged: its checksum is wrong", adapter);
    }
    if (hlf_checksum(bytes + basis, q * row_bytes) != stats.basis_checksum) {
        return hlf_fail(diag, HL_ERR_CORRUPT, basis, "the basis of adapter %u is damaged: its checksum is wrong", adapter);
    }
    if (hlf_checksum2(bytes + singular, q * 8, bytes + leverage, stats.m * q * 8) != stats.factor_checksum) {
        return hlf_fail(diag, HL_ERR_CORRUPT, singular, "the factors of adapter %u are damaged: their checksum is wrong", adapter);
    }
    if (!floats_finite(bytes + mean, index->pool.stride) || !floats_finite(bytes + basis, q * index->pool.stride) ||
        !doubles_finite(bytes + singular, q) || !doubles_finite(bytes + leverage, stats.m * q)) {
        return hlf_fail(diag, HL_ERR_INPUT, mean, "the statistics of adapter %u hold NaN or infinity", adapter);
    }
    if (!padding_is_zero(bytes + mean, 1, index->pool.dim, index->pool.stride) ||
        !padding_is_zero(bytes + basis, q, index->pool.dim, index->pool.stride)) {
        return hlf_fail(diag, HL_ERR_CORRUPT, mean, "the rows of adapter %u are not padded with zeros", adapter);
    }
    return HL_OK;
}

void hlf_index_digest(const uint8_t *bytes, const hlf_header *header, uint8_t out[HLF_SHA256_SIZE]) {
    hlf_sha256 sha;
    hlf_sha256_init(&sha);
    for (uint32_t id = 1; id <= HLF_SECTION_LAST; id++) {
        const hlf_section *section = &header->sections[id];
        uint8_t prefix[12];
        hlf_store_u32(prefix, id);
        hlf_store_u64(prefix + 4, section->length);
        hlf_sha256_update(&sha, prefix, sizeof prefix);
        if (section->length) {
            hlf_sha256_update(&sha, bytes + section->offset, section->length);
        }
    }
    hlf_sha256_final(&sha, out);
}

/* ---- Opening: every check below runs before anything else reads the tables. ---- */

typedef struct open_context {
    hlf_index *index;
    const hlf_limits *limits;
    hl_diag *diag;
    bool strict; /* reserved bytes must be zero */
} open_context;

static hl_status bad(const open_context *c, hlf_section_id section, uint64_t i, const char *what) {
    return hlf_fail(c->diag, HL_ERR_CORRUPT, record_offset(c->index, section, i), "%s[%llu]: %s", hlf_section_path(section),
                    (unsigned long long)i, what);
}

static bool string_ok(const hlf_index *index, hlf_string_ref ref) {
    return hlf_inside(ref.offset, ref.length, index->header.sections[HLF_SECTION_STRINGS].length);
}

static bool reserved_ok(const open_context *c, hlf_section_id section, uint64_t i) {
    return !c->strict || hlf_record_reserved_is_zero(hlf_record_type_of(section), record_at(c->index, section, i));
}

static hl_status check_sections(const open_context *c) {
    static const hlf_section_id eager[] = {HLF_SECTION_POOL,    HLF_SECTION_STRINGS, HLF_SECTION_ADAPTERS, HLF_SECTION_MODULES,
                                           HLF_SECTION_ENTRIES, HLF_SECTION_CHUNKS,  HLF_SECTION_STATS};
    hlf_index *index = c->index;
    for (size_t i = 0; i < sizeof eager / sizeof eager[0]; i++) {
        hl_status status = hlf_index_verify_section(index, eager[i], c->diag);
        if (status != HL_OK) {
            return status;
        }
    }
    const uint64_t adapters = section_count(index, HLF_SECTION_ADAPTERS), modules = section_count(index, HLF_SECTION_MODULES);
    const uint64_t entries = section_count(index, HLF_SECTION_ENTRIES), chunks = section_count(index, HLF_SECTION_CHUNKS);
    if (section_count(index, HLF_SECTION_POOL) != 1 || adapters == 0 || modules == 0 || entries == 0 ||
        section_count(index, HLF_SECTION_STATS) != adapters) {
        return hlf_fail(c->diag, HL_ERR_CORRUPT, HLF_AT_SECTIONS, "a table is missing or of the wrong length");
    }
    if (adapters > c->limits->max_adapters || modules > c->limits->max_modules || entries > c->limits->max_entries ||
        entries > UINT32_MAX / 3 || chunks > 3 * entries) {
        return hlf_fail(c->diag, HL_ERR_LIMIT, HLF_AT_SECTIONS, "%llu adapters, %llu modules, %llu entries, %llu chunks: over a limit",
                        (unsigned long long)adapters, (unsigned long long)modules, (unsigned long long)entries,
                        (unsigned long long)chunks);
    }
    index->adapters = (uint32_t)adapters;
    index->modules = (uint32_t)modules;
    index->entries = (uint32_t)entries;
    index->chunks = (uint32_t)chunks;
    return HL_OK;
}

static hl_status check_pool(const open_context *c) {
    hlf_index *index = c->index;
    hlf_pool_record *pool = &index->pool;
    hlf_pool_decode(pool, record_at(index, HLF_SECTION_POOL, 0));
    if (!reserved_ok(c, HLF_SECTION_POOL, 0)) {
        return bad(c, HLF_SECTION_POOL, 0, "reserved bytes are not zero");
    }
    if (!string_ok(index, pool->base_model) || !string_ok(index, pool->base_revision) || !string_ok(index, pool->encoder) ||
        !string_ok(index, pool->encoder_revision) || !string_ok(index, pool->prefix) || !string_ok(index, pool->tool)) {
        return bad(c, HLF_SECTION_POOL, 0, "a string lies outside the string section");
    }
    if (pool->dim > c->limits->max_dim) {
        return hlf_fail(c->diag, HL_ERR_LIMIT, record_offset(index, HLF_SECTION_POOL, 0), "embeddings of %u dimensions: over the limit",
                        pool->dim);
    }
    if (pool->stride != hlf_align_up(pool->dim, HLF_FLOATS_ALIGN)) {
        return bad(c, HLF_SECTION_POOL, 0, "the stride is not the dimension rounded up to 16");
    }
    if (pool->normalized > 2 || pool->shrinkage > 3 || pool->whitening > 1 || pool->decompose > 2 || pool->gate > 2 ||
        pool->variance_norm > 1) {
        return bad(c, HLF_SECTION_POOL, 0, "an enumeration has a value that this version does not know");
    }
    const double required[] = {pool->floor, pool->temperature, pool->whiten_log_det, pool->energy,
                               pool->gamma, pool->nucleus_p,   pool->familiar};
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        if (!isfinite(required[i])) {
            return bad(c, HLF_SECTION_POOL, 0, "a number is not finite");
        }
    }
    if (pool->miss_samples && (!isfinite(pool->miss_first) || !isfinite(pool->miss_third))) {
        return bad(c, HLF_SECTION_POOL, 0, "the miss rates are not finite");
    }
    for (int i = 0; pool->calibrated && i < HLF_QUANTILES; i++) {
        if (!isfinite(pool->quantiles[i]) || (i && pool->quantiles[i] < pool->quantiles[i - 1])) {
            return bad(c, HLF_SECTION_POOL, 0, "the quantiles are not finite and ascending");
        }
    }
    if (pool->dim && (!(pool->temperature > 0) || !(pool->floor > 0))) {
        return bad(c, HLF_SECTION_POOL, 0, "the temperature or the floor is not positive");
    }
    if (!(pool->gamma > 0 && pool->gamma <= 1) || !(pool->nucleus_p > 0 && pool->nucleus_p <= 1) ||
        !(pool->familiar >= 0 && pool->familiar <= 0.5) || !pool->top_k || !pool->wide_k || !pool->max_adapters) {
        return bad(c, HLF_SECTION_POOL, 0, "a routing default is out of range");
    }
    const uint64_t d = pool->dim, whiten = index->header.sections[HLF_SECTION_WHITEN].length;
    if (whiten != (pool->whitening ? d * d * 8 : 0)) {
        return bad(c, HLF_SECTION_POOL, 0, "the whitening matrix is missing or of the wrong size");
    }
    const uint64_t rivals = index->header.sections[HLF_SECTION_RIVALS].length;
    if (rivals != (uint64_t)index->adapters * pool->rivals * HLF_RIVAL_RECORD) {
        return bad(c, HLF_SECTION_POOL, 0, "the table of rivals has the wrong size");
    }
    return HL_OK;
}

/* channels, kernel sizes (as many as dimensions, then zeros up to three), groups. */
static bool convolution_ok(const hlf_module_record *module, uint32_t dimensions) {
    const uint32_t *g = module->geometry;
    uint64_t patch = g[0];
    for (uint32_t i = 1; i <= 3; i++) {
        if (i <= dimensions ? !hlf_mul(patch, g[i], &patch) : g[i] != 0) {
            return false;
        }
    }
    return patch > 0 && patch == module->d_in && g[4] > 0 && g[0] % g[4] == 0 && module->d_out % g[4] == 0;
}

static bool geometry_ok(const hlf_module_record *module) {
    static const uint32_t used[] = {[HLF_MODULE_LINEAR] = 0, [HLF_MODULE_EMBEDDING] = 0,     [HLF_MODULE_CONV1D] = 5,
                                    [HLF_MODULE_CONV2D] = 5, [HLF_MODULE_CONV3D] = 5,        [HLF_MODULE_ATTENTION_QKV] = 1,
                                    [HLF_MODULE_EXPERTS] = 2};
    const uint32_t *g = module->geometry;
    for (uint32_t i = used[module->kind]; i < HLF_GEOMETRY; i++) {
        if (g[i]) {
            return false;
        }
    }
    switch (module->kind) {
    case HLF_MODULE_CONV1D:
    case HLF_MODULE_CONV2D:
    case HLF_MODULE_CONV3D:
        return convolution_ok(module, module->kind - HLF_MODULE_CONV1D + 1);
    case HLF_MODULE_ATTENTION_QKV:
        return g[0] == 3 && module->d_out % g[0] == 0;
    case HLF_MODULE_EXPERTS:
        return g[0] >= 2 && g[1] < g[0];
    default:
        return true;
    }
}

static hl_status check_modules(const open_context *c) {
    const hlf_index *index = c->index;
    hlf_module_record module, previous = {0};
    for (uint32_t i = 0; i < index->modules; i++) {
        hlf_index_module(index, i, &module);
        if (!string_ok(index, module.name) || module.name.length == 0 || !reserved_ok(c, HLF_SECTION_MODULES, i)) {
            return bad(c, HLF_SECTION_MODULES, i, "its name lies outside the string section, or reserved bytes are not zero");
        }
        if (i && compare_names(hlf_index_string(index, previous.name), previous.name.length, hlf_index_string(index, module.name),
                               module.name.length) >= 0) {
            return bad(c, HLF_SECTION_MODULES, i, "names are not in strictly ascending order");
        }
        if (module.kind > HLF_MODULE_KIND_LAST) {
            return bad(c, HLF_SECTION_MODULES, i, "unknown kind of module");
        }
        if (module.d_in == 0 || module.d_out == 0 || module.d_in > c->limits->max_width || module.d_out > c->limits->max_width) {
            return bad(c, HLF_SECTION_MODULES, i, "a width is zero or over the limit");
        }
        if (!geometry_ok(&module)) {
            return bad(c, HLF_SECTION_MODULES, i, "a geometry that its kind and widths cannot have");
        }
        previous = module;
    }
    return HL_OK;
}

/* Chunks ascend and touch neither each other nor a section. */
static hl_status check_chunks(const open_context *c) {
    const hlf_index *index = c->index;
    uint64_t end = HLF_HEADER_SIZE + HLF_SUPERBLOCK_SIZE;
    hlf_section hot[HLF_SECTION_LAST];
    size_t hot_count = 0, next = 0;
    for (int id = 1; id <= HLF_SECTION_LAST; id++) { /* insertion sort by offset */
        hlf_section section = index->header.sections[id];
        if (section.length) {
            size_t at = hot_count++;
            for (; at && hot[at - 1].offset > section.offset; at--) {
                hot[at] = hot[at - 1];
            }
            hot[at] = section;
        }
    }
    const bool store = index->header.codec == HLF_CODEC_STORE;
    for (uint32_t i = 0; i < index->chunks; i++) {
        hlf_chunk_record chunk;
        hlf_chunk_decode(&chunk, record_at(index, HLF_SECTION_CHUNKS, i));
        if (chunk.offset < end || chunk.stored == 0 || !hlf_inside(chunk.offset, chunk.stored, index->size)) {
            return bad(c, HLF_SECTION_CHUNKS, i, "empty, outside the file, out of order or overlapping");
        }
        while (next < hot_count && hot[next].offset + hot[next].length <= chunk.offset) {
            next++;
        }
        if (next < hot_count && hot[next].offset < chunk.offset + chunk.stored) {
            return bad(c, HLF_SECTION_CHUNKS, i, "overlaps a section");
        }
        if (chunk.filter_mask != (store ? HLF_CHUNK_RAW : HLF_CHUNK_CODED) || (store && chunk.offset % HLF_ALIGN)) {
            return bad(c, HLF_SECTION_CHUNKS, i, "a filter mask or alignment that does not fit the codec");
        }
        if (c->strict && hlf_load_u32(record_at(index, HLF_SECTION_CHUNKS, i) + 28) != 0) {
            return bad(c, HLF_SECTION_CHUNKS, i, "reserved bytes are not zero");
        }
        end = chunk.offset + chunk.stored;
    }
    return HL_OK;
}

static bool dtype_ok(uint8_t dtype) {
    return dtype >= HLF_DTYPE_F16 && dtype <= HLF_DTYPE_F64;
}

/* What is stored as trained has the source's type or one that is narrower: only then does widening give its bits back. */
static bool holds_source(uint8_t stored, uint8_t source) {
    return stored == source || (source >= HLF_DTYPE_F32 && stored < source);
}

/* The chunk exists, and its stored size can be that of so many decoded bytes. */
static inline bool chunk_size_ok(const hlf_index *index, uint32_t i, uint64_t bytes) {
    hlf_chunk_record chunk;
    if (i >= index->chunks) {
        return false;
    }
    hlf_chunk_decode(&chunk, record_at(index, HLF_SECTION_CHUNKS, i));
    if (chunk.filter_mask == HLF_CHUNK_RAW) {
        return chunk.stored == bytes;
    }
    /* A zstd frame of raw blocks adds at most 3 bytes per block and 18 for the frame; planes may cut blocks short. */
    return bytes <= UINT32_MAX && chunk.stored <= bytes + bytes / 256 + 64;
}

/* The same for the chunks of an entry (hlf_index_chunk_shape has their shapes), whose module, rank and types are in range. */
static inline bool chunk_sizes_ok(const hlf_index *index, const hlf_entry_record *entry) {
    static const uint8_t size[] = {[HLF_DTYPE_F16] = 2, [HLF_DTYPE_BF16] = 2, [HLF_DTYPE_F32] = 4, [HLF_DTYPE_F64] = 8};
    const uint64_t rank = entry->rank;
    hlf_module_record module;
    hlf_module_decode(&module, record_at(index, HLF_SECTION_MODULES, entry->module));
    return chunk_size_ok(index, entry->chunk_a, rank * module.d_in * size[entry->stored_dtype_a]) &&
           chunk_size_ok(index, entry->chunk_b, rank * module.d_out * size[entry->stored_dtype_b]) &&
           (entry->chunk_gauge == HLF_NONE || chunk_size_ok(index, entry->chunk_gauge, 2 * rank * rank * 4));
}

static hl_status check_entry(const open_context *c, uint32_t i, const hlf_adapter_record *adapter, hlf_entry_record *entry,
                             uint64_t first_roc) {
    const hlf_index *index = c->index;
    const uint8_t *at = record_at(index, HLF_SECTION_ENTRIES, i);
    hlf_entry_decode(entry, at);
    if (entry->module >= index->modules) {
        return bad(c, HLF_SECTION_ENTRIES, i, "no such module");
    }
    if (entry->rank == 0 || entry->rank > c->limits->max_rank || entry->source_rank < entry->rank ||
        entry->source_rank > c->limits->max_rank) {
        return bad(c, HLF_SECTION_ENTRIES, i, "a rank is zero or over the limit");
    }
    if (!dtype_ok(entry->source_dtype_a) || !dtype_ok(entry->source_dtype_b) || !dtype_ok(entry->stored_dtype_a) ||
        !dtype_ok(entry->stored_dtype_b)) {
        return bad(c, HLF_SECTION_ENTRIES, i, "unknown element type");
    }
    const bool gauge = entry->flags & HLF_ENTRY_GAUGE, squeezed = entry->flags & HLF_ENTRY_SQUEEZED;
    if ((entry->flags & ~(uint32_t)HLF_ENTRY_FLAGS_KNOWN) || gauge != (entry->chunk_gauge != HLF_NONE) || (gauge && squeezed) ||
        (gauge || squeezed) != (adapter->decomposition == 1 || adapter->diagonals.stored > 0) ||
        (squeezed && adapter->diagonals.stored > 0) || (!squeezed && entry->rank != entry->source_rank)) {
        return bad(c, HLF_SECTION_ENTRIES, i, "flags contradict the decomposition");
    }
    if (!squeezed && (!holds_source(entry->stored_dtype_a, entry->source_dtype_a) ||
                      !holds_source(entry->stored_dtype_b, entry->source_dtype_b))) {
        return bad(c, HLF_SECTION_ENTRIES, i, "a stored element type that is wider than the source's");
    }
    if (!isfinite(entry->squeeze_error) || (squeezed && entry->scale != 1)) {
        return bad(c, HLF_SECTION_ENTRIES, i, "a squeeze error that is not finite, or a scale beside 1 of a squeezed entry");
    }
    if (!isfinite(entry->scale) || entry->first_roc != first_roc || (c->strict && (hlf_load_u64(at + 56) || hlf_load_u64(at + 64)))) {
        return bad(c, HLF_SECTION_ENTRIES, i, "a scale that is not finite, a wrong ROC position, or reserved bytes not zero");
    }
    return chunk_sizes_ok(index, entry) ? HL_OK
                                        : bad(c, HLF_SECTION_ENTRIES, i, "a chunk does not exist or has an impossible size");
}

static bool blob_ok(const hlf_index *index, const hlf_blob_ref *blob) {
    if (!blob->stored) {
        return !blob->offset && !blob->size && !blob->checksum;
    }
    return hlf_inside(blob->offset, blob->stored, index->header.sections[HLF_SECTION_BLOBS].length);
}

static hl_status check_adapter(const open_context *c, uint32_t i, const hlf_adapter_record *adapter,
                               const hlf_adapter_record *previous) {
    const hlf_index *index = c->index;
    if (!string_ok(index, adapter->name) || adapter->name.length == 0 || !string_ok(index, adapter->base_model) ||
        !string_ok(index, adapter->base_revision) || !string_ok(index, adapter->source_name)) {
        return bad(c, HLF_SECTION_ADAPTERS, i, "a string lies outside the string section");
    }
    if (i && compare_names(hlf_index_string(index, previous->name), previous->name.length, hlf_index_string(index, adapter->name),
                           adapter->name.length) >= 0) {
        return bad(c, HLF_SECTION_ADAPTERS, i, "names are not in strictly ascending order");
    }
    if (!blob_ok(index, &adapter->config) || !blob_ok(index, &adapter->header) || !blob_ok(index, &adapter->diagonals)) {
        return bad(c, HLF_SECTION_ADAPTERS, i, "a blob lies outside the blob section, or is empty and yet has a place or a size");
    }
    if ((adapter->flags & ~(uint32_t)HLF_ADAPTER_FLAGS_KNOWN) || adapter->decomposition > 1 ||
        adapter->dialect > HLF_DIALECT_LAST || adapter->expert_layout > 2 || !reserved_ok(c, HLF_SECTION_ADAPTERS, i)) {
        return bad(c, HLF_SECTION_ADAPTERS, i, "unknown flags, decomposition, dialect or layout of experts, or reserved bytes not zero");
    }
    if ((adapter->flags & HLF_ADAPTER_CONDITIONAL) && !(adapter->flags & HLF_ADAPTER_ROUTABLE)) {
        return bad(c, HLF_SECTION_ADAPTERS, i, "a threshold of an adapter without statistics");
    }
    if (isnan(adapter->threshold) || !isfinite(adapter->squeeze_error)) {
        return bad(c, HLF_SECTION_ADAPTERS, i, "a number is NaN");
    }
    return HL_OK;
}

static hl_status check_adapters(const open_context *c) {
    hlf_index *index = c->index;
    hlf_adapter_record adapter, previous = {0};
    uint64_t entry_at = 0, rocs = 0;
    for (uint32_t i = 0; i < index->adapters; i++) {
        hlf_index_adapter(index, i, &adapter);
        hl_status status = check_adapter(c, i, &adapter, &previous);
        if (status != HL_OK) {
            return status;
        }
        if (adapter.first_entry != entry_at || adapter.entries == 0 || adapter.entries > index->entries - entry_at) {
            return bad(c, HLF_SECTION_ADAPTERS, i, "its entries are not the ones that follow the previous adapter's");
        }
        uint64_t own_rocs = 0;
        uint32_t rank = 0, module_before = 0;
        for (; entry_at < adapter.first_entry + adapter.entries; entry_at++) {
            hlf_entry_record entry;
            status = check_entry(c, (uint32_t)entry_at, &adapter, &entry, rocs + own_rocs);
            if (status != HL_OK) {
                return status;
            }
            if (entry_at > adapter.first_entry && entry.module <= module_before) {
                return bad(c, HLF_SECTION_ENTRIES, entry_at, "the modules of an adapter are not in strictly ascending order");
            }
            module_before = entry.module;
            own_rocs += entry.rank;
            rank = entry.rank > rank ? entry.rank : rank;
        }
        if (adapter.rank != rank || adapter.rocs != own_rocs) {
            return bad(c, HLF_SECTION_ADAPTERS, i, "its rank or number of ROCs differs from its entries'");
        }
        rocs += own_rocs;
        previous = adapter;
    }
    if (entry_at != index->entries || index->header.sections[HLF_SECTION_IMPORTANCE].length != rocs * 4) {
        return hlf_fail(c->diag, HL_ERR_CORRUPT, HLF_AT_SECTIONS, "entries without an adapter, or an importance table of the wrong size");
    }
    index->rocs = rocs;
    return HL_OK;
}

static hl_status check_stats_record(const open_context *c, uint32_t i, const hlf_stats_record *stats, uint64_t rows,
                                    uint64_t leverages) {
    const hlf_pool_record *pool = &c->index->pool;
    const uint32_t flags = hlf_index_adapter_flags(c->index, i);
    const bool routable = flags & HLF_ADAPTER_ROUTABLE, calibrated = flags & HLF_ADAPTER_CALIBRATED;
    if (!reserved_ok(c, HLF_SECTION_STATS, i) || routable != (stats->m > 0) || (calibrated && stats->m < 3)) {
        return bad(c, HLF_SECTION_STATS, i, "samples that contradict the adapter's flags, or reserved bytes not zero");
    }
    if (stats->first_row != rows || stats->first_leverage != leverages) {
        return bad(c, HLF_SECTION_STATS, i, "its rows are not the ones that follow the previous adapter's");
    }
    if (!isfinite(stats->tau) || !isfinite(stats->rho) || !isfinite(stats->lambda) || !isfinite(stats->log_norm) ||
        (calibrated && !isfinite(stats->deviation))) {
        return bad(c, HLF_SECTION_STATS, i, "a statistic is out of range");
    }
    if (!routable) {
        return stats->q == 0 ? HL_OK : bad(c, HLF_SECTION_STATS, i, "a basis without samples");
    }
    if (stats->m < 2 || pool->dim == 0 || stats->q > pool->dim || stats->q > stats->m - 1) {
        return bad(c, HLF_SECTION_STATS, i, "fewer than two samples, or a basis that is too large");
    }
    if (!(stats->rho >= 0 && stats->rho <= 1) || !(stats->lambda > 0) || !(stats->tau >= 0)) {
        return bad(c, HLF_SECTION_STATS, i, "a statistic is out of range");
    }
    for (int k = 0; calibrated && k < HLF_QUANTILES; k++) {
        if (!isfinite(stats->quantiles[k]) || (k && stats->quantiles[k] < stats->quantiles[k - 1])) {
            return bad(c, HLF_SECTION_STATS, i, "the quantiles are not finite and ascending");
        }
    }
    return HL_OK;
}

static hl_status check_stats(const open_context *c) {
    hlf_index *index = c->index;
    uint64_t rows = 0, leverages = 0, calibrated = 0;
    for (uint32_t i = 0; i < index->adapters; i++) {
        hlf_stats_record stats;
        hlf_index_stats(index, i, &stats);
        hl_status status = check_stats_record(c, i, &stats, rows, leverages);
        if (status != HL_OK) {
            return status;
        }
        calibrated += (hlf_index_adapter_flags(index, i) & HLF_ADAPTER_CALIBRATED) != 0;
        rows += stats.q; /* at most 2^20 x 2^16, and m x q below 2^48 each: no overflow */
        leverages += (uint64_t)stats.m * stats.q;
        if (leverages > index->size) {
            return bad(c, HLF_SECTION_STATS, i, "more samples than the file could hold");
        }
    }
    const hlf_section *sections = index->header.sections;
    const uint64_t row_bytes = (uint64_t)index->pool.stride * 4;
    if (sections[HLF_SECTION_MEAN].length != index->adapters * row_bytes || sections[HLF_SECTION_BASIS].length != rows * row_bytes ||
        sections[HLF_SECTION_SINGULAR].length != rows * 8 || sections[HLF_SECTION_LEVERAGE].length != leverages * 8 ||
        index->pool.calibrated != calibrated) {
        return hlf_fail(c->diag, HL_ERR_CORRUPT, HLF_AT_SECTIONS, "the statistics have the wrong size");
    }
    index->basis_rows = rows;
    return HL_OK;
}

hl_status hlf_index_open(const uint8_t *bytes, uint64_t size, const hlf_limits *limits, hlf_index *index, hl_diag *diag) {
    memset(index, 0, sizeof *index);
    index->bytes = bytes;
    index->size = size;
    open_context context = {index, limits ? limits : &hlf_default_limits, diag, false};
    hl_status status = hlf_header_parse(bytes, size, size, &index->header, diag);
    context.strict = index->header.minor <= HLF_VERSION_MINOR;
    static hl_status (*const steps[])(const open_context *) = {check_sections, check_pool,     check_modules,
                                                               check_chunks,   check_adapters, check_stats};
    for (size_t i = 0; status == HL_OK && i < sizeof steps / sizeof steps[0]; i++) {
        status = steps[i](&context);
    }
    if (status != HL_OK) {
        memset(index, 0, sizeof *index);
    }
    return status;
}
