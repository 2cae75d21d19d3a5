/* Reading a pool back for the programs: the flat view, as the runtime sees it, through format/. */
#ifndef HILORA_COMPILER_POOL_FILE_H
#define HILORA_COMPILER_POOL_FILE_H

#include "compiler/base/faults.h"
#include "compiler/base/mapped_file.h"
#include "compiler/base/text.h"
#include "compiler/emit/codec.h"
#include "format/index.h"

typedef struct hlc_pool_file {
    char *path;
    hlc_mapped_file file;
    hlf_index index;
} hlc_pool_file;

/* Maps and checks a pool's structure. False after a fault. */
bool hlc_pool_file_open(hlc_pool_file *pool, const char *path, hlc_faults *faults);
void hlc_pool_file_close(hlc_pool_file *pool);

/* Adds a failure of format/ as a fault: file, "byte N", the sentence. */
void hlc_fault_from_diag(hlc_faults *faults, const char *file, const hl_diag *diag);

/* Decodes one chunk of an entry, its checksum verified, into shape.bytes bytes of stored elements. False, with the diagnostic, when it is damaged. */
bool hlc_decode_side(const hlf_index *index, const hlf_entry_record *entry, hlf_side side, hlc_encoder *coder, void *out, hl_diag *diag);
/* The same in the type that the source had: rank x width elements, rows of A or of B transposed. Only for entries that are not squeezed. */
bool hlc_decode_source(const hlf_index *index, const hlf_entry_record *entry, hlf_side side, hlc_encoder *coder, void *out, hl_diag *diag);
/* The text of a blob, checksum verified; free with hlc_string_free. */
bool hlc_decode_blob(const hlf_index *index, const hlf_blob_ref *blob, hlc_string *out, hl_diag *diag);

#endif
