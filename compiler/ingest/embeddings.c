#include "compiler/ingest/embeddings.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "compiler/base/files.h"
#include "compiler/base/hdf5_embeddings.h"
#include "compiler/ingest/npy.h"
#include "compiler/ingest/safetensors.h"

enum {
    MOST_SAMPLES = 1000000,
    MOST_DIM = 65536,
    MOST_COMPONENTS = 1 << 30, /* of all samples: 4 GiB as float32 */
    MOST_TEXT = 65536,         /* bytes of encoder, revision or prefix */
    H5_EXPANSION = 64,         /* an HDF5 file's embeddings may be so many times its size, */
    H5_ALLOWANCE = 16 << 20,   /* and this */
    BLOCK_ELEMENTS = 1 << 18   /* converted at a time */
};

/* A matrix of floating-point numbers as it lies in a file. */
typedef struct file_matrix {
    const char *path, *place;
    int fd;
    uint64_t offset, rows, cols;
    hlf_dtype dtype;
    bool big_endian, fortran;
} file_matrix;

static bool check_shape(const char *path, const char *place, uint64_t rows, uint64_t cols, hlc_faults *faults) {
    if (rows == 0 || cols == 0)
        hlc_bad_input(faults, path, place, "the matrix is empty: %" PRIu64 " samples of dimension %" PRIu64, rows,
                      cols);
    else if (rows > MOST_SAMPLES || cols > MOST_DIM || rows * cols > MOST_COMPONENTS)
        hlc_bad_input(faults, path, place,
                      "%" PRIu64 " samples of dimension %" PRIu64 " are too many; at most %d of %d are read", rows,
                      cols, MOST_SAMPLES, MOST_DIM);
    else
        return true;
    return false;
}

static void report_not_finite(const char *path, const char *place, uint64_t row, uint64_t col, bool overflow,
                              hlc_faults *faults) {
    hlc_error(faults, HLC_FAULT_SAMPLE_NOT_FINITE, path, place,
              "component %" PRIu64 " of sample %" PRIu64 " (from 0) %s", col, row,
              overflow ? "overflows float32" : "is not finite");
}

static void swap_bytes(unsigned char *bytes, size_t width, size_t count) {
    for (size_t i = 0; i < count; i++, bytes += width)
        for (size_t k = 0; k < width / 2; k++) {
            unsigned char byte = bytes[k];
            bytes[k] = bytes[width - 1 - k];
            bytes[width - 1 - k] = byte;
        }
}

/* Converts `count` elements from number `first` on, in the file's order, and puts them where they belong in values. */
static bool convert_block(const file_matrix *m, uint64_t first, size_t count, unsigned char *raw, float *converted,
                          float *values, hlc_faults *faults) {
    size_t width = hlf_dtype_size(m->dtype);
    if (!hlc_file_read(m->fd, m->path, m->offset + first * width, raw, count * width, faults))
        return false;
    if (m->big_endian)
        swap_bytes(raw, width, count);
    hlf_to_f32(converted, raw, m->dtype, count);
    for (size_t i = 0; i < count; i++) {
        uint64_t number = first + i;
        uint64_t row = m->fortran ? number % m->rows : number / m->cols,
                 col = m->fortran ? number / m->rows : number % m->cols;
        if (!isfinite(converted[i])) {
            double source;
            hlf_to_f64(&source, raw + i * width, m->dtype, 1);
            report_not_finite(m->path, m->place, row, col, isfinite(source), faults);
            return false;
        }
        values[row * m->cols + col] = converted[i];
    }
    return true;
}

/* rows x cols finite numbers, row-major, malloc'd; NULL after a fault. */
static float *read_matrix(const file_matrix *m, hlc_faults *faults) {
    if (!check_shape(m->path, m->place, m->rows, m->cols, faults))
        return NULL;
    uint64_t count = m->rows * m->cols;
    size_t block = count < BLOCK_ELEMENTS ? (size_t)count : BLOCK_ELEMENTS;
    float *values = calloc((size_t)count, sizeof *values);
    unsigned char *raw = malloc(block * hlf_dtype_size(m->dtype));
    float *converted = malloc(block * sizeof *converted);
    bool ok = values && raw && converted;
    if (!ok)
        hlc_out_of_memory(faults, m->path, count * sizeof *values);
    for (uint64_t first = 0; ok && first < count; first += block)
        ok = convert_block(m, first, count - first < block ? (size_t)(count - first) : block, raw, converted, values,
                           faults);
    free(raw);
    free(converted);
    if (!ok) {
        free(values);
        return NULL;
    }
    return values;
}

/* ---- What the file says about its samples ---- */

static bool read_normalized(const char *path, const char *text, hlc_normalized *out, hlc_faults *faults) {
    static const char *const answers[][3] = {
        [HLC_NORMALIZED_NO] = {"false", "no", "0"}, [HLC_NORMALIZED_YES] = {"true", "yes", "1"}};
    *out = HLC_NORMALIZED_UNKNOWN;
    if (!text)
        return true;
    for (unsigned answer = HLC_NORMALIZED_NO; answer <= HLC_NORMALIZED_YES; answer++)
        for (size_t i = 0; i < 3; i++)
            if (strcasecmp(text, answers[answer][i]) == 0)
                *out = answer;
    if (*out == HLC_NORMALIZED_UNKNOWN)
        hlc_bad_input(faults, path, "key 'normalized'", "the value must be true or false");
    return *out != HLC_NORMALIZED_UNKNOWN;
}

static bool check_norms(const char *path, const hlc_embeddings *e, hlc_faults *faults) {
    for (size_t i = 0; i < e->samples; i++) {
        double square = 0;
        for (size_t k = 0; k < e->dim; k++)
            square += (double)e->values[i * e->dim + k] * (double)e->values[i * e->dim + k];
        if (fabs(sqrt(square) - 1) <= 1e-3)
            continue;
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_NORMALIZATION, path, "key 'normalized'", "make the embeddings again",
                  "the file calls its samples L2-normalised, but sample %zu (from 0) has length %.6g", i, sqrt(square));
        return false;
    }
    return true;
}

static bool check_text(const char *path, const char *key, const char *text, size_t length, hlc_faults *faults) {
    char place[HLC_PLACE_SIZE];
    if (length <= MOST_TEXT && strlen(text) == length && hlc_utf8_prefix(text, length) == length)
        return true;
    hlc_bad_input(faults, path, hlc_place(place, "key", key, strlen(key)),
                  "the value must be UTF-8 without NUL, of at most %d bytes", MOST_TEXT);
    return false;
}

/* ---- The three containers: each fills values, samples, dim, the texts and normalized. ---- */

static bool read_metadata(const hlc_safetensors *table, hlc_embeddings *out, hlc_faults *faults) {
    static const char *const keys[] = {"encoder", "revision", "prefix"};
    char **const texts[] = {&out->encoder, &out->revision, &out->prefix};
    hlc_string value;
    bool ok = true;
    for (size_t i = 0; i < 3; i++) {
        ok = hlc_metadata_find(table, keys[i], &value, faults) && ok;
        if (value.bytes)
            ok = check_text(table->path, keys[i], value.bytes, value.length, faults) && ok;
        *texts[i] = value.bytes;
    }
    ok = hlc_metadata_find(table, "normalized", &value, faults) && ok;
    ok = read_normalized(table->path, value.bytes, &out->normalized, faults) && ok;
    hlc_string_free(&value);
    return ok;
}

static void report_missing_tensor(const hlc_safetensors *table, const char *place, hlc_faults *faults) {
    char other[HLC_PLACE_SIZE];
    if (table->count == 0) {
        hlc_bad_input(faults, table->path, place, "the file holds no tensor");
        return;
    }
    const hlc_tensor *first = &table->tensors[table->by_name[0]];
    hlc_bad_input(faults, table->path, place, "there is no tensor of this name; the file holds %zu, the first is %s",
                  table->count, hlc_place(other, "tensor", first->name, first->name_length));
}

static bool read_tensor(const hlc_safetensors *table, const char *key, hlc_embeddings *out, hlc_faults *faults) {
    char place[HLC_PLACE_SIZE], text[HLC_SHAPE_SIZE];
    uint64_t shape[2];
    hlc_place(place, "tensor", key, strlen(key));
    const hlc_tensor *tensor = hlc_safetensors_find(table, key, strlen(key));
    if (!tensor) {
        report_missing_tensor(table, place, faults);
        return false;
    }
    hlf_dtype dtype = hlc_tensor_dtype_weight(tensor->dtype);
    size_t dims = hlc_tensor_shape(table, tensor, shape, 2);
    bool is_matrix = dims == 2 || dims == 1;
    if (dims == 1) { /* one sample */
        shape[1] = shape[0];
        shape[0] = 1;
    }
    bool is_float = dtype == HLF_DTYPE_F16 || dtype == HLF_DTYPE_F32 || dtype == HLF_DTYPE_F64;
    if (!is_matrix)
        hlc_bad_input(faults, table->path, place, "shape %s is no matrix of samples x components",
                      hlc_tensor_shape_text(table, tensor, text));
    if (!is_float)
        hlc_bad_input(faults, table->path, place, "the type is %s; F16, F32 and F64 are read",
                      hlc_tensor_dtype_name(tensor->dtype));
    if (!is_matrix || !is_float)
        return false;
    file_matrix m = {table->path, place, table->file.fd, table->data_at + tensor->begin, shape[0], shape[1],
                     dtype,       false, false};
    out->values = read_matrix(&m, faults);
    out->samples = (size_t)shape[0];
    out->dim = (size_t)shape[1];
    return out->values != NULL;
}

static bool read_table(const hlc_safetensors *table, const char *key, hlc_embeddings *out, hlc_faults *faults) {
    bool ok = read_metadata(table, out, faults);
    return read_tensor(table, key, out, faults) && ok;
}

static bool read_safetensors(const char *path, const char *key, hlc_embeddings *out, hlc_faults *faults) {
    hlc_safetensors *table = hlc_safetensors_open(path, faults);
    bool ok = table && read_table(table, key, out, faults);
    hlc_safetensors_close(table);
    return ok;
}

static bool read_npy(const char *path, hlc_embeddings *out, hlc_faults *faults) {
    hlc_file file;
    hlc_npy npy;
    if (!hlc_file_open(path, &file, faults))
        return false;
    if (hlc_npy_read_header(&file, path, &npy, faults)) {
        file_matrix m = {path, NULL, file.fd, npy.data_at, npy.rows, npy.cols, npy.dtype, npy.big_endian, npy.fortran};
        out->values = read_matrix(&m, faults);
        out->samples = (size_t)npy.rows;
        out->dim = (size_t)npy.cols;
    }
    close(file.fd);
    return out->values != NULL;
}

static bool check_finite(const char *path, const char *place, const hlc_embeddings *e, hlc_faults *faults) {
    for (size_t i = 0; i < e->samples * e->dim; i++)
        if (!isfinite(e->values[i])) {
            report_not_finite(path, place, i / e->dim, i % e->dim, false, faults);
            return false;
        }
    return true;
}

static bool read_h5(const char *path, const char *key, hlc_embeddings *out, hlc_faults *faults) {
    static const char *const keys[] = {"encoder", "revision", "prefix"};
    char place[HLC_PLACE_SIZE];
    char *attributes[4] = {NULL, NULL, NULL, NULL};
    hlc_file file;
    if (!hlc_file_open(path, &file, faults)) /* HDF5 itself would wait on a pipe */
        return false;
    close(file.fd);
    const uint64_t expanded = file.size < UINT64_MAX / H5_EXPANSION - H5_ALLOWANCE ? file.size * H5_EXPANSION + H5_ALLOWANCE : UINT64_MAX;
    const hlc_h5_limits limits = {MOST_SAMPLES, MOST_DIM, MOST_COMPONENTS,
                                  expanded < 4 * (uint64_t)MOST_COMPONENTS ? expanded : 4 * (uint64_t)MOST_COMPONENTS};
    bool ok =
        hlc_h5_read_contained(path, file.size, key, &limits, &out->values, &out->samples, &out->dim, attributes, faults);
    out->encoder = attributes[0];
    out->revision = attributes[1];
    out->prefix = attributes[2];
    hlc_place(place, "dataset", key, strlen(key));
    for (size_t i = 0; ok && i < 3; i++)
        if (attributes[i])
            ok = check_text(path, keys[i], attributes[i], strlen(attributes[i]), faults);
    ok = ok && read_normalized(path, attributes[3], &out->normalized, faults);
    ok = ok && check_finite(path, place, out, faults);
    free(attributes[3]);
    return ok;
}

static bool ends(const char *path, const char *suffix) {
    return hlc_bytes_end(path, strlen(path), suffix);
}

static hlc_embeddings *create_embeddings(const char *path, hlc_faults *faults) {
    hlc_embeddings *embeddings = calloc(1, sizeof *embeddings);
    if (embeddings)
        embeddings->normalized = HLC_NORMALIZED_UNKNOWN;
    else
        hlc_out_of_memory(faults, path, sizeof *embeddings);
    return embeddings;
}

/* The embeddings, or NULL when they are not good. */
static hlc_embeddings *finish(const char *path, hlc_embeddings *embeddings, bool good, hlc_faults *faults) {
    if (good && embeddings->normalized == HLC_NORMALIZED_YES)
        good = check_norms(path, embeddings, faults);
    if (good)
        return embeddings;
    hlc_embeddings_free(embeddings);
    return NULL;
}

hlc_embeddings *hlc_embeddings_of_table(const hlc_safetensors *table, const char *key, hlc_faults *faults) {
    hlc_embeddings *embeddings = create_embeddings(table->path, faults);
    return embeddings ? finish(table->path, embeddings, read_table(table, key, embeddings, faults), faults) : NULL;
}

hlc_embeddings *hlc_embeddings_read(const char *path, const char *key, hlc_faults *faults) {
    hlc_embeddings *embeddings = create_embeddings(path, faults);
    if (!embeddings)
        return NULL;
    bool ok;
    if (ends(path, ".npy"))
        ok = read_npy(path, embeddings, faults);
    else if (ends(path, ".h5") || ends(path, ".hdf5"))
        ok = read_h5(path, key, embeddings, faults);
    else
        ok = read_safetensors(path, key, embeddings, faults);
    return finish(path, embeddings, ok, faults);
}

void hlc_embeddings_free(hlc_embeddings *embeddings) {
    if (!embeddings)
        return;
    free(embeddings->values);
    free(embeddings->encoder);
    free(embeddings->revision);
    free(embeddings->prefix);
    free(embeddings);
}
