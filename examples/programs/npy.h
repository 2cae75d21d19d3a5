/* Reads a little-endian float32 array of NumPy's .npy format, version 1, as numpy.save writes it. */
#ifndef EXAMPLES_NPY_H
#define EXAMPLES_NPY_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The values, malloc'd, and how many; NULL when the file is of another kind. */
static float *read_npy(const char *path, size_t *count) {
    unsigned char head[10];
    float *values = NULL;
    FILE *file = fopen(path, "rb");
    if (file && fread(head, 1, sizeof head, file) == sizeof head && memcmp(head, "\x93NUMPY\1", 7) == 0) {
        const size_t text_size = head[8] | (size_t)head[9] << 8;
        char *text = calloc(1, text_size + 1);
        long data = (long)(sizeof head + text_size), end = 0;
        if (text && fread(text, 1, text_size, file) == text_size && strstr(text, "'<f4'") && fseek(file, 0, SEEK_END) == 0 &&
            (end = ftell(file)) > data && fseek(file, data, SEEK_SET) == 0) {
            *count = (size_t)(end - data) / sizeof *values;
            values = malloc(*count * sizeof *values);
            if (values && fread(values, sizeof *values, *count, file) != *count) {
                free(values);
                values = NULL;
            }
        }
        free(text);
    }
    if (file) {
        fclose(file);
    }
    return values;
}

#endif
