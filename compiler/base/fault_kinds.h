/* What kind of fault something is. It decides the exit status, and which rule of hilora-validate a fault breaks: from
 * HLC_FAULT_UNUSED_EXCEPTION on, the number of a kind is that of its rule, and RESOURCE is that of HL0101 (docs/VALIDATE.md). Numbers are never given a new
 * meaning. */
#ifndef HILORA_COMPILER_FAULT_KINDS_H
#define HILORA_COMPILER_FAULT_KINDS_H

/* Exit status: 1 for INPUT and all that follow RESOURCE, 2 for MISUSE, 3 for RESOURCE; the highest wins except that MISUSE is
 * found before any work starts. */
typedef enum hlc_fault_kind {
    HLC_FAULT_INPUT,
    HLC_FAULT_MISUSE,
    HLC_FAULT_RESOURCE, /* something missing, or refused by the system */

    /* The rules file of hilora-validate. */
    HLC_FAULT_UNUSED_EXCEPTION = 11,
    HLC_FAULT_EXPIRED_EXCEPTION = 12,

    /* Files. */
    HLC_FAULT_CHANGED = 102,      /* during the run */
    HLC_FAULT_NO_ADAPTER = 103,   /* where one was named */
    HLC_FAULT_FOREIGN_FILE = 104, /* no safetensors file but a pickle, a page, ... */
    HLC_FAULT_HEADER = 105,       /* of a safetensors file */
    HLC_FAULT_LAYOUT = 106,       /* of its tensors */
    HLC_FAULT_AMBIGUOUS = 107,    /* two files could be meant */
    HLC_FAULT_SHARED_CONFIG = 108,

    /* The configuration. */
    HLC_FAULT_NO_CONFIG = 201,
    HLC_FAULT_CONFIG_JSON = 202,
    HLC_FAULT_CONFIG = 203, /* a value that cannot be */
    HLC_FAULT_METHOD = 204, /* no LoRA */
    HLC_FAULT_FEATURE = 205,
    HLC_FAULT_DORA = 206,
    HLC_FAULT_CONFIG_EXTRAS = 207, /* something trained that is no low-rank update */
    HLC_FAULT_CHANGED_BASE = 208,  /* the initialisation changed the base model */
    HLC_FAULT_UNKNOWN_KEY = 209,
    HLC_FAULT_COVERAGE = 210, /* the file's modules are not the configuration's */
    HLC_FAULT_RSLORA = 211,
    HLC_FAULT_PATTERNS = 212,
    HLC_FAULT_ZERO_SCALE = 213,

    /* The tensors. */
    HLC_FAULT_NO_LORA = 301,
    HLC_FAULT_HALF = 302,          /* lora_A without lora_B, or the reverse */
    HLC_FAULT_RANKS_DIFFER = 303,  /* of lora_A and lora_B */
    HLC_FAULT_RANK_CONFIG = 304,   /* another than the configuration's */
    HLC_FAULT_TENSOR = 305,        /* a shape, type or name that no weight has */
    HLC_FAULT_TWICE = 306,         /* a module */
    HLC_FAULT_EXTRAS = 307,        /* tensors that are no low-rank update */
    HLC_FAULT_OTHER_METHOD = 308,  /* tensors of another method or dialect */
    HLC_FAULT_VOCABULARY = 309,    /* an embedding saved whole */
    HLC_FAULT_MIXED_TYPES = 310,
    HLC_FAULT_UNSUPPORTED = 311,   /* parts of an update that are not read */
    HLC_FAULT_NOT_IN_BASE = 312,   /* no module of the adapter is in the base model */
    HLC_FAULT_PARTLY_IN_BASE = 313,
    HLC_FAULT_BASE_SHAPE = 314,
    HLC_FAULT_BASE_MODEL = 315,    /* what is to be the base model is none */

    /* The numbers. */
    HLC_FAULT_NOT_FINITE = 401,
    HLC_FAULT_F16_OVERFLOW = 402,
    HLC_FAULT_ZERO_UPDATE = 403,
    HLC_FAULT_DEAD_COMPONENTS = 404,

    /* The adapters of one pool. */
    HLC_FAULT_SAME_NAME = 501,
    HLC_FAULT_SAME_BYTES = 502,
    HLC_FAULT_NEAR_DUPLICATE = 503,
    HLC_FAULT_HIGH_RANK = 504,
    HLC_FAULT_OTHER_SHAPE = 505,
    HLC_FAULT_OTHER_BASE = 506,
    HLC_FAULT_NOTHING_SHARED = 507,

    /* Sample embeddings. */
    HLC_FAULT_NO_SAMPLES = 601,
    HLC_FAULT_EMBEDDINGS = 602,
    HLC_FAULT_SAMPLE_NOT_FINITE = 603,
    HLC_FAULT_TOO_FEW_SAMPLES = 604,
    HLC_FAULT_FEW_SAMPLES = 605,
    HLC_FAULT_SAME_SAMPLES = 606,
    HLC_FAULT_DIMENSION = 607,
    HLC_FAULT_ENCODER = 608,
    HLC_FAULT_NORMALIZATION = 609,

    /* The router's certificate. */
    HLC_FAULT_RIVALS = 701,
    HLC_FAULT_CERTIFICATE = 702,
    HLC_FAULT_UNCALIBRATED = 703,

    /* The spectrum of the updates. */
    HLC_FAULT_SPECTRUM = 801,

    /* A pool. */
    HLC_FAULT_POOL_STRUCTURE = 901,
    HLC_FAULT_POOL_CONTENT = 902, /* a checksum, a statistic, a total */
    HLC_FAULT_CHUNK = 903,        /* one that does not decode */
    HLC_FAULT_CONTENT_HASH = 904,
    HLC_FAULT_SOURCE_DIFFERS = 905,
    HLC_FAULT_NO_SOURCE = 906
} hlc_fault_kind;

#endif
