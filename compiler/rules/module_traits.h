/* What the comparisons between adapters need of a module's update s B A, without ever forming it. */
#ifndef HILORA_RULES_MODULE_TRAITS_H
#define HILORA_RULES_MODULE_TRAITS_H

#include "compiler/rules/members.h"

/* Adds a module of finite weights: a is rank x d_in, bt rank x d_out, row-major. False when memory is out, or a number
 * leaves float64. The kurtosis is that of all entries up to 256 x 256, beyond that of so many evenly spaced rows
 * and columns. */
bool hlc_module_traits_add(hlc_traits *traits, const hlc_member_module *module, const double *a, const double *bt);
/* From sums to means, and the sketch to length 1. */
void hlc_traits_finish(hlc_traits *traits);

/* The cosine of two finished updates by their sketches; 0 where one is zero. */
double hlc_sketch_cosine(const hlc_traits *a, const hlc_traits *b);
/* <s B A, s' B' A'> of one module of two adapters of equal shapes. */
double hlc_update_product(const hlc_member_module *m, const double *a, const double *bt, const hlc_member_module *other,
                          const double *other_a, const double *other_bt);

#endif
