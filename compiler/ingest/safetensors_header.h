/* The parts of the safetensors reader; only safetensors*.c include this. */
#ifndef HILORA_COMPILER_SAFETENSORS_HEADER_H
#define HILORA_COMPILER_SAFETENSORS_HEADER_H

#include "compiler/ingest/safetensors.h"

/* The faults of one file: the first hundred one by one, then their number. */
typedef struct hlc_table_faults {
    const char *path;
    hlc_faults *faults;
    hlc_fault_kind kind; /* of the faults that are found at present */
    size_t count;        /* of tensors' faults, shown or not */
    bool broken;         /* a fault of the file itself was added */
} hlc_table_faults;

void hlc_table_fault(hlc_table_faults *report, const char *name, size_t length, const char *reason, ...)
    __attribute__((format(printf, 4, 5)));
/* A fault of the file itself; place may be NULL. */
void hlc_file_fault(hlc_table_faults *report, const char *place, const char *reason, ...)
    __attribute__((format(printf, 3, 4)));
void hlc_table_faults_finish(const hlc_table_faults *report);

/* Bits of one element. */
unsigned hlc_tensor_dtype_bits(hlc_tensor_dtype dtype);
/* HLC_TENSOR_DTYPES when there is no dtype of that name. */
hlc_tensor_dtype hlc_tensor_dtype_find(const char *name, size_t length);

/* Reads the next integer of a shape's text, which was checked; *at starts at tensor->shape_at. */
uint64_t hlc_tensor_next_dimension(const hlc_safetensors *table, size_t *at);

/* Fills tensors, decoded names and the place of the metadata from table->header. False when the JSON is broken or
 * memory is out; entries that break the format's rules are reported and left out. */
bool hlc_safetensors_parse(hlc_safetensors *table, hlc_table_faults *report);

/* The layout's rules, in the reference's order; reports what breaks them. False only when memory is out. */
bool hlc_safetensors_check_layout(const hlc_safetensors *table, hlc_table_faults *report);

#endif
