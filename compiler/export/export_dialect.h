/* Adapters that came in another dialect or are squeezed, as PEFT folders: a header and a configuration made from the
 * pool's tables, the values bit for bit. */
#ifndef HILORA_COMPILER_EXPORT_DIALECT_H
#define HILORA_COMPILER_EXPORT_DIALECT_H

#include "compiler/export/export_peft.h"

/* As hlc_export_peft, for an adapter of any dialect. One that is squeezed gets A' and B' as stored, with alpha = r. */
bool hlc_export_dialect(const hlc_pool_file *pool, uint32_t adapter, const char *target, hlc_progress progress,
                        hlc_export_report *report, hlc_faults *faults);

#endif
