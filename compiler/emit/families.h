/* Adapters that share no name with the rest of a pool: for another base model, in all likelihood. */
#ifndef HILORA_COMPILER_FAMILIES_H
#define HILORA_COMPILER_FAMILIES_H

#include "compiler/emit/inputs.h"

/* Warns about adapters whose modules lie in other layers than those of most: "model.layers.0.self_attn.q_proj" lies in
 * "model.layers". Adapters of one base may well have no module in common, as q_proj and v_proj; they have that.
 * False only when memory is out. */
bool hlc_warn_of_other_families(const hlc_inputs *inputs, hlc_faults *faults);

#endif
