/* The adapters that rules compare with each other, wherever they lie: in files of their own, or in a pool. */
#ifndef HILORA_RULES_MEMBERS_H
#define HILORA_RULES_MEMBERS_H

#include "compiler/rules/validation.h"

enum { HLC_SKETCH_SIDE = 32, HLC_SKETCH = HLC_SKETCH_SIDE * HLC_SKETCH_SIDE };

/* How the singular values of an update are spread, and its entries: means over the modules. */
typedef enum hlc_feature {
    HLC_FEATURE_TOP,           /* log of the largest singular value */
    HLC_FEATURE_NORM,          /* log of the Frobenius norm */
    HLC_FEATURE_CONCENTRATION, /* share of the largest singular value in the energy */
    HLC_FEATURE_ENTROPY,       /* of the shares, over the log of the rank; 0 for rank 1 */
    HLC_FEATURE_KURTOSIS,      /* log of the kurtosis of the entries */
    HLC_FEATURES
} hlc_feature;

/* What one pass over the weights keeps (hlc_check_weights). */
typedef struct hlc_traits {
    bool known;   /* every module was read, and is finite */
    double norm2; /* |update|_F^2 over all modules */
    double feature[HLC_FEATURES];
    size_t modules;            /* that the features are means of */
    double sketch[HLC_SKETCH]; /* linear in the update; inner products are kept to a few percent */
} hlc_traits;

typedef struct hlc_member {
    hlc_subject *subject;
    const char *name; /* counted */
    size_t name_length;
    uint32_t number; /* in the pool; 0 for an adapter's own file */
    const char *base;
    size_t base_length;
    uint32_t rank;
    size_t module_count;
    size_t family; /* members that share a module, directly or by others, have one number */
    size_t family_size;
    hlc_traits *traits; /* NULL without --deep */
} hlc_member;

/* All adapters that are meant for one pool: those of the command line, or those of a pool. */
typedef struct hlc_company {
    const hlc_validation *validation;
    bool in_pool;
    hlc_member *members; /* in the order of names */
    size_t count;
} hlc_company;

/* The opened adapters among the subjects, or the adapters of one pool. False when memory is out. */
bool hlc_company_of_adapters(const hlc_validation *validation, hlc_company *out);
bool hlc_company_of_pool(const hlc_validation *validation, hlc_subject *pool, hlc_company *out);
void hlc_company_free(hlc_company *company);

typedef struct hlc_member_module {
    const char *name; /* counted */
    size_t name_length;
    uint32_t kind;
    uint64_t d_in, d_out;
    uint32_t rank;
    double scale;
    hlf_dtype dtype_a, dtype_b; /* in the source; of squeezed entries as stored */
} hlc_member_module;

/* k < member->module_count, in the order of names. */
void hlc_member_module_at(const hlc_member *member, size_t k, hlc_member_module *out);

/* "adapter 'x'", in a pool, and "module 'y'" or "tensor 'y'" behind it, as a place in the member's file. Either may be
 * missing; NULL when both are. */
enum { HLC_MEMBER_PLACE = 2 * HLC_PLACE_SIZE + 4 };
const char *hlc_member_place(const hlc_member *member, const char *what, const char *name, size_t length,
                             char buffer[HLC_MEMBER_PLACE]);
/* The file that its faults name. */
const char *hlc_member_file(const hlc_member *member);
/* A finding of a rule with the rule's own severity and remedy. */
void hlc_member_fault(const hlc_member *member, hlc_check check, hlc_fault_kind kind, const char *place,
                      const char *reason, ...) __attribute__((format(printf, 5, 6)));

/* What reading a matrix needs, one per thread. */
typedef struct hlc_factor_reader {
    hlc_encoder *coder;
    hlc_tensor_cache cache;
} hlc_factor_reader;
bool hlc_factor_reader_open(hlc_factor_reader *reader);
void hlc_factor_reader_close(hlc_factor_reader *reader);

/* The elements of A or B as they are stored: rows x cols of dtype; B lies d_out x rank in some files, rank x d_out in
 * others and in every pool (`by_component`). */
typedef struct hlc_factor {
    void *bytes; /* hlc_factor_free */
    double *diagonal; /* of A: AdaLoRA's factor of each component, which hlc_factor_rows applies; else NULL */
    uint64_t rows, cols;
    hlf_dtype dtype;
    bool by_component;
    const char *key; /* the tensor's name, or the side's; counted */
    size_t key_length;
} hlc_factor;
bool hlc_member_read(const hlc_member *member, size_t k, hlf_side side, hlc_factor_reader *reader, hlc_factor *out,
                     hlc_faults *faults);
void hlc_factor_free(hlc_factor *factor);
/* rank x d float64, a component a row; the caller frees it. NULL when memory is out. */
double *hlc_factor_rows(const hlc_factor *factor);

#endif
