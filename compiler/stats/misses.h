/* The leave-one-out miss rates of a pool. */
#ifndef HILORA_COMPILER_MISSES_H
#define HILORA_COMPILER_MISSES_H

#include "compiler/stats/gaussian.h"

/* Ranks every sample of the calibrated adapters among the pool: its own adapter by its leave-one-out value, the others by the
 * log density of the sample as rebuilt from what is stored, ties to the lower index. Fills miss_first, miss_third and
 * miss_samples from scatter, gaussian and calibration. False when memory is out. */
bool hlc_miss_rates(hlc_pool_stats *stats, size_t threads);

#endif
