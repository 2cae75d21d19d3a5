#include "runtime/sort.h"

enum { SMALL = 16 };

static void insertion_sort(uint64_t *keys, size_t n) {
    for (size_t i = 1; i < n; i++) {
        const uint64_t key = keys[i];
        size_t at = i;
        for (; at > 0 && keys[at - 1] > key; at--) {
            keys[at] = keys[at - 1];
        }
        keys[at] = key;
    }
}

/* Lets the key at `at` sink until neither child of it, among the first n, is larger. */
static void sink(uint64_t *keys, size_t at, size_t n) {
    const uint64_t key = keys[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && keys[child + 1] > keys[child];
        if (keys[child] <= key) {
            break;
        }
        keys[at] = keys[child];
    }
    keys[at] = key;
}

void hlr_sort(uint64_t *keys, size_t n) {
    if (n <= SMALL) {
        insertion_sort(keys, n);
        return;
    }
    for (size_t i = n / 2; i-- > 0;) {
        sink(keys, i, n);
    }
    for (size_t last = n - 1; last > 0; last--) {
        const uint64_t largest = keys[0];
        keys[0] = keys[last];
        keys[last] = largest;
        sink(keys, 0, last);
    }
}

size_t hlr_unique(uint64_t *keys, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || keys[kept - 1] != keys[i]) {
            keys[kept++] = keys[i];
        }
    }
    return kept;
}
