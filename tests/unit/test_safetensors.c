#include "tests/unit/ingest_fixture.h"

#include <time.h>

#include "compiler/ingest/json_scan.h"
#include "compiler/ingest/safetensors.h"

#define FILE_NAME "x.safetensors"

static void assert_refused(const char *place, const char *part) {
    hlc_safetensors *table = hlc_safetensors_open(FILE_NAME, faults);
    ck_assert_ptr_null(table);
    assert_error(place, part);
    ck_assert_int_eq(hlc_faults_exit_status(faults), 1);
    forget_faults();
}

static void assert_bytes_refused(const void *bytes, size_t size, const char *part) {
    write_file(FILE_NAME, bytes, size);
    assert_refused(NULL, part);
}

static void assert_header_refused(const char *header, size_t data_size, const char *place, const char *part) {
    write_safetensors(FILE_NAME, header, NULL, data_size);
    assert_refused(place, part);
}

static hlc_safetensors *assert_accepted(const char *header, size_t data_size) {
    write_safetensors(FILE_NAME, header, NULL, data_size);
    hlc_safetensors *table = hlc_safetensors_open(FILE_NAME, faults);
    assert_silent();
    ck_assert_ptr_nonnull(table);
    return table;
}

static void assert_header_accepted(const char *header, size_t data_size) {
    hlc_safetensors_close(assert_accepted(header, data_size));
}

#define LITERAL(bytes) bytes, sizeof bytes - 1

START_TEST(files_that_are_no_safetensors_are_refused_by_name) {
    assert_bytes_refused("", 0, "the file is empty");
    assert_bytes_refused(LITERAL("\2\0\0"), "the file has 3 bytes");
    assert_bytes_refused(LITERAL("\0\0\0\0\0\0\0\0"), "the header's length is 0");
    assert_bytes_refused(LITERAL("\3\0\0\0\0\0\0\0{}"), "the header's length is 3 bytes, but only 2 follow");
    assert_bytes_refused(LITERAL("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}"), "at most 100000000");
    assert_bytes_refused(LITERAL("\x01\xE1\xF5\x05\0\0\0\0{}"),
                         "the header's length is 100000001 bytes; at most 100000000");
    assert_bytes_refused(LITERAL("\x00\xE1\xF5\x05\0\0\0\0{}"), "100000000 bytes, but only 2 follow");
    assert_bytes_refused(LITERAL("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"),
                         "git-LFS pointer");
    assert_bytes_refused(LITERAL("PK\x03\x04\0\0\x08\x08\0\0"), "a pickle in a ZIP archive");
    assert_bytes_refused(LITERAL("PK\x03\x04"), "a pickle in a ZIP archive");
    assert_bytes_refused(LITERAL("\x80\x02}q\0."), "a pickle");
    assert_bytes_refused(LITERAL("\x80\x04\x95\x0B\0\0\0\0\0\0\0}\x94."), "a pickle");
    assert_bytes_refused(LITERAL("\x80\x02\x8A\x0Al\xFC\x9C"
                                 "F\xF9 j\xA8P\x19."),
                         "a pickle");
    assert_bytes_refused(LITERAL("<!DOCTYPE html><html></html>"), "an HTML or XML page");
    assert_bytes_refused(LITERAL("\xEF\xBB\xBF\n  <html lang=en>"), "an HTML or XML page");
    assert_bytes_refused(LITERAL("GGUF\3\0\0\0\0\0\0\0"), "a GGUF file");
    assert_bytes_refused(LITERAL("\x89HDF\r\n\x1A\n\0\0\0\0"), "an HDF5 file");
    assert_bytes_refused(LITERAL("{\"a\": 1, \"b\": 2}"), "JSON text");
    char tar[512] = "lora/adapter.ckpt";
    memcpy(tar + 257, "ustar", 5);
    assert_bytes_refused(tar, sizeof tar, "a tar archive");
}
END_TEST

START_TEST(a_cut_file_whose_length_starts_like_a_pickle_is_not_called_one) {
    assert_bytes_refused(LITERAL("\x80\x02\0\0\0\0\0\0{\"a\":"), "the header's length is 640 bytes");
}
END_TEST

START_TEST(folders_and_pipes_are_refused_without_blocking) {
    ck_assert_int_eq(mkdir(FILE_NAME, 0700), 0);
    assert_refused(NULL, "this is a folder");
    ck_assert_int_eq(rmdir(FILE_NAME), 0);
    ck_assert_int_eq(mkfifo(FILE_NAME, 0600), 0);
    assert_refused(NULL, "this is a pipe");
    ck_assert_ptr_null(hlc_safetensors_open("/dev/zero", faults));
    assert_error(NULL, "this is a device");
    ck_assert_ptr_null(hlc_safetensors_open("nothing-here", faults));
    ck_assert_int_eq(hlc_faults_exit_status(faults), 3);
}
END_TEST

START_TEST(headers_that_are_no_json_object_are_refused) {
    assert_header_refused("{\"a\xFF\":1}", 0, "byte 11", "not UTF-8");
    assert_header_refused("\xEF\xBB\xBF{}", 0, "byte 8", "byte order mark");
    assert_header_refused("[]", 0, "byte 8", "JSON of another kind");
    assert_header_refused("12", 0, "byte 8", "JSON of another kind");
    assert_header_refused("    ", 0, "byte 12", "ends too early");
    assert_header_refused("{\"a\":", 0, "byte 13", "ends too early");
    assert_header_refused("{} x", 0, "byte 11", "behind the end");
    assert_header_refused("{}{}", 0, "byte 10", "behind the end");
    write_safetensors_sized(FILE_NAME, LITERAL("{}\0\0"), NULL, 0);
    assert_refused("byte 10", "behind the end");
    assert_header_refused("{\"a\":{\"x\":NaN}}", 0, "byte 18", "no JSON value");
    assert_header_refused("{\"a\":{\"x\":01}}", 0, "byte 18", "leading zero");
    assert_header_refused("{\"a\":{\"x\":1.}}", 0, NULL, "no digit after its point");
    assert_header_refused("{\"a\":{\"x\":1e}}", 0, NULL, "no digit in its exponent");
    assert_header_refused("{\"a\":{\"x\":+1}}", 0, NULL, "no JSON value");
    assert_header_refused("{\"a\":{\"x\":'1'}}", 0, NULL, "no JSON value");
    assert_header_refused("{\"a\":{\"x\":[1,]}}", 0, NULL, "no JSON value");
    assert_header_refused("{\"a\":{\"x\":[1 2]}}", 0, NULL, "comma or ]");
    assert_header_refused("{\"a\":{\"x\":1,}}", 0, NULL, "member's name");
    assert_header_refused("{,}", 0, NULL, "member's name");
    assert_header_refused("{a:1}", 0, NULL, "member's name");
    assert_header_refused("{\"a\" 1}", 0, NULL, "colon");
    assert_header_refused("{\"a\":{\"x\":\"\\q\"}}", 0, NULL, "escape");
    assert_header_refused("{\"a\":{\"x\":\"\\u12G4\"}}", 0, NULL, "escape");
    assert_header_refused("{\"a\":{\"x\":\"\\ud800\"}}", 0, NULL, "surrogate");
    assert_header_refused("{\"a\":{\"x\":\"\\ud800\\u0041\"}}", 0, NULL, "surrogate");
    assert_header_refused("{\"a\":{\"x\":\"\\udc00\"}}", 0, NULL, "surrogate");
    assert_header_refused("{\"a\":{\"x\":\"\\udc00\\udc00\"}}", 0, NULL, "surrogate");
    assert_header_refused("{\"a\":{\"x\":\"tab\there\"}}", 0, NULL, "control character");
    assert_header_refused("{\"a\":{\"x\":\"open}}", 0, "byte 18", "string does not end");
    assert_header_refused("{\"a\":{\"x\":trueX}}", 0, NULL, "comma or }");
    assert_header_refused("{\"a\":{\"x\":1]}", 0, NULL, "comma or }");
    assert_header_refused("{\"a\":{\"x\":tru", 0, NULL, "no JSON value");
}
END_TEST

/* {"a":{"x":[[...]]}} with `arrays` arrays: 2 + arrays deep. */
static void write_nested(size_t arrays) {
    char header[1024] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"x\":";
    size_t at = strlen(header);
    memset(header + at, '[', arrays);
    memset(header + at + arrays, ']', arrays);
    strcpy(header + at + 2 * arrays, "}}");
    write_safetensors(FILE_NAME, header, NULL, 1);
}

START_TEST(nesting_is_bounded_at_128) {
    write_nested(127);
    assert_refused(NULL, "nested more than 128 deep");
    write_nested(126);
    hlc_safetensors *table = hlc_safetensors_open(FILE_NAME, faults);
    assert_silent();
    ck_assert_ptr_nonnull(table);
    hlc_safetensors_close(table);
}
END_TEST

START_TEST(entries_that_break_the_schema_are_refused_by_tensor) {
    assert_header_refused("{\"a\":1}", 0, "tensor 'a'", "not an object");
    assert_header_refused("{\"a\":null}", 0, "tensor 'a'", "not an object");
    assert_header_refused("{\"a\":[\"U8\",[],[0,1]]}", 1, "tensor 'a'", "not an object");
    assert_header_refused("{\"a\":{\"shape\":[],\"data_offsets\":[0,1]}}", 1, "tensor 'a'", "no dtype");
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "tensor 'a'", "no shape");
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[]}}", 1, "tensor 'a'", "no data_offsets");
    assert_header_refused("{\"a\":{\"dtype\":8,\"shape\":[],\"data_offsets\":[0,1]}}", 1, "tensor 'a'", "not a string");
    assert_header_refused("{\"a\":{\"dtype\":\"u8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, "tensor 'a'",
                          "dtype is none");
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1,
                          "tensor 'a'", "dtype stands twice");
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"sh\\u0061pe\":[],\"data_offsets\":[0,1]}}", 1,
                          "tensor 'a'", "shape stands twice");
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"data_offsets\":[0,1]}}", 1,
                          "tensor 'a'", "data_offsets stands twice");
    static const char *const shapes[] = {
        "1", "null", "\"1\"", "[-1]", "[-0]", "[1.0]", "[1e0]", "[\"1\"]", "[null]", "[18446744073709551616]", "[[1]]"};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char header[256];
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"U8\",\"shape\":%s,\"data_offsets\":[0,1]}}", shapes[i]);
        assert_header_refused(header, 1, "tensor 'a'", "shape is not an array of non-negative integers");
    }
    static const char *const offsets[] = {"1", "[0,-1]", "[0,1.5]", "{\"0\":1}", "[\"0\",\"1\"]"};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        char header[256];
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":%s}}", offsets[i]);
        assert_header_refused(header, 1, "tensor 'a'", "data_offsets is not an array of two");
    }
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0]}}", 1, "tensor 'a'",
                          "two integers");
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1,1]}}", 1, "tensor 'a'",
                          "two integers");
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[]}}", 1, "tensor 'a'",
                          "two integers");
}
END_TEST

START_TEST(every_bad_entry_is_reported) {
    write_safetensors(FILE_NAME, "{\"a\":1,\"b\":{\"dtype\":\"F99\"},\"__metadata__\":{\"x\":1}}", NULL, 0);
    ck_assert_ptr_null(hlc_safetensors_open(FILE_NAME, faults));
    assert_error("tensor 'a'", "not an object");
    assert_error("tensor 'b'", "dtype is none");
    assert_error("tensor 'b'", "no shape");
    assert_error("tensor 'b'", "no data_offsets");
    assert_error("byte", "__metadata__ holds a value that is not a string");
    ck_assert_uint_eq(hlc_faults_errors(faults), 5);
}
END_TEST

START_TEST(metadata_is_a_map_of_strings_null_or_absent) {
    assert_header_accepted("{\"__metadata__\":{}}", 0);
    assert_header_accepted("{\"__metadata__\":null}", 0);
    assert_header_accepted("{\"__metadata__\":{\"format\":\"pt\",\"\":\"\"}}", 0);
    assert_header_refused("{\"__metadata__\":{\"a\":1}}", 0, "byte 29", "not a string");
    assert_header_refused("{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, NULL, "not a string");
    assert_header_refused("{\"__metadata__\":[]}", 0, NULL, "neither an object nor null");
    assert_header_refused("{\"__metadata__\":{},\"\\u005f_metadata__\":{}}", 0, NULL, "__metadata__ stands twice");
}
END_TEST

START_TEST(metadata_values_are_found) {
    hlc_safetensors *table = assert_accepted(
        "{\"__metadata__\":{\"a\":\"1\",\"tw\\u0069ce\":\"2\",\"twice\":\"3\",\"nul\":\"x\\u0000\\ud83d\\ude00\\n\"}}",
        0);
    hlc_string value;
    ck_assert(hlc_metadata_find(table, "a", &value, faults));
    ck_assert_str_eq(value.bytes, "1");
    hlc_string_free(&value);
    ck_assert(hlc_metadata_find(table, "b", &value, faults));
    ck_assert_ptr_null(value.bytes);
    ck_assert(hlc_metadata_find(table, "nul", &value, faults));
    ck_assert_uint_eq(value.length, 7);
    ck_assert_mem_eq(value.bytes, "x\0\xF0\x9F\x98\x80\n", 8);
    hlc_string_free(&value);
    assert_silent();
    ck_assert(!hlc_metadata_find(table, "twice", &value, faults));
    assert_error("metadata key 'twice'", "stands twice");
    hlc_safetensors_close(table);
}
END_TEST

#define ENTRY(name, dtype, shape, begin, end)                                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

START_TEST(layouts_that_break_the_rules_are_refused) {
    assert_header_refused("{" ENTRY("a", "U8", "[2]", 0, 2) "," ENTRY("b", "U8", "[2]", 3, 5) "}", 5, "tensor 'b'",
                          "a hole is before its data: bytes 2 to 3");
    assert_header_refused("{" ENTRY("a", "U8", "[2]", 1, 3) "}", 3, "tensor 'a'",
                          "starts at byte 1 of the data buffer, not at 0");
    assert_header_refused("{" ENTRY("a", "U8", "[2]", 0, 2) "," ENTRY("b", "U8", "[2]", 1, 3) "}", 3, "tensor 'b'",
                          "overlaps another tensor's");
    assert_header_refused("{" ENTRY("a", "U8", "[2]", 0, 2) "," ENTRY("b", "U8", "[2]", 0, 2) "}", 2, "tensor 'b'",
                          "overlaps");
    assert_header_refused("{" ENTRY("a", "U8", "[4]", 0, 4) "," ENTRY("b", "U8", "[0]", 2, 2) "}", 4, "tensor 'b'",
                          "overlaps");
    assert_header_refused("{" ENTRY("a", "U8", "[2]", 2, 0) "}", 2, "tensor 'a'",
                          "ends at byte 0 of the data buffer, before");
    assert_header_refused("{" ENTRY("a", "U8", "[2]", 0, 2) "}", 4, NULL,
                          "2 trailing bytes follow the last tensor, from byte");
    assert_header_refused("{}", 1, NULL, "1 trailing bytes");
    assert_header_refused("{" ENTRY("a", "F32", "[2]", 0, 8) "}", 6, NULL, "2 bytes too short");
    assert_header_refused("{" ENTRY("a", "F32", "[2,3]", 0, 8) "}", 8, "tensor 'a'",
                          "shape [2, 3] of F32 needs 24 bytes, but its data_offsets span 8");
    assert_header_refused("{" ENTRY("a", "F32", "[]", 0, 8) "}", 8, "tensor 'a'", "shape [] of F32 needs 4 bytes");
    assert_header_refused("{" ENTRY("a", "U8", "[9223372036854775808,4,0]", 0, 0) "}", 0, "tensor 'a'", "overflows");
    assert_header_refused("{" ENTRY("a", "U16", "[1152921504606846976]", 0, 0) "}", 0, "tensor 'a'", "overflows");
    assert_header_refused("{" ENTRY("a", "F4", "[3]", 0, 1) "}", 1, "tensor 'a'", "12 bits");
    assert_header_refused("{" ENTRY("a", "F6_E2M3", "[2]", 0, 1) "}", 1, "tensor 'a'", "12 bits");
    assert_header_refused("{" ENTRY("a", "U8", "[18446744073709551615]", 0, 18446744073709551615) "}", 8, "tensor 'a'",
                          "overflows");
    assert_header_refused("{" ENTRY("a", "U8", "[2305843009213693951]", 0, 2305843009213693951) "}", 8, NULL,
                          "too short");
}
END_TEST

START_TEST(every_layout_fault_is_reported) {
    write_safetensors(
        FILE_NAME,
        "{" ENTRY("a", "U8", "[2]", 1, 3) "," ENTRY("b", "F32", "[2]", 2, 6) "," ENTRY("c", "U8", "[1]", 9, 8) "}",
        NULL, 20);
    ck_assert_ptr_null(hlc_safetensors_open(FILE_NAME, faults));
    assert_error("tensor 'a'", "not at 0");
    assert_error("tensor 'b'", "overlaps");
    assert_error("tensor 'b'", "needs 8 bytes");
    assert_error("tensor 'c'", "a hole");
    assert_error("tensor 'c'", "before it starts");
    assert_error(NULL, "14 trailing bytes");
    forget_faults();
    write_safetensors(
        FILE_NAME,
        "{" ENTRY("a", "U8", "[9]", 0, 9) "," ENTRY("b", "U8", "[2]", 2, 4) "," ENTRY("c", "U8", "[1]", 9, 10) "}",
        NULL, 10);
    ck_assert_ptr_null(hlc_safetensors_open(FILE_NAME, faults));
    assert_error("tensor 'b'", "overlaps");
    ck_assert_uint_eq(hlc_faults_errors(faults), 1);
}
END_TEST

START_TEST(repeated_names_are_refused) {
    assert_header_refused("{" ENTRY("a", "U8", "[1]", 0, 1) "," ENTRY("a", "U8", "[1]", 1, 2) "}", 2, "tensor 'a'",
                          "more than once");
    assert_header_refused("{" ENTRY("a", "U8", "[1]", 0, 1) "," ENTRY("\\u0061", "U8", "[1]", 1, 2) "}", 2,
                          "tensor 'a'", "more than once");
    assert_header_accepted("{" ENTRY("a", "U8", "[1]", 0, 1) "," ENTRY("a\\u0000", "U8", "[1]", 1, 2) "}", 2);
}
END_TEST

START_TEST(what_the_reference_accepts_is_accepted) {
    assert_header_accepted("{}", 0);
    assert_header_accepted(" \t\n\r{ } \t\n\r", 0);
    assert_header_accepted("{" ENTRY("s", "F32", "[]", 0, 4) "}", 4);
    assert_header_accepted("{" ENTRY("z", "F32", "[0]", 0, 0) "," ENTRY("y", "F32", "[3,0,7]", 0, 0) "}", 0);
    assert_header_accepted("{" ENTRY("z", "U8", "[0,9223372036854775808,4]", 0, 0) "}", 0);
    assert_header_accepted(
        "{" ENTRY("a", "U8", "[2]", 0, 2) "," ENTRY("z", "U8", "[0]", 2, 2) "," ENTRY("b", "U8", "[1]", 2, 3) "}", 3);
    assert_header_accepted("{" ENTRY("b", "U8", "[1]", 2, 3) "," ENTRY("a", "U8", "[2]", 0, 2) "}", 3);
    assert_header_accepted("{" ENTRY("", "U8", "[1]", 0, 1) "}", 1);
    assert_header_accepted("{" ENTRY("f4", "F4", "[4]", 0, 2) "," ENTRY("f6", "F6_E3M2", "[4]", 2, 5) "}", 5);
    assert_header_accepted(
        "{\"a\":{\"x\":[{\"dtype\":1},1e308,null],\"data_offsets\":[0,1],\"shape\":[],\"dtype\":\"U8\"}}", 1);
    assert_header_accepted("{\"a\":{\"d\\u0074ype\":\"\\u00558\",\"shape\":[ 1 ,1],\"data_offsets\":[ 0\n,1 ]}}", 1);
}
END_TEST

START_TEST(every_dtype_has_its_size) {
    static const struct {
        const char *name;
        unsigned bytes_for_four;
    } dtypes[] = {{"BOOL", 4},    {"F4", 2},      {"F6_E2M3", 3}, {"F6_E3M2", 3},     {"U8", 4},          {"I8", 4},
                  {"F8_E5M2", 4}, {"F8_E4M3", 4}, {"F8_E8M0", 4}, {"F8_E4M3FNUZ", 4}, {"F8_E5M2FNUZ", 4}, {"I16", 8},
                  {"U16", 8},     {"F16", 8},     {"BF16", 8},    {"I32", 16},        {"U32", 16},        {"F32", 16},
                  {"C64", 32},    {"F64", 32},    {"I64", 32},    {"U64", 32}};
    ck_assert_uint_eq(sizeof dtypes / sizeof *dtypes, HLC_TENSOR_DTYPES);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        char header[256];
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,%u]}}",
                 dtypes[i].name, dtypes[i].bytes_for_four);
        hlc_safetensors *table = assert_accepted(header, dtypes[i].bytes_for_four);
        ck_assert_str_eq(hlc_tensor_dtype_name(table->tensors[0].dtype), dtypes[i].name);
        hlc_safetensors_close(table);
    }
    ck_assert_int_eq(hlc_tensor_dtype_weight(HLC_TENSOR_BF16), HLF_DTYPE_BF16);
    ck_assert_int_eq(hlc_tensor_dtype_weight(HLC_TENSOR_F8_E4M3), HLF_DTYPE_NONE);
}
END_TEST

START_TEST(tensors_are_found_by_name) {
    static const char header[] =
        "{" ENTRY("b", "F32", "[2, 3]", 4, 28) "," ENTRY("a\\u0000\\u00e9", "F16", "[2]", 0, 4) "}";
    hlc_safetensors *table = assert_accepted(header, 28);
    ck_assert_uint_eq(table->count, 2);
    ck_assert_uint_eq(table->data_at, 8 + strlen(header));
    const hlc_tensor *tensor = hlc_safetensors_find(table, "a\0\xC3\xA9", 4);
    ck_assert_ptr_nonnull(tensor);
    ck_assert_int_eq(tensor->dtype, HLC_TENSOR_F16);
    ck_assert_ptr_null(hlc_safetensors_find(table, "a", 1));
    tensor = hlc_safetensors_find(table, "b", 1);
    ck_assert_uint_eq(tensor->begin, 4);
    uint64_t shape[2];
    char text[HLC_SHAPE_SIZE];
    ck_assert_uint_eq(hlc_tensor_shape(table, tensor, shape, 2), 2);
    ck_assert_uint_eq(shape[0], 2);
    ck_assert_uint_eq(shape[1], 3);
    ck_assert_str_eq(hlc_tensor_shape_text(table, tensor, text), "[2, 3]");
    hlc_safetensors_close(table);
}
END_TEST

START_TEST(long_shapes_are_shown_in_part) {
    char header[4096] = "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,0],\"shape\":[0";
    for (int i = 0; i < 500; i++)
        strcat(header, ",12345");
    strcat(header, "]}}");
    hlc_safetensors *table = assert_accepted(header, 0);
    char text[HLC_SHAPE_SIZE];
    ck_assert_uint_eq(table->tensors[0].dims, 501);
    hlc_tensor_shape_text(table, &table->tensors[0], text);
    ck_assert_uint_lt(strlen(text), sizeof text);
    ck_assert_str_eq(text + strlen(text) - 11, "12345, ...]");
    hlc_safetensors_close(table);
}
END_TEST

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A header of `count` entries of this body, named by their numbers, up to the largest size allowed. Returns their
 * count. */
static size_t write_flood(size_t count, const char *body, size_t data_size) {
    size_t limit = 100000000, at = 1, i = 0;
    char *header = malloc(limit + 256);
    ck_assert_ptr_nonnull(header);
    header[0] = '{';
    for (; i < count && at < limit - 128; i++)
        at += (size_t)sprintf(header + at, "\"%zx\":%s,", i, body);
    header[at - 1] = '}';
    write_safetensors_sized(FILE_NAME, header, at, NULL, data_size);
    free(header);
    return i;
}

static void assert_flood_refused(const char *part, size_t faults_counted) {
    double start = seconds();
    ck_assert_ptr_null(hlc_safetensors_open(FILE_NAME, faults));
    double taken = seconds() - start;
    assert_error(NULL, part);
    char more[64];
    snprintf(more, sizeof more, "and %zu more faults", faults_counted - 100);
    assert_error(NULL, more);
    ck_assert_uint_le(hlc_faults_count(faults), 102);
    ck_assert_msg(taken < 30, "%.1f s", taken);
    forget_faults();
}

START_TEST(floods_of_entries_are_refused_fast) {
    static const char overlapping[] = "{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}";
    assert_flood_refused("overlaps", write_flood(100000, overlapping, 4) - 1);
    assert_flood_refused("overlaps", write_flood(10000000, overlapping, 4) - 1);
    assert_flood_refused("no dtype", 3 * write_flood(10000000, "{}", 0));
    assert_flood_refused("not an object", write_flood(10000000, "0", 0));
}
END_TEST

START_TEST(a_shape_of_millions_of_dimensions_is_read_in_linear_time) {
    size_t size = 40000000;
    char *header = malloc(size + 256);
    size_t at = (size_t)sprintf(header, "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1],\"shape\":[1");
    while (at < size) {
        header[at++] = ',';
        header[at++] = '1';
    }
    at += (size_t)sprintf(header + at, "]}}");
    write_safetensors_sized(FILE_NAME, header, at, NULL, 1);
    free(header);
    double start = seconds();
    hlc_safetensors *table = hlc_safetensors_open(FILE_NAME, faults);
    ck_assert_ptr_nonnull(table);
    ck_assert(seconds() - start < 30);
    ck_assert_uint_gt(table->tensors[0].dims, 19000000);
    hlc_safetensors_close(table);
}
END_TEST

START_TEST(scanner_reads_integers_exactly) {
    uint64_t value;
    ck_assert(hlc_json_u64("18446744073709551615", 20, &value) && value == UINT64_MAX);
    ck_assert(!hlc_json_u64("18446744073709551616", 20, &value));
    ck_assert(!hlc_json_u64("99999999999999999999", 20, &value));
    ck_assert(!hlc_json_u64("-1", 2, &value));
    ck_assert(!hlc_json_u64("", 0, &value));
    ck_assert(hlc_json_u64("0", 1, &value) && value == 0);
}
END_TEST

START_TEST(scanner_refuses_numbers_that_round_to_infinity) {
    static const char *const refused[] = {"1e309",
                                          "-1e309",
                                          "1e400",
                                          "1.7976931348623158080e308",
                                          "0.0017976931348623159e311",
                                          "1E+99999999999999999999999",
                                          "17976931348623159e292"};
    static const char *const accepted[] = {
        "1e308",     "1.7976931348623157e308",  "1.7976931348623158e308",        "0e99999", "-0.0e400",
        "0.001e311", "1e-99999999999999999999", "123456789012345678901234567890"};
    hlc_json_scan scan;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        hlc_json_start(&scan, refused[i], strlen(refused[i]));
        ck_assert_msg(hlc_json_next(&scan) == HLC_JSON_ERROR, "%s", refused[i]);
    }
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        hlc_json_start(&scan, accepted[i], strlen(accepted[i]));
        ck_assert_msg(hlc_json_next(&scan) == HLC_JSON_NUMBER, "%s", accepted[i]);
    }
    char digits[400];
    memset(digits, '1', sizeof digits);
    hlc_json_start(&scan, digits, 310);
    ck_assert_int_eq(hlc_json_next(&scan), HLC_JSON_ERROR);
    hlc_json_start(&scan, digits, 309);
    ck_assert_int_eq(hlc_json_next(&scan), HLC_JSON_NUMBER);
}
END_TEST

START_TEST(scanner_gives_tokens_in_order) {
    static const char text[] = " {\"a\": [1, -2.5e+3, \"x\\n\"], \"b\": {}, \"c\": true, \"d\": false, \"e\": null} ";
    static const hlc_json_token expected[] = {
        HLC_JSON_OBJECT_BEGIN, HLC_JSON_KEY,        HLC_JSON_ARRAY_BEGIN, HLC_JSON_NUMBER,       HLC_JSON_NUMBER,
        HLC_JSON_STRING,       HLC_JSON_ARRAY_END,  HLC_JSON_KEY,         HLC_JSON_OBJECT_BEGIN, HLC_JSON_OBJECT_END,
        HLC_JSON_KEY,          HLC_JSON_TRUE,       HLC_JSON_KEY,         HLC_JSON_FALSE,        HLC_JSON_KEY,
        HLC_JSON_NULL,         HLC_JSON_OBJECT_END, HLC_JSON_END};
    hlc_json_scan scan;
    hlc_json_start(&scan, text, sizeof text - 1);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        ck_assert_int_eq(hlc_json_next(&scan), expected[i]);
    ck_assert_int_eq(hlc_json_next(&scan), HLC_JSON_END);
    hlc_json_start(&scan, "[[1,[2]],3]", 11);
    hlc_json_next(&scan);
    ck_assert(hlc_json_skip(&scan, hlc_json_next(&scan)));
    ck_assert_int_eq(hlc_json_next(&scan), HLC_JSON_NUMBER);
    ck_assert_uint_eq(scan.begin, 9);
}
END_TEST

START_TEST(no_cut_and_no_flipped_byte_of_a_file_does_harm) {
    static const char header[] =
        "{\"__metadata__\":{\"a\":\"\\u00e9\\\"\"}," ENTRY("a\\ud83d\\ude00", "F32", "[1,1]", 0, 4) "}";
    size_t size = 8 + sizeof header - 1 + 4;
    write_safetensors(FILE_NAME, header, NULL, 4);
    char *good = malloc(size);
    FILE *file = fopen(FILE_NAME, "rb");
    ck_assert_uint_eq(fread(good, 1, size, file), size);
    fclose(file);
    for (size_t cut = 0; cut < size; cut++) {
        write_file(FILE_NAME, good, cut);
        ck_assert_ptr_null(hlc_safetensors_open(FILE_NAME, faults));
        ck_assert_uint_gt(hlc_faults_errors(faults), 0);
        forget_faults();
    }
    static const unsigned char flips[] = {1, 2, 8, 0x20, 0x80, 0xFF};
    for (size_t i = 0; i < size * sizeof flips; i++) {
        char saved = good[i / sizeof flips];
        good[i / sizeof flips] = (char)(saved ^ flips[i % sizeof flips]);
        write_file(FILE_NAME, good, size);
        hlc_safetensors *table = hlc_safetensors_open(FILE_NAME, faults);
        ck_assert((table != NULL) == (hlc_faults_errors(faults) == 0));
        hlc_safetensors_close(table);
        forget_faults();
        good[i / sizeof flips] = saved;
    }
    free(good);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("safetensors");
    TCase *rules = tcase_create("rules");
    tcase_add_checked_fixture(rules, enter_folder, leave_folder);
    tcase_set_timeout(rules, 60);
    tcase_add_test(rules, files_that_are_no_safetensors_are_refused_by_name);
    tcase_add_test(rules, a_cut_file_whose_length_starts_like_a_pickle_is_not_called_one);
    tcase_add_test(rules, folders_and_pipes_are_refused_without_blocking);
    tcase_add_test(rules, headers_that_are_no_json_object_are_refused);
    tcase_add_test(rules, nesting_is_bounded_at_128);
    tcase_add_test(rules, entries_that_break_the_schema_are_refused_by_tensor);
    tcase_add_test(rules, every_bad_entry_is_reported);
    tcase_add_test(rules, metadata_is_a_map_of_strings_null_or_absent);
    tcase_add_test(rules, metadata_values_are_found);
    tcase_add_test(rules, layouts_that_break_the_rules_are_refused);
    tcase_add_test(rules, every_layout_fault_is_reported);
    tcase_add_test(rules, repeated_names_are_refused);
    tcase_add_test(rules, what_the_reference_accepts_is_accepted);
    tcase_add_test(rules, every_dtype_has_its_size);
    tcase_add_test(rules, tensors_are_found_by_name);
    tcase_add_test(rules, long_shapes_are_shown_in_part);
    tcase_add_test(rules, no_cut_and_no_flipped_byte_of_a_file_does_harm);
    suite_add_tcase(suite, rules);
    TCase *scanner = tcase_create("scanner");
    tcase_add_test(scanner, scanner_reads_integers_exactly);
    tcase_add_test(scanner, scanner_refuses_numbers_that_round_to_infinity);
    tcase_add_test(scanner, scanner_gives_tokens_in_order);
    suite_add_tcase(suite, scanner);
    TCase *floods = tcase_create("floods");
    tcase_add_checked_fixture(floods, enter_folder, leave_folder);
    tcase_set_timeout(floods, 300);
    tcase_add_test(floods, floods_of_entries_are_refused_fast);
    tcase_add_test(floods, a_shape_of_millions_of_dimensions_is_read_in_linear_time);
    suite_add_tcase(suite, floods);
    return run_suite(suite);
}
