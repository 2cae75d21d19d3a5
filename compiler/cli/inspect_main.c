/* hilora-inspect: what a pool holds. */
#include <stdio.h>
#include <string.h>

#include "compiler/cli/inspect.h"
#include "compiler/cli/text_table.h"
#include "compiler/pool/pool_file.h"

static const hlc_program program = {
    "hilora-inspect",
    "Usage: hilora-inspect [OPTION]... POOL\n"
    "Show what a pool holds: its adapters, modules, statistics and sizes.\n"
    "\n"
    "      --adapter NAME         this adapter alone, with its modules\n"
    "      --rivals               also who is confused with whom: nearest rivals, the certificate, misses that were seen,\n"
    "                             and the spectra of squeezed modules with their errors\n"
    "      --json                 one JSON document on standard output\n"
    "  -q, --quiet                no progress (there is none)\n"
    "  -h, --help                 this text\n"
    "      --version              the version\n"
    "\n"
    "The tables that are shown are checked first; hilora-validate checks everything.\n"
    "\n"
    "Exit status: 0 done, 1 a bad pool, or no such adapter in it, 2 misuse, 3 a missing file or resource.\n"};

enum option_code { OPTION_ADAPTER = 256, OPTION_RIVALS, OPTION_JSON, OPTION_VERSION };

static const struct option long_options[] = {{"adapter", required_argument, NULL, OPTION_ADAPTER},
                                             {"rivals", no_argument, NULL, OPTION_RIVALS},
                                             {"json", no_argument, NULL, OPTION_JSON},
                                             {"quiet", no_argument, NULL, 'q'},
                                             {"help", no_argument, NULL, 'h'},
                                             {"version", no_argument, NULL, OPTION_VERSION},
                                             {NULL, 0, NULL, 0}};

typedef struct settings {
    const char *pool, *adapter; /* adapter: NULL for all */
    bool rivals, json;
} settings;

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, settings *s) {
    int code;
    while ((code = getopt_long(argc, argv, "qh", long_options, NULL)) != -1) {
        switch (code) {
        case OPTION_ADAPTER:
            if (s->adapter) {
                return hlc_cli_misuse(&program, "--adapter is given twice");
            }
            s->adapter = optarg;
            break;
        case OPTION_RIVALS:
            s->rivals = true;
            break;
        case OPTION_JSON:
            s->json = true;
            break;
        case 'q':
            break;
        case 'h':
            return hlc_cli_help(&program);
        case OPTION_VERSION:
            return hlc_cli_version(&program);
        default:
            return hlc_cli_bad_option(&program);
        }
    }
    if (argc - optind != 1) {
        return hlc_cli_misuse(&program, argc == optind ? "no pool given" : "more than one pool given");
    }
    s->pool = argv[optind];
    return -1;
}

static bool verify_section(const hlc_pool_file *pool, hlf_section_id section, hlc_faults *faults) {
    hl_diag diag;
    hl_diag_clear(&diag);
    if (hlf_index_verify_section(&pool->index, section, &diag) != HL_OK) {
        hlc_fault_from_diag(faults, pool->path, &diag);
        return false;
    }
    return true;
}

static bool find_adapter(const hlc_pool_file *pool, const char *name, hlc_inspection *inspection, hlc_faults *faults) {
    char place[HLC_PLACE_SIZE];
    inspection->first = hlf_index_find_adapter(&pool->index, name, strlen(name));
    if (inspection->first == HLF_NONE) {
        hlc_fault(faults, HLC_ERROR, HLC_FAULT_INPUT, pool->path, hlc_place(place, "adapter", name, strlen(name)),
                  "without --adapter, all names are listed", "not in this pool");
        return false;
    }
    inspection->end = inspection->first + 1;
    inspection->one = true;
    return true;
}

/* Checks what is going to be read; false after a fault. */
static bool prepare(const settings *s, const hlc_pool_file *pool, hlc_inspection *inspection, hlc_faults *faults) {
    bool good = true;
    *inspection =
        (hlc_inspection){.path = s->pool, .index = &pool->index, .end = pool->index.adapters, .rivals = s->rivals};
    if (s->rivals && hlf_index_section(&pool->index, HLF_SECTION_RIVALS)) {
        good = verify_section(pool, HLF_SECTION_RIVALS, faults);
    }
    if (s->rivals || s->adapter) {
        good = verify_section(pool, HLF_SECTION_IMPORTANCE, faults) && good;
    }
    if (s->adapter) {
        good = find_adapter(pool, s->adapter, inspection, faults) && good;
    }
    if (good && !hlc_inspection_begin(inspection)) {
        hlc_out_of_memory(faults, pool->path, 0);
        good = false;
    }
    return good;
}

static int show(const settings *s, hlc_faults *faults) {
    hlc_pool_file pool;
    hlc_inspection inspection = {0};
    int status;
    bool good = hlc_pool_file_open(&pool, s->pool, faults);
    if (good && prepare(s, &pool, &inspection, faults)) {
        if (s->json) {
            status = hlc_inspect_json(&program, &inspection);
        } else {
            hlc_inspect_print(&inspection);
            status = hlc_cli_finish(&program, HLC_EXIT_DONE);
        }
    } else {
        hlc_faults_print(faults, stderr);
        status = hlc_faults_exit_status(faults);
        if (s->json) {
            status = hlc_cli_write_json(&program, json_pack("{s:o}", "faults", hlc_cli_faults_json(faults)), status);
        }
    }
    hlc_inspection_end(&inspection);
    if (good) {
        hlc_pool_file_close(&pool);
    }
    return status;
}

int main(int argc, char **argv) {
    settings s = {0};
    hlc_cli_setup();
    int status = parse(argc, argv, &s);
    if (status >= 0) {
        return status;
    }
    hlc_faults *faults = hlc_faults_create();
    if (!faults) {
        fprintf(stderr, "%s: out of memory\n", program.name);
        return HLC_EXIT_RESOURCE;
    }
    status = show(&s, faults);
    hlc_faults_destroy(faults);
    return status;
}
