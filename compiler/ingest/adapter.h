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
#include "compiler/base/files.h"
#include "compiler/base/text.h"
#include "format/dtype.h"
#include "format/layout.h"

/* A matrix in the source file, row-major, little-endian, rows x cols elements of dtype from byte `offset` on.
 *
 * One that is a part of its tensor, or whose blocks alone are in the file, has a step or groups: hlc_adapter_read makes
 * the rows x cols elements of all of them. */
typedef struct hlc_matrix_source {
    hlc_string key; /* the tensor's name in the file */
    uint64_t offset;
    uint64_t rows, cols;
    hlf_dtype dtype;
    bool transposed; /* the file holds it transposed with respect to A (rank x d_in) or B (d_out x rank) */
    /* Elements from one row to the next, and from one column to the next; 0: cols, and 1. */
    uint64_t row_step, column_step;
    /* Above 1: block-diagonal, of so many equal blocks. The file holds rows x (cols / groups), each row the part of its
     * own block; the rest is zero. */
    uint32_t groups;
    uint64_t tensor_offset, tensor_bytes; /* with steps: the whole tensor, which several sources share; else 0 */
} hlc_matrix_source;

/* What sort of module it is, and the meaning of its x and its geometry; numbers as in docs/FORMAT.md. */
typedef enum hlc_module_kind {
    HLC_MODULE_LINEAR = HLF_MODULE_LINEAR, /* nn.Linear, and Hugging Face's Conv1D */
    HLC_MODULE_EMBEDDING = HLF_MODULE_EMBEDDING,
    HLC_MODULE_CONV1D = HLF_MODULE_CONV1D,
    HLC_MODULE_CONV2D = HLF_MODULE_CONV2D,
    HLC_MODULE_CONV3D = HLF_MODULE_CONV3D,
    HLC_MODULE_ATTENTION_QKV = HLF_MODULE_ATTENTION_QKV,
    HLC_MODULE_EXPERTS = HLF_MODULE_EXPERTS
} hlc_module_kind;

/* One adapted module: y += scale * B (A x). */
typedef struct hlc_target {
    hlc_string module; /* path without "base_model.model."; an expert of a fused parameter: "path[e]" */
    hlc_module_kind kind;
    uint32_t geometry[HLF_GEOMETRY]; /* by kind, as in docs/FORMAT.md; zeros for kinds without */
    uint64_t d_in, d_out;
    uint32_t rank;
    double scale;
    hlc_matrix_source a, b;
    hlc_matrix_source e; /* AdaLoRA's diagonal, rank x 1: y += scale * B (e * (A x)); elsewhere without a key */
} hlc_target;

typedef enum hlc_dialect {
    HLC_DIALECT_PEFT = 0,
    HLC_DIALECT_KOHYA = 1,
    HLC_DIALECT_DIFFUSERS = 2,
    HLC_DIALECT_MLX = 3
} hlc_dialect;

/* How the columns of B of a fused parameter of E experts and rank r are ordered: column k E + e, or e r + k, is column
 * k of expert e. */
typedef enum hlc_expert_layout {
    HLC_EXPERTS_UNKNOWN = 0,
    HLC_EXPERTS_RANK_MAJOR = 1, /* PEFT's */
    HLC_EXPERTS_GROUPED = 2
} hlc_expert_layout;

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
    hlc_expert_layout expert_layout; /* of its fused experts; unknown without any */
    uint64_t file_size;
    hlc_file file; /* as it was: to notice a change during the run; closed */
} hlc_adapter;

/* Where one adapter's files are, found from a command-line operand (hlc_locate). */
typedef struct hlc_adapter_files {
    hlc_string name;
    char *weights;    /* path of the .safetensors file */
    char *config;     /* path of the adapter_config.json to use, or NULL: look into the file's metadata */
    char *embeddings; /* path of the embeddings file, or NULL */
    char *embeddings_key; /* tensor or dataset name inside it */
} hlc_adapter_files;

/* What to do with an alpha that stands beside the scale in an MLX configuration. */
typedef enum hlc_mlx_alpha { HLC_MLX_ALPHA_REFUSE = 0, HLC_MLX_ALPHA_IGNORE, HLC_MLX_ALPHA_APPLY } hlc_mlx_alpha;

typedef struct hlc_base_model hlc_base_model; /* base_model.h */

/* How adapters are read. Zeros are the defaults. */
typedef struct hlc_ingest_options {
    bool drop_extras; /* tensors that are no low-rank update are left out with a warning each in place of an error */
    hlc_expert_layout expert_layout; /* where the adapter itself does not say */
    hlc_mlx_alpha mlx_alpha;
    const hlc_base_model *base; /* to be checked against; NULL: none */
} hlc_ingest_options;

/* Opens and checks one adapter. Adds every fault found (not the first alone) to `faults`; returns NULL when there was an
 * error, else an adapter that the caller frees with hlc_adapter_close. */
hlc_adapter *hlc_adapter_open(const hlc_adapter_files *files, const hlc_ingest_options *options, hlc_faults *faults);
/* The same from what a pool keeps of a file of file_size bytes: nothing of it can be read but the texts. path: for the
 * faults. */
hlc_adapter *hlc_adapter_of_texts(const char *path, const hlc_string *header, const hlc_string *config, uint64_t file_size,
                                  const hlc_ingest_options *options, hlc_faults *faults);
void hlc_adapter_close(hlc_adapter *adapter);
/* The strings of an array of targets, and the array. */
void hlc_targets_free(hlc_target *targets, size_t count);

/* Reads `size` bytes from `offset` on. The file is opened for each call, so that a run is not bounded by how many may be open;
 * false, with a fault, when it is no longer the one that was opened first. */
bool hlc_adapter_read_bytes(const hlc_adapter *adapter, uint64_t offset, void *buffer, size_t size, hlc_faults *faults);
/* The tensor read last, for sources that share one: whoever goes through them in order reads it once. Starts as zeros;
 * one thread at a time. */
typedef struct hlc_tensor_cache {
    const hlc_adapter *adapter;
    uint64_t offset, size;
    void *bytes;
} hlc_tensor_cache;
void hlc_tensor_cache_free(hlc_tensor_cache *cache);

/* Reads the rows x cols elements of `source` into buffer (rows * cols * dtype size bytes), row after row as they stand
 * in the file, its zeros filled in. False after adding a fault. */
bool hlc_adapter_read(const hlc_adapter *adapter, const hlc_matrix_source *source, hlc_tensor_cache *cache, void *buffer,
                      hlc_faults *faults);
/* The reverse: puts rows x cols elements into the bytes of the tensor that starts at byte `tensor` of the file. */
void hlc_source_scatter(const hlc_matrix_source *source, const void *elements, uint64_t tensor, void *bytes);
/* The bytes that the file holds of it. */
uint64_t hlc_source_bytes(const hlc_matrix_source *source);
/* False, with a fault, when another file or another content stands at the path now (size, times). */
bool hlc_adapter_unchanged(const hlc_adapter *adapter, hlc_faults *faults);

#endif
