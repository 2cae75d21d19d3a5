/* exp for routing decisions: the same bits on every machine, as libm's are not. */
#ifndef HILORA_RUNTIME_EXP_H
#define HILORA_RUNTIME_EXP_H

/* e^x for x <= 0 (minus infinity included: 0) within 1 unit in the last place, by the IEEE operations that
 * docs/ROUTING.md lists. */
double hlr_exp(double x);

#endif
