/* Checking a whole pool: every fault is reported, with the adapter, module and byte it belongs to. */
#ifndef HILORA_COMPILER_VERIFY_H
#define HILORA_COMPILER_VERIFY_H

#include "compiler/base/faults.h"
#include "compiler/base/mapped_file.h"
#include "format/index.h"

typedef enum hlc_verify_level {
    HLC_VERIFY_CHECKSUMS = 0, /* structure, every checksum, finite statistics, the digest */
    HLC_VERIFY_DECODE = 1     /* also: every chunk decodes, holds finite numbers, and the content hashes hold */
} hlc_verify_level;

/* label: the name for faults. True without faults. Memory: chunks are forgotten once they were read. */
bool hlc_verify_pool(const hlc_mapped_file *file, hlc_verify_level level, const char *label, size_t threads, hlc_faults *faults);

#endif
