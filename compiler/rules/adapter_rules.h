/* The rules on one adapter that reading it does not apply by itself: how engines scale it, and its element types. */
#ifndef HILORA_RULES_ADAPTER_RULES_H
#define HILORA_RULES_ADAPTER_RULES_H

#include "compiler/ingest/adapter.h"

/* False when memory is out. */
bool hlc_check_adapter_rules(const hlc_adapter *adapter, hlc_faults *faults);

#endif
