/* What hilora-inspect shows, gathered once for both of its outputs. */
#ifndef HILORA_CLI_INSPECT_H
#define HILORA_CLI_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

#include "compiler/cli/common.h"
#include "compiler/pool/spectrum.h"
#include "format/index.h"

typedef struct hlc_pool_totals {
    uint64_t weights, gauges;              /* stored bytes of the chunks */
    uint64_t index, route;                 /* bytes of the sections: the tables; mean to leverage, whitening, rivals */
    uint64_t other;                        /* header, HDF5's own structures, padding */
    uint64_t sources, tensors, parameters; /* sums over the adapters: weight files, tensors in them, numbers in these */
    uint32_t routable;
} hlc_pool_totals;

typedef struct hlc_inspection {
    const char *path;
    const hlf_index *index;
    uint32_t first, end; /* the adapters to show */
    bool one;            /* an adapter was named: its modules are shown too */
    bool rivals;         /* and the modules of squeezed adapters */
    hlc_pool_totals totals;
    float *importance; /* room for the ranks of one entry */
} hlc_inspection;

/* An adapter with what its entries sum up to. */
typedef struct hlc_adapter_view {
    hlf_adapter_record record;
    hlf_stats_record stats;
    uint64_t tensors;                      /* bytes of the tensors in the source */
    unsigned source_dtypes, stored_dtypes; /* bit d: some factor has hlf_dtype d */
} hlc_adapter_view;

/* One adapted module of an adapter. */
typedef struct hlc_entry_view {
    hlf_entry_record record;
    hlf_module_record module;
    uint64_t bytes[3]; /* stored, by hlf_side; 0 where the entry has no such chunk */
    hlc_spectrum spectrum;
} hlc_entry_view;

/* Fills the totals and makes room; false when memory is out. Reads the tables that hlf_index_open verified. */
bool hlc_inspection_begin(hlc_inspection *inspection);
void hlc_inspection_end(hlc_inspection *inspection);

/* Whether the modules of an adapter are shown. */
bool hlc_inspection_has_entries(const hlc_inspection *inspection, const hlf_adapter_record *adapter);
void hlc_adapter_view_get(const hlc_inspection *inspection, uint32_t adapter, hlc_adapter_view *out);
/* Leaves the importances of the entry in inspection->importance. The section must have been verified. */
void hlc_entry_view_get(const hlc_inspection *inspection, uint32_t entry, hlc_entry_view *out);
/* Rival `place` (below pool.rivals) of an adapter. The section must have been verified. */
void hlc_inspection_rival(const hlc_inspection *inspection, uint32_t adapter, uint32_t place, hlf_rival_record *out);

/* The certificate is told for so many k: the best one, three and eight. */
enum { HLC_CERTIFIED = 3 };
extern const uint32_t hlc_certified_k[HLC_CERTIFIED];

/* min(1, confusion / k): by the fitted Gaussians, the most that inputs of this adapter may miss the k best scores. NaN
 * where the sum was not computed. */
void hlc_certified_bounds(const hlf_stats_record *stats, double bounds[HLC_CERTIFIED]);

/* The bounds of the whole pool, beside what was seen when samples were left out. */
typedef struct hlc_certificate_view {
    uint32_t adapters;                                /* with a bound */
    double mean[HLC_CERTIFIED], worst[HLC_CERTIFIED]; /* mean: every adapter by its samples; NaN without any */
    double seen[HLC_CERTIFIED];                       /* NaN where nothing was measured, as for 8 */
} hlc_certificate_view;
void hlc_certificate_view_get(const hlc_inspection *inspection, hlc_certificate_view *out);

/* "svd", "raw", "mixed" and so on; "?" for numbers of a later version. */
const char *hlc_decompose_name(uint32_t decompose);
const char *hlc_shrinkage_name(uint32_t shrinkage);
const char *hlc_gate_name(uint32_t gate);
const char *hlc_kind_name(uint32_t kind);
const char *hlc_dialect_name(uint32_t dialect);
/* "1.5.4" from ZSTD_versionNumber(). Returns buffer. */
const char *hlc_codec_version_text(char buffer[16], uint32_t version);

/* One JSON document on standard output; the exit status. */
int hlc_inspect_json(const hlc_program *program, const hlc_inspection *inspection);
void hlc_inspect_print(const hlc_inspection *inspection);
/* The part of it about rivals. */
void hlc_inspect_print_rivals(const hlc_inspection *inspection);

#endif
