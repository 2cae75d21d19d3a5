/* An adapter as every dialect's reader leaves it: names, shapes and file positions; the weights stay in the file.
 *
 * Opening reads the headers and the configuration only. Everything in the struct was checked against the file, so
 * reading a tensor can fail only by I/O or because the file changed meanwhile. An adapter is immutable after opening
 * and may be read by several threads at once (reads are positional). */
#ifndef HILORA_COMPILER_ADAPTER_H
#define HILORA_COMPILER_ADAPTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler/base/faults.h"
#include "compiler/base/text.h"
#include "format/dtype.h"

/* A matrix in the source file, row-major, little-endian, rows x cols elements of dtype from byte `offset` on. */
typedef struct hlc_matrix_source {
    hlc_string key; /* the tensor's name in the file */
    uint64_t offset;
    uint64_t rows, cols;
    hlf_dtype dtype;
    bool transposed; /* the file holds it transposed with respect to A (rank x d_in) or B (d_out x rank) */
} hlc_matrix_source;

/* What sort of module it is; numbers as in docs/FORMAT.md. */
typedef enum hlc_module_kind {
    HLC_MODULE_LINEAR = 0 /* nn.Linear, and Hugging Face's Conv1D */
} hlc_module_kind;

/* One adapted module: y += scale * B (A x). */
typedef struct hlc_target {
    hlc_string module; /* path without "base_model.model." */
    hlc_module_kind kind;
    uint64_t d_in, d_out;
    uint32_t rank;
    double scale;
    hlc_matrix_source a, b;
} hlc_target;

typedef enum hlc_dialect { HLC_DIALECT_PEFT = 0 } hlc_dialect;

typedef struct hlc_adapter {
    hlc_string name;
    char *path;             /* the .safetensors file, as the user can find it */
    char *config_path;      /* NULL when the configuration came from the file's metadata */
    hlc_dialect dialect;
    hlc_string config_text; /* the configuration, byte for byte */
    hlc_string header_text; /* the safetensors header, byte for byte, without the leading 8-byte length */
    hlc_string base_model, base_revision; /* empty where not said */
    hlc_target *targets; /* sorted by module name, bytewise; at least one */
    size_t target_count;
    uint32_t rank;          /* the largest of the targets */
    bool extras_dropped;    /* the file holds tensors that are left out */
    uint64_t file_size;
    uint64_t device, inode; /* with size and times: to notice a change during the run */
    int64_t mtime_seconds, mtime_nanoseconds;
} hlc_adapter;

/* Where one adapter's files are, found from a command-line operand (hlc_locate). */
typedef struct hlc_adapter_files {
    hlc_string name;
    char *weights;    /* path of the .safetensors file */
    char *config;     /* path of the adapter_config.json to use, or NULL: look into the file's metadata */
    char *embeddings; /* path of the embeddings file, or NULL */
    char *embeddings_key; /* tensor or dataset name inside it */
} hlc_adapter_files;

/* Opens and checks one adapter. Adds every fault found (not the first alone) to `faults`; returns NULL when there was an
 * error, else an adapter that the caller frees with hlc_adapter_close. `drop_extras`: tensors that are not low-rank
 * updates are left out with a warning each in place of an error. */
hlc_adapter *hlc_adapter_open(const hlc_adapter_files *files, bool drop_extras, hlc_faults *faults);
void hlc_adapter_close(hlc_adapter *adapter);

/* Reads `size` bytes from `offset` on. The file is opened for each call, so that a run is not bounded by how many may be open;
 * false, with a fault, when it is no longer the one that was opened first. */
bool hlc_adapter_read_bytes(const hlc_adapter *adapter, uint64_t offset, void *buffer, size_t size, hlc_faults *faults);
/* Reads the rows x cols elements of `source` as they stand in the file into buffer (rows * cols * dtype size bytes).
 * false after adding a fault. */
bool hlc_adapter_read(const hlc_adapter *adapter, const hlc_matrix_source *source, void *buffer, hlc_faults *faults);
/* False, with a fault, when another file or another content stands at the path now (size, times). */
bool hlc_adapter_unchanged(const hlc_adapter *adapter, hlc_faults *faults);

#endif
