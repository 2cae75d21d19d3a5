#include "compiler/rules/members.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/emit/factors.h"
#include "compiler/emit/transpose.h"
#include "compiler/rules/rule_table.h"
#include "format/bytes.h"

/* ---- Companies ---- */

static int compare_members(const void *a, const void *b) {
    const hlc_member *x = a, *y = b;
    const int order = hlc_bytes_compare(x->name, x->name_length, y->name, y->name_length);
    return order ? order : (x->subject > y->subject) - (x->subject < y->subject);
}

static bool make_traits(hlc_company *company) {
    bool good = true;
    for (size_t i = 0; company->validation->deep && i < company->count; i++) {
        company->members[i].traits = calloc(1, sizeof *company->members[i].traits);
        good = good && company->members[i].traits;
    }
    return good;
}

bool hlc_company_of_adapters(const hlc_validation *validation, hlc_company *out) {
    *out = (hlc_company){.validation = validation};
    out->members = calloc(validation->count + 1, sizeof *out->members);
    for (size_t i = 0; out->members && i < validation->count; i++) {
        hlc_subject *subject = &validation->subjects[i];
        const hlc_adapter *adapter = subject->adapter;
        if (adapter) {
            out->members[out->count++] = (hlc_member){.subject = subject,
                                                      .name = adapter->name.bytes,
                                                      .name_length = adapter->name.length,
                                                      .base = adapter->base_model.bytes,
                                                      .base_length = adapter->base_model.length,
                                                      .rank = adapter->rank,
                                                      .module_count = adapter->target_count};
        }
    }
    if (out->members) {
        qsort(out->members, out->count, sizeof *out->members, compare_members);
    }
    return out->members && make_traits(out);
}

bool hlc_company_of_pool(const hlc_validation *validation, hlc_subject *pool, hlc_company *out) {
    const hlf_index *index = &pool->pool.index;
    *out = (hlc_company){.validation = validation, .in_pool = true, .count = index->adapters};
    out->members = calloc(out->count + 1, sizeof *out->members);
    for (size_t i = 0; out->members && i < out->count; i++) {
        hlf_adapter_record adapter;
        hlf_index_adapter(index, (uint32_t)i, &adapter);
        out->members[i] = (hlc_member){.subject = pool,
                                       .name = hlf_index_string(index, adapter.name),
                                       .name_length = adapter.name.length,
                                       .number = (uint32_t)i,
                                       .base = hlf_index_string(index, adapter.base_model),
                                       .base_length = adapter.base_model.length,
                                       .rank = adapter.rank,
                                       .module_count = adapter.entries,
                                       .family_size = out->count};
    }
    return out->members && make_traits(out);
}

void hlc_company_free(hlc_company *company) {
    for (size_t i = 0; company->members && i < company->count; i++) {
        free(company->members[i].traits);
    }
    free(company->members);
    *company = (hlc_company){0};
}

/* ---- Modules ---- */

static void entry_of(const hlc_member *member, size_t k, hlf_entry_record *out) {
    hlf_adapter_record adapter;
    hlf_index_adapter(&member->subject->pool.index, member->number, &adapter);
    hlf_index_entry(&member->subject->pool.index, (uint32_t)(adapter.first_entry + k), out);
}

static void module_in_pool(const hlc_member *member, size_t k, hlc_member_module *out) {
    const hlf_index *index = &member->subject->pool.index;
    hlf_entry_record entry;
    hlf_module_record module;
    entry_of(member, k, &entry);
    hlf_index_module(index, entry.module, &module);
    const bool squeezed = entry.flags & HLF_ENTRY_SQUEEZED;
    *out = (hlc_member_module){.name = hlf_index_string(index, module.name),
                               .name_length = module.name.length,
                               .kind = module.kind,
                               .d_in = module.d_in,
                               .d_out = module.d_out,
                               .rank = entry.rank,
                               .scale = entry.scale,
                               .dtype_a = (hlf_dtype)(squeezed ? entry.stored_dtype_a : entry.source_dtype_a),
                               .dtype_b = (hlf_dtype)(squeezed ? entry.stored_dtype_b : entry.source_dtype_b)};
}

void hlc_member_module_at(const hlc_member *member, size_t k, hlc_member_module *out) {
    if (!member->subject->adapter) {
        module_in_pool(member, k, out);
        return;
    }
    const hlc_target *target = &member->subject->adapter->targets[k];
    *out = (hlc_member_module){.name = target->module.bytes,
                               .name_length = target->module.length,
                               .kind = target->kind,
                               .d_in = target->d_in,
                               .d_out = target->d_out,
                               .rank = target->rank,
                               .scale = target->scale,
                               .dtype_a = target->a.dtype,
                               .dtype_b = target->b.dtype};
}

/* ---- Findings ---- */

const char *hlc_member_place(const hlc_member *member, const char *what, const char *name, size_t length,
                             char buffer[HLC_MEMBER_PLACE]) {
    char owner[HLC_PLACE_SIZE] = "", part[HLC_PLACE_SIZE] = "";
    if (!member->subject->adapter) {
        hlc_place(owner, "adapter", member->name, member->name_length);
    }
    if (name) {
        hlc_place(part, what, name, length);
    }
    snprintf(buffer, HLC_MEMBER_PLACE, "%s%s%s", owner, owner[0] && part[0] ? ": " : "", part);
    return buffer[0] ? buffer : NULL;
}

const char *hlc_member_file(const hlc_member *member) {
    return member->subject->adapter ? member->subject->adapter->path : member->subject->path;
}

void hlc_member_fault(const hlc_member *member, hlc_check check, hlc_fault_kind kind, const char *place,
                      const char *reason, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, reason);
    if (vsnprintf(text, sizeof text, reason, arguments) < 0) {
        text[0] = '\0';
    }
    va_end(arguments);
    const hlc_rule *rule = &hlc_rules[hlc_rule_of_kind(kind)];
    hlc_fault(member->subject->found[check], rule->severity, kind, hlc_member_file(member), place, rule->remedy, "%s",
              text);
}

/* ---- Weights ---- */

bool hlc_factor_reader_open(hlc_factor_reader *reader) {
    *reader = (hlc_factor_reader){.coder = hlc_encoder_create()};
    return reader->coder != NULL;
}

void hlc_factor_reader_close(hlc_factor_reader *reader) {
    hlc_encoder_destroy(reader->coder);
    hlc_tensor_cache_free(&reader->cache);
    *reader = (hlc_factor_reader){0};
}

static bool read_from_file(const hlc_member *member, size_t k, hlf_side side, hlc_factor_reader *reader,
                           hlc_factor *out, hlc_faults *faults) {
    const hlc_adapter *adapter = member->subject->adapter;
    const hlc_target *target = &adapter->targets[k];
    const hlc_matrix_source *source = side == HLF_SIDE_A ? &target->a : &target->b;
    const uint64_t size = source->rows * source->cols * hlf_dtype_size(source->dtype);
    *out = (hlc_factor){.bytes = malloc(size),
                        .rows = source->rows,
                        .cols = source->cols,
                        .dtype = source->dtype,
                        .by_component = (side == HLF_SIDE_A) != source->transposed,
                        .key = source->key.bytes,
                        .key_length = source->key.length};
    if (!out->bytes) {
        hlc_out_of_memory(faults, adapter->path, size);
        return false;
    }
    return hlc_adapter_read(adapter, source, &reader->cache, out->bytes, faults);
}

static bool read_from_pool(const hlc_member *member, size_t k, hlf_side side, hlc_factor_reader *reader,
                           hlc_factor *out, hlc_faults *faults) {
    const hlf_index *index = &member->subject->pool.index;
    hlf_entry_record entry;
    hlf_chunk_shape shape;
    hl_diag diag;
    hl_diag_clear(&diag);
    entry_of(member, k, &entry);
    hlf_index_chunk_shape(index, &entry, side, &shape);
    const bool squeezed = entry.flags & HLF_ENTRY_SQUEEZED;
    const hlf_dtype dtype =
        squeezed ? shape.dtype : (hlf_dtype)(side == HLF_SIDE_A ? entry.source_dtype_a : entry.source_dtype_b);
    const uint64_t size = shape.rows * shape.width * hlf_dtype_size(dtype);
    *out = (hlc_factor){.bytes = malloc(size),
                        .rows = shape.rows,
                        .cols = shape.width,
                        .dtype = dtype,
                        .by_component = true,
                        .key = side == HLF_SIDE_A ? "A" : "B",
                        .key_length = 1};
    if (!out->bytes) {
        hlc_out_of_memory(faults, member->subject->path, size);
        return false;
    }
    /* A chunk that does not decode was told when the pool was verified. */
    return squeezed ? hlc_decode_side(index, &entry, side, reader->coder, out->bytes, &diag)
                    : hlc_decode_source(index, &entry, side, reader->coder, out->bytes, &diag);
}

void hlc_factor_free(hlc_factor *factor) {
    free(factor->bytes);
    free(factor->diagonal);
    factor->bytes = NULL;
    factor->diagonal = NULL;
}

/* The part of a pool's diagonals that is the k-th module's. */
static bool diagonal_from_pool(const hlc_member *member, size_t k, hlc_factor *out) {
    const hlf_index *index = &member->subject->pool.index;
    hlf_adapter_record adapter;
    hlf_entry_record entry;
    hlc_string bytes;
    hl_diag diag;
    hl_diag_clear(&diag);
    entry_of(member, k, &entry);
    hlf_index_adapter(index, member->number, &adapter);
    if (!adapter.diagonals.stored) {
        return true;
    }
    uint64_t first = 0;
    for (uint64_t i = adapter.first_entry; i < adapter.first_entry + k; i++) {
        hlf_entry_record before;
        hlf_index_entry(index, (uint32_t)i, &before);
        first += before.rank;
    }
    bool good = hlc_decode_blob(index, &adapter.diagonals, &bytes, &diag) && bytes.length == 8 * adapter.rocs;
    out->diagonal = good ? malloc(entry.rank * sizeof *out->diagonal) : NULL;
    for (uint32_t j = 0; out->diagonal && j < entry.rank; j++) {
        out->diagonal[j] = hlf_load_f64((const uint8_t *)bytes.bytes + 8 * (first + j));
    }
    hlc_string_free(&bytes);
    return out->diagonal != NULL;
}

static bool read_diagonal(const hlc_member *member, size_t k, hlc_factor *out, hlc_faults *faults) {
    const hlc_adapter *adapter = member->subject->adapter;
    if (!adapter) {
        return diagonal_from_pool(member, k, out);
    }
    const hlc_target *target = &adapter->targets[k];
    return !target->e.key.bytes || (out->diagonal = hlc_read_diagonal(adapter, target, faults));
}

bool hlc_member_read(const hlc_member *member, size_t k, hlf_side side, hlc_factor_reader *reader, hlc_factor *out,
                     hlc_faults *faults) {
    bool good = member->subject->adapter ? read_from_file(member, k, side, reader, out, faults)
                                         : read_from_pool(member, k, side, reader, out, faults);
    good = good && (side != HLF_SIDE_A || read_diagonal(member, k, out, faults));
    if (!good) {
        hlc_factor_free(out);
    }
    return good;
}

double *hlc_factor_rows(const hlc_factor *factor) {
    const size_t n = (size_t)(factor->rows * factor->cols);
    double *rows = malloc((n + 1) * sizeof *rows);
    if (!rows) {
        return NULL;
    }
    hlf_to_f64(rows, factor->bytes, factor->dtype, n);
    for (size_t i = 0; factor->diagonal && i < n; i++) {
        rows[i] *= factor->diagonal[i / (size_t)factor->cols];
    }
    if (factor->by_component) {
        return rows;
    }
    double *turned = malloc((n + 1) * sizeof *turned);
    if (turned) {
        hlc_transpose(turned, rows, factor->rows, factor->cols, sizeof *turned);
    }
    free(rows);
    return turned;
}
