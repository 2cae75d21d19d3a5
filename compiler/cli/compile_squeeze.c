#include "compiler/cli/compile_squeeze.h"

#include <stdio.h>

#include "compiler/cli/text_table.h"

static json_t *name_json(const hlf_index *index, hlf_string_ref name) {
    return hlc_cli_string_json(hlf_index_string(index, name), name.length);
}

static json_t *module_json(const hlf_index *index, const hlf_entry_record *entry) {
    hlf_module_record module;
    hlf_index_module(index, entry->module, &module);
    return json_pack("{s:o, s:i, s:i, s:f, s:{s:s, s:s}}", "module", name_json(index, module.name), "rank",
                     (int)entry->rank, "source_rank", (int)entry->source_rank, "error", entry->squeeze_error,
                     "stored_dtypes", "A", hlf_dtype_name((hlf_dtype)entry->stored_dtype_a), "B",
                     hlf_dtype_name((hlf_dtype)entry->stored_dtype_b));
}

/* An adapter, and how many components it had. */
static json_t *adapter_json(const hlf_index *index, const hlf_adapter_record *adapter, uint64_t *source_rocs) {
    json_t *modules = json_array();
    *source_rocs = 0;
    for (uint64_t i = 0; i < adapter->entries; i++) {
        hlf_entry_record entry;
        hlf_index_entry(index, (uint32_t)(adapter->first_entry + i), &entry);
        *source_rocs += entry.source_rank;
        json_array_append_new(modules, module_json(index, &entry));
    }
    return json_pack("{s:o, s:b, s:I, s:I, s:f, s:o}", "name", name_json(index, adapter->name), "squeezed",
                     (adapter->flags & HLF_ADAPTER_SQUEEZED) != 0, "rocs", (json_int_t)adapter->rocs, "source_rocs",
                     (json_int_t)*source_rocs, "error", adapter->squeeze_error, "modules", modules);
}

json_t *hlc_squeeze_json(const hlf_index *index) {
    json_t *adapters = json_array();
    uint64_t source_rocs = 0;
    double error = 0;
    for (uint32_t i = 0; i < index->adapters; i++) {
        hlf_adapter_record adapter;
        uint64_t rocs;
        hlf_index_adapter(index, i, &adapter);
        json_array_append_new(adapters, adapter_json(index, &adapter, &rocs));
        source_rocs += rocs;
        error = adapter.squeeze_error > error ? adapter.squeeze_error : error;
    }
    return json_pack("{s:o, s:o, s:I, s:I, s:f, s:o}", "energy",
                     index->pool.energy > 0 ? json_real(index->pool.energy) : json_null(), "max_rank",
                     index->pool.max_rank ? json_integer(index->pool.max_rank) : json_null(), "rocs",
                     (json_int_t)index->rocs, "source_rocs", (json_int_t)source_rocs, "error", error, "adapters",
                     adapters);
}

static void print_name(const hlf_index *index, hlf_string_ref name, size_t columns) {
    hlc_cli_print_cell(stdout, hlf_index_string(index, name), name.length, columns);
}

static void print_modules(const hlf_index *index, const hlf_adapter_record *adapter) {
    for (uint64_t i = 0; i < adapter->entries; i++) {
        hlf_entry_record entry;
        hlf_module_record module;
        hlf_index_entry(index, (uint32_t)(adapter->first_entry + i), &entry);
        hlf_index_module(index, entry.module, &module);
        fputs("  ", stdout);
        print_name(index, module.name, 46);
        printf(" %5u %5u %-4s %-4s %9.3g\n", entry.source_rank, entry.rank,
               hlf_dtype_name((hlf_dtype)entry.stored_dtype_a), hlf_dtype_name((hlf_dtype)entry.stored_dtype_b),
               entry.squeeze_error);
    }
}

void hlc_squeeze_print(const hlf_index *index) {
    printf("%-48s %5s %5s %-4s %-4s %9s\n", "ADAPTER, its modules", "RANK", "KEPT", "A", "B", "ERROR");
    for (uint32_t i = 0; i < index->adapters; i++) {
        hlf_adapter_record adapter;
        hlf_index_adapter(index, i, &adapter);
        print_name(index, adapter.name, 48);
        if (adapter.flags & HLF_ADAPTER_SQUEEZED) {
            printf(" %31.3g\n", adapter.squeeze_error);
            print_modules(index, &adapter);
        } else {
            puts("             nothing to drop");
        }
    }
}
