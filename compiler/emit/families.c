#include "compiler/emit/families.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/ingest/order.h"

/* A place that an adapter's modules lie in: the path before the first segment that is a number. */
typedef struct place {
    const char *bytes;
    size_t length;
    uint32_t adapter;
} place;

static int compare_places(uint32_t a, uint32_t b, const void *context) {
    const place *x = (const place *)context + a, *y = (const place *)context + b;
    const int order = hlc_bytes_compare(x->bytes, x->length, y->bytes, y->length);
    return order ? order : (x->adapter > y->adapter) - (x->adapter < y->adapter);
}

/* 0 for a path without a number: an output layer or an embedding says nothing about the rest. */
static size_t place_length(const hlc_string *path) {
    for (size_t at = 1; at < path->length; at++)
        if (path->bytes[at - 1] == '.' && path->bytes[at] >= '0' && path->bytes[at] <= '9')
            return at - 1;
    return 0;
}

/* An adapter's places, without those that follow themselves: its modules are sorted. */
static size_t list_places(const hlc_adapter *adapter, uint32_t number, place *out) {
    size_t count = 0;
    for (size_t i = 0; i < adapter->target_count; i++) {
        const hlc_string *path = &adapter->targets[i].module;
        const size_t length = place_length(path);
        if (length == 0 || (count > 0 && out[count - 1].length == length && memcmp(out[count - 1].bytes, path->bytes, length) == 0))
            continue;
        out[count++] = (place){path->bytes, length, number};
    }
    return count;
}

/* The place that most adapters have; *adapters: how many. */
static const place *find_commonest(const place *places, const uint32_t *order, size_t count, size_t *adapters) {
    const place *best = NULL;
    *adapters = 0;
    for (size_t i = 0; i < count;) {
        size_t end = i + 1, distinct = 1;
        const place *p = &places[order[i]];
        for (; end < count && places[order[end]].length == p->length && memcmp(places[order[end]].bytes, p->bytes, p->length) == 0; end++)
            distinct += places[order[end]].adapter != places[order[end - 1]].adapter;
        if (distinct > *adapters) {
            *adapters = distinct;
            best = p;
        }
        i = end;
    }
    return best;
}

static bool has_place(const place *places, size_t count, const place *wanted) {
    for (size_t i = 0; i < count; i++)
        if (places[i].length == wanted->length && memcmp(places[i].bytes, wanted->bytes, wanted->length) == 0)
            return true;
    return false;
}

static void warn_of_others(const hlc_inputs *inputs, const place *places, size_t count, const place *common, hlc_faults *faults) {
    char text[HLC_PLACE_SIZE], own[HLC_PLACE_SIZE];
    for (size_t first = 0; first < count;) {
        size_t end = first + 1;
        while (end < count && places[end].adapter == places[first].adapter)
            end++;
        if (!has_place(places + first, end - first, common))
            hlc_fault(faults, HLC_WARNING, HLC_FAULT_NOTHING_SHARED, inputs->adapters[places[first].adapter]->path,
                      hlc_place(own, "modules of", places[first].bytes, places[first].length),
                      "a pool holds adapters of one base model; look whether this is for another",
                      "most adapters have their modules in %s, this one has none there", hlc_place(text, "layers", common->bytes, common->length));
        first = end;
    }
}

bool hlc_warn_of_other_families(const hlc_inputs *inputs, hlc_faults *faults) {
    size_t room = 0, count = 0, adapters;
    for (size_t i = 0; i < inputs->count; i++)
        room += inputs->adapters[i] ? inputs->adapters[i]->target_count : 0;
    place *places = malloc((room + 1) * sizeof *places);
    for (size_t i = 0; places && i < inputs->count; i++)
        if (inputs->adapters[i])
            count += list_places(inputs->adapters[i], (uint32_t)i, places + count);
    uint32_t *order = places ? hlc_sorted_numbers(count, compare_places, places) : NULL;
    const bool good = order != NULL;
    if (good && inputs->count > 1) {
        const place *common = find_commonest(places, order, count, &adapters);
        if (common && adapters > 1 && 2 * adapters > inputs->count)
            warn_of_others(inputs, places, count, common, faults);
        else if (common && inputs->count == 2 && adapters == 1)
            warn_of_others(inputs, places, count, &places[0], faults);
    }
    free(order);
    free(places);
    return good;
}
