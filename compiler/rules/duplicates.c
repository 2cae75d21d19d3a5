/* Adapters that are there twice: the same bytes, or nearly the same update. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compiler/base/files.h"
#include "compiler/base/workers.h"
#include "compiler/rules/company_rules.h"
#include "compiler/rules/module_traits.h"
#include "format/sha256.h"

/* ---- The same bytes ---- */

typedef struct fingerprint {
    const hlc_member *member;
    uint64_t size;
    uint8_t sha256[HLF_SHA256_SIZE];
    bool known;
} fingerprint;

static int compare_fingerprints(const void *a, const void *b) {
    const fingerprint *x = a, *y = b;
    if (x->size != y->size) {
        return x->size < y->size ? -1 : 1;
    }
    const int order = memcmp(x->sha256, y->sha256, sizeof x->sha256);
    return order ? order : (x->member > y->member) - (x->member < y->member);
}

/* SHA-256 of the file's first and last bytes, or of all of it. */
static bool hash_file(const hlc_adapter *adapter, bool whole, uint8_t out[HLF_SHA256_SIZE], hlc_faults *faults) {
    enum { BLOCK = 1 << 18 };
    hlf_sha256 hash;
    hlf_sha256_init(&hash);
    uint8_t *block = malloc(BLOCK);
    bool good = block != NULL;
    if (!block) {
        hlc_out_of_memory(faults, adapter->path, BLOCK);
    }
    for (uint64_t at = 0; good && at < adapter->file_size;) {
        const uint64_t left = adapter->file_size - at;
        const size_t take = left < BLOCK ? (size_t)left : BLOCK;
        good = hlc_adapter_read_bytes(adapter, at, block, take, faults);
        if (good) {
            hlf_sha256_update(&hash, block, take);
        }
        at += take;
        if (!whole && adapter->file_size - at > BLOCK) {
            at = adapter->file_size - BLOCK;
        }
    }
    free(block);
    hlf_sha256_final(&hash, out);
    return good;
}

/* Hashes those that have a neighbour of their size and, on the second pass, of their first hash. */
static void hash_neighbours(fingerprint *prints, size_t count, bool whole) {
    for (size_t i = 0; i < count;) {
        size_t end = i + 1;
        while (end < count && prints[end].size == prints[i].size &&
               memcmp(prints[end].sha256, prints[i].sha256, sizeof prints[i].sha256) == 0) {
            end++;
        }
        for (size_t k = i; end - i > 1 && k < end; k++) {
            const hlc_subject *subject = prints[k].member->subject;
            prints[k].known = hash_file(subject->adapter, whole, prints[k].sha256, subject->found[HLC_CHECK_POOL_WIDE]);
        }
        i = end;
    }
    qsort(prints, count, sizeof *prints, compare_fingerprints);
}

static bool same_name(const hlc_member *a, const hlc_member *b) {
    return hlc_bytes_compare(a->name, a->name_length, b->name, b->name_length) == 0;
}

static void report_equal(const fingerprint *prints, size_t count) {
    for (size_t i = 1; i < count; i++) {
        const fingerprint *first = &prints[i - 1], *own = &prints[i];
        if (!own->known || !first->known || first->size != own->size ||
            memcmp(first->sha256, own->sha256, sizeof own->sha256) != 0 || same_name(first->member, own->member)) {
            continue;
        }
        char place[HLC_MEMBER_PLACE], other[HLC_PLACE_SIZE];
        hlc_member_fault(own->member, HLC_CHECK_POOL_WIDE, HLC_FAULT_SAME_BYTES,
                         hlc_member_place(own->member, "", NULL, 0, place), "it has the weights of %s, byte for byte",
                         hlc_place(other, "adapter", first->member->name, first->member->name_length));
    }
}

bool hlc_check_same_bytes(const hlc_company *company) {
    fingerprint *prints = calloc(company->count + 1, sizeof *prints);
    for (size_t i = 0; prints && i < company->count; i++) {
        const hlc_member *member = &company->members[i];
        prints[i].member = member;
        if (company->in_pool) {
            hlf_adapter_record adapter;
            hlf_index_adapter(&member->subject->pool.index, member->number, &adapter);
            memcpy(prints[i].sha256, adapter.content_sha256, sizeof prints[i].sha256);
            prints[i].known = true;
        } else {
            prints[i].size = member->subject->adapter->file_size;
        }
    }
    if (prints) {
        qsort(prints, company->count, sizeof *prints, compare_fingerprints);
        if (!company->in_pool) {
            hash_neighbours(prints, company->count, false);
            hash_neighbours(prints, company->count, true);
        }
        report_equal(prints, company->count);
    }
    free(prints);
    return prints != NULL;
}

/* ---- Nearly the same update ---- */

enum { EXACT_COMPARISONS = 8 }; /* of one member, with the candidates whose sketches are nearest */

/* A sketch keeps cosines to about 1/32: a candidate is nearer than the threshold less six times that. */
static const double sketch_margin = 0.19;

typedef struct candidate {
    size_t member;
    double cosine;
} candidate;

typedef struct search {
    const hlc_company *company;
    double threshold;
    hlc_factor_reader *readers;
    candidate *best; /* of each member: the nearest of those before it, EXACT_COMPARISONS of them */
    candidate *match;
} search;

static bool comparable(const hlc_member *a, const hlc_member *b) {
    return a->traits->known && b->traits->known && a->family == b->family && a->traits->norm2 > 0 &&
           b->traits->norm2 > 0;
}

static void find_candidates(const search *s, size_t i, candidate *best) {
    const hlc_member *members = s->company->members;
    size_t count = 0;
    for (size_t k = 0; k < i; k++) {
        if (!comparable(&members[i], &members[k])) {
            continue;
        }
        /* Norms that differ by a factor say nothing about the angle, so that they cannot spare the product. */
        const double cosine = hlc_sketch_cosine(members[i].traits, members[k].traits);
        size_t at = count;
        while (at > 0 && best[at - 1].cosine < cosine) {
            at--;
        }
        if (!(cosine > s->threshold - sketch_margin) || at == EXACT_COMPARISONS) {
            continue;
        }
        count += count < EXACT_COMPARISONS;
        memmove(best + at + 1, best + at, (count - at - 1) * sizeof *best);
        best[at] = (candidate){k, cosine};
    }
    for (; count < EXACT_COMPARISONS; count++) {
        best[count] = (candidate){SIZE_MAX, 0};
    }
}

/* Both factors of a module as rows; false, with nothing held, when reading fails. */
static bool load_rows(const hlc_member *member, size_t k, hlc_factor_reader *reader, double *rows[2],
                      hlc_faults *faults) {
    rows[0] = rows[1] = NULL;
    for (int side = 0; side < 2; side++) {
        hlc_factor factor;
        if (hlc_member_read(member, k, side ? HLF_SIDE_B : HLF_SIDE_A, reader, &factor, faults)) {
            rows[side] = hlc_factor_rows(&factor);
            hlc_factor_free(&factor);
        }
        if (!rows[side]) {
            free(rows[0]);
            return false;
        }
    }
    return true;
}

static double module_product(const hlc_member *a, size_t i, const hlc_member *b, size_t k, hlc_factor_reader *reader,
                             hlc_faults *faults) {
    hlc_member_module m, other;
    double *rows[2], *others[2], product = NAN;
    hlc_member_module_at(a, i, &m);
    hlc_member_module_at(b, k, &other);
    if (m.d_in != other.d_in || m.d_out != other.d_out || !load_rows(a, i, reader, rows, faults)) {
        return NAN;
    }
    if (load_rows(b, k, reader, others, faults)) {
        product = hlc_update_product(&m, rows[0], rows[1], &other, others[0], others[1]);
        free(others[0]);
        free(others[1]);
    }
    free(rows[0]);
    free(rows[1]);
    return product;
}

/* The exact cosine: modules that one of them lacks count as zero there. NaN when it cannot be had. */
static double exact_cosine(const hlc_member *a, const hlc_member *b, hlc_factor_reader *reader, hlc_faults *faults) {
    double product = 0;
    for (size_t i = 0, k = 0; i < a->module_count && k < b->module_count;) {
        hlc_member_module m, other;
        hlc_member_module_at(a, i, &m);
        hlc_member_module_at(b, k, &other);
        const int order = hlc_bytes_compare(m.name, m.name_length, other.name, other.name_length);
        if (order == 0) {
            product += module_product(a, i, b, k, reader, faults);
        }
        i += order <= 0;
        k += order >= 0;
    }
    return product / sqrt(a->traits->norm2 * b->traits->norm2);
}

static void compare_member(void *context, size_t i, size_t worker) {
    const search *s = context;
    const hlc_company *company = s->company;
    candidate *best = s->best + i * EXACT_COMPARISONS;
    hlc_faults *unheard = hlc_faults_create(); /* what cannot be read was told before */
    s->match[i] = (candidate){SIZE_MAX, 0};
    find_candidates(s, i, best);
    for (size_t k = 0; unheard && k < EXACT_COMPARISONS && best[k].member != SIZE_MAX; k++) {
        const double cosine =
            exact_cosine(&company->members[best[k].member], &company->members[i], &s->readers[worker], unheard);
        if (cosine >= s->threshold && cosine > s->match[i].cosine) {
            s->match[i] = (candidate){best[k].member, cosine};
        }
    }
    hlc_faults_destroy(unheard);
}

/* Equal bytes were told as such. */
static bool equal_content(const hlc_company *company, const hlc_member *a, const hlc_member *b) {
    hlf_adapter_record x, y;
    if (!company->in_pool) {
        uint8_t own[HLF_SHA256_SIZE], other[HLF_SHA256_SIZE];
        hlc_faults *unheard = hlc_faults_create();
        const bool equal = unheard && a->subject->adapter->file_size == b->subject->adapter->file_size &&
                           hash_file(a->subject->adapter, true, own, unheard) &&
                           hash_file(b->subject->adapter, true, other, unheard) && memcmp(own, other, sizeof own) == 0;
        hlc_faults_destroy(unheard);
        return equal;
    }
    hlf_index_adapter(&a->subject->pool.index, a->number, &x);
    hlf_index_adapter(&b->subject->pool.index, b->number, &y);
    return memcmp(x.content_sha256, y.content_sha256, sizeof x.content_sha256) == 0;
}

static void report_matches(const search *s) {
    const hlc_company *company = s->company;
    for (size_t i = 0; i < company->count; i++) {
        const hlc_member *own = &company->members[i];
        if (s->match[i].member == SIZE_MAX || same_name(own, &company->members[s->match[i].member]) ||
            equal_content(company, own, &company->members[s->match[i].member])) {
            continue;
        }
        char place[HLC_MEMBER_PLACE], other[HLC_PLACE_SIZE];
        const hlc_member *match = &company->members[s->match[i].member];
        hlc_member_fault(own, HLC_CHECK_POOL_WIDE, HLC_FAULT_NEAR_DUPLICATE, hlc_member_place(own, "", NULL, 0, place),
                         "its update has the cosine %.6f with that of %s", s->match[i].cosine,
                         hlc_place(other, "adapter", match->name, match->name_length));
    }
}

bool hlc_check_near_duplicates(const hlc_company *company) {
    const size_t threads = company->validation->threads;
    search s = {.company = company,
                .threshold = hlc_policy_threshold(company->validation->policy, HLC_FAULT_NEAR_DUPLICATE, 0),
                .readers = calloc(threads, sizeof *s.readers),
                .best = malloc((company->count + 1) * EXACT_COMPARISONS * sizeof *s.best),
                .match = malloc((company->count + 1) * sizeof *s.match)};
    bool good = s.readers && s.best && s.match;
    for (size_t i = 0; good && i < threads; i++) {
        good = hlc_factor_reader_open(&s.readers[i]);
    }
    good = good && hlc_parallel(threads, company->count, compare_member, &s);
    if (good) {
        report_matches(&s);
    }
    for (size_t i = 0; s.readers && i < threads; i++) {
        hlc_factor_reader_close(&s.readers[i]);
    }
    free(s.match);
    free(s.best);
    free(s.readers);
    return good;
}
