/* The rules for where tensors lie: no hole, no overlap, and as many bytes as the shape says. */
#include "compiler/ingest/safetensors_header.h"

#include <inttypes.h>
#include <stdlib.h>

#include "compiler/ingest/order.h"

static int compare_by_place(uint32_t a, uint32_t b, const void *context) {
    const hlc_tensor *x = (const hlc_tensor *)context + a, *y = (const hlc_tensor *)context + b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* The product is taken from left to right, as in the reference: [2^63, 4, 0] overflows and [0, 2^63, 4] does not. */
static bool multiply_shape(const hlc_safetensors *table, const hlc_tensor *tensor, uint64_t *bits) {
    size_t at = tensor->shape_at;
    uint64_t product = 1;
    for (uint32_t i = 0; i < tensor->dims; i++)
        if (__builtin_mul_overflow(product, hlc_tensor_next_dimension(table, &at), &product))
            return false;
    return !__builtin_mul_overflow(product, (uint64_t)hlc_tensor_dtype_bits(tensor->dtype), bits);
}

static void check_size(const hlc_safetensors *table, const hlc_tensor *tensor, hlc_table_faults *report) {
    uint64_t bits;
    char shape[HLC_SHAPE_SIZE];
    const char *dtype = hlc_tensor_dtype_name(tensor->dtype);
    if (!multiply_shape(table, tensor, &bits))
        hlc_table_fault(report, tensor->name, tensor->name_length, "the size of shape %s of %s overflows 64 bits",
                        hlc_tensor_shape_text(table, tensor, shape), dtype);
    else if (bits % 8 != 0)
        hlc_table_fault(report, tensor->name, tensor->name_length,
                        "shape %s of %s has %" PRIu64 " bits, which do not fill whole bytes",
                        hlc_tensor_shape_text(table, tensor, shape), dtype, bits);
    else if (bits / 8 != tensor->end - tensor->begin)
        hlc_table_fault(report, tensor->name, tensor->name_length,
                        "shape %s of %s needs %" PRIu64 " bytes, but its data_offsets span %" PRIu64,
                        hlc_tensor_shape_text(table, tensor, shape), dtype, bits / 8, tensor->end - tensor->begin);
}

/* end: where the tensors before end. */
static void check_place(const hlc_tensor *tensor, bool first, uint64_t end, hlc_table_faults *report) {
    if (tensor->begin > end && first)
        hlc_table_fault(report, tensor->name, tensor->name_length,
                        "the first tensor's data starts at byte %" PRIu64 " of the data buffer, not at 0",
                        tensor->begin);
    else if (tensor->begin > end)
        hlc_table_fault(report, tensor->name, tensor->name_length,
                        "a hole is before its data: bytes %" PRIu64 " to %" PRIu64
                        " of the data buffer belong to no tensor",
                        end, tensor->begin);
    else if (tensor->begin < end)
        hlc_table_fault(report, tensor->name, tensor->name_length,
                        "its data overlaps another tensor's: it starts at byte %" PRIu64
                        " of the data buffer, the one before ends at %" PRIu64,
                        tensor->begin, end);
}

static void check_end(const hlc_safetensors *table, uint64_t end, hlc_table_faults *report) {
    uint64_t size = table->file.size - table->data_at;
    if (end > size)
        hlc_file_fault(report, NULL,
                       "the file is %" PRIu64 " bytes too short: its tensors need %" PRIu64
                       " bytes of data from byte %" PRIu64 " on, and it ends after %" PRIu64,
                       end - size, end, table->data_at, size);
    else if (end < size)
        hlc_file_fault(report, NULL, "%" PRIu64 " trailing bytes follow the last tensor, from byte %" PRIu64 " on",
                       size - end, table->data_at + end);
}

bool hlc_safetensors_check_layout(const hlc_safetensors *table, hlc_table_faults *report) {
    uint32_t *order = hlc_sorted_numbers(table->count, compare_by_place, table->tensors);
    if (!order) {
        hlc_out_of_memory(report->faults, report->path, 2 * sizeof *order * table->count);
        return false;
    }
    uint64_t end = 0;
    report->kind = HLC_FAULT_LAYOUT;
    for (size_t i = 0; i < table->count; i++) {
        const hlc_tensor *tensor = &table->tensors[order[i]];
        check_place(tensor, i == 0, end, report);
        if (tensor->end < tensor->begin) {
            hlc_table_fault(report, tensor->name, tensor->name_length,
                            "its data ends at byte %" PRIu64 " of the data buffer, before it starts at %" PRIu64,
                            tensor->end, tensor->begin);
            continue;
        }
        check_size(table, tensor, report);
        if (tensor->end > end)
            end = tensor->end;
    }
    free(order);
    check_end(table, end, report);
    return true;
}
