/* The safetensors container: header, tensor table and metadata, checked whole before anything is handed out.
 *
 * The rules are those of the format's reference implementation (version 0.8), with one more: a tensor name that stands
 * twice is refused. Memory is a small multiple of the header (at most 100,000,000 bytes), time O(n log n) in it. A
 * table is immutable after opening and may be used by several threads. */
#ifndef HILORA_COMPILER_SAFETENSORS_H
#define HILORA_COMPILER_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler/base/faults.h"
#include "compiler/base/files.h"
#include "compiler/base/text.h"
#include "compiler/ingest/json_scan.h"
#include "format/dtype.h"

/* Sorted as in the table of names in safetensors.c. */
typedef enum hlc_tensor_dtype {
    HLC_TENSOR_BOOL,
    HLC_TENSOR_F4,
    HLC_TENSOR_F6_E2M3,
    HLC_TENSOR_F6_E3M2,
    HLC_TENSOR_U8,
    HLC_TENSOR_I8,
    HLC_TENSOR_F8_E5M2,
    HLC_TENSOR_F8_E4M3,
    HLC_TENSOR_F8_E8M0,
    HLC_TENSOR_F8_E4M3FNUZ,
    HLC_TENSOR_F8_E5M2FNUZ,
    HLC_TENSOR_I16,
    HLC_TENSOR_U16,
    HLC_TENSOR_F16,
    HLC_TENSOR_BF16,
    HLC_TENSOR_I32,
    HLC_TENSOR_U32,
    HLC_TENSOR_F32,
    HLC_TENSOR_C64,
    HLC_TENSOR_F64,
    HLC_TENSOR_I64,
    HLC_TENSOR_U64,
    HLC_TENSOR_DTYPES
} hlc_tensor_dtype;

/* "F32"; static storage. */
const char *hlc_tensor_dtype_name(hlc_tensor_dtype dtype);
/* HLF_DTYPE_NONE for a type that cannot be a weight. */
hlf_dtype hlc_tensor_dtype_weight(hlc_tensor_dtype dtype);

typedef struct hlc_tensor {
    const char *name; /* counted, UTF-8, may hold NUL; lives as long as the header's bytes and the table */
    uint32_t name_length;
    uint32_t dims;       /* length of its shape */
    uint32_t shape_at;   /* where the shape's text starts in the header: shapes are read when they are asked for */
    uint8_t dtype;       /* hlc_tensor_dtype */
    uint64_t begin, end; /* bytes of the data buffer */
} hlc_tensor;

typedef struct hlc_safetensors {
    char *path;
    hlc_file file;
    hlc_string header;   /* without the 8 bytes of its length */
    uint64_t data_at;    /* where the data buffer starts in the file */
    hlc_tensor *tensors; /* in the header's order */
    size_t count;
    uint32_t *by_name;   /* numbers of the tensors, sorted by name, bytewise */
    char *decoded_names; /* of names that hold escapes */
    size_t decoded_length;
    size_t metadata_at, metadata_end; /* the text of __metadata__'s object in the header; both 0 without */
} hlc_safetensors;

/* Adds every fault found; NULL when there was one. */
hlc_safetensors *hlc_safetensors_open(const char *path, hlc_faults *faults);
/* The same from the header alone (copied), as it was kept from a file of file_size bytes: the descriptor is -1. path:
 * for the faults. */
hlc_safetensors *hlc_safetensors_of_header(const char *path, const hlc_string *header, uint64_t file_size,
                                           hlc_faults *faults);
void hlc_safetensors_close(hlc_safetensors *table);

/* NULL when there is no tensor of that name. */
const hlc_tensor *hlc_safetensors_find(const hlc_safetensors *table, const char *name, size_t length);
/* Writes the first min(dims, room) dimensions; returns tensor->dims. */
size_t hlc_tensor_shape(const hlc_safetensors *table, const hlc_tensor *tensor, uint64_t *shape, size_t room);
/* The shape as text, "[2, 3]", shortened where it is long. Returns buffer. */
enum { HLC_SHAPE_SIZE = 128 };
const char *hlc_tensor_shape_text(const hlc_safetensors *table, const hlc_tensor *tensor, char buffer[HLC_SHAPE_SIZE]);

/* Goes through the metadata. Keys may repeat: who uses one checks. */
typedef struct hlc_metadata {
    hlc_json_scan scan;
    const char *key, *value; /* as in the header: hlc_metadata_copy gives the characters */
    size_t key_length, value_length;
    bool key_escaped, value_escaped;
} hlc_metadata;
void hlc_metadata_start(const hlc_safetensors *table, hlc_metadata *metadata);
bool hlc_metadata_next(hlc_metadata *metadata);
/* The characters of the present key or value; the caller frees the copy. False when memory is out. */
bool hlc_metadata_copy_key(const hlc_metadata *metadata, hlc_string *out);
bool hlc_metadata_copy_value(const hlc_metadata *metadata, hlc_string *out);
/* The value of one key, bytes == NULL when it is absent. False after a fault: it stands twice, or memory is out. */
bool hlc_metadata_find(const hlc_safetensors *table, const char *key, hlc_string *out, hlc_faults *faults);

#endif
