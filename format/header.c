#include "format/header.h"

#include <stdbool.h>
#include <string.h>

#include "format/bytes.h"
#include "format/checksum.h"
#include "format/diag.h"
#include "format/records.h"

static const uint8_t hdf5_signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

static hl_status check_magic(const uint8_t *bytes, uint64_t size, hl_diag *diag) {
    if (size >= HLF_MAGIC_SIZE && memcmp(bytes, HLF_MAGIC, HLF_MAGIC_SIZE) == 0) {
        return HL_OK;
    }
    if (size >= sizeof hdf5_signature && memcmp(bytes, hdf5_signature, sizeof hdf5_signature) == 0) {
        return hlf_fail(diag, HL_ERR_INPUT, 0, "an HDF5 file, but not a .hlp pool: it has no hilora header");
    }
    return hlf_fail(diag, HL_ERR_INPUT, 0, "not a .hlp pool: the file does not begin with the magic bytes 89 48 4C 50");
}

static hl_status check_identity(const uint8_t *bytes, uint64_t size, uint64_t file_size, hl_diag *diag) {
    hl_status status = check_magic(bytes, size, diag);
    if (status != HL_OK) {
        return status;
    }
    if (size < HLF_HEADER_SIZE + HLF_SUPERBLOCK_SIZE) {
        return hlf_fail(diag, HL_ERR_CORRUPT, size, "cut short: %llu bytes, the header alone has %d",
                        (unsigned long long)size, HLF_HEADER_SIZE + HLF_SUPERBLOCK_SIZE);
    }
    uint16_t major = hlf_load_u16(bytes + HLF_AT_MAJOR);
    if (hlf_load_u32(bytes + HLF_AT_ENDIAN) != HLF_ENDIAN_TAG) {
        return hlf_fail(diag, HL_ERR_CORRUPT, HLF_AT_ENDIAN, "the endian tag is 0x%08X, not 0x%08X",
                        hlf_load_u32(bytes + HLF_AT_ENDIAN), HLF_ENDIAN_TAG);
    }
    if (major != HLF_VERSION_MAJOR) {
        return hlf_fail(diag, HL_ERR_UNSUPPORTED, HLF_AT_MAJOR, "format version %u.%u; this build reads version %d", major,
                        hlf_load_u16(bytes + HLF_AT_MINOR), HLF_VERSION_MAJOR);
    }
    uint64_t stored = hlf_load_u64(bytes + HLF_AT_CHECKSUM), computed = hlf_checksum(bytes, HLF_AT_CHECKSUM);
    if (stored != computed) {
        return hlf_fail(diag, HL_ERR_CORRUPT, HLF_AT_CHECKSUM, "the header's checksum is wrong: stored %016llx, computed %016llx",
                        (unsigned long long)stored, (unsigned long long)computed);
    }
    if (hlf_load_u64(bytes + HLF_AT_FILE_SIZE) != file_size) {
        return hlf_fail(diag, HL_ERR_CORRUPT, HLF_AT_FILE_SIZE,
                        "the header says %llu bytes, the file has %llu: cut short, or changed by another program",
                        (unsigned long long)hlf_load_u64(bytes + HLF_AT_FILE_SIZE), (unsigned long long)file_size);
    }
    if (memcmp(bytes + HLF_AT_SUPERBLOCK, bytes + HLF_HEADER_SIZE, HLF_SUPERBLOCK_SIZE) != 0) {
        return hlf_fail(diag, HL_ERR_CORRUPT, HLF_HEADER_SIZE,
                        "the HDF5 superblock is not the one the header was written for: changed by another program");
    }
    return HL_OK;
}

static bool all_zero(const uint8_t *bytes, size_t n) {
    uint8_t seen = 0;
    for (size_t i = 0; i < n; i++) {
        seen |= bytes[i];
    }
    return seen == 0;
}

/* The gaps of this version's header. A later minor version may have put something there. */
static hl_status check_reserved(const uint8_t *bytes, uint32_t section_count, hl_diag *diag) {
    size_t gap = HLF_AT_SUPERBLOCK + HLF_SUPERBLOCK_SIZE;
    size_t end = HLF_AT_SECTIONS + (size_t)section_count * HLF_SECTION_SIZE;
    if (!all_zero(bytes + gap, HLF_AT_SECTIONS - gap) || !all_zero(bytes + end, HLF_AT_CHECKSUM - end)) {
        return hlf_fail(diag, HL_ERR_CORRUPT, gap, "reserved bytes of the header are not zero");
    }
    return HL_OK;
}

static hl_status parse_section(const uint8_t *at, uint64_t position, hlf_header *header, uint32_t *seen, hl_diag *diag) {
    uint32_t id = hlf_load_u32(at), element = hlf_load_u32(at + 4);
    uint32_t element_size = hlf_load_u32(at + 32);
    hlf_section section = {hlf_load_u64(at + 8), hlf_load_u64(at + 16), hlf_load_u64(at + 24)};
    if (id == 0 || id > HLF_SECTION_LAST) {
        if (id == 0 || header->minor <= HLF_VERSION_MINOR) {
            return hlf_fail(diag, HL_ERR_CORRUPT, position, "section id %u is unknown in version %u.%u", id, header->major,
                            header->minor);
        }
        return HL_OK;
    }
    const char *name = hlf_section_path((hlf_section_id)id);
    if (*seen & (1u << id)) {
        return hlf_fail(diag, HL_ERR_CORRUPT, position, "section %s is listed twice", name);
    }
    *seen |= 1u << id;
    if (element != hlf_section_element((hlf_section_id)id) || element_size != hlf_section_element_size((hlf_section_id)id) ||
        hlf_load_u32(at + 36) != 0) {
        return hlf_fail(diag, HL_ERR_CORRUPT, position, "section %s has element type %u of %u bytes, not %d of %u", name, element,
                        element_size, hlf_section_element((hlf_section_id)id), hlf_section_element_size((hlf_section_id)id));
    }
    if (section.length == 0) {
        if (section.offset != 0) {
            return hlf_fail(diag, HL_ERR_CORRUPT, position, "section %s is empty, yet has an offset", name);
        }
    } else if (section.offset % HLF_ALIGN != 0 || section.offset < HLF_HEADER_SIZE + HLF_SUPERBLOCK_SIZE ||
               !hlf_inside(section.offset, section.length, header->file_size)) {
        return hlf_fail(diag, HL_ERR_CORRUPT, position, "section %s [%llu, +%llu) is misaligned or outside the file", name,
                        (unsigned long long)section.offset, (unsigned long long)section.length);
    }
    if (section.length % element_size != 0) {
        return hlf_fail(diag, HL_ERR_CORRUPT, position, "section %s has %llu bytes, no multiple of %u", name,
                        (unsigned long long)section.length, element_size);
    }
    header->sections[id] = section;
    return HL_OK;
}

static hl_status check_overlap(const hlf_header *header, hl_diag *diag) {
    for (int i = 1; i <= HLF_SECTION_LAST; i++) {
        const hlf_section *a = &header->sections[i];
        for (int j = i + 1; j <= HLF_SECTION_LAST; j++) {
            const hlf_section *b = &header->sections[j];
            if (a->length && b->length && a->offset < b->offset + b->length && b->offset < a->offset + a->length) {
                return hlf_fail(diag, HL_ERR_CORRUPT, a->offset, "sections %s and %s overlap", hlf_section_path((hlf_section_id)i),
                                hlf_section_path((hlf_section_id)j));
            }
        }
    }
    return HL_OK;
}

hl_status hlf_header_parse(const uint8_t *bytes, uint64_t size, uint64_t file_size, hlf_header *header, hl_diag *diag) {
    hl_status status = check_identity(bytes, size, file_size, diag);
    if (status != HL_OK) {
        return status;
    }
    memset(header, 0, sizeof *header);
    header->major = hlf_load_u16(bytes + HLF_AT_MAJOR);
    header->minor = hlf_load_u16(bytes + HLF_AT_MINOR);
    header->file_size = file_size;
    header->required_flags = hlf_load_u64(bytes + HLF_AT_REQUIRED);
    header->optional_flags = hlf_load_u64(bytes + HLF_AT_OPTIONAL);
    header->codec_version = hlf_load_u32(bytes + HLF_AT_CODEC_VERSION);
    memcpy(header->digest, bytes + HLF_AT_DIGEST, HLF_SHA256_SIZE);
    memcpy(header->superblock, bytes + HLF_AT_SUPERBLOCK, HLF_SUPERBLOCK_SIZE);

    uint64_t unknown = header->required_flags & ~HLF_REQUIRED_KNOWN;
    if (unknown) {
        return hlf_fail(diag, HL_ERR_UNSUPPORTED, HLF_AT_REQUIRED, "the pool needs features that this build does not have (0x%llx)",
                        (unsigned long long)unknown);
    }
    uint32_t codec = hlf_load_u32(bytes + HLF_AT_CODEC);
    if (codec != HLF_CODEC_STORE && codec != HLF_CODEC_ZSTD) {
        return hlf_fail(diag, HL_ERR_UNSUPPORTED, HLF_AT_CODEC, "codec %u is unknown", codec);
    }
    header->codec = (hlf_codec)codec;
    uint32_t header_size = hlf_load_u32(bytes + HLF_AT_HEADER_SIZE), count = hlf_load_u32(bytes + HLF_AT_SECTION_COUNT);
    if (header_size != HLF_HEADER_SIZE || count > HLF_SECTION_SLOTS) {
        return hlf_fail(diag, HL_ERR_CORRUPT, HLF_AT_HEADER_SIZE, "header of %u bytes with %u sections, not %d with at most %d",
                        header_size, count, HLF_HEADER_SIZE, HLF_SECTION_SLOTS);
    }
    if (header->minor <= HLF_VERSION_MINOR && (status = check_reserved(bytes, count, diag)) != HL_OK) {
        return status;
    }
    uint32_t seen = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t position = HLF_AT_SECTIONS + (uint64_t)i * HLF_SECTION_SIZE;
        status = parse_section(bytes + position, position, header, &seen, diag);
        if (status != HL_OK) {
            return status;
        }
    }
    return check_overlap(header, diag);
}

void hlf_header_encode(const hlf_header *header, uint8_t out[HLF_HEADER_SIZE]) {
    memset(out, 0, HLF_HEADER_SIZE);
    memcpy(out, HLF_MAGIC, HLF_MAGIC_SIZE);
    hlf_store_u16(out + HLF_AT_MAJOR, header->major);
    hlf_store_u16(out + HLF_AT_MINOR, header->minor);
    hlf_store_u32(out + HLF_AT_ENDIAN, HLF_ENDIAN_TAG);
    hlf_store_u64(out + HLF_AT_FILE_SIZE, header->file_size);
    hlf_store_u32(out + HLF_AT_HEADER_SIZE, HLF_HEADER_SIZE);
    hlf_store_u64(out + HLF_AT_REQUIRED, header->required_flags);
    hlf_store_u64(out + HLF_AT_OPTIONAL, header->optional_flags);
    hlf_store_u32(out + HLF_AT_CODEC, (uint32_t)header->codec);
    hlf_store_u32(out + HLF_AT_CODEC_VERSION, header->codec_version);
    memcpy(out + HLF_AT_DIGEST, header->digest, HLF_SHA256_SIZE);
    memcpy(out + HLF_AT_SUPERBLOCK, header->superblock, HLF_SUPERBLOCK_SIZE);
    uint32_t count = 0;
    for (uint32_t id = 1; id <= HLF_SECTION_LAST; id++) {
        const hlf_section *section = &header->sections[id];
        uint8_t *at = out + HLF_AT_SECTIONS + (size_t)count++ * HLF_SECTION_SIZE;
        hlf_store_u32(at, id);
        hlf_store_u32(at + 4, (uint32_t)hlf_section_element((hlf_section_id)id));
        hlf_store_u64(at + 8, section->length ? section->offset : 0);
        hlf_store_u64(at + 16, section->length);
        hlf_store_u64(at + 24, section->checksum);
        hlf_store_u32(at + 32, hlf_section_element_size((hlf_section_id)id));
    }
    hlf_store_u32(out + HLF_AT_SECTION_COUNT, count);
    hlf_store_u64(out + HLF_AT_CHECKSUM, hlf_checksum(out, HLF_AT_CHECKSUM));
}
