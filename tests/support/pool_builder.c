#include "tests/support/pool_builder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "format/bytes.h"
#include "format/checksum.h"
#include "format/dtype.h"
#include "format/header.h"
#include "format/index.h"
#include "format/planes.h"
#include "format/records.h"
#include "format/sha256.h"
#include "tests/support/random.h"

enum { PAGE = 4096 }; /* alignment of the pool in memory */

enum { DRAWS = 24 }; /* made-up prompts per adapter, for its quantiles */

typedef struct buffer {
    uint8_t *data;
    size_t size, capacity;
} buffer;

typedef struct builder {
    const hlt_pool_spec *spec;
    buffer sections[HLF_SECTION_LAST + 1];
    buffer chunks; /* their bytes; offsets in the table count from `chunks` until the end */
    hlf_module_record *modules;
    hlf_pool_record pool;
    double *values; /* DRAWS log-likelihoods of each calibrated adapter */
    size_t value_count;
    uint64_t rows, leverages, rocs;
    size_t stride;
} builder;

static void *checked(void *memory) {
    if (!memory) {
        fputs("pool_builder: out of memory\n", stderr);
        abort();
    }
    return memory;
}

static uint8_t *grow(buffer *b, size_t n) {
    if (!b->data || b->capacity - b->size < n) {
        b->capacity = 2 * (b->size + n) + 4096;
        b->data = checked(realloc(b->data, b->capacity));
    }
    b->size += n;
    return memset(b->data + b->size - n, 0, n);
}

static hlf_string_ref add_string(builder *b, const char *text) {
    buffer *strings = &b->sections[HLF_SECTION_STRINGS];
    hlf_string_ref ref = {(uint32_t)strings->size, (uint32_t)strlen(text)};
    memcpy(grow(strings, ref.length), text, ref.length);
    return ref;
}

/* ---- weights ---- */

void hlt_fill(void *dst, int dtype, int grid, size_t n, uint64_t seed, uint32_t adapter, uint32_t module, int side) {
    hlt_rng rng = hlt_rng_for(seed, adapter, module, (uint64_t)side);
    size_t size = hlf_dtype_size((hlf_dtype)dtype);
    for (size_t i = 0; i < n; i++) {
        double value = hlt_normal(&rng);
        uint8_t narrow[8];
        hlf_convert(narrow, (hlf_dtype)grid, &value, HLF_DTYPE_F64, 1);
        hlf_convert((uint8_t *)dst + i * size, (hlf_dtype)dtype, narrow, (hlf_dtype)grid, 1);
    }
}

/* Whole numbers from -2 to 2, half of them 0. */
static void fill_coarse(uint8_t *dst, hlf_dtype dtype, size_t n, hlt_rng rng) {
    for (size_t i = 0; i < n; i++) {
        const double value = hlt_chance(&rng, 0.5) ? 0 : (double)hlt_between(&rng, 0, 4) - 2;
        hlf_convert(dst + i * hlf_dtype_size(dtype), dtype, &value, HLF_DTYPE_F64, 1);
    }
}

static uint32_t add_chunk(builder *b, hlf_dtype dtype, size_t n, uint32_t adapter, uint32_t module, int side) {
    const size_t width = hlf_dtype_size(dtype), bytes = n * width;
    uint8_t *plain = checked(malloc(bytes));
    if (b->spec->coarse && side != HLF_SIDE_GAUGE) {
        fill_coarse(plain, dtype, n, hlt_rng_for(b->spec->seed, adapter, module, (uint64_t)side));
    } else {
        hlt_fill(plain, (int)dtype, (int)dtype, n, b->spec->seed, adapter, module, side);
    }
    hlf_chunk_record chunk = {.filter_mask = b->spec->zstd ? HLF_CHUNK_CODED : HLF_CHUNK_RAW};
    if (b->spec->zstd) {
        uint8_t *planes = checked(malloc(bytes));
        hlf_planes_split(planes, plain, width, n);
        size_t bound = ZSTD_compressBound(bytes), at = b->chunks.size;
        size_t stored = ZSTD_compress(grow(&b->chunks, bound), bound, planes, bytes, 1);
        if (ZSTD_isError(stored)) {
            abort();
        }
        b->chunks.size = at + stored;
        chunk.offset = at;
        chunk.stored = (uint32_t)stored;
        free(planes);
    } else {
        grow(&b->chunks, hlf_align_up(b->chunks.size, HLF_ALIGN) - b->chunks.size);
        chunk.offset = b->chunks.size;
        chunk.stored = (uint32_t)bytes;
        memcpy(grow(&b->chunks, bytes), plain, bytes);
    }
    free(plain);
    chunk.checksum = hlf_checksum(b->chunks.data + chunk.offset, chunk.stored);
    buffer *table = &b->sections[HLF_SECTION_CHUNKS];
    hlf_chunk_encode(&chunk, grow(table, HLF_CHUNK_RECORD));
    return (uint32_t)(table->size / HLF_CHUNK_RECORD - 1);
}

static void add_modules(builder *b) {
    const hlt_pool_spec *spec = b->spec;
    hlt_rng rng = hlt_rng_for(spec->seed, 1, 0, 0);
    b->modules = checked(calloc(spec->modules, sizeof *b->modules));
    for (uint32_t i = 0; i < spec->modules; i++) {
        char name[32];
        snprintf(name, sizeof name, "layers.%07u", i);
        b->modules[i].name = add_string(b, name);
        b->modules[i].d_in = hlt_between(&rng, spec->min_width, spec->max_width);
        b->modules[i].d_out = hlt_between(&rng, spec->min_width, spec->max_width);
    }
}

static hlf_dtype pick_dtype(const builder *b, hlt_rng *rng) {
    return b->spec->mixed_dtypes ? (hlf_dtype)hlt_between(rng, HLF_DTYPE_F16, HLF_DTYPE_F64) : HLF_DTYPE_F32;
}

/* A source type that holds every value of the stored one. */
static hlf_dtype pick_source(const builder *b, hlt_rng *rng, hlf_dtype stored) {
    if (!b->spec->mixed_dtypes || hlt_chance(rng, 0.5)) {
        return stored;
    }
    return stored == HLF_DTYPE_F64 || hlt_chance(rng, 0.3) ? HLF_DTYPE_F64 : HLF_DTYPE_F32;
}

static void add_entry(builder *b, hlt_rng *rng, uint32_t adapter, uint32_t m, hlf_adapter_record *record) {
    const hlt_pool_spec *spec = b->spec;
    hlf_entry_record entry = {
        .module = m, .rank = hlt_between(rng, spec->min_rank, spec->max_rank), .chunk_gauge = HLF_NONE};
    hlf_dtype a = pick_dtype(b, rng), bt = pick_dtype(b, rng);
    entry.source_rank = entry.rank + (spec->squeezed ? hlt_between(rng, 0, 4) : 0);
    entry.stored_dtype_a = (uint8_t)a;
    entry.stored_dtype_b = (uint8_t)bt;
    entry.source_dtype_a = (uint8_t)pick_source(b, rng, a);
    entry.source_dtype_b = (uint8_t)pick_source(b, rng, bt);
    entry.scale = spec->squeezed ? 1 : 2;
    entry.first_roc = b->rocs;
    entry.chunk_a = add_chunk(b, a, (size_t)entry.rank * b->modules[m].d_in, adapter, m, HLF_SIDE_A);
    entry.chunk_b = add_chunk(b, bt, (size_t)entry.rank * b->modules[m].d_out, adapter, m, HLF_SIDE_B);
    if (spec->squeezed) {
        entry.flags = HLF_ENTRY_SQUEEZED;
    } else if (spec->svd) {
        entry.flags = HLF_ENTRY_GAUGE;
        entry.chunk_gauge =
            add_chunk(b, HLF_DTYPE_F32, 2 * (size_t)entry.rank * entry.rank, adapter, m, HLF_SIDE_GAUGE);
    }
    hlf_entry_encode(&entry, grow(&b->sections[HLF_SECTION_ENTRIES], HLF_ENTRY_RECORD));
    for (uint32_t j = 0; j < entry.rank; j++) {
        float importance = 1.0f / (float)(j + 1);
        memcpy(grow(&b->sections[HLF_SECTION_IMPORTANCE], 4), &importance, 4);
    }
    b->modules[m].adapters++;
    b->rocs += entry.rank;
    record->entries++;
    record->rocs += entry.rank;
    record->rank = entry.rank > record->rank ? entry.rank : record->rank;
    record->parameters += entry.source_rank * (b->modules[m].d_in + b->modules[m].d_out);
}

static void add_entries(builder *b, hlt_rng *rng, uint32_t adapter, hlf_adapter_record *record) {
    uint32_t wanted = b->spec->modules_per_adapter ? b->spec->modules_per_adapter : b->spec->modules;
    wanted = wanted < b->spec->modules ? wanted : b->spec->modules;
    for (uint32_t m = 0; m < b->spec->modules; m++) {
        uint32_t left = b->spec->modules - m, missing = wanted - (uint32_t)record->entries;
        if (missing && hlt_between(rng, 1, left) <= missing) {
            add_entry(b, rng, adapter, m, record);
        }
    }
}

static hlf_blob_ref add_blob(builder *b, const char *text) {
    buffer *blobs = &b->sections[HLF_SECTION_BLOBS];
    const size_t size = strlen(text), bound = ZSTD_compressBound(size), at = blobs->size;
    size_t stored = ZSTD_compress(grow(blobs, bound), bound, text, size, 3);
    if (ZSTD_isError(stored)) {
        abort();
    }
    blobs->size = at + stored;
    return (hlf_blob_ref){at, stored, size, hlf_checksum(blobs->data + at, stored)};
}

/* ---- statistics ---- */

/* q orthonormal rows: unit vectors on the lattice, else by Gram and Schmidt. */
static void make_basis(const hlt_pool_spec *spec, hlt_rng *rng, float *rows, uint32_t q, size_t stride) {
    const uint32_t d = spec->dim;
    uint32_t start = hlt_between(rng, 0, d - 1);
    for (uint32_t j = 0; j < q; j++) {
        float *row = rows + j * stride;
        if (spec->lattice) {
            row[(start + j) % d] = 1;
            continue;
        }
        double norm = 0;
        while (norm < 1e-3) {
            for (uint32_t i = 0; i < d; i++) {
                row[i] = (float)hlt_normal(rng);
            }
            for (uint32_t k = 0; k < j; k++) {
                double dot = 0;
                for (uint32_t i = 0; i < d; i++) {
                    dot += (double)row[i] * rows[k * stride + i];
                }
                for (uint32_t i = 0; i < d; i++) {
                    row[i] = (float)(row[i] - dot * rows[k * stride + i]);
                }
            }
            norm = 0;
            for (uint32_t i = 0; i < d; i++) {
                norm += (double)row[i] * row[i];
            }
            norm = sqrt(norm);
        }
        for (uint32_t i = 0; i < d; i++) {
            row[i] = (float)(row[i] / norm);
        }
    }
}

typedef struct gaussian { /* views into the sections, while one adapter is made */
    const float *mean, *basis;
    const double *sv;
    const hlf_stats_record *stats;
} gaussian;

static double variance(const hlf_stats_record *stats, double sv) {
    return (1 - stats->rho) * sv * sv / (stats->m - 1);
}

static double log_density(const gaussian *g, uint32_t d, size_t stride, const float *z) {
    double quad = 0, captured = 0, total = 0;
    for (uint32_t j = 0; j < g->stats->q; j++) {
        double p = 0;
        for (uint32_t i = 0; i < d; i++) {
            p += g->basis[j * stride + i] * ((double)z[i] - g->mean[i]);
        }
        quad += p * p / (g->stats->lambda + variance(g->stats, g->sv[j]));
        captured += p * p;
    }
    for (uint32_t i = 0; i < d; i++) {
        total += ((double)z[i] - g->mean[i]) * ((double)z[i] - g->mean[i]);
    }
    double rest = g->stats->q == d ? 0 : fmax(0, total - captured);
    return g->stats->log_norm - 0.5 * (quad + rest / g->stats->lambda);
}

static void draw(const gaussian *g, const hlt_pool_spec *spec, size_t stride, hlt_rng *rng, double spread, float *z) {
    double norm = 0;
    for (uint32_t i = 0; i < spec->dim; i++) {
        double value = g->mean[i] + spread * sqrt(g->stats->lambda) * hlt_normal(rng);
        z[i] = (float)(spec->lattice ? rint(2 * value) / 2 : value);
    }
    for (uint32_t j = 0; j < g->stats->q; j++) {
        double along = spread * sqrt(variance(g->stats, g->sv[j])) * hlt_normal(rng);
        along = spec->lattice ? rint(2 * along) / 2 : along;
        for (uint32_t i = 0; i < spec->dim; i++) {
            z[i] = (float)(z[i] + along * g->basis[j * stride + i]);
        }
    }
    for (uint32_t i = 0; i < spec->dim; i++) {
        norm += (double)z[i] * z[i];
    }
    for (uint32_t i = 0; spec->normalized && i < spec->dim; i++) {
        z[i] = norm > 0 ? (float)(z[i] / sqrt(norm)) : (float)(i == 0);
    }
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void quantiles_of(double *values, size_t n, double out[HLF_QUANTILES]) {
    static const double levels[HLF_QUANTILES] = {0, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5};
    qsort(values, n, sizeof *values, ascending);
    for (int k = 0; k < HLF_QUANTILES; k++) {
        double at = levels[k] * (double)(n - 1);
        size_t i = (size_t)at, next = i + 1 < n ? i + 1 : i;
        out[k] = values[i] + (at - (double)i) * (values[next] - values[i]);
    }
}

static void make_moments(const builder *b, hlt_rng *rng, hlf_stats_record *stats, float *mean, double *sv) {
    const hlt_pool_spec *spec = b->spec;
    for (uint32_t i = 0; i < spec->dim; i++) {
        double value = spec->lattice ? (double)hlt_between(rng, 0, 4) / 2 - 1 : hlt_normal(rng);
        mean[i] = (float)(spec->normalized ? value / sqrt(spec->dim) : value);
    }
    double unit = spec->normalized ? 1 / sqrt(spec->dim) : 1;
    for (uint32_t j = 0; j < stats->q; j++) {
        sv[j] = spec->lattice ? 1 : unit * (double)(stats->q - j) * (0.5 + hlt_uniform(rng));
    }
    qsort(sv, stats->q, sizeof *sv, ascending);
    for (uint32_t j = 0; j < stats->q / 2; j++) { /* descending */
        double swap = sv[j];
        sv[j] = sv[stats->q - 1 - j];
        sv[stats->q - 1 - j] = swap;
    }
    double sum = 0;
    for (uint32_t j = 0; j < stats->q; j++) {
        sum += sv[j] * sv[j];
    }
    stats->tau = sum / (stats->m - 1) / spec->dim;
    stats->rho = spec->lattice ? 0.5 : b->pool.rho;
    stats->lambda = spec->lattice ? 0.5 : fmax(stats->rho * stats->tau, 1e-6 * unit * unit);
    const double d = spec->dim;
    stats->log_norm = d * log(6.283185307179586) + (d - stats->q) * log(stats->lambda);
    for (uint32_t j = 0; j < stats->q; j++) {
        stats->log_norm += log(stats->lambda + variance(stats, sv[j]));
    }
    stats->log_norm = spec->lattice ? d * hlt_between(rng, 0, 1) : -0.5 * stats->log_norm - b->pool.whiten_log_det;
}

static void calibrate(builder *b, hlt_rng *rng, const gaussian *g, hlf_stats_record *stats) {
    float *z = checked(malloc(b->spec->dim * sizeof *z));
    double own[DRAWS], sum = 0, square = 0;
    b->values = checked(realloc(b->values, (b->value_count + DRAWS) * sizeof *b->values));
    for (int k = 0; k < DRAWS; k++) {
        draw(g, b->spec, b->stride, rng, 1, z);
        own[k] = log_density(g, b->spec->dim, b->stride, z);
        b->values[b->value_count++] = own[k];
        sum += own[k];
    }
    for (int k = 0; k < DRAWS; k++) {
        square += (own[k] - sum / DRAWS) * (own[k] - sum / DRAWS);
    }
    quantiles_of(own, DRAWS, stats->quantiles);
    stats->deviation = sqrt(square / (DRAWS - 1));
    free(z);
}

/* Another Gaussian for this adapter, or the previous one again. Answers whether it is calibrated. */
static bool add_gaussian(builder *b, hlt_rng *rng, bool repeat, hlf_stats_record *stats) {
    const hlt_pool_spec *spec = b->spec;
    buffer *mean = &b->sections[HLF_SECTION_MEAN], *basis = &b->sections[HLF_SECTION_BASIS];
    buffer *singular = &b->sections[HLF_SECTION_SINGULAR], *leverage = &b->sections[HLF_SECTION_LEVERAGE];
    const size_t row = b->stride * sizeof(float);
    hlf_stats_record previous = *stats;
    if (!repeat) {
        memset(stats, 0, sizeof *stats);
        stats->m = hlt_between(rng, spec->min_samples, spec->max_samples);
        stats->q = stats->m - 1 < spec->dim ? stats->m - 1 : spec->dim;
        stats->q = hlt_chance(rng, 0.1) ? hlt_between(rng, 0, stats->q) : stats->q;
    }
    stats->first_row = b->rows;
    stats->first_leverage = b->leverages;
    const size_t q = stats->q, m = stats->m;
    float *mu = (float *)(void *)grow(mean, row), *u = (float *)(void *)grow(basis, q * row);
    double *sv = (double *)(void *)grow(singular, q * 8), *w = (double *)(void *)grow(leverage, m * q * 8);
    if (repeat) {
        memcpy(mu, (uint8_t *)mu - row, row);
        memcpy(u, basis->data + previous.first_row * row, q * row);
        memcpy(sv, singular->data + previous.first_row * 8, q * 8);
        memcpy(w, leverage->data + previous.first_leverage * 8, m * q * 8);
    } else {
        make_basis(spec, rng, u, stats->q, b->stride);
        make_moments(b, rng, stats, mu, sv);
        for (size_t i = 0; i < m * q; i++) {
            w[i] = hlt_uniform(rng) - 0.5;
        }
    }
    b->rows += q;
    b->leverages += m * q;
    stats->mean_checksum = hlf_checksum(mu, row);
    stats->basis_checksum = hlf_checksum(u, q * row);
    stats->factor_checksum = hlf_checksum2(sv, q * 8, w, m * q * 8);
    bool calibrated = m >= 3 && q > 0 && !hlt_chance(rng, spec->uncalibrated);
    if (calibrated) {
        gaussian g = {mu, u, sv, stats};
        calibrate(b, rng, &g, stats);
    } else {
        for (int k = 0; k < HLF_QUANTILES; k++) {
            stats->quantiles[k] = NAN;
        }
        stats->deviation = NAN;
    }
    stats->confusion = hlt_uniform(rng);
    return calibrated;
}

static void add_adapter(builder *b, uint32_t i, hlf_stats_record *stats) {
    const hlt_pool_spec *spec = b->spec;
    hlt_rng rng = hlt_rng_for(spec->seed, 2, i, 0);
    hlf_adapter_record adapter = {.decomposition = spec->svd || spec->squeezed};
    char text[96];
    snprintf(text, sizeof text, "adapter-%07u", i);
    adapter.name = add_string(b, text);
    adapter.source_name = adapter.name;
    adapter.first_entry = b->sections[HLF_SECTION_ENTRIES].size / HLF_ENTRY_RECORD;
    adapter.flags = spec->squeezed ? HLF_ADAPTER_SQUEEZED : 0;
    snprintf(text, sizeof text, "{\"lora_alpha\": 16, \"r\": %u, \"seed\": %u}", spec->max_rank, i);
    adapter.config = add_blob(b, text);
    adapter.header = add_blob(b, "{\"__metadata__\": {\"format\": \"pt\"}}");
    for (int k = 0; k < HLF_SHA256_SIZE; k++) {
        adapter.content_sha256[k] = (uint8_t)hlt_next(&rng);
        adapter.source_sha256[k] = (uint8_t)hlt_next(&rng);
    }
    const size_t first_chunk = b->sections[HLF_SECTION_CHUNKS].size;
    add_entries(b, &rng, i, &adapter);
    for (size_t at = first_chunk; at < b->sections[HLF_SECTION_CHUNKS].size; at += HLF_CHUNK_RECORD) {
        hlf_chunk_record chunk;
        hlf_chunk_decode(&chunk, b->sections[HLF_SECTION_CHUNKS].data + at);
        adapter.stored_size += chunk.stored;
    }
    hlf_stats_record none = {.first_row = b->rows, .first_leverage = b->leverages, .deviation = NAN, .confusion = NAN};
    for (int k = 0; k < HLF_QUANTILES; k++) {
        none.quantiles[k] = NAN;
    }
    if (spec->dim && !hlt_chance(&rng, spec->unroutable)) {
        bool calibrated = add_gaussian(b, &rng, stats->m && hlt_chance(&rng, spec->duplicate), stats);
        adapter.flags |= HLF_ADAPTER_ROUTABLE | (calibrated ? HLF_ADAPTER_CALIBRATED : 0);
        b->pool.calibrated += calibrated;
        if (calibrated && hlt_chance(&rng, spec->conditional)) {
            adapter.flags |= HLF_ADAPTER_CONDITIONAL;
            adapter.threshold = stats->quantiles[hlt_between(&rng, 0, HLF_QUANTILES - 1)] / spec->dim;
        }
        hlf_stats_encode(stats, grow(&b->sections[HLF_SECTION_STATS], HLF_STATS_RECORD));
    } else {
        grow(&b->sections[HLF_SECTION_MEAN], b->stride * 4);
        hlf_stats_encode(&none, grow(&b->sections[HLF_SECTION_STATS], HLF_STATS_RECORD));
        memset(stats, 0, sizeof *stats);
    }
    hlf_adapter_encode(&adapter, grow(&b->sections[HLF_SECTION_ADAPTERS], HLF_ADAPTER_RECORD));
}

/* ---- the whole ---- */

static void add_pool(builder *b) {
    const hlt_pool_spec *spec = b->spec;
    hlf_pool_record *pool = &b->pool;
    pool->base_model = add_string(b, "test/base");
    pool->encoder = add_string(b, "test/encoder");
    pool->prefix = add_string(b, "query: ");
    pool->tool = add_string(b, "pool_builder");
    pool->normalized = spec->normalized ? 1 : 2;
    pool->decompose = spec->svd || spec->squeezed;
    pool->gamma = 0.4;
    pool->nucleus_p = 0.9;
    pool->familiar = 0.05;
    pool->top_k = 3;
    pool->wide_k = 8;
    pool->max_adapters = 16;
    pool->gate = spec->gate;
    pool->rivals = spec->rivals;
    for (int k = 0; k < HLF_QUANTILES; k++) {
        pool->quantiles[k] = NAN;
    }
    pool->miss_first = pool->miss_third = NAN;
    if (pool->calibrated) {
        quantiles_of(b->values, b->value_count, pool->quantiles);
        pool->miss_first = 0.25;
        pool->miss_third = 0.125;
        pool->miss_samples = b->value_count;
    }
    hlf_pool_encode(pool, grow(&b->sections[HLF_SECTION_POOL], HLF_POOL_RECORD));
}

static void add_whitening(builder *b) {
    const uint32_t d = b->spec->dim;
    hlt_rng rng = hlt_rng_for(b->spec->seed, 3, 0, 0);
    for (uint32_t i = 0; b->spec->whiten && i < d * d; i++) {
        double value = (i % (d + 1) == 0) + 0.1 * hlt_normal(&rng);
        memcpy(grow(&b->sections[HLF_SECTION_WHITEN], 8), &value, 8);
    }
}

static void add_rivals(builder *b) {
    hlt_rng rng = hlt_rng_for(b->spec->seed, 4, 0, 0);
    for (uint32_t i = 0; i < b->spec->adapters * b->spec->rivals; i++) {
        bool empty = hlt_chance(&rng, 0.2);
        hlf_rival_record rival = {empty ? HLF_NONE : hlt_between(&rng, 0, b->spec->adapters - 1),
                                  empty ? 0 : hlt_uniform(&rng)};
        hlf_rival_encode(&rival, grow(&b->sections[HLF_SECTION_RIVALS], HLF_RIVAL_RECORD));
    }
}

static hlt_pool assemble(builder *b) {
    hlf_header header = {.major = HLF_VERSION_MAJOR, .codec = b->spec->zstd ? HLF_CODEC_ZSTD : HLF_CODEC_STORE};
    header.codec_version = b->spec->zstd ? (uint32_t)ZSTD_versionNumber() : 0;
    uint64_t at = hlf_align_up(HLF_HEADER_SIZE + HLF_SUPERBLOCK_SIZE, HLF_ALIGN);
    for (int id = 1; id <= HLF_SECTION_LAST; id++) {
        header.sections[id] = (hlf_section){b->sections[id].size ? at : 0, b->sections[id].size, 0};
        at = hlf_align_up(at + b->sections[id].size, HLF_ALIGN);
    }
    const uint64_t chunks_at = at;
    hlt_pool pool = {NULL, chunks_at + b->chunks.size};
    pool.bytes = checked(aligned_alloc(PAGE, hlf_align_up(pool.size, PAGE)));
    memset(pool.bytes, 0, pool.size);
    memcpy(header.superblock, "\x89HDF\r\n\x1a\n a superblock for tests", 31);
    memcpy(pool.bytes + HLF_HEADER_SIZE, header.superblock, HLF_SUPERBLOCK_SIZE);
    buffer *table = &b->sections[HLF_SECTION_CHUNKS];
    for (size_t i = 0; i < table->size; i += HLF_CHUNK_RECORD) {
        hlf_store_u64(table->data + i, hlf_load_u64(table->data + i) + chunks_at);
    }
    for (int id = 1; id <= HLF_SECTION_LAST; id++) {
        if (b->sections[id].size) {
            memcpy(pool.bytes + header.sections[id].offset, b->sections[id].data, b->sections[id].size);
        }
    }
    if (b->chunks.size) {
        memcpy(pool.bytes + chunks_at, b->chunks.data, b->chunks.size);
    }
    header.file_size = pool.size;
    hlf_header_encode(&header, pool.bytes);
    hlt_pool_seal(pool.bytes, pool.size);
    return pool;
}

hlt_pool hlt_pool_build(const hlt_pool_spec *spec) {
    builder b = {.spec = spec, .stride = hlf_align_up(spec->dim, HLF_FLOATS_ALIGN)};
    hlt_rng rng = hlt_rng_for(spec->seed, 5, 0, 0);
    b.pool.dim = spec->dim;
    b.pool.stride = (uint32_t)b.stride;
    b.pool.whitening = spec->whiten;
    b.pool.whiten_log_det = spec->whiten ? 0.25 : 0;
    b.pool.rho = 0.2 + 0.6 * hlt_uniform(&rng);
    b.pool.floor = 1e-6;
    b.pool.temperature = spec->temperature > 0 ? spec->temperature : 0.5 + 20 * hlt_uniform(&rng);
    add_modules(&b);
    hlf_stats_record stats = {0};
    for (uint32_t i = 0; i < spec->adapters; i++) {
        add_adapter(&b, i, &stats);
    }
    for (uint32_t i = 0; i < spec->modules; i++) {
        hlf_module_encode(&b.modules[i], grow(&b.sections[HLF_SECTION_MODULES], HLF_MODULE_RECORD));
    }
    add_pool(&b);
    add_whitening(&b);
    add_rivals(&b);
    hlt_pool pool = assemble(&b);
    for (int id = 1; id <= HLF_SECTION_LAST; id++) {
        free(b.sections[id].data);
    }
    free(b.chunks.data);
    free(b.modules);
    free(b.values);
    return pool;
}

void hlt_pool_free(hlt_pool *pool) {
    free(pool->bytes);
    *pool = (hlt_pool){NULL, 0};
}

void hlt_pool_write(const hlt_pool *pool, const char *path) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(pool->bytes, 1, pool->size, file) != pool->size || fclose(file) != 0) {
        perror(path);
        abort();
    }
}

void hlt_embedding(const hlt_pool_spec *spec, const hlt_pool *pool, uint64_t seed, float *z) {
    hlt_rng rng = hlt_rng_for(seed, 6, 0, 0);
    hlf_index index;
    if (hlf_index_open(pool->bytes, pool->size, NULL, &index, NULL) != HL_OK) {
        abort();
    }
    uint32_t i = hlt_between(&rng, 0, index.adapters - 1);
    hlf_stats_record stats;
    hlf_index_stats(&index, i, &stats);
    stats.lambda = stats.m ? stats.lambda : 1;
    const size_t stride = index.pool.stride;
    gaussian g = {
        .mean = (const float *)(const void *)hlf_index_section(&index, HLF_SECTION_MEAN) + i * stride,
        .basis = (const float *)(const void *)hlf_index_section(&index, HLF_SECTION_BASIS),
        .sv = (const double *)(const void *)hlf_index_section(&index, HLF_SECTION_SINGULAR),
        .stats = &stats,
    };
    g.basis += g.basis ? stats.first_row * stride : 0;
    g.sv += g.sv ? stats.first_row : 0;
    static const double spreads[] = {0.5, 1, 1, 1, 1.5, 4, 30};
    draw(&g, spec, stride, &rng, spreads[hlt_between(&rng, 0, 6)], z);
}
