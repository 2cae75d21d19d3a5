#include "compiler/base/hdf5_file.h"

#include <hdf5.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "compiler/base/hdf5_driver.h"
#include "compiler/base/text.h"
#include "format/records.h"

enum { FILTER_SHUFFLE = 2, FILTER_ZSTD = 32015 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Everything is closed by name; a second round when the process ends could only meet what HDF5 failed to close. */
static void enter(void) {
    pthread_mutex_lock(&lock);
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static void leave(void) {
    pthread_mutex_unlock(&lock);
}

void hlc_h5_hold(void) {
    pthread_mutex_lock(&lock);
}

void hlc_h5_release(void) {
    pthread_mutex_unlock(&lock);
}

/* The innermost message of HDF5's error stack: the one that says what really happened. */
static herr_t keep_innermost(unsigned n, const H5E_error2_t *error, void *text) {
    if (n == 0 && error->desc) {
        snprintf(text, 160, "%s", error->desc);
    }
    return 0;
}

/* error_number: of the system call underneath, where it is known to have failed; else 0. */
static bool fail(hlc_faults *faults, const char *file, const char *place, hlc_fault_kind kind, const char *action, int error_number) {
    char text[160] = "unknown reason";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, text);
    H5Eclear2(H5E_DEFAULT);
    if (error_number) {
        hlc_bad_io(faults, file, action, error_number);
    } else {
        hlc_fault(faults, HLC_ERROR, kind, file, place, NULL, "%s: HDF5 says: %s", action, text);
    }
    return false;
}

void hlc_h5_version(char out[16]) {
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(out, 16, "%u.%u.%u", major, minor, release);
}

/* ---- Reading a matrix ---- */

/* A scalar string attribute of `object`, fixed or variable length; NULL where there is none or it is of another kind. */
static char *read_text_attribute(hid_t object, const char *name) {
    enum { LONGEST = 65536 };
    char *text = NULL;
    if (H5Aexists(object, name) <= 0) {
        return NULL;
    }
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    H5T_class_t class = H5Tget_class(type);
    bool scalar = H5Sget_simple_extent_npoints(space) == 1;
    if (class == H5T_STRING && scalar && H5Tis_variable_str(type) > 0) {
        char *value = NULL;
        hid_t memory = H5Tcopy(H5T_C_S1);
        H5Tset_size(memory, H5T_VARIABLE);
        H5Tset_cset(memory, H5Tget_cset(type));
        if (H5Aread(attribute, memory, &value) >= 0 && value) {
            text = strndup(value, LONGEST);
            H5free_memory(value);
        }
        H5Tclose(memory);
    } else if (class == H5T_STRING && scalar && H5Tget_size(type) <= LONGEST) {
        size_t size = H5Tget_size(type);
        text = calloc(1, size + 1);
        if (text && H5Aread(attribute, type, text) < 0) {
            free(text);
            text = NULL;
        }
    } else if ((class == H5T_ENUM || class == H5T_INTEGER) && scalar && H5Tget_size(type) <= 8) {
        signed char value = 0; /* h5py writes bool as an enumeration over int8 */
        hid_t native = class == H5T_ENUM ? H5Tget_super(type) : H5Tcopy(type);
        if (H5Tget_size(native) == 1 && H5Aread(attribute, type, &value) >= 0) {
            text = strdup(value ? "true" : "false");
        }
        H5Tclose(native);
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return text;
}

static bool check_shape(const char *path, const char *dataset, hid_t space, const hlc_h5_limits *limits, hsize_t dims[2],
                        hlc_faults *faults) {
    if (H5Sget_simple_extent_ndims(space) != 2 || H5Sget_simple_extent_dims(space, dims, NULL) != 2) {
        hlc_bad_input(faults, path, dataset, "the dataset is not a matrix");
        return false;
    }
    if (dims[0] == 0 || dims[1] == 0 || dims[0] > limits->rows || dims[1] > limits->columns ||
        dims[0] > limits->elements / dims[1]) {
        hlc_bad_input(faults, path, dataset,
                      "%llu x %llu embeddings: at least 1 x 1 and at most %zu x %zu, %zu components in all, are read",
                      (unsigned long long)dims[0], (unsigned long long)dims[1], limits->rows, limits->columns, limits->elements);
        return false;
    }
    return true;
}

/* A dataset may declare a shape of terabytes that it does not store, and chunks that expand a thousandfold. */
static bool check_stored(const char *path, const char *dataset, hid_t set, const hsize_t dims[2], const hlc_h5_limits *limits,
                         hlc_faults *faults) {
    const uint64_t wanted = dims[0] * dims[1] * sizeof(float);
    if (wanted > limits->bytes) {
        hlc_bad_input(faults, path, dataset, "declares %llu bytes of embeddings; at most %llu are read from a file of this size",
                      (unsigned long long)wanted, (unsigned long long)limits->bytes);
        return false;
    }
    hid_t create = H5Dget_create_plist(set);
    hsize_t chunk[2] = {0, 0};
    bool good = true;
    if (H5Pget_external_count(create) > 0 || H5Pget_layout(create) == H5D_VIRTUAL) {
        hlc_bad_input(faults, path, dataset, "the data lie in another file: not read");
        good = false;
    } else if (H5Pget_layout(create) == H5D_CHUNKED && H5Pget_chunk(create, 2, chunk) == 2 &&
               chunk[0] * chunk[1] > (hsize_t)(64 << 20)) {
        hlc_bad_input(faults, path, dataset, "chunks of %llu elements: too large", (unsigned long long)(chunk[0] * chunk[1]));
        good = false;
    }
    H5Pclose(create);
    return good;
}

static bool read_values(const char *path, const char *dataset, hid_t set, const hlc_h5_limits *limits, float **values,
                        size_t *rows, size_t *cols, hlc_faults *faults) {
    hsize_t dims[2] = {0, 0};
    hid_t space = H5Dget_space(set), type = H5Dget_type(set);
    bool good = check_shape(path, dataset, space, limits, dims, faults);
    if (good && (H5Tget_class(type) != H5T_FLOAT || H5Tget_size(type) > 8)) {
        hlc_bad_input(faults, path, dataset, "the elements are not float16, float32 or float64");
        good = false;
    }
    good = good && check_stored(path, dataset, set, dims, limits, faults);
    if (good) {
        *values = malloc(dims[0] * dims[1] * sizeof(float));
        if (!*values) {
            hlc_out_of_memory(faults, path, dims[0] * dims[1] * sizeof(float));
            good = false;
        } else if (H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, *values) < 0) {
            good = fail(faults, path, dataset, HLC_FAULT_INPUT, "cannot read the dataset", 0);
            free(*values);
            *values = NULL;
        }
    }
    *rows = (size_t)dims[0];
    *cols = (size_t)dims[1];
    H5Tclose(type);
    H5Sclose(space);
    return good;
}

/* The dataset that the file itself holds under the name: a soft or external link may lead into any other file, or to a pipe. */
static hid_t open_dataset(const char *path, const char *dataset, hid_t file, hlc_faults *faults) {
    H5L_info_t link;
    hid_t set = H5I_INVALID_HID;
    if (H5Lexists(file, dataset, H5P_DEFAULT) > 0 && H5Lget_info(file, dataset, &link, H5P_DEFAULT) >= 0) {
        if (link.type != H5L_TYPE_HARD) {
            hlc_bad_input(faults, path, dataset, "a link to data elsewhere: not read");
            return set;
        }
        set = H5Dopen2(file, dataset, H5P_DEFAULT);
    }
    if (set < 0) {
        hlc_bad_input(faults, path, dataset, "there is no dataset of this name");
    }
    H5Eclear2(H5E_DEFAULT);
    return set;
}

bool hlc_h5_read_matrix(const char *path, const char *dataset, const hlc_h5_limits *limits, float **values, size_t *rows,
                        size_t *cols, char *attributes[4], hlc_faults *faults) {
    static const char *const names[4] = {"encoder", "revision", "prefix", "normalized"};
    bool good = false;
    *values = NULL;
    memset(attributes, 0, 4 * sizeof attributes[0]);
    enter();
    hid_t set = H5I_INVALID_HID, file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) {
        fail(faults, path, NULL, HLC_FAULT_INPUT, "cannot open as HDF5", 0);
        goto done;
    }
    set = open_dataset(path, dataset, file, faults);
    if (set < 0) {
        goto done;
    }
    good = read_values(path, dataset, set, limits, values, rows, cols, faults);
    for (int i = 0; good && i < 4; i++) {
        attributes[i] = read_text_attribute(set, names[i]);
        if (!attributes[i]) {
            attributes[i] = read_text_attribute(file, names[i]);
        }
    }
done:
    if (set >= 0) {
        H5Dclose(set);
    }
    if (file >= 0) {
        H5Fclose(file);
    }
    H5Eclear2(H5E_DEFAULT);
    leave();
    return good;
}

/* ---- Writing a pool ---- */

typedef struct chunked {
    hid_t id;
    uint64_t height, width;
} chunked;

struct hlc_h5_writer {
    char *label;
    hid_t file, meta;
    int fd;
    hlc_h5_watch watch;
    bool told; /* a fault was added */
    chunked *datasets;
    uint32_t dataset_count, dataset_room;
};

static bool fail_writing(hlc_h5_writer *writer, const char *place, const char *action, hlc_faults *faults) {
    writer->told = true;
    return fail(faults, writer->label, place, HLC_FAULT_RESOURCE, action, writer->watch.error_number);
}

static hid_t access_list(hlc_h5_writer *writer, uint64_t alignment) {
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    hlc_h5_use_descriptor(list, writer->fd, &writer->watch);
    H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_alignment(list, 1, alignment);
    H5Pset_small_data_block_size(list, 0);
    H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
    return list;
}

/* Objects keep no times, so that equal pools are equal files. */
static hid_t group_list(void) {
    hid_t list = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(list, false);
    return list;
}

static bool make_group(hid_t file, const char *path) {
    if (H5Lexists(file, path, H5P_DEFAULT) > 0) {
        return true;
    }
    hid_t list = group_list();
    hid_t group = H5Gcreate2(file, path, H5P_DEFAULT, list, H5P_DEFAULT);
    H5Pclose(list);
    if (group >= 0) {
        H5Gclose(group);
    }
    return group >= 0;
}

/* Intermediate groups made by HDF5 itself would track times: make each one ourselves. */
static bool make_parents(hid_t file, const char *path) {
    char parent[256];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        if ((size_t)(slash - path) >= sizeof parent) {
            return false;
        }
        memcpy(parent, path, (size_t)(slash - path));
        parent[slash - path] = '\0';
        if (!make_group(file, parent)) {
            return false;
        }
    }
    return true;
}

hlc_h5_writer *hlc_h5_create(int fd, const char *label, hlc_faults *faults) {
    hlc_h5_writer *writer = calloc(1, sizeof *writer);
    if (!writer || !(writer->label = strdup(label))) {
        free(writer);
        hlc_out_of_memory(faults, label, 0);
        return NULL;
    }
    writer->fd = fd;
    writer->meta = H5I_INVALID_HID;
    enter();
    hid_t access = access_list(writer, HLF_ALIGN), create = H5Pcreate(H5P_FILE_CREATE), groups = group_list();
    H5Pset_userblock(create, HLF_HEADER_SIZE);
    H5Pset_obj_track_times(create, false);
    writer->file = H5Fcreate(label, H5F_ACC_TRUNC, create, access);
    if (writer->file >= 0) {
        writer->meta = H5Gcreate2(writer->file, "/meta", H5P_DEFAULT, groups, H5P_DEFAULT);
    }
    bool good = writer->meta >= 0 || fail_writing(writer, NULL, "cannot create the pool", faults);
    H5Pclose(groups);
    H5Pclose(create);
    H5Pclose(access);
    leave();
    if (!good) {
        hlc_h5_close(writer, faults);
        return NULL;
    }
    return writer;
}

static hid_t compound_type(const hlf_record_type *record) {
    hid_t type = H5Tcreate(H5T_COMPOUND, record->size);
    for (uint32_t i = 0; type >= 0 && i < record->field_count; i++) {
        const hlf_field *field = &record->fields[i];
        hid_t base = field->type == HLF_FIELD_U8    ? H5T_STD_U8LE
                     : field->type == HLF_FIELD_U32 ? H5T_STD_U32LE
                     : field->type == HLF_FIELD_U64 ? H5T_STD_U64LE
                                                    : H5T_IEEE_F64LE;
        hsize_t count = field->count;
        hid_t member = count > 1 ? H5Tarray_create2(base, 1, &count) : H5Tcopy(base);
        H5Tinsert(type, field->name, field->position, member);
        H5Tclose(member);
    }
    return type;
}

static hid_t section_type(hlf_section_id section) {
    switch (hlf_section_element(section)) {
    case HLF_ELEMENT_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case HLF_ELEMENT_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case HLF_ELEMENT_RECORD:
        return compound_type(hlf_record_type_of(section));
    case HLF_ELEMENT_BYTES:
        break;
    }
    return H5Tcopy(H5T_STD_U8LE);
}

bool hlc_h5_add_section(hlc_h5_writer *writer, hlf_section_id section, uint64_t rows, uint64_t columns, uint64_t *offset,
                        hlc_faults *faults) {
    const char *path = hlf_section_path(section);
    hsize_t dims[2] = {rows, columns};
    *offset = 0;
    enter();
    hid_t type = section_type(section), space = H5Screate_simple(columns ? 2 : 1, dims, NULL);
    hid_t create = H5Pcreate(H5P_DATASET_CREATE), set = H5I_INVALID_HID;
    H5Pset_layout(create, H5D_CONTIGUOUS);
    H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(create, false);
    if (make_parents(writer->file, path)) {
        set = H5Dcreate2(writer->file, path, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    }
    bool good = set >= 0;
    if (good && H5Sget_simple_extent_npoints(space) > 0) {
        haddr_t at = H5Dget_offset(set); /* absolute: the user block is included */
        good = at != HADDR_UNDEF && at % HLF_ALIGN == 0;
        *offset = at;
    }
    if (!good) {
        fail_writing(writer, path, "cannot lay out a section", faults);
    }
    if (set >= 0) {
        H5Dclose(set);
    }
    H5Pclose(create);
    H5Sclose(space);
    H5Tclose(type);
    leave();
    return good;
}

static bool add_attribute(hlc_h5_writer *writer, const char *name, hid_t type, const void *value, hlc_faults *faults) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(writer->meta, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
    if (attribute >= 0) {
        H5Aclose(attribute);
    }
    H5Sclose(space);
    return good || fail_writing(writer, name, "cannot write an attribute of /meta", faults);
}

bool hlc_h5_add_text(hlc_h5_writer *writer, const char *name, const char *text, size_t length, hlc_faults *faults) {
    enum { LONGEST = 32768 }; /* an attribute in an object header holds less than 64 KiB */
    size_t size = strnlen(text, length);
    size = size > LONGEST ? hlc_utf8_prefix(text, LONGEST) : size; /* cut between two characters */
    char *copy = strndup(text, size);
    if (!copy) {
        hlc_out_of_memory(faults, writer->label, size);
        return false;
    }
    enter();
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, size ? size : 1);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    bool good = add_attribute(writer, name, type, copy, faults);
    H5Tclose(type);
    leave();
    free(copy);
    return good;
}

bool hlc_h5_add_number(hlc_h5_writer *writer, const char *name, double value, hlc_faults *faults) {
    enter();
    bool good = add_attribute(writer, name, H5T_IEEE_F64LE, &value, faults);
    leave();
    return good;
}

bool hlc_h5_add_integer(hlc_h5_writer *writer, const char *name, int64_t value, hlc_faults *faults) {
    enter();
    bool good = add_attribute(writer, name, H5T_STD_I64LE, &value, faults);
    leave();
    return good;
}

bool hlc_h5_begin_chunks(hlc_h5_writer *writer, uint64_t alignment, hlc_faults *faults) {
    enter();
    hid_t access = access_list(writer, alignment);
    H5Gclose(writer->meta);
    herr_t closed = H5Fclose(writer->file);
    writer->meta = H5I_INVALID_HID;
    writer->file = closed >= 0 && !writer->watch.error_number ? H5Fopen(writer->label, H5F_ACC_RDWR, access) : H5I_INVALID_HID;
    bool good = writer->file >= 0 || fail_writing(writer, NULL, "cannot write the pool's tables", faults);
    H5Pclose(access);
    leave();
    return good;
}

/* IEEE layout, or the same with the sign in the lowest bit: w' = w << 1 | sign (docs/FORMAT.md, "Element types"). */
static hid_t element_type(hlf_dtype dtype, bool rotated) {
    static const struct {
        size_t exponent, mantissa, bias;
    } layout[] = {[HLF_DTYPE_F16] = {5, 10, 15}, [HLF_DTYPE_BF16] = {8, 7, 127}, [HLF_DTYPE_F32] = {8, 23, 127}, [HLF_DTYPE_F64] = {11, 52, 1023}};
    size_t bits = 8 * hlf_dtype_size(dtype), exponent = layout[dtype].exponent, mantissa = layout[dtype].mantissa;
    size_t low = rotated ? 1 : 0;
    hid_t type = H5Tcopy(H5T_IEEE_F64LE); /* the widest: fields are set before the type shrinks */
    H5Tset_fields(type, rotated ? 0 : bits - 1, low + mantissa, exponent, low, mantissa);
    H5Tset_precision(type, bits);
    H5Tset_size(type, bits / 8);
    H5Tset_ebias(type, layout[dtype].bias);
    return type;
}

static bool keep_dataset(hlc_h5_writer *writer, chunked dataset) {
    if (writer->dataset_count == writer->dataset_room) {
        uint32_t room = writer->dataset_room ? 2 * writer->dataset_room : 256;
        chunked *grown = realloc(writer->datasets, room * sizeof *grown);
        if (!grown) {
            return false;
        }
        writer->datasets = grown;
        writer->dataset_room = room;
    }
    writer->datasets[writer->dataset_count++] = dataset;
    return true;
}

bool hlc_h5_add_dataset(hlc_h5_writer *writer, const char *path, uint64_t rows, uint64_t height, uint64_t width, hlf_dtype dtype,
                        bool coded, uint32_t *dataset, hlc_faults *faults) {
    hsize_t dims[3] = {rows, height, width}, chunk[3] = {1, height, width};
    enter();
    hid_t type = element_type(dtype, coded), space = H5Screate_simple(3, dims, NULL);
    hid_t create = H5Pcreate(H5P_DATASET_CREATE), access = H5Pcreate(H5P_DATASET_ACCESS), set = H5I_INVALID_HID;
    H5Pset_chunk(create, 3, chunk);
    H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(create, false);
    H5Pset_chunk_cache(access, 1, 0, 0); /* chunks are written whole, past the cache */
    if (coded) {
        H5Pset_shuffle(create);
        H5Pset_filter(create, FILTER_ZSTD, H5Z_FLAG_OPTIONAL, 0, NULL); /* optional: this process has no such filter */
    }
    if (make_parents(writer->file, path)) {
        set = H5Dcreate2(writer->file, path, type, space, H5P_DEFAULT, create, access);
    }
    bool good = set >= 0 || fail_writing(writer, path, "cannot create a dataset", faults);
    if (good && !keep_dataset(writer, (chunked){set, height, width})) {
        hlc_out_of_memory(faults, writer->label, 0);
        H5Dclose(set);
        good = false;
    }
    *dataset = good ? writer->dataset_count - 1 : 0;
    H5Pclose(access);
    H5Pclose(create);
    H5Sclose(space);
    H5Tclose(type);
    leave();
    return good;
}

bool hlc_h5_write_chunk(hlc_h5_writer *writer, uint32_t dataset, uint64_t row, const void *bytes, size_t size, uint64_t *offset,
                        hlc_faults *faults) {
    const hsize_t position[3] = {row, 0, 0};
    enter();
    writer->watch.bytes = bytes;
    writer->watch.size = size;
    writer->watch.offset = UINT64_MAX;
    bool good = H5Dwrite_chunk(writer->datasets[dataset].id, H5P_DEFAULT, 0, position, size, bytes) >= 0 &&
                writer->watch.offset != UINT64_MAX && !writer->watch.error_number;
    if (!good) {
        fail_writing(writer, NULL, "cannot write a chunk", faults);
    }
    *offset = writer->watch.offset;
    writer->watch.bytes = NULL;
    leave();
    return good;
}

bool hlc_h5_close(hlc_h5_writer *writer, hlc_faults *faults) {
    bool good = true;
    enter();
    for (uint32_t i = 0; i < writer->dataset_count; i++) {
        good = H5Dclose(writer->datasets[i].id) >= 0 && good;
    }
    if (writer->meta >= 0) {
        good = H5Gclose(writer->meta) >= 0 && good;
    }
    if (writer->file >= 0) {
        good = H5Fclose(writer->file) >= 0 && good;
    }
    good = good && !writer->watch.error_number;
    if (!good && !writer->told) {
        fail_writing(writer, NULL, "cannot finish the pool", faults);
    }
    leave();
    free(writer->datasets);
    free(writer->label);
    free(writer);
    return good;
}
