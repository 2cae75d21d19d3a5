#include "compiler/ingest/base_model.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/ingest/base_config.h"
#include "compiler/ingest/order.h"

enum {
    MOST_SHARDS = 512,
    MOST_INDEX_BYTES = 64 << 20,
    MOST_PREFIXES = 16, /* first segments of the base's names that are tried before a module's path */
    MOST_PATH = 4096 + 64,
    NAMED_MISSING = 20, /* modules that are named when some are not in the base */
    BLOCK_ELEMENTS = 8192
};

/* A tensor of one of the files. */
typedef struct base_tensor {
    uint32_t shard;
    const hlc_tensor *tensor;
} base_tensor;

struct hlc_base_model {
    char *folder;
    hlc_safetensors **shards;
    size_t shard_count;
    base_tensor *tensors; /* sorted by name */
    size_t count;
    hlc_string prefixes[MOST_PREFIXES]; /* inside the names */
    size_t prefix_count;
    const base_tensor *embeddings; /* of the input, for an output layer that is tied to them; or NULL */
    bool has_config;
    hlc_base_config config;
};

/* ---- Opening ---- */

static int compare_tensors(uint32_t a, uint32_t b, const void *context) {
    const base_tensor *x = (const base_tensor *)context + a, *y = (const base_tensor *)context + b;
    return hlc_bytes_compare(x->tensor->name, x->tensor->name_length, y->tensor->name, y->tensor->name_length);
}

static bool sort_tensors(hlc_base_model *base) {
    uint32_t *order = hlc_sorted_numbers(base->count, compare_tensors, base->tensors);
    base_tensor *sorted = malloc((base->count + 1) * sizeof *sorted);
    const bool good = order && sorted;
    for (size_t i = 0; good && i < base->count; i++)
        sorted[i] = base->tensors[order[i]];
    free(order);
    free(good ? base->tensors : sorted);
    base->tensors = good ? sorted : base->tensors;
    return good;
}

static void add_prefix(hlc_base_model *base, const hlc_tensor *tensor) {
    const char *dot = memchr(tensor->name, '.', tensor->name_length);
    const size_t length = dot ? (size_t)(dot - tensor->name) + 1 : 0;
    const hlc_string *last = base->prefix_count ? &base->prefixes[base->prefix_count - 1] : NULL;
    const bool known = last && last->length == length && memcmp(last->bytes, tensor->name, length) == 0;
    if (length > 0 && !known && base->prefix_count < MOST_PREFIXES)
        base->prefixes[base->prefix_count++] = (hlc_string){(char *)(uintptr_t)tensor->name, length};
}

static const base_tensor *find_embeddings(const hlc_base_model *base) {
    static const char *const names[] = {"embed_tokens.weight", "wte.weight", "word_embeddings.weight", "shared.weight"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        for (size_t i = 0; i < base->count; i++)
            if (hlc_bytes_end(base->tensors[i].tensor->name, base->tensors[i].tensor->name_length, names[k]))
                return &base->tensors[i];
    return NULL;
}

static bool list_tensors(hlc_base_model *base, hlc_faults *faults) {
    size_t total = 0;
    for (size_t i = 0; i < base->shard_count; i++)
        total += base->shards[i]->count;
    base->tensors = malloc((total + 1) * sizeof *base->tensors);
    for (uint32_t i = 0; base->tensors && i < base->shard_count; i++)
        for (size_t k = 0; k < base->shards[i]->count; k++)
            base->tensors[base->count++] = (base_tensor){i, &base->shards[i]->tensors[k]};
    if (!base->tensors || !sort_tensors(base)) {
        hlc_out_of_memory(faults, base->folder, total * sizeof *base->tensors);
        return false;
    }
    for (size_t i = 0; i < base->count; i++)
        add_prefix(base, base->tensors[i].tensor);
    base->embeddings = find_embeddings(base);
    return true;
}

static bool add_shard(hlc_base_model *base, const char *name, hlc_faults *faults) {
    char *path = hlc_path_join(base->folder, name);
    hlc_safetensors *table = path ? hlc_safetensors_open(path, faults) : NULL;
    if (!path)
        hlc_out_of_memory(faults, base->folder, strlen(name));
    free(path);
    if (table)
        base->shards[base->shard_count++] = table;
    return table != NULL;
}

/* The file names that the index's weight_map has, as pieces of its text. False when it is no such index. */
static bool list_files(const hlc_string *text, hlc_string **out, size_t *count) {
    hlc_json_scan scan;
    size_t capacity = 0;
    bool found = false;
    *out = NULL;
    *count = 0;
    hlc_json_start(&scan, text->bytes, text->length);
    hlc_json_token token = hlc_json_next(&scan);
    if (token != HLC_JSON_OBJECT_BEGIN)
        return false;
    while ((token = hlc_json_next(&scan)) == HLC_JSON_KEY) {
        const bool map = hlc_bytes_equal(text->bytes + scan.begin, scan.end - scan.begin, "weight_map");
        token = hlc_json_next(&scan);
        if (!map || found || token != HLC_JSON_OBJECT_BEGIN) {
            if (!hlc_json_skip(&scan, token))
                return false;
            continue;
        }
        found = true;
        while ((token = hlc_json_next(&scan)) == HLC_JSON_KEY) {
            if (hlc_json_next(&scan) != HLC_JSON_STRING || scan.escaped)
                return false;
            const hlc_string name = {text->bytes + scan.begin, scan.end - scan.begin};
            const hlc_string *last = *count ? &(*out)[*count - 1] : NULL;
            if (last && last->length == name.length && memcmp(last->bytes, name.bytes, name.length) == 0)
                continue;
            if (*count == capacity) {
                capacity = capacity ? 2 * capacity : 64;
                hlc_string *larger = realloc(*out, capacity * sizeof *larger);
                if (!larger)
                    return false;
                *out = larger;
            }
            (*out)[(*count)++] = name;
        }
        if (token != HLC_JSON_OBJECT_END)
            return false;
    }
    return token == HLC_JSON_OBJECT_END && found && *count > 0;
}

static int compare_strings(uint32_t a, uint32_t b, const void *context) {
    const hlc_string *x = (const hlc_string *)context + a, *y = (const hlc_string *)context + b;
    return hlc_bytes_compare(x->bytes, x->length, y->bytes, y->length);
}

/* A file beside the index, and no other. */
static bool is_plain_name(const hlc_string *name) {
    return name->length <= 255 && name->bytes[0] != '.' && !memchr(name->bytes, '/', name->length) &&
           !memchr(name->bytes, '\0', name->length) && hlc_bytes_end(name->bytes, name->length, ".safetensors");
}

static bool open_listed(hlc_base_model *base, const char *path, const hlc_string *files, size_t count, hlc_faults *faults) {
    uint32_t *order = hlc_sorted_numbers(count, compare_strings, files);
    bool good = order != NULL;
    if (!order)
        hlc_out_of_memory(faults, path, count * sizeof *order);
    size_t distinct = 0;
    for (size_t i = 0; order && distinct <= MOST_SHARDS && i < count; i++) { /* all that is wrong is told */
        const hlc_string *name = &files[order[i]];
        char text[256], place[HLC_PLACE_SIZE];
        if (i > 0 && compare_strings(order[i - 1], order[i], files) == 0)
            continue;
        distinct++;
        if (name->length == 0 || !is_plain_name(name)) {
            hlc_error(faults, HLC_FAULT_INPUT, path, hlc_place(place, "file", name->bytes, name->length),
                      "no plain name of a safetensors file beside the index");
            good = false;
        } else if (distinct > MOST_SHARDS) {
            hlc_error(faults, HLC_FAULT_INPUT, path, NULL, "the base model has more than %d files", MOST_SHARDS);
            good = false;
        } else {
            memcpy(text, name->bytes, name->length);
            text[name->length] = '\0';
            good = add_shard(base, text, faults) && good;
        }
    }
    free(order);
    return good;
}

static bool open_index(hlc_base_model *base, const char *path, hlc_faults *faults) {
    hlc_string text, *files = NULL;
    size_t count = 0;
    if (!hlc_file_load(path, MOST_INDEX_BYTES, &text, faults))
        return false;
    bool good = list_files(&text, &files, &count);
    if (!good)
        hlc_error(faults, HLC_FAULT_INPUT, path, NULL, "this is no index of safetensors files: no object \"weight_map\" of names");
    good = good && open_listed(base, path, files, count, faults);
    free(files);
    hlc_string_free(&text);
    return good;
}

/* True when there is nothing wrong with what is there. */
static bool open_weights(hlc_base_model *base, hlc_faults *faults) {
    char *index = hlc_path_join(base->folder, "model.safetensors.index.json");
    char *single = hlc_path_join(base->folder, "model.safetensors");
    bool good = index && single;
    if (!good)
        hlc_out_of_memory(faults, base->folder, 0);
    else if (hlc_path_look(index) != HLC_PATH_MISSING)
        good = open_index(base, index, faults);
    else if (hlc_path_look(single) != HLC_PATH_MISSING)
        good = add_shard(base, "model.safetensors", faults);
    free(index);
    free(single);
    return good;
}

static bool open_config(hlc_base_model *base, hlc_faults *faults) {
    char *path = hlc_path_join(base->folder, "config.json");
    bool good = path != NULL;
    if (!good)
        hlc_out_of_memory(faults, base->folder, 0);
    else if (hlc_path_look(path) != HLC_PATH_MISSING)
        good = base->has_config = hlc_base_config_read(path, &base->config, faults);
    free(path);
    return good;
}

hlc_base_model *hlc_base_model_open(const char *folder, hlc_faults *faults) {
    hlc_base_model *base = calloc(1, sizeof *base);
    bool good = base && (base->folder = strdup(folder)) && (base->shards = calloc(MOST_SHARDS, sizeof *base->shards));
    if (!good)
        hlc_out_of_memory(faults, folder, sizeof *base);
    if (good && hlc_path_look(folder) != HLC_PATH_FOLDER) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, folder, NULL, NULL, "there is no such folder of a base model");
        good = false;
    }
    good = good && open_config(base, faults) && open_weights(base, faults) && list_tensors(base, faults);
    if (good && base->shard_count == 0 && !base->has_config) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, folder, NULL, "name the folder that holds the model",
                  "neither model.safetensors, nor its index, nor config.json is there");
        good = false;
    }
    if (good && base->shard_count == 0)
        hlc_fault(faults, HLC_WARNING, HLC_FAULT_INPUT, folder, NULL, NULL,
                  "the base model has no safetensors files here: names of modules are not checked, and shapes by config.json alone");
    if (!good) {
        hlc_base_model_close(base);
        return NULL;
    }
    return base;
}

/* A name that is read, directly in the folder. */
static bool is_read(const char *folder, const char *path) {
    struct stat theirs, own;
    char *parent = hlc_path_folder(path);
    const char *name = hlc_path_last(path);
    const bool there = parent && stat(parent[0] ? parent : ".", &own) == 0 && stat(folder, &theirs) == 0 &&
                       own.st_dev == theirs.st_dev && own.st_ino == theirs.st_ino;
    free(parent);
    return there && (strcmp(name, "config.json") == 0 || strcmp(name, "model.safetensors.index.json") == 0 ||
                     hlc_bytes_end(name, strlen(name), ".safetensors"));
}

bool hlc_base_model_reads(const char *folder, const char *path) {
    char *real = realpath(path, NULL);
    const bool reads = real && (is_read(folder, path) || is_read(folder, real));
    free(real);
    return reads;
}

void hlc_base_model_close(hlc_base_model *base) {
    if (!base)
        return;
    for (size_t i = 0; i < base->shard_count; i++)
        hlc_safetensors_close(base->shards[i]);
    free(base->shards);
    free(base->tensors);
    free(base->folder);
    free(base);
}

/* ---- Finding ---- */

/* The first tensor whose name is not before this one. */
static size_t lower_bound(const hlc_base_model *base, const char *name, size_t length) {
    size_t low = 0, high = base->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const hlc_tensor *tensor = base->tensors[middle].tensor;
        if (hlc_bytes_compare(tensor->name, tensor->name_length, name, length) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* A piece of text put together on the stack; too long: empty. */
typedef struct joined {
    char bytes[MOST_PATH];
    size_t length;
} joined;

static void join(joined *out, const char *prefix, size_t prefix_length, const char *path, size_t length, const char *suffix) {
    const size_t suffix_length = strlen(suffix);
    out->length = 0;
    if (prefix_length > MOST_PATH - 512 || length > MOST_PATH - 512 - prefix_length || suffix_length > 500)
        return;
    memcpy(out->bytes, prefix, prefix_length);
    memcpy(out->bytes + prefix_length, path, length);
    memcpy(out->bytes + prefix_length + length, suffix, suffix_length);
    out->length = prefix_length + length + suffix_length;
}

/* The i-th way in which the base may name what the adapter calls `path`: as it is, without its first segment, or behind
 * one of the base's own. Checkpoints of a model and of its variants with a head differ so. */
static bool name_variant(const hlc_base_model *base, size_t i, const char *path, size_t length, const char *suffix, joined *out) {
    if (i == 0) {
        join(out, "", 0, path, length, suffix);
        return true;
    }
    if (i == 1) {
        const char *dot = memchr(path, '.', length);
        const size_t skipped = dot ? (size_t)(dot - path) + 1 : length;
        join(out, "", 0, path + skipped, length - skipped, suffix);
        return true;
    }
    if (i - 2 >= base->prefix_count)
        return false;
    join(out, base->prefixes[i - 2].bytes, base->prefixes[i - 2].length, path, length, suffix);
    return true;
}

static const base_tensor *find_exact(const hlc_base_model *base, const char *path, size_t length, const char *suffix) {
    joined name;
    for (size_t i = 0; name_variant(base, i, path, length, suffix, &name); i++) {
        const size_t at = lower_bound(base, name.bytes, name.length);
        if (at < base->count && name.length == base->tensors[at].tensor->name_length &&
            memcmp(name.bytes, base->tensors[at].tensor->name, name.length) == 0)
            return &base->tensors[at];
    }
    return NULL;
}

static bool starts_with(const hlc_tensor *tensor, const joined *name) {
    return tensor->name_length >= name->length && memcmp(tensor->name, name->bytes, name->length) == 0;
}

/* The tensors whose names begin with the path and a dot: where they begin, and how many. */
static size_t find_below(const hlc_base_model *base, const char *path, size_t length, size_t *first) {
    joined name;
    for (size_t i = 0; name_variant(base, i, path, length, ".", &name); i++) {
        size_t end = *first = lower_bound(base, name.bytes, name.length);
        while (name.length > 1 && end < base->count && starts_with(base->tensors[end].tensor, &name))
            end++;
        if (end > *first)
            return end - *first;
    }
    return 0;
}

/* ---- Checking ---- */

typedef struct checking {
    const hlc_base_model *base;
    const char *path;
    hlc_faults *faults;
    size_t missing, quantised;
    size_t steps; /* tensors that have been looked at one by one */
    const hlc_string *named[NAMED_MISSING];
} checking;

typedef enum verdict { FITS, MISSING, QUANTISED, OTHER_SHAPE } verdict;

enum { SHAPE_DIMS = 5 };

typedef struct shape {
    uint64_t numbers[SHAPE_DIMS];
    size_t dims;
} shape;

static shape shape_of(const hlc_base_model *base, const base_tensor *found) {
    shape s = {{0}, 0};
    s.dims = hlc_tensor_shape(base->shards[found->shard], found->tensor, s.numbers, SHAPE_DIMS);
    return s;
}

static bool is_matrix(const shape *s, uint64_t rows, uint64_t cols) {
    return s->dims == 2 && s->numbers[0] == rows && s->numbers[1] == cols;
}

/* Weights that other programs have packed are no floating-point numbers any more. */
static bool is_quantised(const hlc_tensor *tensor) {
    switch ((hlc_tensor_dtype)tensor->dtype) {
    case HLC_TENSOR_F16:
    case HLC_TENSOR_BF16:
    case HLC_TENSOR_F32:
    case HLC_TENSOR_F64:
    case HLC_TENSOR_F8_E4M3:
    case HLC_TENSOR_F8_E5M2:
        return false;
    default:
        return true;
    }
}

/* A kernel d_out x (channels / groups) x sizes, or, where AdaLoRA has written it flat, one of so many numbers. */
static bool fits_convolution(const hlc_target *target, const shape *s) {
    const uint64_t groups = target->geometry[4] ? target->geometry[4] : 1;
    uint64_t product = 1;
    if (s->dims < 3 || s->dims > SHAPE_DIMS || s->numbers[0] != target->d_out)
        return false;
    for (size_t i = 1; i < s->dims; i++) {
        const uint64_t said = i == 1 ? target->geometry[0] / groups : target->geometry[i - 1];
        if (target->kind != HLC_MODULE_LINEAR && said != s->numbers[i])
            return false;
        if (__builtin_mul_overflow(product, s->numbers[i], &product))
            return false;
    }
    const bool flat = target->kind == HLC_MODULE_LINEAR && product == target->d_in;
    return flat || (target->kind != HLC_MODULE_LINEAR && target->kind == HLC_MODULE_CONV1D + (hlc_module_kind)(s->dims - 3));
}

static bool fits(const hlc_target *target, const shape *s) {
    switch (target->kind) {
    case HLC_MODULE_EMBEDDING:
        return is_matrix(s, target->d_in, target->d_out);
    case HLC_MODULE_CONV1D:
    case HLC_MODULE_CONV2D:
    case HLC_MODULE_CONV3D:
        return fits_convolution(target, s);
    default: /* a linear layer's weight, or that of Hugging Face's Conv1D */
        return is_matrix(s, target->d_out, target->d_in) || is_matrix(s, target->d_in, target->d_out) || fits_convolution(target, s);
    }
}

static void shape_fault(checking *c, const hlc_target *target, const base_tensor *found) {
    const hlc_safetensors *table = c->base->shards[found->shard];
    const bool vocabulary = hlc_is_vocabulary(target->module.bytes, target->module.length);
    const shape s = shape_of(c->base, found);
    const uint64_t own = target->kind == HLC_MODULE_EMBEDDING ? target->d_in : target->d_out;
    char place[HLC_PLACE_SIZE], text[HLC_SHAPE_SIZE];
    hlc_place(place, "module", target->module.bytes, target->module.length);
    if (vocabulary && s.dims == 2 && s.numbers[0] != own)
        hlc_fault(c->faults, HLC_ERROR, HLC_FAULT_BASE_SHAPE, c->path, place,
                  "give the base model with the vocabulary that the adapter was trained with",
                  "its vocabulary has %" PRIu64 " tokens, the base model's %" PRIu64 ": it was resized, or the base is another",
                  own, s.numbers[0]);
    else
        hlc_error(c->faults, HLC_FAULT_BASE_SHAPE, c->path, place,
                  "its shape %" PRIu64 " -> %" PRIu64 " does not fit the base model's weight of shape %s in %s", target->d_in,
                  target->d_out, hlc_tensor_shape_text(table, found->tensor, text), table->path);
}

static verdict judge(checking *c, const hlc_target *target, const base_tensor *found) {
    if (!found)
        return MISSING;
    const shape s = shape_of(c->base, found);
    if (fits(target, &s))
        return FITS;
    if (is_quantised(found->tensor))
        return QUANTISED;
    shape_fault(c, target, found);
    return OTHER_SHAPE;
}

/* False, with one fault, when a file of few bytes makes the search long. */
static bool may_look_at(checking *c, size_t count) {
    enum { MOST_STEPS = 100000000 };
    if (c->steps > MOST_STEPS)
        return false;
    c->steps += count;
    if (c->steps > MOST_STEPS)
        hlc_error(c->faults, HLC_FAULT_BASE_SHAPE, c->path, NULL, "comparing its experts with the base model's needs too many steps");
    return c->steps <= MOST_STEPS;
}

/* LoRA on a parameter whose name the file does not tell: any one of the module. */
static verdict check_parameter(checking *c, const hlc_target *target, const char *path, size_t length) {
    if (!may_look_at(c, 0))
        return OTHER_SHAPE;
    size_t first, count = find_below(c->base, path, length, &first);
    if (!may_look_at(c, count))
        return OTHER_SHAPE;
    for (size_t i = first; i < first + count; i++) {
        const shape s = shape_of(c->base, &c->base->tensors[i]);
        if (fits(target, &s))
            return FITS;
    }
    if (count > 0)
        shape_fault(c, target, &c->base->tensors[first]);
    return count > 0 ? OTHER_SHAPE : MISSING;
}

/* One expert's part of a fused parameter (experts, .., ..), either way round. */
static bool fits_fused(const hlc_target *target, const shape *s) {
    return s->dims == 3 && s->numbers[0] == target->geometry[0] &&
           ((s->numbers[1] == target->d_out && s->numbers[2] == target->d_in) ||
            (s->numbers[1] == target->d_in && s->numbers[2] == target->d_out));
}

/* Older checkpoints keep a matrix per expert, and transformers fuses them on loading, gate and up into one. */
static bool fits_single(const hlc_target *target, const shape *s) {
    return is_matrix(s, target->d_out, target->d_in) ||
           (target->d_out % 2 == 0 && is_matrix(s, target->d_out / 2, target->d_in));
}

/* "...experts.N." in a name; *number: N. */
static bool expert_of(const hlc_tensor *tensor, uint64_t *number) {
    static const char segment[] = "experts.";
    const char *at = memmem(tensor->name, tensor->name_length, segment, sizeof segment - 1);
    if (!at)
        return false;
    const char *digits = at + sizeof segment - 1, *end = tensor->name + tensor->name_length, *dot = memchr(digits, '.', (size_t)(end - digits));
    return dot && hlc_json_u64(digits, (size_t)(dot - digits), number);
}

/* The path up to its first number: all that is of one layer begins so. */
static size_t layer_length(const char *path, size_t length) {
    for (size_t at = 1; at < length; at++)
        if (path[at - 1] == '.' && path[at] >= '0' && path[at] <= '9') {
            while (at < length && path[at] != '.')
                at++;
            return at;
        }
    return length;
}

static verdict check_expert(checking *c, const hlc_target *target, const char *path, size_t length) {
    if (!may_look_at(c, 0))
        return OTHER_SHAPE;
    size_t first, count = find_below(c->base, path, length, &first), others = 0;
    const base_tensor *other = NULL;
    if (!may_look_at(c, count))
        return OTHER_SHAPE;
    for (size_t i = first; i < first + count; i++) {
        const shape s = shape_of(c->base, &c->base->tensors[i]);
        if (fits_fused(target, &s))
            return FITS;
        other = s.dims == 3 ? &c->base->tensors[i] : other;
    }
    count = find_below(c->base, path, layer_length(path, length), &first);
    if (other) {
        shape_fault(c, target, other);
        return OTHER_SHAPE;
    }
    bool found = false;
    if (!may_look_at(c, count))
        return OTHER_SHAPE;
    for (size_t i = first; i < first + count; i++) {
        uint64_t number;
        if (!expert_of(c->base->tensors[i].tensor, &number))
            continue;
        others += number >= target->geometry[0];
        if (number != target->geometry[1])
            continue;
        const shape s = shape_of(c->base, &c->base->tensors[i]);
        found |= fits_single(target, &s);
        other = &c->base->tensors[i];
    }
    if (found && others == 0)
        return FITS;
    if (other) {
        shape_fault(c, target, other);
        return OTHER_SHAPE;
    }
    return MISSING;
}

static verdict check_target(checking *c, const hlc_target *target) {
    static const char inner[] = ".base_layer";
    const char *path = target->module.bytes;
    size_t length = target->module.length;
    if (target->kind == HLC_MODULE_EXPERTS)
        while (length > 0 && path[length - 1] != '[')
            length--;
    length -= target->kind == HLC_MODULE_EXPERTS && length > 0;
    const size_t whole = length;
    while (hlc_bytes_end(path, length, inner))
        length -= sizeof inner - 1;
    if (target->kind == HLC_MODULE_EXPERTS)
        return check_expert(c, target, path, length);
    if (target->kind == HLC_MODULE_ATTENTION_QKV)
        return judge(c, target, find_exact(c->base, path, length, ".in_proj_weight"));
    if (length != whole)
        return check_parameter(c, target, path, length);
    const base_tensor *found = find_exact(c->base, path, length, ".weight");
    if (!found && find_exact(c->base, path, length, ".qweight"))
        return QUANTISED;
    if (!found && c->base->config.tied && hlc_is_vocabulary(path, length))
        found = c->base->embeddings;
    return found ? judge(c, target, found) : check_parameter(c, target, path, length);
}

static void report_missing(const checking *c, size_t count) {
    char place[HLC_PLACE_SIZE];
    if (c->missing == count) {
        hlc_fault(c->faults, HLC_ERROR, HLC_FAULT_NOT_IN_BASE, c->path, NULL, "give the base model that the adapter was trained on",
                  "none of its %zu modules is in the base model %s: it would load, and change nothing", count, c->base->folder);
        return;
    }
    for (size_t i = 0; i < c->missing && i < NAMED_MISSING; i++)
        hlc_error(c->faults, HLC_FAULT_PARTLY_IN_BASE, c->path, hlc_place(place, "module", c->named[i]->bytes, c->named[i]->length),
                  "the base model %s has no such module", c->base->folder);
    if (c->missing > NAMED_MISSING)
        hlc_error(c->faults, HLC_FAULT_PARTLY_IN_BASE, c->path, NULL, "and %zu more modules that the base model does not have",
                  c->missing - NAMED_MISSING);
}

static void check_by_config(checking *c, const hlc_target *target) {
    char place[HLC_PLACE_SIZE], reason[256];
    if (hlc_base_config_refutes(&c->base->config, target, reason, sizeof reason))
        hlc_error(c->faults, HLC_FAULT_BASE_SHAPE, c->path, hlc_place(place, "module", target->module.bytes, target->module.length),
                  "%s", reason);
}

void hlc_base_model_check(const hlc_base_model *base, const hlc_target *targets, size_t count, const char *path,
                          hlc_faults *faults) {
    checking c = {.base = base, .path = path, .faults = faults};
    for (size_t i = 0; i < count; i++) {
        if (base->shard_count == 0) {
            check_by_config(&c, &targets[i]);
            continue;
        }
        const verdict found = check_target(&c, &targets[i]);
        if (found == MISSING && c.missing < NAMED_MISSING)
            c.named[c.missing] = &targets[i].module;
        c.missing += found == MISSING;
        c.quantised += found == QUANTISED;
    }
    if (c.missing > 0)
        report_missing(&c, count);
    if (c.quantised > 0)
        hlc_fault(faults, HLC_WARNING, HLC_FAULT_BASE_SHAPE, path, NULL, NULL,
                  "%zu of its modules are quantised in the base model, so their shapes are not checked", c.quantised);
}

/* ---- Comparing values ---- */

static bool same_values(const hlc_safetensors *a, const hlc_tensor *x, const hlc_safetensors *b, const hlc_tensor *y, uint64_t count) {
    const hlf_dtype dx = hlc_tensor_dtype_weight(x->dtype), dy = hlc_tensor_dtype_weight(y->dtype);
    uint64_t *bytes = malloc(BLOCK_ELEMENTS * sizeof *bytes);
    double *left = malloc(BLOCK_ELEMENTS * sizeof *left), *right = malloc(BLOCK_ELEMENTS * sizeof *right);
    hlc_faults *unheard = hlc_faults_create();
    bool same = dx != HLF_DTYPE_NONE && dy != HLF_DTYPE_NONE && bytes && left && right && unheard;
    for (uint64_t at = 0; same && at < count; at += BLOCK_ELEMENTS) {
        const size_t n = count - at < BLOCK_ELEMENTS ? (size_t)(count - at) : BLOCK_ELEMENTS;
        same = hlc_file_read(a->file.fd, a->path, a->data_at + x->begin + at * hlf_dtype_size(dx), bytes, n * hlf_dtype_size(dx), unheard);
        if (same)
            hlf_to_f64(left, bytes, dx, n);
        same = same && hlc_file_read(b->file.fd, b->path, b->data_at + y->begin + at * hlf_dtype_size(dy), bytes, n * hlf_dtype_size(dy), unheard);
        if (same)
            hlf_to_f64(right, bytes, dy, n);
        for (size_t i = 0; same && i < n; i++)
            same = left[i] == right[i];
    }
    hlc_faults_destroy(unheard);
    free(right);
    free(left);
    free(bytes);
    return same;
}

bool hlc_base_model_holds(const hlc_base_model *base, const hlc_safetensors *table, const hlc_tensor *tensor) {
    static const char prefix[] = "base_model.model.", inner[] = ".base_layer", weight[] = ".weight";
    const char *name = tensor->name;
    size_t length = tensor->name_length;
    if (hlc_bytes_start(name, length, prefix)) {
        name += sizeof prefix - 1;
        length -= sizeof prefix - 1;
    }
    if (!hlc_bytes_end(name, length, weight))
        return false;
    length -= sizeof weight - 1;
    if (hlc_bytes_end(name, length, inner))
        length -= sizeof inner - 1;
    const base_tensor *found = find_exact(base, name, length, weight);
    if (!found && base->config.tied && hlc_is_vocabulary(name, length))
        found = base->embeddings;
    if (!found)
        return false;
    const shape theirs = shape_of(base, found);
    uint64_t own[SHAPE_DIMS];
    return hlc_tensor_shape(table, tensor, own, SHAPE_DIMS) == 2 && is_matrix(&theirs, own[0], own[1]) &&
           same_values(table, tensor, base->shards[found->shard], found->tensor, own[0] * own[1]);
}
