/* The registered Zstandard filter (32015) for HDF5's own tools: with HDF5_PLUGIN_PATH naming this object's folder, h5dump and
 * every other HDF5 program reads the weights of a pool. */
#include <H5PLextern.h>
#include <stdlib.h>
#include <zstd.h>

enum { FILTER_ZSTD = 32015, DEFAULT_LEVEL = 3 };

/* A filter answers the size of the new contents of *buffer, 0 for failure. */
static size_t replace(void **buffer, size_t *room, void *bytes, size_t capacity, size_t size) {
    if (ZSTD_isError(size) || size == 0) {
        free(bytes);
        return 0;
    }
    free(*buffer);
    *buffer = bytes;
    *room = capacity;
    return size;
}

static size_t zstd_filter(unsigned flags, size_t value_count, const unsigned values[], size_t size, size_t *room, void **buffer) {
    if (flags & H5Z_FLAG_REVERSE) {
        unsigned long long content = ZSTD_getFrameContentSize(*buffer, size);
        void *bytes = content < ZSTD_CONTENTSIZE_ERROR && content <= SIZE_MAX ? malloc(content) : NULL;
        return bytes ? replace(buffer, room, bytes, content, ZSTD_decompress(bytes, content, *buffer, size)) : 0;
    }
    size_t capacity = ZSTD_compressBound(size);
    void *bytes = malloc(capacity);
    int level = value_count ? (int)values[0] : DEFAULT_LEVEL;
    return bytes ? replace(buffer, room, bytes, capacity, ZSTD_compress(bytes, capacity, *buffer, size, level)) : 0;
}

static const H5Z_class2_t filter_class = {H5Z_CLASS_T_VERS, FILTER_ZSTD, 1, 1, "zstd", NULL, NULL, zstd_filter};

__attribute__((visibility("default"))) H5PL_type_t H5PLget_plugin_type(void) {
    return H5PL_TYPE_FILTER;
}

__attribute__((visibility("default"))) const void *H5PLget_plugin_info(void) {
    return &filter_class;
}
