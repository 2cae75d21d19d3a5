/* The second pass, an (adapter, module) pair at a time: read the weights, find the components, encode the chunks. */
#ifndef HILORA_COMPILER_ENTRY_H
#define HILORA_COMPILER_ENTRY_H

#include "compiler/emit/codec.h"
#include "compiler/emit/plan.h"

typedef struct hlc_coded_chunk {
    void *bytes; /* malloc'd; NULL where the entry has no such chunk */
    size_t size;
    uint64_t checksum;
} hlc_coded_chunk;

typedef struct hlc_coded_entry {
    hlc_coded_chunk a, b, gauge;
    float *importance; /* of the entry's components: singular values of s B A, or |s| |a_j| |b_j| of raw ones */
    uint8_t sha256_a[HLF_SHA256_SIZE],
        sha256_b[HLF_SHA256_SIZE]; /* of the rows of A and of B transposed, in the source's type; squeezed: as stored */
    uint8_t sha256_e[HLF_SHA256_SIZE]; /* of AdaLoRA's diagonal as float64 */
    double squeeze_error;          /* relative Frobenius error; 0 unless squeezed */
    hlc_faults *faults; /* its own */
    bool failed;     /* there is a fault: nothing else holds, yet the run goes on to find the other faults */
    bool non_finite; /* a weight is NaN or infinite (raw components only: svd refuses it) */
} hlc_coded_entry;

/* NULL only when memory is out. Safe from several threads, each with its own encoder and cache. */
hlc_coded_entry *hlc_code_entry(const hlc_compile_options *options, const hlc_inputs *inputs, const hlc_plan_entry *entry,
                                hlc_encoder *encoder, hlc_tensor_cache *cache);
void hlc_coded_entry_free(hlc_coded_entry *entry);

#endif
