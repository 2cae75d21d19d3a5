/* hilora-inspect for people: 80 columns, names of others made printable. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compiler/cli/inspect.h"
#include "compiler/cli/text_table.h"

enum { LABEL = 12, VALUE = 62 };

static void label(const char *name) {
    printf("  %-*s ", LABEL, name);
}

static void print_name(const hlf_index *index, hlf_string_ref ref, size_t columns) {
    hlc_cli_print_cell(stdout, hlf_index_string(index, ref), ref.length, columns);
}

static void print_ref(const hlf_index *index, hlf_string_ref ref) {
    hlc_cli_print_text(stdout, hlf_index_string(index, ref), ref.length, VALUE);
}

static void print_optional(const hlf_index *index, hlf_string_ref ref) {
    if (ref.length) {
        print_ref(index, ref);
    } else {
        fputs("not recorded", stdout);
    }
}

static void print_if_any(const hlf_index *index, const char *name, hlf_string_ref ref) {
    if (ref.length) {
        label(name);
        print_ref(index, ref);
        printf("\n");
    }
}

static void print_hex(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        printf("%02x", bytes[i]);
    }
}

/* A number of four digits, of fewer where they would not fit into `columns` columns (5 or more; 0: any number); "-"
 * where there is none. */
static void print_real(double value, int columns) {
    char text[32] = "-";
    int size = isfinite(value) ? INT_MAX : 1;
    for (int digits = 4; digits > 0 && size > (columns ? columns : (int)sizeof text); digits--) {
        size = snprintf(text, sizeof text, "%.*g", digits, value);
    }
    printf("%*s", columns, text);
}

/* The value of a label, in lines of 80 columns. */
static void print_quantiles(const double quantiles[HLF_QUANTILES]) {
    enum { UNIT = sizeof " nats" - 1 };
    int column = 0;
    for (int k = 0; k < HLF_QUANTILES; k++) {
        char text[32];
        const int size = snprintf(text, sizeof text, "%.5g", quantiles[k]);
        if (column + 1 + size + UNIT > VALUE) {
            printf("\n");
            label("");
            column = 0;
        }
        column += printf("%s%s", column ? " " : "", text);
    }
    printf(" nats\n");
}

static void print_share(double share, int columns) {
    if (isfinite(share)) {
        printf("%*.1f", columns, 100 * share);
    } else {
        printf("%*s", columns, "-");
    }
}

/* ---- The pool ---- */

static void print_encoder(const hlf_index *index) {
    static const char *const lengths[] = {"any length", "length 1", "length not recorded"};
    const hlf_pool_record *pool = &index->pool;
    label("encoder");
    if (!pool->dim) {
        puts("none: no adapter has embeddings");
        return;
    }
    print_optional(index, pool->encoder);
    printf("\n");
    print_if_any(index, "revision", pool->encoder_revision);
    label("embeddings");
    printf("dimension %u, %s%s\n", pool->dim, pool->normalized < 3 ? lengths[pool->normalized] : "?",
           pool->prefix.length ? "" : ", no prefix");
    print_if_any(index, "prefix", pool->prefix);
}

static void print_misses(const hlf_pool_record *pool) {
    label("misses");
    if (pool->miss_samples) {
        print_share(pool->miss_first, 0);
        fputs(" % not first, ", stdout);
        print_share(pool->miss_third, 0);
        printf(" %% not among 3, of %llu left out in turn\n", (unsigned long long)pool->miss_samples);
    } else {
        puts("not measured: no adapter is calibrated");
    }
}

static void print_statistics(const hlf_index *index) {
    const hlf_pool_record *pool = &index->pool;
    if (!pool->dim) {
        return;
    }
    label("statistics");
    printf("shrinkage %s", hlc_shrinkage_name(pool->shrinkage));
    if (isfinite(pool->rho)) {
        printf(" (rho %.4g)", pool->rho);
    }
    printf("%s, floor %.3g\n", pool->whitening ? ", whitened" : "", pool->floor);
    label("temperature");
    printf("%.4g nats\n", pool->temperature);
    if (pool->calibrated) {
        label("quantiles");
        print_quantiles(pool->quantiles);
        label("");
        puts("(at 0, 1, 2, 5, 10, 25 and 50 %)");
    }
    print_misses(pool);
}

static void print_sizes(const hlc_inspection *inspection) {
    const hlc_pool_totals *totals = &inspection->totals;
    const uint64_t pool = inspection->index->size;
    char a[HLC_BYTES_TEXT], b[HLC_BYTES_TEXT], c[HLC_BYTES_TEXT];
    label("sizes");
    printf("weights %s, gauges %s, statistics %s,\n", hlc_cli_bytes_text(a, totals->weights),
           hlc_cli_bytes_text(b, totals->gauges), hlc_cli_bytes_text(c, totals->route));
    label("");
    printf("index %s, other %s: %s in all\n", hlc_cli_bytes_text(a, totals->index),
           hlc_cli_bytes_text(b, totals->other), hlc_cli_bytes_text(c, pool));
    label("");
    printf("from adapters of %s: ratio %.3f\n", hlc_cli_bytes_text(a, totals->sources),
           (double)totals->sources / (double)pool);
}

static void print_squeeze(const hlf_pool_record *pool) {
    if (pool->energy > 0 || pool->max_rank) {
        label("squeezed");
        fputs("to", stdout);
        if (pool->energy > 0) {
            printf(" %.6g of the energy", pool->energy);
        }
        if (pool->max_rank) {
            printf("%s rank %u at most", pool->energy > 0 ? "," : "", pool->max_rank);
        }
        putchar('\n');
    }
}

static void print_pool(const hlc_inspection *inspection) {
    const hlf_index *index = inspection->index;
    const hlf_pool_record *pool = &index->pool;
    char version[16];
    hlc_cli_print_text(stdout, inspection->path, strlen(inspection->path), SIZE_MAX);
    printf(": a pool of format %u.%u\n", index->header.major, index->header.minor);
    label("digest");
    print_hex(index->header.digest, HLF_SHA256_SIZE);
    printf("\n");
    label("base model");
    print_optional(index, pool->base_model);
    printf("\n");
    print_if_any(index, "revision", pool->base_revision);
    print_encoder(index);
    label("codec");
    if (index->header.codec == HLF_CODEC_ZSTD) {
        printf("zstd %s\n", hlc_codec_version_text(version, index->header.codec_version));
    } else {
        puts("store");
    }
    label("components");
    printf("%s: %llu rank-one, in %u pairs of an adapter and a module\n", hlc_decompose_name(pool->decompose),
           (unsigned long long)index->rocs, index->entries);
    print_squeeze(pool);
    label("adapters");
    printf("%u: %u routable, %u calibrated; %u modules\n", index->adapters, inspection->totals.routable,
           pool->calibrated, index->modules);
    print_statistics(index);
    print_sizes(inspection);
    label("written by");
    print_optional(index, pool->tool);
    printf("\n");
}

/* ---- Tables ---- */

enum { DTYPES_TEXT = 24 };

/* "f16,f32"; its length. */
static size_t dtypes_text(unsigned dtypes, char text[DTYPES_TEXT]) {
    size_t used = 0;
    text[0] = 0;
    for (unsigned d = HLF_DTYPE_F16; d <= HLF_DTYPE_F64; d++) {
        if (dtypes >> d & 1) {
            used += (size_t)snprintf(text + used, DTYPES_TEXT - used, "%s%s", used ? "," : "",
                                     hlf_dtype_name((hlf_dtype)d));
        }
    }
    return used;
}

static void print_dtypes(unsigned dtypes, int columns) {
    char text[DTYPES_TEXT];
    printf(" %-*s", columns, dtypes_text(dtypes, text) <= (size_t)columns ? text : "mixed");
}

static void print_adapters(const hlc_inspection *inspection) {
    enum { NAME = 30 };
    char size[HLC_BYTES_TEXT];
    printf("\n%-*s %5s %7s %7s %7s %-8s %9s\n", NAME, "ADAPTER", "RANK", "MODULES", "ROCS", "SAMPLES", "TYPES",
           "STORED");
    for (uint32_t i = inspection->first; i < inspection->end; i++) {
        hlc_adapter_view view;
        hlc_adapter_view_get(inspection, i, &view);
        print_name(inspection->index, view.record.name, NAME);
        printf(" %5u %7llu %7llu ", view.record.rank, (unsigned long long)view.record.entries,
               (unsigned long long)view.record.rocs);
        if (view.stats.m) {
            printf("%7u", view.stats.m);
        } else {
            printf("%7s", "-");
        }
        print_dtypes(view.source_dtypes, 8);
        printf(" %9s\n", hlc_cli_bytes_text(size, view.record.stored_size));
    }
}

static void print_modules(const hlc_inspection *inspection) {
    enum { NAME = 48 };
    const hlf_index *index = inspection->index;
    printf("\n%-*s %8s %8s %8s\n", NAME, "MODULE", "IN", "OUT", "ADAPTERS");
    for (uint32_t i = 0; i < index->modules; i++) {
        hlf_module_record module;
        hlf_index_module(index, i, &module);
        print_name(index, module.name, NAME);
        printf(" %8llu %8llu %8u\n", (unsigned long long)module.d_in, (unsigned long long)module.d_out,
               module.adapters);
    }
}

/* ---- One adapter ---- */

static void print_adapter_statistics(const hlf_index *index, const hlc_adapter_view *view) {
    const hlf_stats_record *stats = &view->stats;
    label("samples");
    if (!stats->m) {
        puts("none: only an engine that names it can use it");
        return;
    }
    printf("%u of dimension %u, %u directions\n", stats->m, index->pool.dim, stats->q);
    label("covariance");
    printf("tau %.4g, rho %.4g, lambda %.4g\n", stats->tau, stats->rho, stats->lambda);
    label("quantiles");
    if (!(view->record.flags & HLF_ADAPTER_CALIBRATED)) {
        puts("not calibrated: two samples, or all equal");
        return;
    }
    print_quantiles(stats->quantiles);
}

static void print_adapter(const hlc_inspection *inspection) {
    const hlf_index *index = inspection->index;
    char a[HLC_BYTES_TEXT], b[HLC_BYTES_TEXT];
    hlc_adapter_view view;
    hlc_adapter_view_get(inspection, inspection->first, &view);
    const hlf_adapter_record *record = &view.record;
    fputs("\nadapter ", stdout);
    print_ref(index, record->name);
    printf("\n");
    label("base model");
    print_optional(index, record->base_model);
    printf("\n");
    label("from");
    print_ref(index, record->source_name);
    printf("\n");
    label("");
    printf("%s, of SHA-256\n", hlc_cli_bytes_text(a, record->source_size));
    label("");
    print_hex(record->source_sha256, HLF_SHA256_SIZE);
    printf("\n");
    label("content");
    print_hex(record->content_sha256, HLF_SHA256_SIZE);
    printf("\n");
    label("components");
    printf("%s: %llu rank-one, in %llu modules; rank %u; %llu parameters\n", hlc_decompose_name(record->decomposition),
           (unsigned long long)record->rocs, (unsigned long long)record->entries, record->rank,
           (unsigned long long)record->parameters);
    label("stored");
    printf("%s, of %s: ratio ", hlc_cli_bytes_text(a, record->stored_size), hlc_cli_bytes_text(b, view.tensors));
    print_real((double)view.tensors / (double)record->stored_size, 0);
    puts(record->flags & HLF_ADAPTER_EXTRAS_DROPPED ? "; some tensors were left out" : "");
    char source[DTYPES_TEXT], stored[DTYPES_TEXT];
    dtypes_text(view.source_dtypes, source);
    dtypes_text(view.stored_dtypes, stored);
    label("types");
    printf("%s, stored as %s\n", source, stored);
    if (record->flags & HLF_ADAPTER_SQUEEZED) {
        label("squeezed");
        printf("relative error of a module at most %.4g\n", record->squeeze_error);
    }
    if (record->flags & HLF_ADAPTER_CONDITIONAL) {
        label("threshold");
        printf("%.6g\n", record->threshold);
    }
    print_adapter_statistics(index, &view);
}

static void print_rank(const hlf_entry_record *entry) {
    char text[24];
    if (entry->flags & HLF_ENTRY_SQUEEZED) {
        snprintf(text, sizeof text, "%u/%u", entry->rank, entry->source_rank);
    } else {
        snprintf(text, sizeof text, "%u", entry->rank);
    }
    printf(" %6s ", text);
}

static void print_entry(const hlc_inspection *inspection, const hlc_entry_view *entry, int columns) {
    const hlf_entry_record *record = &entry->record;
    char size[HLC_BYTES_TEXT];
    print_name(inspection->index, entry->module.name, (size_t)columns);
    print_rank(record);
    print_real(record->flags & HLF_ENTRY_SQUEEZED ? record->squeeze_error : record->scale, 8);
    printf(" %7s", hlc_cli_bytes_text(size, entry->bytes[0] + entry->bytes[1] + entry->bytes[2]));
    putchar(' ');
    print_real(entry->spectrum.stable_rank, 6);
    putchar(' ');
    print_real(entry->spectrum.effective_rank, 5);
    if (isfinite(entry->spectrum.entropy)) {
        printf(" %4.*f", entry->spectrum.entropy < 9.995 ? 2 : 1, entry->spectrum.entropy);
    } else {
        printf(" %4s", "-");
    }
    putchar(' ');
    print_share(hlc_energy_share(inspection->importance, record->rank, 1), 5);
    putchar('\n');
}

/* Rank, of squeezed ones also as trained with the error in place of the scale; stable rank, effective rank and entropy
 * of the importances, and the share of the energy in the first component. */
static void print_entries(const hlc_inspection *inspection, const hlf_adapter_record *adapter) {
    enum { NAME = 32 };
    printf("\n%-*s %6s %8s %7s %6s %5s %4s %5s\n", NAME, "MODULE", "RANK",
           adapter->flags & HLF_ADAPTER_SQUEEZED ? "ERROR" : "SCALE", "STORED", "STABLE", "EFF", "ENTR", "1st %");
    for (uint64_t i = 0; i < adapter->entries; i++) {
        hlc_entry_view entry;
        hlc_entry_view_get(inspection, (uint32_t)(adapter->first_entry + i), &entry);
        print_entry(inspection, &entry, NAME);
    }
}

static void print_squeezed(const hlc_inspection *inspection) {
    enum { NAME = 36 };
    for (uint32_t i = inspection->first; i < inspection->end; i++) {
        hlf_adapter_record adapter;
        hlf_index_adapter(inspection->index, i, &adapter);
        if (hlc_inspection_has_entries(inspection, &adapter)) {
            fputs("\nsqueezed ", stdout);
            hlc_cli_print_text(stdout, hlf_index_string(inspection->index, adapter.name), adapter.name.length, NAME);
            printf(", relative error at most %.4g", adapter.squeeze_error);
            print_entries(inspection, &adapter);
        }
    }
}

void hlc_inspect_print(const hlc_inspection *inspection) {
    print_pool(inspection);
    if (inspection->one) {
        hlf_adapter_record adapter;
        hlf_index_adapter(inspection->index, inspection->first, &adapter);
        print_adapter(inspection);
        print_entries(inspection, &adapter);
    } else {
        print_adapters(inspection);
        print_modules(inspection);
        print_squeezed(inspection);
    }
    if (inspection->rivals) {
        hlc_inspect_print_rivals(inspection);
    }
}
