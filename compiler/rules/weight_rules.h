/* The rules on the numbers of an adapter (HL04xx), in one pass over its weights that also keeps what the comparisons
 * between adapters need. */
#ifndef HILORA_RULES_WEIGHT_RULES_H
#define HILORA_RULES_WEIGHT_RULES_H

#include "compiler/rules/members.h"

/* Modules of a higher rank are looked at element by element, but have no spectrum: its cost grows with
 * rank^2 (d + rank). */
enum { HLC_MOST_SPECTRUM_RANK = 256 };

/* Fills the members' traits and adds to HLC_CHECK_WEIGHTS. Nothing depends on the number of threads. False when memory
 * is out; faults of single adapters are in their lists. */
bool hlc_check_weights(hlc_company *company);

#endif
