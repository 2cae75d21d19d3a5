/* The rules on the routing certificate (HL07xx): how well adapters can be told apart by their samples. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "compiler/rules/company_rules.h"
/* The rivals of some members, by their positions among these. */
typedef struct rival_lists {
    const hlc_member **members;
    size_t count, kept;
    const uint32_t *nearest;
    const double *distance, *sum;
} rival_lists;

static bool lists(const rival_lists *r, size_t i, size_t rival) {
    for (size_t k = 0; k < r->kept; k++) {
        if (r->nearest[i * r->kept + k] == rival) {
            return true;
        }
    }
    return false;
}

/* A pair is told once: with the later of the two, unless that one has nearer rivals than it could list. */
static void report_rivals(const rival_lists *r, size_t i, double least) {
    for (size_t k = 0; k < r->kept; k++) {
        const uint32_t rival = r->nearest[i * r->kept + k];
        const double distance = r->distance[i * r->kept + k];
        if (rival >= r->count || !(distance < least) || (rival > i && lists(r, rival, i))) {
            continue;
        }
        char place[HLC_MEMBER_PLACE], other[HLC_PLACE_SIZE];
        const hlc_member *own = r->members[i], *its = r->members[rival];
        hlc_member_fault(own, HLC_CHECK_ROUTING, HLC_FAULT_RIVALS, hlc_member_place(own, "", NULL, 0, place),
                         "its samples are %.3g nats from those of %s (Bhattacharyya distance)", distance,
                         hlc_place(other, "adapter", its->name, its->name_length));
    }
}

static void report_lists(const rival_lists *r, const hlc_policy *policy) {
    const double least = hlc_policy_threshold(policy, HLC_FAULT_RIVALS, 0);
    const double most = hlc_policy_threshold(policy, HLC_FAULT_CERTIFICATE, 0);
    for (size_t i = 0; i < r->count; i++) {
        report_rivals(r, i, least);
        const double miss = fmin(1, r->sum[i] / 3);
        if (isfinite(r->sum[i]) && miss > most) {
            char place[HLC_MEMBER_PLACE];
            hlc_member_fault(
                r->members[i], HLC_CHECK_ROUTING, HLC_FAULT_CERTIFICATE,
                hlc_member_place(r->members[i], "", NULL, 0, place),
                "the chance that it is not among the best 3 for a prompt of its own is bounded by %.3g only", miss);
        }
    }
}

static bool check_pool(const hlc_company *company) {
    const hlf_index *index = &company->members[0].subject->pool.index;
    const size_t count = company->count, kept = index->pool.rivals;
    const uint8_t *records = hlf_index_section(index, HLF_SECTION_RIVALS);
    const hlc_member **members = malloc((count + 1) * sizeof *members);
    uint32_t *nearest = malloc((count * kept + 1) * sizeof *nearest);
    double *distance = malloc((count * kept + 1) * sizeof *distance), *sum = malloc((count + 1) * sizeof *sum);
    const bool good = members && nearest && distance && sum;
    for (size_t i = 0; good && i < count; i++) {
        hlf_stats_record stats;
        hlf_index_stats(index, (uint32_t)i, &stats);
        members[i] = &company->members[i];
        sum[i] = stats.confusion;
    }
    for (size_t i = 0; good && i < count * kept; i++) {
        hlf_rival_record rival;
        hlf_rival_decode(&rival, records + i * HLF_RIVAL_RECORD);
        nearest[i] = rival.adapter;
        distance[i] = rival.distance;
    }
    if (good) {
        report_lists(&(rival_lists){members, count, kept, nearest, distance, sum}, company->validation->policy);
    }
    free(sum);
    free(distance);
    free(nearest);
    free(members);
    return good;
}

bool hlc_check_routing(const hlc_company *company) {
    return !company->in_pool || company->count == 0 || check_pool(company);
}
