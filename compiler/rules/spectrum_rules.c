/* The screen for updates whose spectrum stands out, after arXiv 2602.15195: five statistics of the singular values and
 * entries of s B A, each compared with the other adapters of the family. It proves nothing: it says where to look
 * first. */
#include <math.h>
#include <stdlib.h>

#include "compiler/rules/company_rules.h"

static const char *const feature_names[HLC_FEATURES] = {[HLC_FEATURE_TOP] = "largest singular value",
                                                        [HLC_FEATURE_NORM] = "Frobenius norm",
                                                        [HLC_FEATURE_CONCENTRATION] = "share of the largest component",
                                                        [HLC_FEATURE_ENTROPY] = "spectral entropy",
                                                        [HLC_FEATURE_KURTOSIS] = "kurtosis of the entries"};

/* The scale of a feature is taken to be at least this: in a family of near-twins the spread says nothing. */
static const double least_deviation[HLC_FEATURES] = {[HLC_FEATURE_TOP] = 0.05,
                                                     [HLC_FEATURE_NORM] = 0.05,
                                                     [HLC_FEATURE_CONCENTRATION] = 0.01,
                                                     [HLC_FEATURE_ENTROPY] = 0.01,
                                                     [HLC_FEATURE_KURTOSIS] = 0.05};

static const double normal_consistency = 1.4826; /* median absolute deviation to standard deviation */

typedef struct screen {
    const hlc_member **members; /* of one family, with known traits */
    size_t count;
    double *values; /* count */
    double median[HLC_FEATURES], deviation[HLC_FEATURES];
} screen;

static void measure(screen *s) {
    for (size_t f = 0; f < HLC_FEATURES; f++) {
        for (size_t i = 0; i < s->count; i++) {
            s->values[i] = s->members[i]->traits->feature[f];
        }
        s->median[f] = hlc_middle(s->values, s->count);
        for (size_t i = 0; i < s->count; i++) {
            s->values[i] = fabs(s->members[i]->traits->feature[f] - s->median[f]);
        }
        s->deviation[f] = fmax(normal_consistency * hlc_middle(s->values, s->count), least_deviation[f]);
    }
}

static double score(const screen *s, size_t i, size_t f) {
    return (s->members[i]->traits->feature[f] - s->median[f]) / s->deviation[f];
}

static void report(const screen *s, size_t i, double threshold) {
    size_t worst = 0, beyond = 0;
    for (size_t f = 0; f < HLC_FEATURES; f++) {
        worst = fabs(score(s, i, f)) > fabs(score(s, i, worst)) ? f : worst;
        beyond += fabs(score(s, i, f)) > threshold;
    }
    if (beyond) {
        char place[HLC_MEMBER_PLACE];
        hlc_member_fault(s->members[i], HLC_CHECK_SPECTRUM, HLC_FAULT_SPECTRUM,
                         hlc_member_place(s->members[i], "", NULL, 0, place),
                         "its %s is %.1f deviations %s the median of %zu adapters (%zu of %d statistics stand out)",
                         feature_names[worst], fabs(score(s, i, worst)), score(s, i, worst) > 0 ? "above" : "below",
                         s->count, beyond, HLC_FEATURES);
    }
}

bool hlc_check_spectra(const hlc_company *company) {
    const hlc_policy *policy = company->validation->policy;
    const double threshold = hlc_policy_threshold(policy, HLC_FAULT_SPECTRUM, 0);
    const double least = hlc_policy_threshold(policy, HLC_FAULT_SPECTRUM, 1);
    screen s = {.members = malloc((company->count + 1) * sizeof *s.members),
                .values = malloc((company->count + 1) * sizeof *s.values)};
    const bool good = s.members && s.values;
    for (size_t family = 0; good && family < company->count; family++) {
        s.count = 0;
        for (size_t i = family; company->members[family].family == family && i < company->count; i++) {
            const hlc_member *member = &company->members[i];
            if (member->family == family && member->traits->known && member->traits->modules) {
                s.members[s.count++] = member;
            }
        }
        if (s.count && (double)s.count >= least) {
            measure(&s);
            for (size_t i = 0; i < s.count; i++) {
                report(&s, i, threshold);
            }
        }
    }
    free(s.values);
    free(s.members);
    return good;
}
