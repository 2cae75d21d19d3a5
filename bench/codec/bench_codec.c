/* Measures how well and how fast chunks of weights are stored: bench_codec WIDTH CHUNKS [FRAMES]
 *
 * CHUNKS holds chunks one after the other, each a u64 count n and n elements of WIDTH bytes, little-endian. They are
 * copied until the sources fill 96 MiB, so that sources, stored chunks and results lie beyond the caches. One thread;
 * each method in turn compresses everything and decompresses everything, five times; the median pass counts. Prints
 * JSON. FRAMES receives hilora's frames of the distinct chunks, each a u64 size and its bytes. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zstd.h>

#include "bench/codec/methods.h"
#include "format/planes.h"

enum { PASSES = 5 };
#define WORKING_SET ((size_t)96 << 20)

typedef struct chunk {
    const uint8_t *src;
    uint8_t *stored, *result;
    size_t n, stored_size;
} chunk;

typedef struct measurement {
    size_t stored;                               /* bytes, of the distinct chunks */
    double compress[PASSES], decompress[PASSES]; /* bytes of weights per second of CPU time */
    int passes;
} measurement;

typedef struct setting {
    size_t width;
    chunk *chunks;
    size_t distinct, count; /* chunks in the file; with copies */
    uint8_t *sources, *stored, *results;
} setting;

static void die(const char *what, const char *why) {
    fprintf(stderr, "bench_codec: %s: %s\n", what, why);
    exit(1);
}

static void *allocate(size_t size) {
    void *bytes = malloc(size);
    if (bytes == NULL) {
        die("memory", "an allocation failed");
    }
    memset(bytes, 1, size); /* every page is there before the clock starts */
    return bytes;
}

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        die(path, strerror(errno));
    }
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = allocate(*size);
    if (fread(bytes, 1, *size, file) != *size) {
        die(path, "short read");
    }
    fclose(file);
    return bytes;
}

/* The chunks of a file, as views into its bytes. */
static chunk *list_chunks(const uint8_t *bytes, size_t size, size_t width, size_t *count) {
    chunk *chunks = NULL;
    size_t at = 0;
    for (*count = 0; at < size; ++*count) {
        uint64_t n;
        if (size - at < sizeof n) {
            die("chunks", "truncated");
        }
        memcpy(&n, bytes + at, sizeof n);
        at += sizeof n;
        if (n == 0 || n > (size - at) / width) {
            die("chunks", "truncated");
        }
        chunks = realloc(chunks, (*count + 1) * sizeof *chunks);
        if (chunks == NULL) {
            die("memory", "an allocation failed");
        }
        chunks[*count] = (chunk){.src = bytes + at, .n = n};
        at += n * width;
    }
    if (*count == 0) {
        die("chunks", "none");
    }
    return chunks;
}

static setting prepare(const chunk *distinct, size_t count, size_t width) {
    size_t weights = 0, room = 0;
    for (size_t i = 0; i < count; i++) {
        weights += width * distinct[i].n;
        room += method_bound(width, distinct[i].n);
    }
    size_t copies = (WORKING_SET + weights - 1) / weights;
    setting s = {.width = width, .distinct = count, .count = copies * count};
    s.chunks = allocate(s.count * sizeof *s.chunks);
    s.sources = allocate(copies * weights);
    s.stored = allocate(copies * room);
    s.results = allocate(copies * weights);
    size_t at = 0, stored_at = 0;
    for (size_t i = 0; i < s.count; i++) {
        const chunk *from = &distinct[i % count];
        memcpy(s.sources + at, from->src, width * from->n);
        s.chunks[i] = (chunk){s.sources + at, s.stored + stored_at, s.results + at, from->n, 0};
        at += width * from->n;
        stored_at += method_bound(width, from->n);
    }
    return s;
}

static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void run_pass(const setting *s, const method *m, workbench *bench, measurement *out) {
    size_t count = m->slow ? s->distinct : s->count, weights = 0;
    double start = cpu_seconds();
    for (size_t i = 0; i < count; i++) {
        chunk *c = &s->chunks[i];
        c->stored_size = m->compress(bench, c->src, s->width, c->n, c->stored, method_bound(s->width, c->n));
        weights += s->width * c->n;
    }
    double middle = cpu_seconds();
    bool good = true;
    for (size_t i = 0; i < count; i++) {
        const chunk *c = &s->chunks[i];
        good = m->decompress(bench, c->stored, c->stored_size, s->width, c->n, c->result) && good;
    }
    double end = cpu_seconds();
    out->stored = 0;
    for (size_t i = 0; i < count; i++) {
        const chunk *c = &s->chunks[i];
        if (!good || c->stored_size == 0 || memcmp(c->src, c->result, s->width * c->n) != 0) {
            die(m->name, "the weights did not come back");
        }
        memset(c->result, 0, s->width * c->n);
        out->stored += i < s->distinct ? c->stored_size : 0;
    }
    out->compress[out->passes] = (double)weights / (middle - start);
    out->decompress[out->passes] = (double)weights / (end - middle);
    out->passes++;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}

/* Order-0 entropy of each plane of each distinct chunk, added up, in bytes. */
static double order_0_bound(const setting *s, size_t largest) {
    uint8_t *planes = allocate(largest);
    double bits = 0;
    for (size_t i = 0; i < s->distinct; i++) {
        const chunk *c = &s->chunks[i];
        hlf_planes_split(planes, c->src, s->width, c->n);
        for (size_t plane = 0; plane < s->width; plane++) {
            size_t counts[256] = {0};
            for (size_t k = 0; k < c->n; k++) {
                counts[planes[plane * c->n + k]]++;
            }
            for (int byte = 0; byte < 256; byte++) {
                double count = (double)counts[byte];
                bits -= count > 0 ? count * log2(count / (double)c->n) : 0.0;
            }
        }
    }
    free(planes);
    return bits / 8;
}

static void write_frames(const setting *s, workbench *bench, const char *path) {
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        die(path, strerror(errno));
    }
    for (size_t i = 0; i < s->distinct; i++) {
        const chunk *c = &s->chunks[i];
        uint64_t size = METHODS[1].compress(bench, c->src, s->width, c->n, c->stored, method_bound(s->width, c->n));
        if (fwrite(&size, sizeof size, 1, file) != 1 || fwrite(c->stored, 1, size, file) != size) {
            die(path, strerror(errno));
        }
    }
    if (fclose(file) != 0) {
        die(path, strerror(errno));
    }
}

static void print_results(const setting *s, size_t largest, measurement *results) {
    size_t weights = 0;
    for (size_t i = 0; i < s->distinct; i++) {
        weights += s->width * s->chunks[i].n;
    }
    printf("{\"zstd\": \"%s\", \"width\": %zu, \"chunks\": %zu, \"bytes\": %zu, \"bound\": %.0f, \"methods\": [",
           ZSTD_versionString(), s->width, s->distinct, weights, order_0_bound(s, largest));
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        measurement *r = &results[i];
        printf("%s{\"name\": \"%s\", \"stored\": %zu, \"compress\": %.0f, \"decompress\": %.0f}", i > 0 ? ", " : "",
               METHODS[i].name, r->stored, median(r->compress, r->passes), median(r->decompress, r->passes));
    }
    puts("]}");
}

int main(int argc, char **argv) {
    size_t width = argc >= 3 ? (size_t)atoi(argv[1]) : 0;
    if (argc < 3 || argc > 4 || (width != 2 && width != 4 && width != 8)) {
        fputs("usage: bench_codec WIDTH CHUNKS [FRAMES]\n", stderr);
        return 2;
    }
    size_t size, count, largest = 0;
    uint8_t *bytes = read_file(argv[2], &size);
    chunk *distinct = list_chunks(bytes, size, width, &count);
    for (size_t i = 0; i < count; i++) {
        largest = width * distinct[i].n > largest ? width * distinct[i].n : largest;
    }
    setting s = prepare(distinct, count, width);
    workbench *bench = workbench_create(largest);
    measurement *results = calloc(METHOD_COUNT, sizeof *results);
    if (bench == NULL || results == NULL) {
        die("memory", "an allocation failed");
    }
    for (int pass = 0; pass < PASSES; pass++) {
        for (size_t i = 0; i < METHOD_COUNT; i++) {
            if (pass == 0 || !METHODS[i].slow) {
                run_pass(&s, &METHODS[i], bench, &results[i]);
            }
        }
    }
    if (argc == 4) {
        write_frames(&s, bench, argv[3]);
    }
    print_results(&s, largest, results);
    workbench_destroy(bench);
    free(results);
    free(s.chunks);
    free(s.sources);
    free(s.stored);
    free(s.results);
    free(distinct);
    free(bytes);
    return 0;
}
