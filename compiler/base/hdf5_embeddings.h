/* Reading a matrix of embeddings from an HDF5 file that is not trusted: the HDF5 library runs in a child process
 * (contained.h), as hostile files make it crash, loop and ask for memory without end. */
#ifndef HILORA_COMPILER_HDF5_EMBEDDINGS_H
#define HILORA_COMPILER_HDF5_EMBEDDINGS_H

#include "compiler/base/hdf5_file.h"

/* As hlc_h5_read_matrix, of a file of file_bytes. */
bool hlc_h5_read_contained(const char *path, uint64_t file_bytes, const char *dataset, const hlc_h5_limits *limits,
                           float **values, size_t *rows, size_t *cols, char *attributes[4], hlc_faults *faults);

#endif
