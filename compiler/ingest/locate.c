#include "compiler/ingest/locate.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler/base/files.h"
#include "compiler/ingest/metadata_config.h"
#include "compiler/ingest/order.h"
#include "compiler/ingest/safetensors.h"

static const char suffix[] = ".safetensors";
static const char config_name[] = "adapter_config.json";

/* The names that dialects give to an adapter's file; the adapter then has its folder's name. */
static const char *const fixed_stems[] = {"adapter_model", "pytorch_lora_weights", "adapters"};
enum { FIXED_STEMS = sizeof fixed_stems / sizeof *fixed_stems };

static const char *const embeddings_suffixes[] = {".safetensors", ".npy", ".h5"};
enum { EMBEDDINGS_SUFFIXES = sizeof embeddings_suffixes / sizeof *embeddings_suffixes };

/* What --embeddings names. */
typedef struct embeddings_option {
    const char *path; /* NULL: not given, or missing */
    bool is_folder;
    hlc_safetensors *table; /* of a readable .safetensors file */
} embeddings_option;

typedef struct locating {
    hlc_faults *faults;
    size_t operand_count;
    embeddings_option option;
    hlc_adapter_files *files;
    size_t count;
} locating;

/* A weights file on its way into the list. */
typedef struct found {
    char *weights, *folder, *stem;
    bool fixed;       /* the stem is a dialect's own */
    bool has_company; /* other .safetensors files stand beside it */
} found;

static bool ends(const char *text, const char *end) {
    return hlc_bytes_end(text, strlen(text), end);
}

/* FOLDER/STEM + end, malloc'd. */
static char *beside(const char *folder, const char *stem, const char *end) {
    hlc_text name = {0};
    hlc_text_append(&name, stem, strlen(stem));
    hlc_text_append(&name, end, strlen(end));
    char *path = name.failed ? NULL : hlc_path_join(folder, name.bytes);
    hlc_text_free(&name);
    return path;
}

/* ---- The weights of an operand ---- */

static void report_empty_folder(const char *operand, hlc_faults *faults) {
    static const char *const others[] = {"adapter_model.bin", "pytorch_lora_weights.bin",
                                         "adapter_model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *path = hlc_path_join(operand, others[i]);
        bool there = path && hlc_path_look(path) == HLC_PATH_FILE;
        free(path);
        if (!there)
            continue;
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, operand, NULL, "save the adapter as one safetensors file",
                  "the folder holds %s, which is not read, and no adapter_model.safetensors", others[i]);
        return;
    }
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, operand, NULL,
              "name the .safetensors file or the subfolder of the adapter",
              "the folder holds no adapter: none of adapter_model, pytorch_lora_weights and adapters (.safetensors)");
}

/* The adapter's file in a folder, malloc'd; NULL after a fault (or, *no_memory, without). */
static char *weights_in_folder(const char *operand, hlc_faults *faults, bool *no_memory) {
    char *weights = NULL;
    for (size_t i = 0; i < FIXED_STEMS; i++) {
        char *path = beside(operand, fixed_stems[i], suffix);
        if (!path) {
            *no_memory = true;
            break;
        }
        if (hlc_path_look(path) == HLC_PATH_MISSING) {
            free(path);
        } else if (!weights) {
            weights = path;
        } else {
            hlc_fault(faults, HLC_ERROR, HLC_FAULT_AMBIGUOUS, operand, NULL, "name the file",
                      "the folder holds two adapters, %s and %s", hlc_path_last(weights), hlc_path_last(path));
            free(path);
            free(weights);
            return NULL;
        }
    }
    if (!weights && !*no_memory)
        report_empty_folder(operand, faults);
    return weights;
}

static char *weights_of(const char *operand, hlc_faults *faults, bool *no_memory) {
    switch (hlc_path_look(operand)) {
    case HLC_PATH_FILE: {
        char *weights = strdup(operand);
        *no_memory = !weights;
        return weights;
    }
    case HLC_PATH_FOLDER:
        return weights_in_folder(operand, faults, no_memory);
    case HLC_PATH_OTHER:
        hlc_bad_input(faults, operand, NULL, "this is neither a file nor a folder");
        return NULL;
    case HLC_PATH_MISSING:
    case HLC_PATH_ERROR:
        break;
    }
    hlc_bad_io(faults, operand, "cannot open", errno);
    return NULL;
}

/* Whether two or more adapters' files stand in a folder. */
static bool folder_has_company(const char *folder) {
    DIR *stream = opendir(folder[0] ? folder : ".");
    if (!stream)
        return false;
    size_t adapters = 0;
    for (const struct dirent *entry; adapters < 2 && (entry = readdir(stream));) {
        const char *name = entry->d_name;
        bool embeddings = strcmp(name, "embeddings.safetensors") == 0 || ends(name, ".embeddings.safetensors");
        adapters += name[0] != '.' && ends(name, suffix) && !embeddings;
    }
    closedir(stream);
    return adapters >= 2;
}

static char *stem_of(const char *path) {
    const char *last = hlc_path_last(path), *dot = strrchr(last, '.');
    size_t length = ends(last, suffix)  ? strlen(last) - strlen(suffix)
                    : dot && dot > last ? (size_t)(dot - last)
                                        : strlen(last);
    return strndup(last, length);
}

/* Takes ownership of weights. False when memory is out. */
static bool look_around(char *weights, found *out) {
    *out = (found){.weights = weights, .folder = hlc_path_folder(weights), .stem = stem_of(weights)};
    if (!out->folder || !out->stem)
        return false;
    for (size_t i = 0; i < FIXED_STEMS; i++)
        out->fixed |= strcmp(out->stem, fixed_stems[i]) == 0;
    out->has_company = folder_has_company(out->folder);
    return true;
}

static void free_found(found *f) {
    free(f->weights);
    free(f->folder);
    free(f->stem);
}

/* ---- Its name ---- */

/* The last part of the folder's path; of its real path where that part says nothing ("", ".", ".."). Malloc'd or NULL.
 */
static char *folder_name(const char *folder) {
    size_t length = strlen(folder);
    while (length > 0 && folder[length - 1] == '/')
        length--;
    size_t start = length;
    while (start > 0 && folder[start - 1] != '/')
        start--;
    const char *last = folder + start;
    size_t size = length - start;
    if (size > 0 && !hlc_bytes_equal(last, size, ".") && !hlc_bytes_equal(last, size, ".."))
        return strndup(last, size);
    char *real = realpath(folder[0] ? folder : ".", NULL);
    char *name = real ? strdup(hlc_path_last(real)) : NULL;
    free(real);
    return name;
}

/* False when there is no name, after a fault. */
static bool name_adapter(const found *f, hlc_faults *faults, hlc_string *out) {
    char *name = f->fixed ? folder_name(f->folder) : strdup(f->stem);
    if (!name) {
        hlc_bad_io(faults, f->weights, "cannot name the adapter after its folder", errno);
        return false;
    }
    *out = (hlc_string){name, strlen(name)};
    if (out->length > 0 && hlc_utf8_prefix(name, out->length) == out->length)
        return true;
    hlc_bad_input(faults, f->weights, NULL,
                  out->length > 0 ? "the adapter's name is not UTF-8" : "the adapter's name is empty");
    hlc_string_free(out);
    return false;
}

/* ---- Its configuration ---- */

/* Whether the file's metadata hold a configuration, or might: where it cannot be told, the adapter's own reader finds out why. */
static bool metadata_may_have_config(const char *weights) {
    hlc_faults *unheard = hlc_faults_create();
    hlc_safetensors *table = unheard ? hlc_safetensors_open(weights, unheard) : NULL;
    hlc_string text = {0}, key = {0};
    bool may = !unheard || (!table && hlc_faults_exit_status(unheard) == 3);
    if (table)
        may = !hlc_metadata_config(table, &text, &key, unheard) || text.bytes;
    hlc_string_free(&text);
    hlc_string_free(&key);
    hlc_safetensors_close(table);
    hlc_faults_destroy(unheard);
    return may;
}

/* False when memory is out. */
static bool find_config(const found *f, hlc_faults *faults, char **out) {
    char *own = beside(f->folder, f->stem, ".adapter_config.json"), *shared = hlc_path_join(f->folder, config_name);
    *out = NULL;
    bool ok = own && shared;
    if (ok && hlc_path_look(own) != HLC_PATH_MISSING) {
        *out = own;
        own = NULL;
    } else if (ok && hlc_path_look(shared) != HLC_PATH_MISSING && !metadata_may_have_config(f->weights)) {
        if (f->has_company)
            hlc_fault(faults, HLC_WARNING, HLC_FAULT_SHARED_CONFIG, f->weights, NULL,
                      "give each its own as STEM.adapter_config.json",
                      "the folder's %s is used, which several .safetensors files share", config_name);
        *out = shared;
        shared = NULL;
    }
    free(own);
    free(shared);
    return ok;
}

/* ---- Its embeddings ---- */

enum { MOST_CANDIDATES = 3 * EMBEDDINGS_SUFFIXES + 1 };

typedef struct candidates {
    char *paths[MOST_CANDIDATES]; /* each malloc'd */
    size_t count;
    struct stat seen[MOST_CANDIDATES];
    bool no_memory;
} candidates;

static bool is_same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Keeps a path (taking ownership) that exists, is not the adapter itself and was not seen yet. */
static void add_candidate(candidates *c, const char *weights, char *path) {
    struct stat status, own;
    c->no_memory |= !path;
    bool there = path && stat(path, &status) == 0 && !S_ISDIR(status.st_mode);
    bool taken = there && stat(weights, &own) == 0 && is_same_file(&status, &own);
    for (size_t i = 0; there && i < c->count; i++)
        taken |= is_same_file(&status, &c->seen[i]);
    if (!there || taken) {
        free(path);
        return;
    }
    c->seen[c->count] = status;
    c->paths[c->count++] = path;
}

static void add_named(candidates *c, const char *weights, const char *folder, const char *stem) {
    for (size_t i = 0; i < EMBEDDINGS_SUFFIXES; i++)
        add_candidate(c, weights, beside(folder, stem, embeddings_suffixes[i]));
}

static void add_beside_weights(candidates *c, const found *f) {
    hlc_text stem = {0};
    hlc_text_append(&stem, f->stem, strlen(f->stem));
    hlc_text_append(&stem, ".embeddings", strlen(".embeddings"));
    if (stem.failed)
        c->no_memory = true;
    else
        add_named(c, f->weights, f->folder, stem.bytes);
    hlc_text_free(&stem);
    if (f->fixed || !f->has_company)
        add_named(c, f->weights, f->folder, "embeddings");
}

static bool table_has(const hlc_safetensors *table, const char *name) {
    return hlc_safetensors_find(table, name, strlen(name)) != NULL;
}

/* The tensor of one adapter in the file that --embeddings names. *is_there: whether it is known to be there. */
static const char *key_in_option(const locating *l, const char *name, bool *is_there) {
    const embeddings_option *option = &l->option;
    bool single = l->operand_count == 1 &&
                  (ends(option->path, ".npy") || (option->table && table_has(option->table, "embeddings")));
    *is_there = !option->table || table_has(option->table, name) || single;
    return single && !(option->table && table_has(option->table, name)) ? "embeddings" : name;
}

static void report_two(const candidates *c, const found *f, hlc_faults *faults) {
    hlc_fault(faults, HLC_ERROR, HLC_FAULT_AMBIGUOUS, f->weights, NULL, "remove or rename one of them",
              "there are two embeddings files for this adapter: %s and %s", c->paths[0], c->paths[1]);
}

/* False when memory is out. */
static bool find_embeddings(const locating *l, const found *f, hlc_adapter_files *files) {
    candidates c = {0};
    const embeddings_option *option = &l->option;
    const char *key = "embeddings";
    bool is_there = false, from_option = false;
    add_beside_weights(&c, f);
    if (option->path && option->is_folder) {
        add_named(&c, f->weights, option->path, files->name.bytes);
    } else if (option->path) {
        const char *option_key = key_in_option(l, files->name.bytes, &is_there);
        if (is_there || c.count == 0) {
            size_t before = c.count;
            add_candidate(&c, f->weights, strdup(option->path));
            from_option = c.count > before;
            key = from_option ? option_key : key;
        }
    }
    if (c.count > 1)
        report_two(&c, f, l->faults);
    if (c.count == 1) {
        files->embeddings = c.paths[0];
        files->embeddings_key = strdup(key);
        c.no_memory |= !files->embeddings_key;
        c.count = 0;
    }
    for (size_t i = 0; i < c.count; i++)
        free(c.paths[i]);
    return !c.no_memory;
}

static void read_option(locating *l, const char *path) {
    embeddings_option *option = &l->option;
    if (!path)
        return;
    switch (hlc_path_look(path)) {
    case HLC_PATH_FOLDER:
        *option = (embeddings_option){.path = path, .is_folder = true};
        return;
    case HLC_PATH_FILE:
        break;
    case HLC_PATH_OTHER:
        hlc_bad_input(l->faults, path, NULL, "this is neither a file nor a folder");
        return;
    case HLC_PATH_MISSING:
    case HLC_PATH_ERROR:
        hlc_bad_io(l->faults, path, "cannot open", errno);
        return;
    }
    if (ends(path, ".npy") && l->operand_count > 1) {
        hlc_fault(l->faults, HLC_ERROR, HLC_FAULT_INPUT, path, NULL,
                  "name a folder, or a safetensors file with a tensor per adapter",
                  "a NumPy file holds the embeddings of one adapter, and %zu are given", l->operand_count);
        return;
    }
    option->path = path;
    hlc_faults *unheard = ends(path, suffix) ? hlc_faults_create() : NULL; /* reading the embeddings reports them */
    if (unheard)
        option->table = hlc_safetensors_open(path, unheard);
    hlc_faults_destroy(unheard);
}

/* ---- All operands ---- */

/* False when memory is out. */
static bool add_operand(locating *l, const char *operand) {
    bool ok = true, no_memory = false;
    found f = {0};
    hlc_adapter_files files = {0};
    char *weights = weights_of(operand, l->faults, &no_memory);
    if (!weights)
        return !no_memory;
    ok = look_around(weights, &f);
    if (!ok || !name_adapter(&f, l->faults, &files.name))
        goto done;
    ok = find_config(&f, l->faults, &files.config) && find_embeddings(l, &f, &files);
    files.weights = f.weights;
    f.weights = NULL;
    l->files[l->count++] = files;
done:
    free_found(&f);
    return ok;
}

static int compare_files(uint32_t a, uint32_t b, const void *context) {
    const hlc_adapter_files *x = (const hlc_adapter_files *)context + a, *y = (const hlc_adapter_files *)context + b;
    return hlc_bytes_compare(x->name.bytes, x->name.length, y->name.bytes, y->name.length);
}

static bool sort_files(locating *l) {
    uint32_t *order = hlc_sorted_numbers(l->count, compare_files, l->files);
    hlc_adapter_files *sorted = calloc(l->count + 1, sizeof *sorted);
    bool ok = order && sorted;
    for (size_t i = 0; ok && i < l->count; i++)
        sorted[i] = l->files[order[i]];
    free(order);
    if (!ok) {
        free(sorted);
        return false;
    }
    free(l->files);
    l->files = sorted;
    return true;
}

static void report_equal_names(const locating *l) {
    for (size_t i = 1; i < l->count; i++) {
        const hlc_adapter_files *before = &l->files[i - 1], *files = &l->files[i];
        if (compare_files((uint32_t)i - 1, (uint32_t)i, l->files) != 0)
            continue;
        char name[HLC_PLACE_SIZE];
        hlc_fault(l->faults, HLC_ERROR, HLC_FAULT_SAME_NAME, files->weights, NULL, "rename one of them",
                  "the %s is also that of %s", hlc_place(name, "name", files->name.bytes, files->name.length),
                  before->weights);
    }
}

bool hlc_locate(const char *const *operands, size_t operand_count, const char *embeddings, hlc_faults *faults,
                hlc_adapter_files **out, size_t *out_count) {
    locating l = {.faults = faults, .operand_count = operand_count};
    *out = NULL;
    *out_count = 0;
    l.files = calloc(operand_count + 1, sizeof *l.files);
    bool ok = l.files != NULL;
    if (ok)
        read_option(&l, embeddings);
    for (size_t i = 0; ok && i < operand_count; i++)
        ok = add_operand(&l, operands[i]);
    ok = ok && sort_files(&l);
    hlc_safetensors_close(l.option.table);
    if (!ok) {
        hlc_adapter_files_free(l.files, l.count);
        return false;
    }
    report_equal_names(&l);
    *out = l.files;
    *out_count = l.count;
    return true;
}

void hlc_adapter_files_free(hlc_adapter_files *files, size_t count) {
    for (size_t i = 0; i < count; i++) {
        hlc_string_free(&files[i].name);
        free(files[i].weights);
        free(files[i].config);
        free(files[i].embeddings);
        free(files[i].embeddings_key);
    }
    free(files);
}
