#include "tests/unit/ingest_fixture.h"

#include <hdf5.h>
#include <math.h>

#include "compiler/ingest/embeddings.h"

static hlc_embeddings *embeddings;

static void enter(void) {
    enter_folder();
    embeddings = NULL;
}

static void leave(void) {
    hlc_embeddings_free(embeddings);
    leave_folder();
}

static hlc_embeddings *read_embeddings(const char *path, const char *key) {
    hlc_embeddings_free(embeddings);
    forget_faults();
    embeddings = hlc_embeddings_read(path, key, faults);
    ck_assert((embeddings != NULL) == (hlc_faults_errors(faults) == 0));
    return embeddings;
}

/* A .npy file of version 1 to 3 with this dictionary, padded as NumPy does. */
static void write_npy(const char *path, int version, const char *dictionary, const void *data, size_t size) {
    unsigned char bytes[4096] = "\x93NUMPY";
    size_t start = version == 1 ? 10 : 12, length = strlen(dictionary) + 1;
    length += (64 - (start + length) % 64) % 64;
    bytes[6] = (unsigned char)version;
    for (size_t i = 0; i < start - 8; i++)
        bytes[8 + i] = (unsigned char)(length >> (8 * i));
    memset(bytes + start, ' ', length);
    memcpy(bytes + start, dictionary, strlen(dictionary));
    bytes[start + length - 1] = '\n';
    memcpy(bytes + start + length, data, size);
    write_file(path, bytes, start + length + size);
}

static void assert_matrix(const float *expected, size_t samples, size_t dim) {
    if (!embeddings)
        hlc_faults_print(faults, stderr);
    ck_assert_ptr_nonnull(embeddings);
    ck_assert_uint_eq(embeddings->samples, samples);
    ck_assert_uint_eq(embeddings->dim, dim);
    ck_assert_mem_eq(embeddings->values, expected, samples * dim * sizeof *expected);
}

static const float six[] = {1, -2, 3.5f, 0, 65504, -0.25f};
static const float six_by_columns[] = {1, 0, -2, 65504, 3.5f, -0.25f};
/* The same as float16. */
static const uint16_t six_f16[] = {0x3C00, 0xC000, 0x4300, 0, 0x7BFF, 0xB400};

static void reverse_bytes(void *elements, size_t width, size_t count) {
    unsigned char *bytes = elements;
    for (size_t i = 0; i < count; i++, bytes += width)
        for (size_t k = 0; k < width / 2; k++) {
            unsigned char byte = bytes[k];
            bytes[k] = bytes[width - 1 - k];
            bytes[width - 1 - k] = byte;
        }
}

START_TEST(numpy_files_of_all_kinds_are_read) {
    double wide[6], wide_by_columns[6];
    for (size_t i = 0; i < 6; i++) {
        wide[i] = (double)six[i];
        wide_by_columns[i] = (double)six_by_columns[i];
    }
    for (int version = 1; version <= 3; version++) {
        write_npy("x.npy", version, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", six, sizeof six);
        read_embeddings("x.npy", "ignored");
        assert_matrix(six, 2, 3);
        write_npy("x.npy", version, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", six_by_columns,
                  sizeof six);
        read_embeddings("x.npy", "ignored");
        assert_matrix(six, 2, 3);
    }
    write_npy("x.npy", 1, "{\"shape\":(3,2),\"fortran_order\":False,\"descr\":\"<f2\"}", six_f16, sizeof six_f16);
    read_embeddings("x.npy", "ignored");
    assert_matrix(six, 3, 2);
    write_npy("x.npy", 1, "{'descr': '<f8', 'fortran_order': False, 'shape': (1L, 6L)}", wide, sizeof wide);
    read_embeddings("x.npy", "ignored");
    assert_matrix(six, 1, 6);
    reverse_bytes(wide_by_columns, 8, 6);
    write_npy("x.npy", 1, "{'descr': '>f8', 'fortran_order': True, 'shape': (2, 3), }", wide_by_columns, sizeof wide);
    read_embeddings("x.npy", "ignored");
    assert_matrix(six, 2, 3);
    write_npy("x.npy", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}", six, sizeof six);
    read_embeddings("x.npy", "ignored");
    assert_matrix(six, 1, 6);
    uint16_t big[6];
    memcpy(big, six_f16, sizeof big);
    reverse_bytes(big, 2, 6);
    write_npy("x.npy", 1, "{'descr': '>f2', 'fortran_order': False, 'shape': (2, 3), }", big, sizeof big);
    read_embeddings("x.npy", "ignored");
    assert_matrix(six, 2, 3);
    ck_assert_ptr_null(embeddings->encoder);
    ck_assert_int_eq(embeddings->normalized, HLC_NORMALIZED_UNKNOWN);
}
END_TEST

START_TEST(a_matrix_of_several_blocks_is_put_together) {
    enum { ROWS = 700, COLS = 768 };
    float *values = malloc(sizeof(float) * ROWS * COLS), *columns = malloc(sizeof(float) * ROWS * COLS);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t k = 0; k < COLS; k++)
            values[i * COLS + k] = columns[k * ROWS + i] = (float)(i * 1000 + k);
    char *bytes = calloc(1, 128 + sizeof(float) * ROWS * COLS);
    memcpy(bytes, "\x93NUMPY\1\0\x76\0", 10);
    memset(bytes + 10, ' ', 118);
    strcpy(bytes + 10, "{'descr': '<f4', 'fortran_order': True, 'shape': (700, 768)}");
    bytes[10 + strlen(bytes + 10)] = ' ';
    memcpy(bytes + 128, columns, sizeof(float) * ROWS * COLS);
    write_file("x.npy", bytes, 128 + sizeof(float) * ROWS * COLS);
    read_embeddings("x.npy", "");
    assert_matrix(values, ROWS, COLS);
    free(values);
    free(columns);
    free(bytes);
}
END_TEST

static void assert_npy_refused(const char *dictionary, size_t size, const char *place, const char *part) {
    static const float zeros[256];
    write_npy("x.npy", 1, dictionary, zeros, size);
    ck_assert_ptr_null(read_embeddings("x.npy", ""));
    assert_error(place, part);
    ck_assert_int_eq(hlc_faults_exit_status(faults), 1);
}

START_TEST(numpy_headers_that_break_the_rules_are_refused) {
    assert_npy_refused("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)}", 24, "byte",
                       "the type must be float16");
    assert_npy_refused("{'descr': '<c8', 'fortran_order': False, 'shape': (2, 3)}", 48, "byte",
                       "the type must be float16");
    assert_npy_refused("{'descr': '|f4', 'fortran_order': False, 'shape': (2, 3)}", 24, "byte",
                       "the type must be float16");
    assert_npy_refused("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}", 24, "byte",
                       "the type must be float16");
    assert_npy_refused("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3)}", 24, "byte", "structured");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3)}", 24, "byte", "True or False");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", 4, "byte", "two dimensions");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3)}", 24, "byte", "two dimensions");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': [2, 3]}", 24, "byte", "tuple");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3)}", 24, "byte", "non-negative");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2 3)}", 24, "byte", "tuple");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 99999999999999999999)}", 24, "byte",
                       "64 bits");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808, 4)}", 0, NULL,
                       "overflows 64 bits");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 1)}", 0, NULL,
                       "overflows 64 bits");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False}", 24, "byte", "each once");
    assert_npy_refused("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", 24, "byte",
                       "each once");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'x': 1}", 24, "byte", "each once");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} ()", 24, "byte",
                       "behind the dictionary");
    assert_npy_refused("{'descr': '<f4' 'fortran_order': False, 'shape': (2, 3)}", 24, "byte", "comma or }");
    assert_npy_refused("{'descr' '<f4', 'fortran_order': False, 'shape': (2, 3)}", 24, "byte", "colon");
    assert_npy_refused("{'descr': '<f4, ", 24, "byte", "does not end");
    assert_npy_refused("('descr')", 24, "byte", "dictionary");
    assert_npy_refused("", 24, "byte", "dictionary");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", 23, NULL,
                       "needs 24 bytes, but 23 follow");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", 25, NULL,
                       "needs 24 bytes, but 25 follow");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)}", 0, NULL, "empty: 0 samples");
    assert_npy_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 0)}", 0, NULL, "empty");
}
END_TEST

START_TEST(files_that_are_no_numpy_files_are_refused) {
    static const struct {
        const char *bytes;
        size_t size;
        const char *part;
    } cases[] = {
        {"", 0, "no NumPy array file"},
        {"\x93NUMPY\1", 7, "no NumPy array file"},
        {"\x93NUMPX\1\0\1\0{", 11, "no NumPy array file"},
        {"\x93NUMPY\4\0\1\0{", 11, "version 4"},
        {"\x93NUMPY\0\0\1\0{", 11, "version 0"},
        {"\x93NUMPY\1\0\2\0{", 11, "the header's length is 2 bytes"},
        {"\x93NUMPY\2\0\xFF\xFF\xFF\xFF{", 13, "the header's length is 4294967295 bytes"},
        {"\x93NUMPY\2\0\2", 9, "no NumPy array file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file("x.npy", cases[i].bytes, cases[i].size);
        ck_assert_ptr_null(read_embeddings("x.npy", ""));
        assert_error(NULL, cases[i].part);
    }
    ck_assert_int_eq(mkfifo("pipe.npy", 0600), 0);
    ck_assert_int_eq(mkfifo("pipe.h5", 0600), 0);
    ck_assert_int_eq(mkfifo("pipe.safetensors", 0600), 0);
    static const char *const pipes[] = {"pipe.npy", "pipe.h5", "pipe.safetensors"};
    for (size_t i = 0; i < 3; i++) {
        ck_assert_ptr_null(read_embeddings(pipes[i], ""));
        assert_error(NULL, "this is a pipe");
    }
    ck_assert_ptr_null(read_embeddings("gone.npy", ""));
    ck_assert_int_eq(hlc_faults_exit_status(faults), 3);
}
END_TEST

START_TEST(values_that_are_not_finite_are_refused) {
    static const char dictionary[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}";
    static const char by_columns[] = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}";
    static const char wide[] = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3)}";
    float values[6] = {0, 1, 2, 3, NAN, 5};
    write_npy("x.npy", 1, dictionary, values, sizeof values);
    ck_assert_ptr_null(read_embeddings("x.npy", ""));
    assert_error(NULL, "component 1 of sample 1 (from 0) is not finite");
    write_npy("x.npy", 1, by_columns, values, sizeof values);
    ck_assert_ptr_null(read_embeddings("x.npy", ""));
    assert_error(NULL, "component 2 of sample 0 (from 0) is not finite");
    values[4] = -INFINITY;
    write_npy("x.npy", 1, dictionary, values, sizeof values);
    ck_assert_ptr_null(read_embeddings("x.npy", ""));
    assert_error(NULL, "is not finite");
    double doubles[6] = {0, 1, 2, 1e39, 4, 5};
    write_npy("x.npy", 1, wide, doubles, sizeof doubles);
    ck_assert_ptr_null(read_embeddings("x.npy", ""));
    assert_error(NULL, "component 0 of sample 1 (from 0) overflows float32");
    doubles[3] = 3.4028235e38;
    write_npy("x.npy", 1, wide, doubles, sizeof doubles);
    ck_assert_ptr_nonnull(read_embeddings("x.npy", ""));
}
END_TEST

static void write_tensors(const char *metadata, const char *key, const char *dtype, const char *shape, const void *data,
                          size_t size) {
    char header[2048];
    snprintf(header, sizeof header, "{%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[0,%zu]}}", metadata,
             key, dtype, shape, size);
    write_safetensors("x.safetensors", header, data, size);
}

START_TEST(safetensors_files_are_read_with_their_metadata) {
    write_tensors("\"__metadata__\":{\"encoder\":\"org/enc\",\"revision\":\"r\",\"prefix\":\"Do: "
                  "\\u00e9\",\"normalized\":\"false\"},",
                  "embeddings", "F32", "[2,3]", six, sizeof six);
    read_embeddings("x.safetensors", "embeddings");
    assert_matrix(six, 2, 3);
    assert_silent();
    ck_assert_str_eq(embeddings->encoder, "org/enc");
    ck_assert_str_eq(embeddings->revision, "r");
    ck_assert_str_eq(embeddings->prefix, "Do: \xC3\xA9");
    ck_assert_int_eq(embeddings->normalized, HLC_NORMALIZED_NO);
    write_tensors("", "one", "F16", "[3,2]", six_f16, sizeof six_f16);
    read_embeddings("x.safetensors", "one");
    assert_matrix(six, 3, 2);
    ck_assert_ptr_null(embeddings->prefix);
    ck_assert_int_eq(embeddings->normalized, HLC_NORMALIZED_UNKNOWN);
    write_tensors("", "one", "F32", "[6]", six, sizeof six);
    read_embeddings("x.safetensors", "one");
    assert_matrix(six, 1, 6);
}
END_TEST

START_TEST(safetensors_files_that_do_not_fit_are_refused) {
    write_tensors("", "other", "F32", "[2,3]", six, sizeof six);
    ck_assert_ptr_null(read_embeddings("x.safetensors", "embeddings"));
    assert_error("tensor 'embeddings'",
                 "there is no tensor of this name; the file holds 1, the first is tensor 'other'");
    write_safetensors("x.safetensors", "{}", NULL, 0);
    ck_assert_ptr_null(read_embeddings("x.safetensors", "embeddings"));
    assert_error("tensor 'embeddings'", "holds no tensor");
    static const char *const shapes[] = {"[1,2,3]", "[6,1,1]"};
    for (size_t i = 0; i < 2; i++) {
        write_tensors("", "e", "F32", shapes[i], six, sizeof six);
        ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
        assert_error("tensor 'e'", "no matrix");
    }
    static const char *const types[] = {"I32", "U32"};
    for (size_t i = 0; i < 2; i++) {
        write_tensors("", "e", types[i], "[2,3]", six, sizeof six);
        ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
        assert_error("tensor 'e'", "F16, F32 and F64 are read");
    }
    write_tensors("", "e", "BF16", "[2,3]", six_f16, sizeof six_f16);
    ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
    assert_error("tensor 'e'", "the type is BF16");
    write_tensors("", "e", "F32", "[0,3]", NULL, 0);
    ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
    assert_error("tensor 'e'", "empty");
    write_text("x.safetensors", "<html>");
    ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
    assert_error(NULL, "HTML");
}
END_TEST

START_TEST(shapes_beyond_the_limits_are_refused) {
    char *zeros = calloc(65537, 2);
    write_tensors("", "e", "F16", "[1,65537]", zeros, 2 * 65537);
    ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
    assert_error("tensor 'e'", "too many");
    write_tensors("", "e", "F16", "[1,65536]", zeros, 2 * 65536);
    ck_assert_ptr_nonnull(read_embeddings("x.safetensors", "e"));
    free(zeros);
    zeros = calloc(1000001, 2);
    write_tensors("", "e", "F16", "[1000001,1]", zeros, 2 * 1000001);
    ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
    assert_error("tensor 'e'", "too many");
    free(zeros);
    write_tensors("", "e", "F16", "[1000000,65536]", NULL, 0);
    ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
    char header[256];
    snprintf(header, sizeof header, "{\"e\":{\"dtype\":\"F16\",\"shape\":[32768,32769],\"data_offsets\":[0,%llu]}}",
             2ull * 32768 * 32769);
    write_safetensors("x.safetensors", header, NULL, 0);
    ck_assert_int_eq(truncate("x.safetensors", (off_t)(8 + strlen(header) + 2ull * 32768 * 32769)), 0);
    ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
    assert_error("tensor 'e'", "too many");
}
END_TEST

START_TEST(the_claim_of_normalisation_is_checked) {
    static const struct {
        const char *text;
        int normalized; /* -1: refused */
    } answers[] = {{"true", 1}, {"True", 1}, {"yes", 1}, {"1", 1},      {"false", 0}, {"FALSE", 0},
                   {"no", 0},   {"0", 0},    {"", -1},   {"maybe", -1}, {"2", -1}};
    float unit[4] = {0.6f, 0.8f, 1, 0};
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        char metadata[128];
        snprintf(metadata, sizeof metadata, "\"__metadata__\":{\"normalized\":\"%s\"},", answers[i].text);
        write_tensors(metadata, "e", "F32", "[2,2]", unit, sizeof unit);
        read_embeddings("x.safetensors", "e");
        if (answers[i].normalized >= 0)
            ck_assert_int_eq(embeddings->normalized, answers[i].normalized);
        else
            assert_error("key 'normalized'", "must be true or false");
    }
    unit[2] = 1.0009f;
    write_tensors("\"__metadata__\":{\"normalized\":\"true\"},", "e", "F32", "[2,2]", unit, sizeof unit);
    ck_assert_ptr_nonnull(read_embeddings("x.safetensors", "e"));
    unit[2] = 1.0011f;
    write_tensors("\"__metadata__\":{\"normalized\":\"true\"},", "e", "F32", "[2,2]", unit, sizeof unit);
    ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
    assert_error("key 'normalized'", "sample 1 (from 0) has length 1.0011");
    write_tensors("\"__metadata__\":{\"normalized\":\"false\"},", "e", "F32", "[2,2]", unit, sizeof unit);
    ck_assert_ptr_nonnull(read_embeddings("x.safetensors", "e"));
}
END_TEST

START_TEST(metadata_that_cannot_be_kept_is_refused) {
    write_tensors("\"__metadata__\":{\"encoder\":\"a\\u0000b\",\"prefix\":\"x\",\"prefix\":\"y\"},", "e", "F32",
                  "[2,3]", six, sizeof six);
    ck_assert_ptr_null(read_embeddings("x.safetensors", "e"));
    assert_error("key 'encoder'", "without NUL");
    assert_error("metadata key 'prefix'", "stands twice");
}
END_TEST

static void add_text(hid_t object, const char *name, const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text));
    H5Tset_cset(type, H5T_CSET_UTF8);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert_int_ge(H5Awrite(attribute, type, text), 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void write_h5(hid_t type, hid_t memory_type, int rank, const hsize_t *shape, const void *values,
                     bool attributes) {
    hid_t file = H5Fcreate("x.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Screate_simple(rank, shape, NULL);
    hid_t set = H5Dcreate2(file, "embeddings", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert_int_ge(H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), 0);
    if (attributes) {
        add_text(set, "encoder", "org/enc");
        add_text(file, "prefix", "query: ");
        add_text(file, "normalized", "no");
    }
    H5Dclose(set);
    H5Sclose(space);
    H5Fclose(file);
}

START_TEST(hdf5_files_are_read_with_their_attributes) {
    static const hsize_t shape[] = {2, 3};
    write_h5(H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 2, shape, six, true);
    read_embeddings("x.h5", "embeddings");
    assert_matrix(six, 2, 3);
    ck_assert_str_eq(embeddings->encoder, "org/enc");
    ck_assert_str_eq(embeddings->prefix, "query: ");
    ck_assert_ptr_null(embeddings->revision);
    ck_assert_int_eq(embeddings->normalized, HLC_NORMALIZED_NO);
    write_h5(H5T_IEEE_F64BE, H5T_NATIVE_FLOAT, 2, shape, six, false);
    read_embeddings("x.h5", "embeddings");
    assert_matrix(six, 2, 3);
    ck_assert_int_eq(embeddings->normalized, HLC_NORMALIZED_UNKNOWN);
}
END_TEST

START_TEST(hdf5_files_that_do_not_fit_are_refused) {
    static const hsize_t shape[] = {2, 3};
    float values[6] = {0, 1, 2, 3, NAN, 5};
    write_h5(H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 2, shape, values, false);
    ck_assert_ptr_null(read_embeddings("x.h5", "embeddings"));
    assert_error(NULL, "finite");
    double doubles[6] = {0, 1e300, 2, 3, 4, 5};
    write_h5(H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 2, shape, doubles, false);
    ck_assert_ptr_null(read_embeddings("x.h5", "embeddings"));
    write_h5(H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 1, shape, six, false);
    ck_assert_ptr_null(read_embeddings("x.h5", "embeddings"));
    write_h5(H5T_STD_I32LE, H5T_NATIVE_FLOAT, 2, shape, six, false);
    ck_assert_ptr_null(read_embeddings("x.h5", "embeddings"));
    write_h5(H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 2, shape, six, false);
    ck_assert_ptr_null(read_embeddings("x.h5", "other"));
    write_text("x.h5", "no HDF5");
    ck_assert_ptr_null(read_embeddings("x.h5", "embeddings"));
    ck_assert_int_eq(hlc_faults_exit_status(faults), 1);
    ck_assert_ptr_null(read_embeddings("gone.h5", "embeddings"));
    ck_assert_int_eq(hlc_faults_exit_status(faults), 3);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("embeddings");
    TCase *all = tcase_create("all");
    tcase_add_checked_fixture(all, enter, leave);
    tcase_set_timeout(all, 60);
    tcase_add_test(all, numpy_files_of_all_kinds_are_read);
    tcase_add_test(all, a_matrix_of_several_blocks_is_put_together);
    tcase_add_test(all, numpy_headers_that_break_the_rules_are_refused);
    tcase_add_test(all, files_that_are_no_numpy_files_are_refused);
    tcase_add_test(all, values_that_are_not_finite_are_refused);
    tcase_add_test(all, safetensors_files_are_read_with_their_metadata);
    tcase_add_test(all, safetensors_files_that_do_not_fit_are_refused);
    tcase_add_test(all, shapes_beyond_the_limits_are_refused);
    tcase_add_test(all, the_claim_of_normalisation_is_checked);
    tcase_add_test(all, metadata_that_cannot_be_kept_is_refused);
    tcase_add_test(all, hdf5_files_are_read_with_their_attributes);
    tcase_add_test(all, hdf5_files_that_do_not_fit_are_refused);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
