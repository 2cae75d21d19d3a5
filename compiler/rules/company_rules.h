/* The rules that look at several adapters (HL05xx to HL08xx). Each adds to the lists of the members' subjects; false
 * when memory is out. */
#ifndef HILORA_RULES_COMPANY_RULES_H
#define HILORA_RULES_COMPANY_RULES_H

#include "compiler/rules/members.h"

/* Fills the members' families, and names those that share nothing with the largest. */
bool hlc_check_families(hlc_company *company);
/* Shapes, base models and ranks within a family. */
bool hlc_check_shapes(const hlc_company *company);
bool hlc_check_bases(const hlc_company *company);
bool hlc_check_ranks(const hlc_company *company);
/* Equal weights under two names: by the files' bytes, or by a pool's content hashes. */
bool hlc_check_same_bytes(const hlc_company *company);
/* Updates that are nearly the same: candidates by their sketches, then exactly. Needs the traits. */
bool hlc_check_near_duplicates(const hlc_company *company);
/* Updates whose spectrum stands out. Needs the traits. */
bool hlc_check_spectra(const hlc_company *company);
/* What one adapter's samples are worth; then beside those of its family. */
bool hlc_check_samples(const hlc_company *company);
bool hlc_check_agreement(const hlc_company *company);
/* Adapters that the router cannot tell apart, by the rivals and the certificate that a pool holds. */
bool hlc_check_routing(const hlc_company *company);
/* A pool beside the files that it was made of. */
bool hlc_check_sources(const hlc_company *pool);
/* Whether one of the files of the adapters that --sources names, which may be NULL, is the one that is_file knows. */
bool hlc_is_source(const hlc_validation *validation, bool (*is_file)(const char *path, const void *context),
                   const void *context);

/* The median of n >= 1 values, which are reordered. */
double hlc_middle(double *values, size_t n);

#endif
