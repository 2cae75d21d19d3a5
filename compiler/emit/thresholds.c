#include "compiler/emit/thresholds.h"

#include <math.h>
#include <string.h>

#include "compiler/stats/quantiles.h"

/* The adapter's position; inputs->count when there is none of that name. */
static size_t find_adapter(const hlc_inputs *inputs, const char *name) {
    const size_t length = strlen(name);
    size_t i = 0;
    while (i < inputs->count && (inputs->adapters[i]->name.length != length ||
                                 memcmp(inputs->adapters[i]->name.bytes, name, length) != 0)) {
        i++;
    }
    return i;
}

static void refuse(const hlc_compile_options *options, const hlc_threshold *threshold, const char *remedy,
                   const char *reason, hlc_faults *faults) {
    char place[HLC_PLACE_SIZE];
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, options->output,
              hlc_place(place, "threshold of", threshold->adapter, strlen(threshold->adapter)), remedy, "%s", reason);
}

double hlc_threshold_score(const hlc_threshold *threshold, const double quantiles[HLC_QUANTILES], size_t dim) {
    if (!threshold->by_quantile) {
        return threshold->score;
    }
    size_t k = 0;
    while (k + 2 < HLC_QUANTILES && hlc_quantile_levels[k + 1] <= threshold->level) {
        k++;
    }
    const double low = hlc_quantile_levels[k], part = (threshold->level - low) / (hlc_quantile_levels[k + 1] - low);
    return (quantiles[k] + part * (quantiles[k + 1] - quantiles[k])) / (double)dim;
}

bool hlc_thresholds_check(const hlc_compile_options *options, const hlc_inputs *inputs, hlc_faults *faults) {
    bool good = true;
    for (size_t i = 0; i < options->threshold_count; i++) {
        const hlc_threshold *threshold = &options->thresholds[i];
        const size_t adapter = find_adapter(inputs, threshold->adapter);
        if (adapter == inputs->count) {
            refuse(options, threshold, "give the name that hilora-inspect shows", "no adapter has this name", faults);
            good = false;
        } else if (!inputs->embeddings[adapter]) {
            refuse(options, threshold, "make embeddings (hilora-embed), or leave the threshold out",
                   "the adapter has no embeddings, so no prompt has a score", faults);
            good = false;
        }
    }
    return good;
}

bool hlc_thresholds_resolve(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_pool_stats *stats,
                            hlc_plan *plan, hlc_faults *faults) {
    bool good = true;
    for (size_t i = 0; i < inputs->count; i++) {
        plan->adapters[i].threshold = NAN;
    }
    for (size_t i = 0; i < options->threshold_count; i++) {
        const hlc_threshold *threshold = &options->thresholds[i];
        const size_t adapter = find_adapter(inputs, threshold->adapter);
        if (threshold->by_quantile && !stats->calibration[adapter].calibrated) {
            refuse(options, threshold, "give a score (NAME=SCORE), or at least three different samples",
                   "the adapter has too few samples for quantiles", faults);
            good = false;
            continue;
        }
        plan->adapters[adapter].threshold =
            hlc_threshold_score(threshold, stats->calibration[adapter].quantiles, stats->d);
    }
    return good;
}
