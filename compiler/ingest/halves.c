#include "compiler/ingest/halves.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/files.h"
#include "compiler/ingest/order.h"
#include "compiler/ingest/peft_config.h"

enum { MOST_MODULE_BYTES = 4096, MOST_DIMS = 5, ROLES = 3 };
static const uint64_t most_dimension = INT32_MAX;

bool hlc_halves_init(hlc_halves *halves, const hlc_safetensors *table, hlc_faults *faults) {
    *halves = (hlc_halves){
        .table = table, .faults = faults, .names = {"lora_A", "lora_B", "alpha"}, .good = true};
    halves->items = calloc(table->count + 1, sizeof *halves->items);
    return halves->items != NULL;
}

void hlc_halves_free(hlc_halves *halves) {
    for (size_t i = 0; i < halves->count; i++)
        hlc_string_free(&halves->items[i].module);
    free(halves->items);
}

bool hlc_halves_add(hlc_halves *halves, hlc_half_role role, const char *module, size_t length, uint32_t tensor) {
    hlc_half *half = &halves->items[halves->count];
    *half = (hlc_half){.role = role, .tensor = tensor};
    if (!hlc_string_copy(&half->module, module, length))
        return false;
    halves->count++;
    return true;
}

void hlc_halves_fault(hlc_halves *halves, hlc_fault_kind kind, uint32_t tensor, const char *remedy, const char *format,
                      ...) {
    const hlc_tensor *about = &halves->table->tensors[tensor];
    char place[HLC_PLACE_SIZE], reason[2 * HLC_PLACE_SIZE + 256];
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(reason, sizeof reason, format, arguments) < 0)
        reason[0] = '\0';
    va_end(arguments);
    hlc_fault(halves->faults, HLC_ERROR, kind, halves->table->path,
              hlc_place(place, "tensor", about->name, about->name_length), remedy, "%s", reason);
    halves->good = false;
}

/* ---- One half ---- */

static const hlc_tensor *tensor_of(const hlc_halves *halves, const hlc_half *half) {
    return &halves->table->tensors[half->tensor];
}

/* A matrix with the kernel that stands behind its two dimensions, if it is a convolution's. */
typedef struct matrix {
    uint64_t rank, width;
    uint64_t kernel[MOST_DIMS - 2];
    uint32_t kernel_dims;
} matrix;

static bool check_dtype(hlc_halves *halves, const hlc_half *half) {
    const hlc_tensor *tensor = tensor_of(halves, half);
    if (hlc_tensor_dtype_weight(tensor->dtype) != HLF_DTYPE_NONE)
        return true;
    hlc_halves_fault(halves, HLC_FAULT_TENSOR, half->tensor, NULL,
                     "the type %s is none of a LoRA weight: F16, BF16, F32 and F64 are read",
                     hlc_tensor_dtype_name(tensor->dtype));
    return false;
}

static bool read_shape(hlc_halves *halves, const hlc_half *half, matrix *out) {
    const hlc_tensor *tensor = tensor_of(halves, half);
    uint64_t shape[MOST_DIMS];
    char text[HLC_SHAPE_SIZE];
    size_t dims = hlc_tensor_shape(halves->table, tensor, shape, MOST_DIMS);
    hlc_tensor_shape_text(halves->table, tensor, text);
    if (dims < 2 || dims > (halves->transposed ? 2 : MOST_DIMS)) {
        hlc_halves_fault(halves, HLC_FAULT_TENSOR, half->tensor, NULL, "shape %s is that of no LoRA weight", text);
        return false;
    }
    bool rank_first = (half->role == HLC_HALF_A) != halves->transposed;
    *out = (matrix){.rank = shape[!rank_first], .width = shape[rank_first], .kernel_dims = (uint32_t)(dims - 2)};
    bool small = out->width <= most_dimension;
    for (size_t i = 2; i < dims; i++) {
        out->kernel[i - 2] = shape[i];
        small = small && shape[i] <= most_dimension;
    }
    if (out->rank == 0)
        hlc_halves_fault(halves, HLC_FAULT_TENSOR, half->tensor, NULL, "shape %s has rank 0", text);
    else if (out->rank > HLC_MOST_RANK)
        hlc_halves_fault(halves, HLC_FAULT_TENSOR, half->tensor, NULL,
                         "shape %s has rank %" PRIu64 "; at most %d is read", text, out->rank, HLC_MOST_RANK);
    else if (tensor->begin == tensor->end)
        hlc_halves_fault(halves, HLC_FAULT_TENSOR, half->tensor, NULL, "shape %s has no elements", text);
    else if (!small)
        hlc_halves_fault(halves, HLC_FAULT_TENSOR, half->tensor, NULL, "shape %s has a dimension above %" PRIu64, text,
                         most_dimension);
    else
        return true;
    return false;
}

/* The scale that an alpha gives; 0 stands for a missing one. False after a fault. */
static bool read_alpha(hlc_halves *halves, const hlc_half *half, double *alpha) {
    const hlc_tensor *tensor = tensor_of(halves, half);
    const hlf_dtype dtype = hlc_tensor_dtype_weight(tensor->dtype);
    char bytes[8];
    uint64_t one = 0;
    size_t dims = hlc_tensor_shape(halves->table, tensor, &one, 1);
    if (dtype == HLF_DTYPE_NONE || dims > 1 || (dims == 1 && one != 1)) {
        hlc_halves_fault(halves, HLC_FAULT_TENSOR, half->tensor, NULL,
                         "an alpha must be one number of type F16, BF16, F32 or F64");
        return false;
    }
    if (!hlc_file_read(halves->table->file.fd, halves->table->path, halves->table->data_at + tensor->begin, bytes,
                       hlf_dtype_size(dtype), halves->faults)) {
        halves->good = false;
        return false;
    }
    hlf_to_f64(alpha, bytes, dtype, 1);
    if (isfinite(*alpha))
        return true;
    hlc_halves_fault(halves, HLC_FAULT_TENSOR, half->tensor, NULL, "the alpha is not finite");
    return false;
}

/* ---- Modules ---- */

static bool fill_source(const hlc_halves *halves, const hlc_half *half, uint64_t rows, uint64_t cols,
                        hlc_matrix_source *out) {
    const hlc_tensor *tensor = tensor_of(halves, half);
    *out = (hlc_matrix_source){.offset = halves->table->data_at + tensor->begin,
                               .rows = halves->transposed ? cols : rows,
                               .cols = halves->transposed ? rows : cols,
                               .dtype = hlc_tensor_dtype_weight(tensor->dtype),
                               .transposed = halves->transposed};
    return hlc_string_copy(&out->key, tensor->name, tensor->name_length);
}

/* Kind, geometry and d_in by the shapes. False after a fault. */
static bool fit_kernels(hlc_halves *halves, const hlc_half *a_half, const matrix *a, const matrix *b,
                        hlc_target *target) {
    static const hlc_module_kind convolutions[] = {HLC_MODULE_LINEAR, HLC_MODULE_CONV1D, HLC_MODULE_CONV2D,
                                                   HLC_MODULE_CONV3D};
    bool point = a->kernel_dims == b->kernel_dims;
    for (uint32_t i = 0; i < b->kernel_dims; i++)
        point = point && b->kernel[i] == 1;
    target->kind = convolutions[a->kernel_dims];
    target->d_in = a->width;
    for (uint32_t i = 0; i < a->kernel_dims; i++) /* below 2^62: both factors are checked */
        target->d_in = target->d_in <= most_dimension ? target->d_in * a->kernel[i] : target->d_in;
    if (!point)
        hlc_halves_fault(halves, HLC_FAULT_TENSOR, a_half->tensor, NULL,
                         "its shape and that of the module's %s are no pair of a linear module or a convolution",
                         halves->names[HLC_HALF_B]);
    else if (target->d_in > most_dimension)
        hlc_halves_fault(halves, HLC_FAULT_TENSOR, a_half->tensor, NULL,
                         "channels times kernel are above %" PRIu64, most_dimension);
    if (a->kernel_dims > 0) {
        target->geometry[0] = (uint32_t)a->width;
        for (uint32_t i = 0; i < a->kernel_dims; i++)
            target->geometry[1 + i] = (uint32_t)a->kernel[i];
        target->geometry[4] = 1; /* groups */
    }
    return point && target->d_in <= most_dimension;
}

/* False only when memory is out. */
static bool add_target(hlc_halves *halves, const hlc_half *const by_role[ROLES], hlc_target *targets, size_t *count) {
    const hlc_half *a_half = by_role[HLC_HALF_A], *b_half = by_role[HLC_HALF_B];
    matrix a, b;
    double alpha = 0;
    hlc_target target = {0};
    bool good = check_dtype(halves, a_half);
    good = check_dtype(halves, b_half) && good;
    good = read_shape(halves, a_half, &a) && good;
    good = read_shape(halves, b_half, &b) && good;
    good = (!by_role[HLC_HALF_ALPHA] || read_alpha(halves, by_role[HLC_HALF_ALPHA], &alpha)) && good;
    if (!good)
        return true;
    if (a.rank != b.rank) {
        hlc_halves_fault(halves, HLC_FAULT_RANKS_DIFFER, a_half->tensor, NULL,
                         "its rank is %" PRIu64 " but that of the module's %s is %" PRIu64, a.rank,
                         halves->names[HLC_HALF_B], b.rank);
        return true;
    }
    if (!fit_kernels(halves, a_half, &a, &b, &target))
        return true;
    target.d_out = b.width;
    target.rank = (uint32_t)a.rank;
    target.scale = alpha == 0 ? 1 : alpha / (double)a.rank;
    if (!hlc_string_copy(&target.module, a_half->module.bytes, a_half->module.length) ||
        !fill_source(halves, a_half, a.rank, target.d_in, &target.a) ||
        !fill_source(halves, b_half, target.d_out, a.rank, &target.b)) {
        hlc_string_free(&target.module);
        hlc_string_free(&target.a.key);
        hlc_string_free(&target.b.key);
        return false;
    }
    targets[(*count)++] = target;
    return true;
}

static int compare_halves(uint32_t a, uint32_t b, const void *context) {
    const hlc_half *x = (const hlc_half *)context + a, *y = (const hlc_half *)context + b;
    int order = hlc_bytes_compare(x->module.bytes, x->module.length, y->module.bytes, y->module.length);
    return order != 0 ? order : (int)x->role - (int)y->role;
}

/* group: the halves of one module. False only when memory is out. */
static bool add_module(hlc_halves *halves, const uint32_t *group, size_t size, hlc_target *targets, size_t *count) {
    const hlc_half *by_role[ROLES] = {NULL};
    const hlc_half *first = &halves->items[group[0]];
    bool good = true;
    for (size_t i = 0; i < size; i++) {
        const hlc_half *half = &halves->items[group[i]], *before = by_role[half->role];
        by_role[half->role] = half;
        if (!before)
            continue;
        char place[HLC_PLACE_SIZE];
        const hlc_tensor *other = tensor_of(halves, before);
        good = false;
        hlc_halves_fault(halves, HLC_FAULT_TWICE, half->tensor, NULL, "the module has a second %s, %s",
                         halves->names[half->role], hlc_place(place, "besides", other->name, other->name_length));
    }
    if (first->module.length == 0 || first->module.length > MOST_MODULE_BYTES) {
        hlc_halves_fault(halves, HLC_FAULT_TENSOR, first->tensor, NULL,
                         "the module's path has %zu bytes; from 1 to %d are read", first->module.length,
                         MOST_MODULE_BYTES);
        good = false;
    }
    for (unsigned role = HLC_HALF_A; good && role <= HLC_HALF_B; role++)
        if (!by_role[role]) {
            hlc_halves_fault(halves, HLC_FAULT_HALF, first->tensor, "save the adapter again: it is not complete",
                             "the module has %s but no %s", halves->names[first->role], halves->names[role]);
            good = false;
        }
    return !good || add_target(halves, by_role, targets, count);
}

bool hlc_halves_pair(hlc_halves *halves, hlc_target **targets, size_t *count) {
    uint32_t *order = hlc_sorted_numbers(halves->count, compare_halves, halves->items);
    hlc_target *found = calloc(halves->count / 2 + 1, sizeof *found);
    size_t found_count = 0;
    bool ok = order && found;
    for (size_t i = 0; ok && i < halves->count;) {
        const hlc_half *half = &halves->items[order[i]];
        size_t end = i + 1;
        while (end < halves->count && hlc_bytes_compare(half->module.bytes, half->module.length,
                                                        halves->items[order[end]].module.bytes,
                                                        halves->items[order[end]].module.length) == 0)
            end++;
        ok = add_module(halves, order + i, end - i, found, &found_count);
        i = end;
    }
    free(order);
    if (!ok) {
        hlc_targets_free(found, found_count);
        return false;
    }
    *targets = found;
    *count = found_count;
    return true;
}
