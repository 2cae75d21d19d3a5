/* The 4096-byte header of a .hlp file: parse with every check that needs no other part of the file, and encode. Pure. */
#ifndef HILORA_FORMAT_HEADER_H
#define HILORA_FORMAT_HEADER_H

#include <hilora/status.h>

#include "format/layout.h"

typedef struct hlf_section {
    uint64_t offset; /* of the first byte in the file; 0 when length is 0 */
    uint64_t length; /* bytes */
    uint64_t checksum;
} hlf_section;

typedef struct hlf_header {
    uint16_t major, minor;
    uint64_t file_size;
    uint64_t required_flags, optional_flags;
    hlf_codec codec;
    uint32_t codec_version; /* ZSTD_versionNumber() of the writer; 0 for `store` */
    uint8_t digest[HLF_SHA256_SIZE];
    uint8_t superblock[HLF_SUPERBLOCK_SIZE];
    hlf_section sections[HLF_SECTION_LAST + 1]; /* by id; an absent section has length 0 */
} hlf_header;

/* bytes: the first `size` bytes of a file of file_size bytes. On success the sections lie inside the file, aligned to HLF_ALIGN,
 * apart from each other and behind the superblock, and their lengths are whole numbers of elements. The contents were not looked at,
 * except for the superblock copy. `header` is undefined after a failure. */
HL_NODISCARD hl_status hlf_header_parse(const uint8_t *bytes, uint64_t size, uint64_t file_size, hlf_header *header,
                                        hl_diag *diag);

/* Writes the header and its checksum. Sections of length 0 are listed with offset 0. */
void hlf_header_encode(const hlf_header *header, uint8_t out[HLF_HEADER_SIZE]);

#endif
