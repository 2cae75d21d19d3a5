#include "compiler/compile.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/base/output_file.h"
#include "compiler/emit/inputs.h"
#include "compiler/emit/plan.h"
#include "compiler/emit/thresholds.h"
#include "compiler/emit/writer.h"
#include "compiler/linalg.h"

/* With no samples at all the statistics are empty: they are fitted in one dimension, for want of any, and then have none. */
static bool fit_statistics(const hlc_compile_options *options, const hlc_inputs *inputs, hlc_pool_stats *stats, hlc_faults *faults) {
    hlc_stats_options stats_options = options->stats;
    stats_options.threads = options->threads;
    stats_options.whiten = options->stats.whiten && inputs->dim;
    const float **samples = calloc(inputs->count, sizeof *samples);
    size_t *counts = calloc(inputs->count, sizeof *counts);
    bool good = samples && counts;
    for (size_t i = 0; good && i < inputs->count; i++) {
        if (inputs->embeddings[i]) {
            samples[i] = inputs->embeddings[i]->values;
            counts[i] = inputs->embeddings[i]->samples;
        }
    }
    if (good && options->progress.report) {
        options->progress.report(options->progress.user, "fitting statistics", 0, 1);
    }
    good = good && hlc_pool_stats_fit(samples, counts, inputs->count, inputs->dim ? inputs->dim : 1, &stats_options, stats);
    if (good) {
        stats->d = inputs->dim;
    } else {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, options->output, "statistics", NULL,
                  "out of memory, or a decomposition of the samples did not converge");
    }
    free(counts);
    free(samples);
    return good;
}

/* Who is mistaken for whom: the nearest rivals of each adapter and, in pools that are not too large, the certificate's sums. */
static bool find_rivals(const hlc_compile_options *options, const hlc_pool_stats *stats, hlc_rivals *rivals,
                        hlc_faults *faults) {
    enum { KEPT = 8 };
    if (stats->d == 0) {
        return true; /* no statistics, no rivals */
    }
    if (options->progress.report) {
        options->progress.report(options->progress.user, "comparing adapters", 0, 1);
    }
    const size_t others = stats->count - 1;
    if (!hlc_rivals_find(stats, others < KEPT ? others : KEPT, HLC_CERTIFIED_ADAPTERS, options->threads, rivals)) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, options->output, "rivals", NULL,
                  "out of memory, or the covariance of an adapter has no Cholesky factor");
        return false;
    }
    return true;
}

static void fill_report(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_plan *plan, hlc_compile_report *report) {
    report->adapters = (uint32_t)inputs->count;
    report->modules = (uint32_t)inputs->module_count;
    report->rocs = plan->rocs;
    report->conditional = (uint32_t)options->threshold_count;
    report->tensor_bytes = plan->tensor_bytes;
    for (size_t i = 0; i < inputs->count; i++) {
        report->routable += inputs->embeddings[i] != NULL;
        report->source_bytes += inputs->adapters[i]->file_size;
        for (size_t k = 0; k < inputs->adapters[i]->target_count; k++) {
            const hlc_target *target = &inputs->adapters[i]->targets[k];
            report->parameters += target->rank * (target->d_in + target->d_out);
        }
    }
}

/* An output that cannot be is told with the faults of the inputs, before any work. */
static bool probe_output(const hlc_compile_options *options, hlc_faults *faults) {
    hlc_output output;
    bool good = hlc_output_begin(&output, options->output, faults);
    hlc_output_abandon(&output);
    return good;
}

bool hlc_compile(const hlc_compile_options *options, hlc_faults *faults, hlc_compile_report *report) {
    hlc_inputs inputs = {0};
    hlc_plan plan = {0};
    hlc_pool_stats stats = {0};
    hlc_rivals rivals = {0};
    *report = (hlc_compile_report){0};
    hlc_linalg_setup();
    bool good = probe_output(options, faults);
    const bool room = hlc_linalg_has_room(options->threads);
    if (!room) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, options->output, NULL, "raise the limit (ulimit -v), or --threads 1",
                  "out of memory: LAPACK needs 128 MiB of address space for each of %zu threads", options->threads);
    }
    /* Without room not even the inputs: HDF5 files are read in a child, and OpenBLAS's handler at fork would wait for ever. */
    good = room && hlc_inputs_open(options, &inputs, faults) && hlc_thresholds_check(options, &inputs, faults) && good;
    good = good && hlc_plan_make(options, &inputs, &plan, faults) && fit_statistics(options, &inputs, &stats, faults) &&
           hlc_thresholds_resolve(options, &inputs, &stats, &plan, faults) &&
           find_rivals(options, &stats, &rivals, faults);
    if (good) {
        fill_report(options, &inputs, &plan, report);
        good = hlc_write_pool(options, &inputs, &plan, &stats, &rivals, report, faults);
    }
    hlc_rivals_free(&rivals);
    hlc_pool_stats_free(&stats);
    hlc_plan_free(&inputs, &plan);
    hlc_inputs_free(&inputs);
    return good;
}
