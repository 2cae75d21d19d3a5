#include "compiler/rules/weight_rules.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/workers.h"
#include "compiler/pool/finite.h"
#include "compiler/rules/module_traits.h"
#include "compiler/rules/rule_table.h"

static const double f16_overflow = 65520; /* what rounds to infinity, ties to even */

/* What an adapter's modules have in common, counted, with the first one: a finding each would drown the rest. */
typedef struct tally {
    size_t count;
    const char *name; /* counted; lives as long as the member */
    size_t length;
} tally;

static void note(tally *t, const char *name, size_t length) {
    if (t->count++ == 0) {
        t->name = name;
        t->length = length;
    }
}

typedef struct weights_run {
    hlc_company *company;
    hlc_factor_reader *readers; /* one per worker */
    hlc_faults **found;         /* one per member: a pool's members share a list */
} weights_run;

typedef struct inspection {
    const hlc_member *member;
    hlc_faults *faults;
    tally overflow, zero, dead;
    size_t dead_components;
    double largest; /* of the weights that overflow */
} inspection;

static void report(const inspection *in, hlc_fault_kind kind, const char *place, const char *reason) {
    const hlc_rule *rule = &hlc_rules[hlc_rule_of_kind(kind)];
    hlc_fault(in->faults, rule->severity, kind, hlc_member_file(in->member), place, rule->remedy, "%s", reason);
}

/* In a pool NaNs were told when it was verified. False where there is one. */
static bool check_finite(const inspection *in, const hlc_factor *factor) {
    uint64_t first;
    const uint64_t n = factor->rows * factor->cols, bad = hlc_count_non_finite(factor->bytes, factor->dtype, n, &first);
    if (bad && in->member->subject->adapter) {
        char place[HLC_MEMBER_PLACE], reason[160];
        snprintf(reason, sizeof reason, "NaN or infinity in %llu of %llu elements, the first in row %llu, column %llu",
                 (unsigned long long)bad, (unsigned long long)n, (unsigned long long)(first / factor->cols),
                 (unsigned long long)(first % factor->cols));
        report(in, HLC_FAULT_NOT_FINITE, hlc_member_place(in->member, "tensor", factor->key, factor->key_length, place),
               reason);
    }
    return bad == 0;
}

static void check_overflow(inspection *in, const hlc_member_module *module, hlf_dtype dtype, const double *rows,
                           uint64_t n) {
    double largest = 0;
    for (uint64_t i = 0; dtype != HLF_DTYPE_F16 && i < n; i++) {
        largest = fabs(rows[i]) > largest ? fabs(rows[i]) : largest;
    }
    if (largest >= f16_overflow) {
        note(&in->overflow, module->name, module->name_length);
        in->largest = fmax(in->largest, largest);
    }
}

static bool is_zero(const double *row, uint64_t n) {
    uint64_t i = 0;
    while (i < n && row[i] == 0) {
        i++;
    }
    return i == n;
}

static void check_components(inspection *in, const hlc_member_module *module, const double *a, const double *bt) {
    size_t dead = 0;
    for (uint32_t j = 0; j < module->rank; j++) {
        dead += is_zero(a + j * module->d_in, module->d_in) || is_zero(bt + j * module->d_out, module->d_out);
    }
    if (dead == module->rank) {
        note(&in->zero, module->name, module->name_length);
    } else if (dead) {
        note(&in->dead, module->name, module->name_length);
        in->dead_components += dead;
    }
}

static void inspect_rows(inspection *in, const hlc_member_module *module, const double *a, const double *bt) {
    hlc_traits *traits = in->member->traits;
    check_overflow(in, module, module->dtype_a, a, module->rank * module->d_in);
    check_overflow(in, module, module->dtype_b, bt, module->rank * module->d_out);
    check_components(in, module, a, bt);
    if (module->rank > HLC_MOST_SPECTRUM_RANK || !hlc_module_traits_add(traits, module, a, bt)) {
        traits->known = false;
    }
}

/* False when memory is out, or reading failed: the fault is there. */
static bool inspect_module(inspection *in, size_t k, hlc_factor_reader *reader) {
    hlc_factor a = {0}, b = {0};
    hlc_member_module module;
    double *a_rows = NULL, *b_rows = NULL;
    hlc_member_module_at(in->member, k, &module);
    bool good = hlc_member_read(in->member, k, HLF_SIDE_A, reader, &a, in->faults) &&
                hlc_member_read(in->member, k, HLF_SIDE_B, reader, &b, in->faults);
    bool finite = good && check_finite(in, &a);
    finite = good && check_finite(in, &b) && finite;
    if (finite) {
        a_rows = hlc_factor_rows(&a);
        b_rows = hlc_factor_rows(&b);
        if (!a_rows || !b_rows) {
            hlc_out_of_memory(in->faults, hlc_member_file(in->member),
                              (a.rows * a.cols + b.rows * b.cols) * sizeof *a_rows);
            good = false;
        } else {
            inspect_rows(in, &module, a_rows, b_rows);
        }
    }
    in->member->traits->known &= finite && good;
    free(a_rows);
    free(b_rows);
    hlc_factor_free(&a);
    hlc_factor_free(&b);
    return good;
}

static void report_tallies(const inspection *in) {
    char place[HLC_MEMBER_PLACE], reason[160];
    const size_t modules = in->member->module_count;
    if (in->overflow.count) {
        snprintf(reason, sizeof reason,
                 "weights up to %.6g overflow float16, in %zu matrices of %zu modules, first here", in->largest,
                 in->overflow.count, modules);
        report(in, HLC_FAULT_F16_OVERFLOW,
               hlc_member_place(in->member, "module", in->overflow.name, in->overflow.length, place), reason);
    }
    if (in->zero.count) {
        snprintf(reason, sizeof reason, "the update is zero in %zu of %zu modules, first here", in->zero.count,
                 modules);
        report(in, HLC_FAULT_ZERO_UPDATE, hlc_member_place(in->member, "module", in->zero.name, in->zero.length, place),
               reason);
    }
    if (in->dead.count) {
        snprintf(reason, sizeof reason, "%zu rank-one components are zero, in %zu of %zu modules, first here",
                 in->dead_components, in->dead.count, modules);
        report(in, HLC_FAULT_DEAD_COMPONENTS,
               hlc_member_place(in->member, "module", in->dead.name, in->dead.length, place), reason);
    }
}

static void inspect_member(void *context, size_t i, size_t worker) {
    const weights_run *run = context;
    const hlc_validation *validation = run->company->validation;
    inspection in = {.member = &run->company->members[i], .faults = run->found[i]};
    in.member->traits->known = true;
    for (size_t k = 0; k < in.member->module_count && inspect_module(&in, k, &run->readers[worker]); k++) {
    }
    report_tallies(&in);
    hlc_traits_finish(in.member->traits);
    if (worker == 0 && validation->progress.report) {
        validation->progress.report(validation->progress.user, "reading weights", i + 1, run->company->count);
    }
}

bool hlc_check_weights(hlc_company *company) {
    const size_t threads = company->validation->threads;
    weights_run run = {.company = company,
                       .readers = calloc(threads, sizeof *run.readers),
                       .found = calloc(company->count + 1, sizeof *run.found)};
    bool good = run.readers && run.found;
    for (size_t i = 0; good && i < threads; i++) {
        good = hlc_factor_reader_open(&run.readers[i]);
    }
    for (size_t i = 0; good && i < company->count; i++) {
        good = (run.found[i] = hlc_faults_create()) != NULL;
    }
    good = good && hlc_parallel(threads, company->count, inspect_member, &run);
    for (size_t i = 0; run.found && i < company->count; i++) {
        hlc_faults_take(company->members[i].subject->found[HLC_CHECK_WEIGHTS], run.found[i]);
    }
    for (size_t i = 0; run.readers && i < threads; i++) {
        hlc_factor_reader_close(&run.readers[i]);
    }
    free(run.found);
    free(run.readers);
    return good;
}
