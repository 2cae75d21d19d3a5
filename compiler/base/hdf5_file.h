/* The only door to the HDF5 library: reading a matrix of embeddings, and laying out a pool.
 *
 * HDF5 is not safe from hostile files: use hdf5_embeddings.h. Nor is it thread-safe: reading takes a lock of its own; a writer belongs to one thread, and nothing else here may run
 * while that thread is inside one of its calls, which the same lock ensures. HDF5's own error printing is off. */
#ifndef HILORA_COMPILER_HDF5_FILE_H
#define HILORA_COMPILER_HDF5_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler/base/faults.h"
#include "format/dtype.h"
#include "format/layout.h"

typedef struct hlc_h5_limits {
    size_t rows, columns, elements;
    uint64_t bytes; /* of the matrix as float32 */
} hlc_h5_limits;

/* Keeps every other thread out of this module meanwhile: for making a process, whose only thread releases it again, too. */
void hlc_h5_hold(void);
void hlc_h5_release(void);

/* Reads dataset `dataset` (rows x columns of float16, float32 or float64, any byte order) as float32 into a malloc'd array.
 * attributes: encoder, revision, prefix, normalized, of the dataset or else of the file's root; malloc'd UTF-8 or NULL.
 * Shapes beyond the limits, other types, what lies in other files, and files that HDF5 refuses are faults. */
bool hlc_h5_read_matrix(const char *path, const char *dataset, const hlc_h5_limits *limits, float **values, size_t *rows,
                        size_t *cols, char *attributes[4], hlc_faults *faults);

/* The writer of a pool's HDF5 view. It creates the objects and has HDF5 give every section and chunk its place; the bytes of the
 * sections are written by the caller at these places once the file is closed, as HDF5 keeps no checksum over them. */
typedef struct hlc_h5_writer hlc_h5_writer;

/* Starts a pool in an empty file, open for reading and writing; the descriptor stays the caller's. label: the name for faults. NULL
 * after a fault. */
hlc_h5_writer *hlc_h5_create(int fd, const char *label, hlc_faults *faults);

/* A section of `rows` rows of `columns` elements (columns = 0: a one-dimensional dataset), allocated at a multiple of HLF_ALIGN. *offset is its
 * place in the file, 0 when it has no elements. All sections come before hlc_h5_begin_chunks. */
bool hlc_h5_add_section(hlc_h5_writer *writer, hlf_section_id section, uint64_t rows, uint64_t columns, uint64_t *offset,
                        hlc_faults *faults);

/* A text (UTF-8, counted; NUL bytes end it), number or integer as an attribute of /meta. */
bool hlc_h5_add_text(hlc_h5_writer *writer, const char *name, const char *text, size_t length, hlc_faults *faults);
bool hlc_h5_add_number(hlc_h5_writer *writer, const char *name, double value, hlc_faults *faults);
bool hlc_h5_add_integer(hlc_h5_writer *writer, const char *name, int64_t value, hlc_faults *faults);

/* From here on chunks are written, packed, aligned to `alignment` bytes. */
bool hlc_h5_begin_chunks(hlc_h5_writer *writer, uint64_t alignment, hlc_faults *faults);

/* Creates the dataset at `path` (its groups as needed): [rows, height, width] of dtype in chunks of one row. `coded`: behind the
 * shuffle and Zstandard filters with the sign-rotated type, else plain. *dataset is its handle in the calls below. */
bool hlc_h5_add_dataset(hlc_h5_writer *writer, const char *path, uint64_t rows, uint64_t height, uint64_t width, hlf_dtype dtype,
                        bool coded, uint32_t *dataset, hlc_faults *faults);

/* Stores the chunk of row `row` as it is (already coded where the dataset is). *offset is its place in the file. */
bool hlc_h5_write_chunk(hlc_h5_writer *writer, uint32_t dataset, uint64_t row, const void *bytes, size_t size, uint64_t *offset,
                        hlc_faults *faults);

/* Flushes and closes; false after a fault. The writer is gone either way. */
bool hlc_h5_close(hlc_h5_writer *writer, hlc_faults *faults);

/* The HDF5 library's version, "1.10.8". Static storage of the given buffer. */
void hlc_h5_version(char out[16]);

#endif
