/* Conditional adapters: the least score at which a prompt may use one (docs/ROUTING.md, "From scores to a route"). */
#ifndef HILORA_COMPILER_THRESHOLDS_H
#define HILORA_COMPILER_THRESHOLDS_H

#include "compiler/emit/plan.h"

/* The score of a threshold in a pool whose embeddings have `dim` numbers; quantiles: in nats, of the adapter's own
 * samples, read where the threshold is one of them. Linear between the levels that a pool stores. */
double hlc_threshold_score(const hlc_threshold *threshold, const double quantiles[HLC_QUANTILES], size_t dim);

/* Adds a fault for each threshold that names no adapter, or one without embeddings. */
bool hlc_thresholds_check(const hlc_compile_options *options, const hlc_inputs *inputs, hlc_faults *faults);
/* Fills in the plan's thresholds. Adds a fault for each quantile of an adapter that is not calibrated. */
bool hlc_thresholds_resolve(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_pool_stats *stats,
                            hlc_plan *plan, hlc_faults *faults);

#endif
