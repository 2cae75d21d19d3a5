/* hilora-inspect --rivals for people: who is confused with whom, what the model promises, and what was seen. */
#include <math.h>
#include <stdio.h>

#include "compiler/cli/inspect.h"
#include "compiler/cli/text_table.h"

enum { NAME = 38, RIVAL = 36 };

/* A share in 9 columns. */
static void print_share(double share) {
    if (isfinite(share)) {
        printf(" %9.3g", share);
    } else {
        printf(" %9s", "-");
    }
}

static void print_shares(const double shares[HLC_CERTIFIED]) {
    for (size_t i = 0; i < HLC_CERTIFIED; i++) {
        print_share(shares[i]);
    }
    putchar('\n');
}

static void print_name(const hlf_index *index, uint32_t adapter, size_t columns) {
    hlf_adapter_record record;
    hlf_index_adapter(index, adapter, &record);
    hlc_cli_print_cell(stdout, hlf_index_string(index, record.name), record.name.length, columns);
}

static void print_adapter(const hlc_inspection *inspection, uint32_t adapter) {
    const hlf_index *index = inspection->index;
    hlf_stats_record stats;
    double bounds[HLC_CERTIFIED];
    uint32_t rivals = 0;
    hlf_index_stats(index, adapter, &stats);
    print_name(index, adapter, NAME);
    if (!stats.m) {
        puts(" no samples");
        return;
    }
    hlc_certified_bounds(&stats, bounds);
    printf(" %9s", "");
    print_shares(bounds);
    for (uint32_t place = 0; place < index->pool.rivals; place++) {
        hlf_rival_record rival;
        hlc_inspection_rival(inspection, adapter, place, &rival);
        if (rival.adapter < index->adapters) {
            fputs("  ", stdout);
            print_name(index, rival.adapter, RIVAL);
            printf(" %9.4g", rival.distance);
            print_share(exp(-rival.distance));
            putchar('\n');
            rivals++;
        }
    }
    if (!rivals) {
        puts("  no rival: no other adapter has samples");
    }
}

static void print_pool(const hlc_inspection *inspection) {
    const hlf_pool_record *pool = &inspection->index->pool;
    hlc_certificate_view view;
    hlc_certificate_view_get(inspection, &view);
    printf("\n%-*s %9s", NAME, "All adapters: bound, mean", "");
    print_shares(view.mean);
    printf("%-*s %9s", NAME, "              bound, worst", "");
    print_shares(view.worst);
    printf("%-*s %9s", NAME, "              seen, samples left out", "");
    print_shares(view.seen);
    if (inspection->totals.routable && !view.adapters) {
        puts("\nNo bounds: they are not summed up in pools as large as this.");
    }
    puts("\nBounds: what the fitted Gaussians allow at most for inputs drawn from them\n"
         "(a rival: that it scores higher than the adapter): a statement about the model,\n"
         "before fallback, filters and rounding. Prompts miss more often than that.");
    if (pool->miss_samples) {
        printf("Seen: share of %llu samples, each scored by a fit without it%s.\n",
               (unsigned long long)pool->miss_samples, pool->whitening ? ",\nin a space that it shaped" : "");
    }
}

void hlc_inspect_print_rivals(const hlc_inspection *inspection) {
    printf("\n%-*s %9s %9s %9s %9s\n", NAME, "ADAPTER, nearest rivals first", "DISTANCE", "NOT FIRST", "NOT IN 3",
           "NOT IN 8");
    for (uint32_t i = inspection->first; i < inspection->end; i++) {
        print_adapter(inspection, i);
    }
    print_pool(inspection);
}
