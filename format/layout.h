/* The numbers of the .hlp layout. docs/FORMAT.md is the normative text; this file mirrors it.
 *
 * Everything is little-endian. Records are decoded field by field (format/records.h), never cast. */
#ifndef HILORA_FORMAT_LAYOUT_H
#define HILORA_FORMAT_LAYOUT_H

#include <stdint.h>

#define HLF_MAGIC "\x89HLP\r\n\x1a\n"
#define HLF_ENDIAN_TAG UINT32_C(0x0A0B0C0D)

enum {
    HLF_VERSION_MAJOR = 1,
    HLF_VERSION_MINOR = 0,
    HLF_MAGIC_SIZE = 8,
    HLF_HEADER_SIZE = 4096, /* the HDF5 user block */
    HLF_SUPERBLOCK_SIZE = 48,
    HLF_SECTION_SLOTS = 32,
    HLF_SECTION_SIZE = 40,
    HLF_ALIGN = 64,        /* of sections, and of chunks in `store` pools */
    HLF_FLOATS_ALIGN = 16, /* rows of mean and basis are padded to a multiple of so many floats */
    HLF_GEOMETRY = 8,
    HLF_QUANTILES = 7,
    HLF_SHA256_SIZE = 32
};

/* Byte positions inside the header. */
enum {
    HLF_AT_MAGIC = 0,
    HLF_AT_MAJOR = 8,           /* u16 */
    HLF_AT_MINOR = 10,          /* u16 */
    HLF_AT_ENDIAN = 12,         /* u32 */
    HLF_AT_FILE_SIZE = 16,      /* u64 */
    HLF_AT_HEADER_SIZE = 24,    /* u32 */
    HLF_AT_SECTION_COUNT = 28,  /* u32 */
    HLF_AT_REQUIRED = 32,       /* u64 */
    HLF_AT_OPTIONAL = 40,       /* u64 */
    HLF_AT_CODEC = 48,          /* u32 */
    HLF_AT_CODEC_VERSION = 52,  /* u32 */
    HLF_AT_DIGEST = 56,         /* 32 bytes */
    HLF_AT_SUPERBLOCK = 88,     /* 48 bytes */
    HLF_AT_SECTIONS = 256,      /* 32 x 40 bytes */
    HLF_AT_CHECKSUM = 4088      /* u64 */
};

/* Sections. A reader ignores ids it does not know. */
typedef enum hlf_section_id {
    HLF_SECTION_POOL = 1,        /* 1 pool record */
    HLF_SECTION_STRINGS = 2,     /* bytes */
    HLF_SECTION_ADAPTERS = 3,    /* records, in the order of names */
    HLF_SECTION_MODULES = 4,     /* records */
    HLF_SECTION_ENTRIES = 5,     /* records: (adapter, module) pairs, adapter-major */
    HLF_SECTION_CHUNKS = 6,      /* records, ascending by offset */
    HLF_SECTION_STATS = 7,       /* records, one per adapter */
    HLF_SECTION_MEAN = 8,        /* float32, adapters x stride */
    HLF_SECTION_BASIS = 9,       /* float32, rows x stride */
    HLF_SECTION_SINGULAR = 10,   /* float64, one per row of the basis */
    HLF_SECTION_LEVERAGE = 11,   /* float64, m x q per adapter */
    HLF_SECTION_IMPORTANCE = 12, /* float32, one per ROC */
    HLF_SECTION_BLOBS = 13,      /* bytes: zstd frames */
    HLF_SECTION_WHITEN = 14,     /* float64, d x d; only in whitened pools */
    HLF_SECTION_RIVALS = 15,     /* records, adapters x K; optional */
    HLF_SECTION_LAST = 15
} hlf_section_id;

typedef enum hlf_element { HLF_ELEMENT_BYTES = 1, HLF_ELEMENT_F32 = 2, HLF_ELEMENT_F64 = 3, HLF_ELEMENT_RECORD = 4 } hlf_element;

enum {
    HLF_POOL_RECORD = 320,
    HLF_ADAPTER_RECORD = 320,
    HLF_MODULE_RECORD = 80,
    HLF_ENTRY_RECORD = 72,
    HLF_CHUNK_RECORD = 32,
    HLF_STATS_RECORD = 192,
    HLF_RIVAL_RECORD = 16
};

/* Feature flags of the header. A reader refuses a file with a required flag that it does not know. */
#define HLF_REQUIRED_KNOWN UINT64_C(0)

typedef enum hlf_codec { HLF_CODEC_STORE = 0, HLF_CODEC_ZSTD = 1 } hlf_codec;

typedef enum hlf_module_kind {
    HLF_MODULE_LINEAR = 0,
    HLF_MODULE_EMBEDDING = 1,
    HLF_MODULE_CONV1D = 2,
    HLF_MODULE_CONV2D = 3,
    HLF_MODULE_CONV3D = 4,
    HLF_MODULE_ATTENTION_QKV = 5, /* nn.MultiheadAttention's packed in_proj */
    HLF_MODULE_EXPERTS = 6,       /* a fused parameter of E experts */
    HLF_MODULE_KIND_LAST = 6
} hlf_module_kind;

enum { HLF_DIALECT_LAST = 3 }; /* 0 PEFT, 1 kohya, 2 diffusers, 3 MLX */

enum { /* adapter flags */
    HLF_ADAPTER_ROUTABLE = 1,
    HLF_ADAPTER_CALIBRATED = 2,
    HLF_ADAPTER_SQUEEZED = 4,
    HLF_ADAPTER_EXTRAS_DROPPED = 8,
    HLF_ADAPTER_CONDITIONAL = 16, /* the threshold field holds */
    HLF_ADAPTER_FLAGS_KNOWN = 31,
    HLF_ADAPTER_AT_FLAGS = 84 /* byte position in the record */
};

enum { /* entry flags */
    HLF_ENTRY_GAUGE = 1,    /* a gauge chunk turns the stored factors into components */
    HLF_ENTRY_SQUEEZED = 2, /* the stored factors are the components A', B' of a truncated SVD; scale is 1 */
    HLF_ENTRY_FLAGS_KNOWN = 3
};

enum { /* HDF5 filter masks in the chunk table */
    HLF_CHUNK_CODED = 0, /* one zstd frame over byte planes */
    HLF_CHUNK_RAW = 3    /* the elements as they are */
};

#define HLF_NONE UINT32_MAX /* no chunk */

#endif
