/* Sample embeddings: an m x d matrix per adapter from a safetensors, NumPy or HDF5 file. */
#ifndef HILORA_COMPILER_EMBEDDINGS_H
#define HILORA_COMPILER_EMBEDDINGS_H

#include "compiler/ingest/adapter.h"
#include "compiler/ingest/safetensors.h"

typedef enum hlc_normalized { HLC_NORMALIZED_NO = 0, HLC_NORMALIZED_YES = 1, HLC_NORMALIZED_UNKNOWN = 2 } hlc_normalized;

typedef struct hlc_embeddings {
    float *values; /* samples x dim, row-major; float64 sources were rounded, float16 widened */
    size_t samples, dim;
    /* From the safetensors metadata or the HDF5 attributes; NULL where the file does not say. UTF-8. */
    char *encoder, *revision, *prefix;
    hlc_normalized normalized;
} hlc_embeddings;

/* A vector in a safetensors or NumPy file is one sample. Limits against hostile shapes: d <= 65,536, m <= 1,000,000 and the file's own size bound every allocation.
 * Accepted: float16, float32, float64; for .npy also big-endian and Fortran order. Non-finite values (also by the
 * rounding to float32), zero samples, other ranks or dtypes are faults that name file, place and reason.
 * key: the tensor or dataset (ignored for .npy). NULL after adding the faults. */
hlc_embeddings *hlc_embeddings_read(const char *path, const char *key, hlc_faults *faults);
/* One tensor of a safetensors file that is open already, for a file of many adapters. Safe from several threads. */
hlc_embeddings *hlc_embeddings_of_table(const hlc_safetensors *table, const char *key, hlc_faults *faults);
void hlc_embeddings_free(hlc_embeddings *embeddings);

#endif
