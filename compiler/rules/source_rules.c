/* A pool beside the files that it was made of. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compiler/base/files.h"
#include "compiler/base/workers.h"
#include "compiler/ingest/locate.h"
#include "compiler/rules/company_rules.h"
#include "format/sha256.h"

typedef struct source_list {
    hlc_adapter_files *items;
    size_t count, capacity;
    bool no_memory;
} source_list;

/* Takes what `files` holds. */
static void keep(source_list *list, hlc_adapter_files *files) {
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 64;
        hlc_adapter_files *larger = realloc(list->items, capacity * sizeof *larger);
        if (!larger) {
            list->no_memory = true;
            return;
        }
        list->items = larger;
        list->capacity = capacity;
    }
    list->items[list->count++] = *files;
    *files = (hlc_adapter_files){0};
}

/* The adapter at a path, if there is one: what else is wrong there is no matter of the pool. */
static bool add_adapter(source_list *list, const char *path) {
    hlc_faults *unheard = hlc_faults_create();
    hlc_adapter_files *files = NULL;
    size_t found = 0;
    list->no_memory |= !unheard || !hlc_locate(&path, 1, NULL, unheard, &files, &found);
    if (found) {
        keep(list, &files[0]);
    }
    hlc_adapter_files_free(files, found);
    hlc_faults_destroy(unheard);
    return found > 0;
}

static bool may_be_adapter(const char *name) {
    return name[0] != '.' && !hlc_bytes_end(name, strlen(name), "embeddings.safetensors");
}

/* Every adapter that lies directly in a folder. */
static void add_folder(source_list *list, const char *folder) {
    DIR *stream = opendir(folder);
    const struct dirent *entry;
    while (stream && (entry = readdir(stream))) {
        char *path = may_be_adapter(entry->d_name) ? hlc_path_join(folder, entry->d_name) : NULL;
        const hlc_path_kind kind = path ? hlc_path_look(path) : HLC_PATH_MISSING;
        if (kind == HLC_PATH_FOLDER || (kind == HLC_PATH_FILE && hlc_bytes_end(path, strlen(path), ".safetensors"))) {
            add_adapter(list, path);
        }
        free(path);
    }
    if (stream) {
        closedir(stream);
    }
}

static int compare_sources(const void *a, const void *b) {
    const hlc_adapter_files *x = a, *y = b;
    const int order = hlc_bytes_compare(x->name.bytes, x->name.length, y->name.bytes, y->name.length);
    return order ? order : strcmp(x->weights, y->weights);
}

static void collect(const hlc_validation *validation, hlc_faults *faults, source_list *list) {
    for (size_t i = 0; i < validation->source_count; i++) {
        const char *path = validation->sources[i];
        const hlc_path_kind kind = hlc_path_look(path);
        if (kind == HLC_PATH_MISSING || kind == HLC_PATH_ERROR) {
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_RESOURCE, path, NULL, NULL, "cannot open: there is no such source");
        } else if (!add_adapter(list, path) && kind == HLC_PATH_FOLDER) {
            add_folder(list, path);
        }
    }
    if (list->count) {
        qsort(list->items, list->count, sizeof *list->items, compare_sources);
    }
}

static bool hash_file(const char *path, uint8_t out[HLF_SHA256_SIZE], hlc_faults *faults) {
    enum { BLOCK = 1 << 18 };
    hlc_file file;
    hlf_sha256 hash;
    uint8_t *block = malloc(BLOCK);
    bool good = block && hlc_file_open(path, &file, faults);
    if (!block) {
        hlc_out_of_memory(faults, path, BLOCK);
    }
    if (good) {
        hlf_sha256_init(&hash);
        for (uint64_t at = 0; good && at < file.size;) {
            const size_t take = file.size - at < BLOCK ? (size_t)(file.size - at) : BLOCK;
            good = hlc_file_read(file.fd, path, at, block, take, faults);
            hlf_sha256_update(&hash, block, take);
            at += take;
        }
        hlf_sha256_final(&hash, out);
        close(file.fd);
    }
    free(block);
    return good;
}

typedef struct comparison {
    const hlc_company *pool;
    const source_list *list;
    hlc_faults **found; /* per member: their order must not depend on the threads */
} comparison;

/* The first source of the member's name; of several any that is the right one will do. */
static size_t first_of_name(const source_list *list, const hlc_member *member) {
    size_t low = 0, high = list->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const hlc_string *name = &list->items[middle].name;
        if (hlc_bytes_compare(name->bytes, name->length, member->name, member->name_length) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void compare_member(void *context, size_t i, size_t worker) {
    (void)worker;
    const comparison *c = context;
    const hlc_member *member = &c->pool->members[i];
    const source_list *list = c->list;
    const char *differs = NULL;
    hlf_adapter_record adapter;
    hlf_index_adapter(&member->subject->pool.index, member->number, &adapter);
    for (size_t k = first_of_name(list, member); k < list->count; k++) {
        uint8_t sha256[HLF_SHA256_SIZE];
        const hlc_adapter_files *own = &list->items[k];
        if (hlc_bytes_compare(own->name.bytes, own->name.length, member->name, member->name_length) != 0) {
            break;
        }
        if (!hash_file(own->weights, sha256, c->found[i]) ||
            memcmp(sha256, adapter.source_sha256, sizeof sha256) == 0) {
            return;
        }
        differs = own->weights;
    }
    char place[HLC_MEMBER_PLACE];
    hlc_member_place(member, "", NULL, 0, place);
    if (differs) {
        hlc_fault(c->found[i], HLC_ERROR, HLC_FAULT_SOURCE_DIFFERS, member->subject->path, place,
                  "compile the pool again, or give the sources that it was made of",
                  "%s has other bytes than its source had", differs);
    } else {
        hlc_fault(c->found[i], HLC_NOTE, HLC_FAULT_NO_SOURCE, member->subject->path, place, "name it with --sources",
                  "its source is not among those given");
    }
}

bool hlc_check_sources(const hlc_company *pool) {
    source_list list = {0};
    hlc_faults *faults = pool->count ? pool->members[0].subject->found[HLC_CHECK_SOURCES] : NULL;
    if (!pool->in_pool || !pool->validation->source_count || !faults) {
        return true;
    }
    collect(pool->validation, faults, &list);
    comparison c = {pool, &list, calloc(pool->count + 1, sizeof *c.found)};
    bool good = c.found && !list.no_memory;
    for (size_t i = 0; good && i < pool->count; i++) {
        good = (c.found[i] = hlc_faults_create()) != NULL;
    }
    good = good && hlc_parallel(pool->validation->threads, pool->count, compare_member, &c);
    for (size_t i = 0; c.found && i < pool->count; i++) {
        hlc_faults_take(faults, c.found[i]);
    }
    free(c.found);
    hlc_adapter_files_free(list.items, list.count);
    return good;
}

bool hlc_is_source(const hlc_validation *validation, bool (*is_file)(const char *path, const void *context), const void *context) {
    source_list list = {0};
    bool found = false;
    hlc_faults *unheard = validation->source_count ? hlc_faults_create() : NULL;
    if (unheard) {
        collect(validation, unheard, &list);
    }
    for (size_t i = 0; !found && i < list.count; i++) {
        const hlc_adapter_files *own = &list.items[i];
        found = is_file(own->weights, context) || is_file(own->config, context) || is_file(own->embeddings, context);
    }
    hlc_adapter_files_free(list.items, list.count);
    hlc_faults_destroy(unheard);
    return found;
}
