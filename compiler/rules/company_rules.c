#include "compiler/rules/company_rules.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Families: members that share a module, directly or by others ---- */

typedef struct shared_name {
    const char *name;
    size_t length;
    size_t member, module;
} shared_name;

static int compare_shared(const void *a, const void *b) {
    const shared_name *x = a, *y = b;
    const int order = hlc_bytes_compare(x->name, x->length, y->name, y->length);
    return order ? order : (x->member > y->member) - (x->member < y->member);
}

/* Every module of every member, sorted by name; the caller frees it. NULL when memory is out. */
static shared_name *sorted_modules(const hlc_company *company, size_t *count) {
    *count = 0;
    for (size_t i = 0; i < company->count; i++) {
        *count += company->members[i].module_count;
    }
    shared_name *names = malloc((*count + 1) * sizeof *names), *at = names;
    for (size_t i = 0; names && i < company->count; i++) {
        for (size_t k = 0; k < company->members[i].module_count; k++) {
            hlc_member_module module;
            hlc_member_module_at(&company->members[i], k, &module);
            *at++ = (shared_name){module.name, module.name_length, i, k};
        }
    }
    if (names) {
        qsort(names, *count, sizeof *names, compare_shared);
    }
    return names;
}

static bool same_name(const shared_name *a, const shared_name *b) {
    return a->length == b->length && memcmp(a->name, b->name, a->length) == 0;
}

/* The representative of i's set, with the path to it shortened. */
static size_t root_of(hlc_member *members, size_t i) {
    while (members[i].family != i) {
        members[i].family = members[members[i].family].family;
        i = members[i].family;
    }
    return i;
}

static void name_strangers(const hlc_company *company) {
    size_t largest = 0;
    for (size_t i = 0; i < company->count; i++) {
        largest = company->members[i].family_size > company->members[largest].family_size ? i : largest;
    }
    for (size_t i = 0; i < company->count; i++) {
        const hlc_member *member = &company->members[i];
        if (member->family != company->members[largest].family) {
            hlc_member_fault(member, HLC_CHECK_POOL_WIDE, HLC_FAULT_NOTHING_SHARED, NULL,
                             "it has no module in common with %zu of the %zu adapters given",
                             company->count - member->family_size, company->count);
        }
    }
}

bool hlc_check_families(hlc_company *company) {
    size_t count;
    if (company->in_pool) {
        return true; /* one family from the start: the pool's tables agree on every module */
    }
    shared_name *names = sorted_modules(company, &count);
    if (!names) {
        return false;
    }
    for (size_t i = 0; i < company->count; i++) {
        company->members[i].family = i;
    }
    for (size_t i = 1; i < count; i++) {
        if (same_name(&names[i - 1], &names[i])) {
            const size_t a = root_of(company->members, names[i - 1].member),
                         b = root_of(company->members, names[i].member);
            company->members[a > b ? a : b].family = a < b ? a : b;
        }
    }
    for (size_t i = 0; i < company->count; i++) {
        company->members[i].family = root_of(company->members, i);
        company->members[company->members[i].family].family_size++;
    }
    for (size_t i = 0; i < company->count; i++) {
        company->members[i].family_size = company->members[company->members[i].family].family_size;
    }
    free(names);
    name_strangers(company);
    return true;
}

/* ---- Shapes ---- */

/* Of the members [first, end) of one module, the one whose shape most have; ties to the first. */
static void common_shape(const hlc_company *company, const shared_name *names, size_t count, hlc_member_module *out) {
    size_t votes = 0;
    for (size_t i = 0; i < count && votes <= count / 2; i++) { /* beyond half nothing can win any more */
        hlc_member_module own, other;
        size_t agree = 0;
        hlc_member_module_at(&company->members[names[i].member], names[i].module, &own);
        for (size_t k = 0; k < count; k++) {
            hlc_member_module_at(&company->members[names[k].member], names[k].module, &other);
            agree += own.d_in == other.d_in && own.d_out == other.d_out && own.kind == other.kind;
        }
        if (agree > votes) {
            votes = agree;
            *out = own;
        }
        if (i == 64) {
            break; /* 65 shapes and no winner: any will do, and time stays bounded */
        }
    }
}

static void report_shapes(const hlc_company *company, const shared_name *names, size_t count, size_t *deviating,
                          hlc_member_module *first) {
    hlc_member_module common = {0}, own;
    common_shape(company, names, count, &common);
    for (size_t i = 0; i < count; i++) {
        hlc_member_module_at(&company->members[names[i].member], names[i].module, &own);
        if (own.d_in != common.d_in || own.d_out != common.d_out || own.kind != common.kind) {
            if (deviating[names[i].member]++ == 0) {
                first[2 * names[i].member] = own;
                first[2 * names[i].member + 1] = common;
            }
        }
    }
}

bool hlc_check_shapes(const hlc_company *company) {
    size_t count;
    if (company->in_pool) {
        return true;
    }
    shared_name *names = sorted_modules(company, &count);
    size_t *deviating = calloc(company->count + 1, sizeof *deviating);
    hlc_member_module *first = calloc(2 * company->count + 1, sizeof *first);
    const bool good = names && deviating && first;
    for (size_t i = 0; good && i < count;) {
        size_t end = i + 1;
        while (end < count && same_name(&names[i], &names[end])) {
            end++;
        }
        report_shapes(company, names + i, end - i, deviating, first);
        i = end;
    }
    for (size_t i = 0; good && i < company->count; i++) {
        if (deviating[i]) {
            char place[HLC_MEMBER_PLACE];
            const hlc_member_module *own = &first[2 * i], *common = own + 1;
            hlc_member_fault(
                &company->members[i], HLC_CHECK_POOL_WIDE, HLC_FAULT_OTHER_SHAPE,
                hlc_member_place(&company->members[i], "module", own->name, own->name_length, place),
                "the shape %llu -> %llu differs from %llu -> %llu in other adapters, here and in %zu more modules",
                (unsigned long long)own->d_in, (unsigned long long)own->d_out, (unsigned long long)common->d_in,
                (unsigned long long)common->d_out, deviating[i] - 1);
        }
    }
    free(first);
    free(deviating);
    free(names);
    return good;
}

/* ---- Base models ---- */

static int compare_bases(const void *a, const void *b) {
    const hlc_member *x = *(const hlc_member *const *)a, *y = *(const hlc_member *const *)b;
    if (x->family != y->family) {
        return x->family < y->family ? -1 : 1;
    }
    const int order = hlc_bytes_compare(x->base, x->base_length, y->base, y->base_length);
    return order ? order : (x > y) - (x < y);
}

static bool same_base(const hlc_member *a, const hlc_member *b) {
    return a->base_length == b->base_length && memcmp(a->base, b->base, a->base_length) == 0;
}

/* Members of one family that name a base, by its name. */
static void report_bases(const hlc_member **members, size_t count) {
    size_t common = 0, votes = 0;
    for (size_t i = 0; i < count;) {
        size_t end = i + 1;
        while (end < count && same_base(members[i], members[end])) {
            end++;
        }
        if (end - i > votes) {
            votes = end - i;
            common = i;
        }
        i = end;
    }
    for (size_t i = 0; i < count; i++) {
        if (!same_base(members[i], members[common])) {
            char own[HLC_PLACE_SIZE], other[HLC_PLACE_SIZE], place[HLC_MEMBER_PLACE];
            hlc_member_fault(
                members[i], HLC_CHECK_POOL_WIDE, HLC_FAULT_OTHER_BASE, hlc_member_place(members[i], "", NULL, 0, place),
                "%s differs from %s of %zu other adapters",
                hlc_place(own, "the base model", members[i]->base, members[i]->base_length),
                hlc_place(other, "the base model", members[common]->base, members[common]->base_length), votes);
        }
    }
}

bool hlc_check_bases(const hlc_company *company) {
    const hlc_member **order = malloc((company->count + 1) * sizeof *order);
    size_t count = 0;
    if (!order) {
        return false;
    }
    for (size_t i = 0; i < company->count; i++) {
        if (company->members[i].base_length) {
            order[count++] = &company->members[i];
        }
    }
    qsort(order, count, sizeof *order, compare_bases);
    for (size_t i = 0; i < count;) {
        size_t end = i + 1;
        while (end < count && order[i]->family == order[end]->family) {
            end++;
        }
        report_bases(order + i, end - i);
        i = end;
    }
    free(order);
    return true;
}

/* ---- Ranks ---- */

static int compare_numbers(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double hlc_middle(double *values, size_t n) {
    qsort(values, n, sizeof *values, compare_numbers);
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

bool hlc_check_ranks(const hlc_company *company) {
    const hlc_policy *policy = company->validation->policy;
    const double factor = hlc_policy_threshold(policy, HLC_FAULT_HIGH_RANK, 0);
    const double least = hlc_policy_threshold(policy, HLC_FAULT_HIGH_RANK, 1);
    double *ranks = malloc((company->count + 1) * sizeof *ranks);
    for (size_t family = 0; ranks && family < company->count; family++) {
        size_t n = 0;
        if (company->members[family].family != family || (double)company->members[family].family_size < least) {
            continue;
        }
        for (size_t i = family; i < company->count; i++) {
            if (company->members[i].family == family) {
                ranks[n++] = company->members[i].rank;
            }
        }
        const double median = hlc_middle(ranks, n);
        for (size_t i = family; i < company->count; i++) {
            const hlc_member *member = &company->members[i];
            if (member->family == family && member->rank > factor * median) {
                char place[HLC_MEMBER_PLACE];
                hlc_member_fault(member, HLC_CHECK_POOL_WIDE, HLC_FAULT_HIGH_RANK,
                                 hlc_member_place(member, "", NULL, 0, place),
                                 "its rank %u is %.3g times the median %g of %zu adapters", member->rank,
                                 member->rank / median, median, n);
            }
        }
    }
    free(ranks);
    return ranks != NULL;
}
