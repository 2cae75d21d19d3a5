#include "runtime/route_plan.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "format/diag.h"
#include "runtime/memory.h"
#include "runtime/route_row.h"
#include "runtime/structs.h"

static const double quantile_levels[HL_QUANTILES] = {0, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5};

/* Linear between the stored quantiles; exact at a stored level. */
static double quantile_at(const double quantiles[HL_QUANTILES], double level) {
    int k = 0;
    while (k < HL_QUANTILES - 1 && quantile_levels[k + 1] <= level) {
        k++;
    }
    if (k == HL_QUANTILES - 1) {
        return quantiles[k];
    }
    double part = (level - quantile_levels[k]) / (quantile_levels[k + 1] - quantile_levels[k]);
    return quantiles[k] + part * (quantiles[k + 1] - quantiles[k]);
}

double hlr_quantile_position(const double quantiles[HL_QUANTILES], double value) {
    if (!(value > quantiles[0])) {
        return 0;
    }
    for (int k = 1; k < HL_QUANTILES; k++) {
        if (value < quantiles[k]) {
            double part = (value - quantiles[k - 1]) / (quantiles[k] - quantiles[k - 1]);
            return quantile_levels[k - 1] + part * (quantile_levels[k] - quantile_levels[k - 1]);
        }
    }
    return quantile_levels[HL_QUANTILES - 1];
}

static hl_status refuse(hl_diag *diag, const char *what) {
    return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "%s", what);
}

static bool in_range(int value, int last) {
    return value >= 0 && value <= last;
}

static hl_status read_choices(const hl_route_options *o, hlr_plan *plan, hl_diag *diag) {
    const hlf_pool_record *pool = &plan->pool->index.pool;
    if (!in_range((int)o->select, HL_SELECT_EXPLICIT) || !in_range((int)o->fallback, HL_FALLBACK_NONE) ||
        !in_range((int)o->weights, HL_WEIGHTS_SUM) || !in_range((int)o->allocate, HL_ALLOCATE_MULTINOMIAL) ||
        !in_range((int)o->gate, HL_GATE_STATIC) || !in_range((int)o->rows, HL_ROWS_F16) ||
        !in_range((int)o->variance_norm, HL_SWITCH_ON)) {
        return refuse(diag, "an option has a value that its enumeration does not");
    }
    plan->select = o->select ? o->select : HL_SELECT_POSTERIOR;
    plan->fallback = o->fallback ? o->fallback : HL_FALLBACK_WIDE;
    plan->weights = o->weights;
    plan->allocate = o->allocate ? o->allocate : HL_ALLOCATE_PROPORTIONAL;
    plan->gate = o->gate ? o->gate : (hl_gate)(pool->gate + 1);
    plan->rows = o->rows ? o->rows : HL_ROWS_SOURCE;
    plan->variance_norm = o->variance_norm ? o->variance_norm == HL_SWITCH_ON : pool->variance_norm != 0;
    plan->k = o->k ? o->k : pool->top_k;
    plan->wide_k = o->wide_k ? o->wide_k : pool->wide_k;
    plan->max_adapters = o->max_adapters ? o->max_adapters : pool->max_adapters;
    plan->keep_all = o->keep_all != 0;
    plan->seed = o->seed;
    return HL_OK;
}

static hl_status read_numbers(const hl_route_options *o, hlr_plan *plan, hl_diag *diag) {
    const hlf_pool_record *pool = &plan->pool->index.pool;
    plan->p = o->p == 0 ? pool->nucleus_p : o->p;
    plan->gamma = o->gamma == 0 ? pool->gamma : o->gamma;
    plan->temperature = o->temperature == 0 ? pool->temperature : o->temperature;
    plan->familiar = o->familiar == 0 ? pool->familiar : o->familiar == HL_FAMILIAR_LOWEST ? 0 : o->familiar;
    if (!(plan->p > 0 && plan->p <= 1)) {
        return refuse(diag, "p is not in (0, 1]");
    }
    if (!(plan->gamma > 0 && plan->gamma <= 1)) {
        return refuse(diag, "gamma is not in (0, 1]");
    }
    if (!(plan->temperature > 0 && isfinite(plan->temperature)) && pool->dim) {
        return refuse(diag, "the temperature is not a positive number");
    }
    if (!(plan->familiar >= 0 && plan->familiar <= 0.5)) {
        return refuse(diag, "familiar is not in [0, 0.5]");
    }
    plan->threshold = pool->calibrated ? quantile_at(pool->quantiles, plan->familiar) : (double)NAN;
    return HL_OK;
}

enum { LABEL_SIZE = 80 };

/* "adapter 7 (sql)". Of the name what any terminal can show, the rest as '?'; cut when it is long. */
static const char *label(const hlr_plan *plan, uint32_t adapter, char out[LABEL_SIZE]) {
    const hlf_index *index = &plan->pool->index;
    hlf_adapter_record record;
    hlf_index_adapter(index, adapter, &record);
    const char *name = hlf_index_string(index, record.name);
    char shown[LABEL_SIZE / 2];
    size_t n = 0;
    for (; n < record.name.length && n < sizeof shown - 1; n++) {
        shown[n] = name[n] >= ' ' && name[n] <= '~' ? name[n] : '?';
    }
    shown[n] = '\0';
    snprintf(out, LABEL_SIZE, "adapter %u (%s%s)", adapter, shown, n < record.name.length ? "..." : "");
    return out;
}

/* ---- the lists ---- */

static hl_status check_positions(const hlr_plan *plan, const uint32_t *list, size_t count, const char *name,
                                 hl_diag *diag) {
    if (count && !list) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "the list of %s adapters is NULL", name);
    }
    for (size_t i = 0; i < count; i++) {
        if (list[i] >= plan->pool->index.adapters) {
            return hlf_fail(diag, HL_ERR_NOT_FOUND, HL_NO_OFFSET,
                            "the list of %s adapters has %u; the pool has %u adapters", name, list[i],
                            plan->pool->index.adapters);
        }
    }
    return HL_OK;
}

/* Marks what the allow and deny lists leave out. */
static hl_status read_lists(const hl_route_options *o, hlr_plan *plan, hl_diag *diag) {
    const uint32_t n = plan->pool->index.adapters;
    hl_status status = check_positions(plan, o->allow, o->allow_count, "allowed", diag);
    if (status == HL_OK) {
        status = check_positions(plan, o->deny, o->deny_count, "denied", diag);
    }
    if (status != HL_OK) {
        return status;
    }
    memset(plan->fates, o->allow ? HL_FATE_DENIED : HL_FATE_CHOSEN, n);
    for (size_t i = 0; i < o->allow_count; i++) {
        plan->fates[o->allow[i]] = HL_FATE_CHOSEN;
    }
    for (size_t i = 0; i < o->deny_count; i++) {
        plan->fates[o->deny[i]] = HL_FATE_DENIED;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (plan->fates[i] == HL_FATE_CHOSEN) {
            return HL_OK;
        }
    }
    return refuse(diag, "the allow and deny lists leave no adapter");
}

/* What the pool records; the call's thresholds, where it has some, over it. */
static hl_status read_thresholds(const hl_route_options *o, hlr_plan *plan, hl_diag *diag) {
    const hlf_index *index = &plan->pool->index;
    hl_status status = check_positions(plan, o->conditional, o->conditional_count, "conditional", diag);
    if (status != HL_OK) {
        return status;
    }
    if (o->conditional_count && !o->thresholds) {
        return refuse(diag, "conditional adapters are listed, and their thresholds are NULL");
    }
    plan->thresholds = hlr_allocate(&plan->pool->allocator, index->adapters, sizeof *plan->thresholds);
    if (!plan->thresholds) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for %u adapters", index->adapters);
    }
    for (uint32_t i = 0; i < index->adapters; i++) {
        plan->thresholds[i] = NAN; /* not said by the call */
    }
    for (size_t i = 0; i < o->conditional_count; i++) {
        double *own = &plan->thresholds[o->conditional[i]];
        char text[LABEL_SIZE];
        if (isnan(o->thresholds[i]) || !isnan(*own)) {
            return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "the threshold of %s is %s",
                            label(plan, o->conditional[i], text), isnan(*own) ? "not a number" : "given twice");
        }
        *own = o->thresholds[i];
    }
    for (uint32_t i = 0; i < index->adapters; i++) {
        hlf_adapter_record record = {.threshold = -INFINITY};
        if (isnan(plan->thresholds[i])) {
            if (hlf_index_adapter_flags(index, i) & HLF_ADAPTER_CONDITIONAL) {
                hlf_index_adapter(index, i, &record);
            }
            plan->thresholds[i] = record.threshold;
        }
    }
    return HL_OK;
}

static hl_status drop_unroutable(hlr_plan *plan, hl_diag *diag) {
    bool any = false;
    for (uint32_t i = 0; i < plan->pool->index.adapters; i++) {
        if (plan->fates[i] == HL_FATE_CHOSEN) {
            bool routable = hlf_index_adapter_flags(&plan->pool->index, i) & HLF_ADAPTER_ROUTABLE;
            plan->fates[i] = routable ? HL_FATE_CHOSEN : HL_FATE_UNROUTABLE;
            any |= routable;
        }
    }
    return any ? HL_OK
               : hlf_fail(diag, HL_ERR_UNSUPPORTED, HL_NO_OFFSET,
                          "no adapter that is allowed has statistics to route by; name adapters with the explicit "
                          "selection");
}

/* ---- explicit ---- */

static hl_status name_adapter(const hl_route_options *o, size_t i, bool has_embedding, hlr_plan *plan, hl_diag *diag) {
    const uint32_t adapter = o->adapters[i], flags = hlf_index_adapter_flags(&plan->pool->index, adapter);
    const double weight = o->adapter_weights ? o->adapter_weights[i] : 1;
    char text[LABEL_SIZE];
    if (plan->fates[adapter] == HL_FATE_DENIED) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "%s is named, but not allowed",
                        label(plan, adapter, text));
    }
    if (plan->fates[adapter] == HL_FATE_CHOSEN) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "%s is named twice", label(plan, adapter, text));
    }
    if (!(weight >= 0) || !isfinite(weight)) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "the weight of %s is negative or not finite",
                        label(plan, adapter, text));
    }
    const bool scored = has_embedding && (flags & HLF_ADAPTER_ROUTABLE);
    if (plan->weights == HL_WEIGHTS_POSTERIOR && !scored) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "%s cannot have a posterior weight: %s",
                        label(plan, adapter, text), has_embedding ? "it has no statistics" : "there is no embedding");
    }
    if (hlr_plan_conditional(plan, adapter) && !has_embedding) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "%s depends on its score, and there is no embedding",
                        label(plan, adapter, text));
    }
    plan->fates[adapter] = HL_FATE_CHOSEN;
    plan->named_weights[adapter] = weight;
    return HL_OK;
}

/* Rounds the named weights as a route does, to find one that would vanish. */
static hl_status check_named_weights(const hlr_plan *plan, const hl_route_options *o, hl_diag *diag) {
    const hl_allocator *allocator = &plan->pool->allocator;
    hlr_candidate *list = hlr_allocate(allocator, o->adapter_count, sizeof *list);
    hlr_ranked *scratch = hlr_allocate(allocator, o->adapter_count, sizeof *scratch);
    char text[LABEL_SIZE];
    hl_status status = HL_OK;
    if (!list || !scratch) {
        status = hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for %zu adapters", o->adapter_count);
        goto done;
    }
    for (size_t i = 0; i < o->adapter_count; i++) {
        if (plan->named_weights[o->adapters[i]] == 0) {
            status = hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "the weight of %s is 0",
                              label(plan, o->adapters[i], text));
            goto done;
        }
        list[i] = (hlr_candidate){.adapter = o->adapters[i], .share = plan->named_weights[o->adapters[i]]};
    }
    hlr_order_named(list, o->adapter_count, scratch);
    hlr_scale_shares(list, o->adapter_count);
    hlr_round_shares(list, o->adapter_count, scratch);
    for (size_t i = 0; i < o->adapter_count; i++) {
        if (list[i].parts == 0) {
            status = hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "the weight of %s rounds to 0 of 256",
                              label(plan, list[i].adapter, text));
            break;
        }
    }
done:
    hlr_release(allocator, list);
    hlr_release(allocator, scratch);
    return status;
}

static hl_status read_names(const hl_route_options *o, bool has_embedding, hlr_plan *plan, hl_diag *diag) {
    const uint32_t n = plan->pool->index.adapters;
    hl_status status = check_positions(plan, o->adapters, o->adapter_count, "named", diag);
    if (status != HL_OK) {
        return status;
    }
    if (o->adapter_count == 0) {
        return refuse(diag, "the explicit selection names no adapter");
    }
    if (o->adapter_count > plan->max_adapters) {
        return hlf_fail(diag, HL_ERR_ARGUMENT, HL_NO_OFFSET, "%zu adapters are named, and max_adapters is %u",
                        o->adapter_count, plan->max_adapters);
    }
    plan->named_weights = hlr_allocate(&plan->pool->allocator, n, sizeof *plan->named_weights);
    if (!plan->named_weights) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for %u adapters", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        plan->fates[i] = plan->fates[i] == HL_FATE_CHOSEN ? HL_FATE_NOT_SELECTED : plan->fates[i];
        plan->named_weights[i] = 0;
    }
    for (size_t i = 0; i < o->adapter_count && status == HL_OK; i++) {
        status = name_adapter(o, i, has_embedding, plan, diag);
    }
    return status == HL_OK ? check_named_weights(plan, o, diag) : status;
}

hl_status hlr_plan_create(const hl_pool *pool, const hl_route_options *options, bool has_embedding, hlr_plan *plan,
                          hl_diag *diag) {
    hl_route_options own;
    *plan = (hlr_plan){.pool = pool};
    hl_status status = hlr_options_read(&own, sizeof own, offsetof(hl_route_options, conditional), options, diag);
    if (status != HL_OK || (status = read_choices(&own, plan, diag)) != HL_OK ||
        (status = read_numbers(&own, plan, diag)) != HL_OK) {
        return status;
    }
    if (plan->select != HL_SELECT_EXPLICIT && own.adapter_count) {
        return refuse(diag, "adapters are named, but the selection is not explicit");
    }
    if (plan->select != HL_SELECT_EXPLICIT && !has_embedding) {
        return refuse(diag, "no embedding: only the explicit selection does without");
    }
    plan->fates = hlr_allocate(&pool->allocator, pool->index.adapters, sizeof *plan->fates);
    if (!plan->fates) {
        return hlf_fail(diag, HL_ERR_MEMORY, HL_NO_OFFSET, "out of memory for %u adapters", pool->index.adapters);
    }
    status = read_lists(&own, plan, diag);
    if (status == HL_OK) {
        status = read_thresholds(&own, plan, diag);
    }
    if (status == HL_OK) {
        status = plan->select == HL_SELECT_EXPLICIT ? read_names(&own, has_embedding, plan, diag)
                                                    : drop_unroutable(plan, diag);
    }
    return status;
}

void hlr_plan_destroy(hlr_plan *plan) {
    hlr_release(&plan->pool->allocator, plan->fates);
    hlr_release(&plan->pool->allocator, plan->thresholds);
    hlr_release(&plan->pool->allocator, plan->named_weights);
    plan->fates = NULL;
    plan->thresholds = NULL;
    plan->named_weights = NULL;
}
