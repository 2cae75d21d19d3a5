/* The rules on sample embeddings (HL06xx). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/rules/company_rules.h"

/* ---- One adapter's samples ---- */

typedef struct row_list {
    const float *values;
    size_t dim;
} row_list;

static int compare_rows(const void *a, const void *b, void *context) {
    const row_list *list = context;
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    const int order =
        memcmp(list->values + x * list->dim, list->values + y * list->dim, list->dim * sizeof *list->values);
    return order ? order : (x > y) - (x < y);
}

/* How many samples are copies of another; SIZE_MAX when memory is out. */
static size_t count_repeated(const hlc_embeddings *embeddings) {
    row_list list = {embeddings->values, embeddings->dim};
    size_t *order = malloc((embeddings->samples + 1) * sizeof *order), repeated = 0;
    if (!order) {
        return SIZE_MAX;
    }
    for (size_t i = 0; i < embeddings->samples; i++) {
        order[i] = i;
    }
    qsort_r(order, embeddings->samples, sizeof *order, compare_rows, &list);
    for (size_t i = 1; i < embeddings->samples; i++) {
        repeated += memcmp(list.values + order[i - 1] * list.dim, list.values + order[i] * list.dim,
                           list.dim * sizeof *list.values) == 0;
    }
    free(order);
    return repeated;
}

static void report_few(const hlc_member *member, const hlc_policy *policy, size_t samples) {
    char place[HLC_MEMBER_PLACE];
    if (samples >= 2 && (double)samples < hlc_policy_threshold(policy, HLC_FAULT_FEW_SAMPLES, 0)) {
        hlc_member_fault(member, HLC_CHECK_SAMPLES, HLC_FAULT_FEW_SAMPLES, hlc_member_place(member, "", NULL, 0, place),
                         "%zu samples; about 20 are advised", samples);
    }
}

static void report_uncalibrated(const hlc_member *member, const char *reason) {
    char place[HLC_MEMBER_PLACE];
    hlc_member_fault(member, HLC_CHECK_SAMPLES, HLC_FAULT_UNCALIBRATED, hlc_member_place(member, "", NULL, 0, place),
                     "%s, so that nothing says how likely its own prompts are", reason);
}

static bool check_own_samples(const hlc_member *member, const hlc_policy *policy) {
    const hlc_embeddings *embeddings = member->subject->embeddings;
    if (!embeddings || embeddings->samples < 2) {
        return true;
    }
    const size_t samples = embeddings->samples, repeated = count_repeated(embeddings);
    report_few(member, policy, samples);
    if (repeated != SIZE_MAX &&
        (double)repeated > hlc_policy_threshold(policy, HLC_FAULT_SAME_SAMPLES, 0) * (double)samples) {
        hlc_member_fault(member, HLC_CHECK_SAMPLES, HLC_FAULT_SAME_SAMPLES, NULL,
                         "%zu of its %zu samples repeat others", repeated, samples);
    }
    if (samples == 2 || repeated == samples - 1) {
        report_uncalibrated(member, samples == 2 ? "there are two samples" : "all its samples are equal");
    }
    return repeated != SIZE_MAX;
}

static void check_stored_samples(const hlc_member *member, const hlc_policy *policy) {
    const hlf_index *index = &member->subject->pool.index;
    hlf_stats_record stats;
    hlf_index_stats(index, member->number, &stats);
    report_few(member, policy, stats.m);
    const uint32_t flags = hlf_index_adapter_flags(index, member->number);
    if ((flags & HLF_ADAPTER_ROUTABLE) && !(flags & HLF_ADAPTER_CALIBRATED)) {
        report_uncalibrated(member, stats.m == 2 ? "there are two samples" : "all its samples are equal");
    }
}

bool hlc_check_samples(const hlc_company *company) {
    bool good = true;
    for (size_t i = 0; i < company->count; i++) {
        const hlc_member *member = &company->members[i];
        if (company->in_pool) {
            check_stored_samples(member, company->validation->policy);
        } else {
            good = check_own_samples(member, company->validation->policy) && good;
        }
    }
    return good;
}

/* ---- What a family's samples have in common ---- */

enum { NUMBER = 24 };

typedef struct claim {
    const hlc_member *member;
    const char *text; /* what its file says */
} claim;

static int compare_claims(const void *a, const void *b) {
    const claim *x = a, *y = b;
    if (x->member->family != y->member->family) {
        return x->member->family < y->member->family ? -1 : 1;
    }
    const int order = strcmp(x->text, y->text);
    return order ? order : (x->member > y->member) - (x->member < y->member);
}

static void report_claims(const claim *claims, size_t count, hlc_fault_kind kind, const char *what) {
    size_t common = 0, votes = 0;
    for (size_t i = 0; i < count;) {
        size_t end = i + 1;
        while (end < count && strcmp(claims[i].text, claims[end].text) == 0) {
            end++;
        }
        if (end - i > votes) {
            votes = end - i;
            common = i;
        }
        i = end;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(claims[i].text, claims[common].text) != 0) {
            char own[HLC_PLACE_SIZE], other[HLC_PLACE_SIZE];
            hlc_member_fault(claims[i].member, HLC_CHECK_SAMPLES, kind, NULL,
                             "its %s differs from %s of %zu other adapters",
                             hlc_place(own, what, claims[i].text, strlen(claims[i].text)),
                             hlc_place(other, what, claims[common].text, strlen(claims[common].text)), votes);
        }
    }
}

typedef const char *claim_text(const hlc_embeddings *embeddings, char number[NUMBER]);

static const char *dimension_of(const hlc_embeddings *embeddings, char number[NUMBER]) {
    snprintf(number, NUMBER, "%zu", embeddings->dim);
    return number;
}

static const char *encoder_of(const hlc_embeddings *embeddings, char number[NUMBER]) {
    (void)number;
    return embeddings->encoder;
}

static const char *revision_of(const hlc_embeddings *embeddings, char number[NUMBER]) {
    (void)number;
    return embeddings->revision;
}

static const char *prefix_of(const hlc_embeddings *embeddings, char number[NUMBER]) {
    (void)number;
    return embeddings->prefix;
}

static bool has_length_one(const hlc_embeddings *embeddings) {
    for (size_t i = 0; i < embeddings->samples; i++) {
        double square = 0;
        for (size_t k = 0; k < embeddings->dim; k++) {
            const double v = embeddings->values[i * embeddings->dim + k];
            square += v * v;
        }
        if (fabs(sqrt(square) - 1) > 1e-3) {
            return false;
        }
    }
    return true;
}

/* A file that says nothing about its samples, which have length 1, fits either. */
static const char *normalization_of(const hlc_embeddings *embeddings, char number[NUMBER]) {
    (void)number;
    if (embeddings->normalized == HLC_NORMALIZED_YES) {
        return "length 1";
    }
    return embeddings->normalized == HLC_NORMALIZED_NO ? "any length"
           : has_length_one(embeddings)                ? NULL
                                                       : "any length";
}

static void compare_family_claims(claim *claims, char (*numbers)[NUMBER], const hlc_company *company, claim_text *text,
                                  hlc_fault_kind kind, const char *what) {
    size_t count = 0;
    for (size_t i = 0; i < company->count; i++) {
        const hlc_embeddings *embeddings = company->members[i].subject->embeddings;
        claim *own = &claims[count];
        own->member = &company->members[i];
        own->text = embeddings ? text(embeddings, numbers[i]) : NULL;
        count += own->text != NULL;
    }
    qsort(claims, count, sizeof *claims, compare_claims);
    for (size_t i = 0; i < count;) {
        size_t end = i + 1;
        while (end < count && claims[end].member->family == claims[i].member->family) {
            end++;
        }
        report_claims(claims + i, end - i, kind, what);
        i = end;
    }
}

bool hlc_check_agreement(const hlc_company *company) {
    static const struct {
        claim_text *text;
        hlc_fault_kind kind;
        const char *what;
    } claims_of[] = {{dimension_of, HLC_FAULT_DIMENSION, "dimension"},
                     {encoder_of, HLC_FAULT_ENCODER, "encoder"},
                     {revision_of, HLC_FAULT_ENCODER, "revision"},
                     {prefix_of, HLC_FAULT_ENCODER, "prefix"},
                     {normalization_of, HLC_FAULT_NORMALIZATION, "normalisation"}};
    if (company->in_pool) {
        return true;
    }
    claim *claims = malloc((company->count + 1) * sizeof *claims);
    char(*numbers)[NUMBER] = malloc((company->count + 1) * sizeof *numbers);
    const bool good = claims && numbers;
    for (size_t i = 0; good && i < sizeof claims_of / sizeof claims_of[0]; i++) {
        compare_family_claims(claims, numbers, company, claims_of[i].text, claims_of[i].kind, claims_of[i].what);
    }
    free(numbers);
    free(claims);
    return good;
}
