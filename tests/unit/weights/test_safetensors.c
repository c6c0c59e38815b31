/* safetensors: what is accepted, and one clear sentence for each way a file can lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "weights/safetensors.h"

struct fixture {
    struct oc_arena arena;
    struct oc_safetensors file;
    struct oc_errinfo ei;
    uint8_t *bytes;
};

/* Parses a file of this header and n_data bytes 0, 1, 2 ... in a block of exactly that size. */
static enum oc_err parse(struct fixture *fx, const char *header, size_t n_data) {
    size_t n = strlen(header);
    fx->bytes = malloc(8 + n + n_data);
    for (int i = 0; i < 8; i++) fx->bytes[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(fx->bytes + 8, header, n);
    for (size_t i = 0; i < n_data; i++) fx->bytes[8 + n + i] = (uint8_t)i;
    oc_arena_init(&fx->arena, 1 << 20);
    return oc_weights_safetensors_parse(&fx->arena, fx->bytes, 8 + n + n_data, "a/b.safetensors", &fx->file,
                                        &fx->ei);
}

static void done(struct fixture *fx) {
    oc_arena_free(&fx->arena);
    free(fx->bytes);
}

/* The file must be refused with this code and a message that holds the path and each of the given texts. */
static void refuse(const char *header, size_t n_data, enum oc_err want, const char *text1,
                   const char *text2) {
    struct fixture fx = {0};
    assert_int_equal(parse(&fx, header, n_data), want);
    assert_int_equal(fx.ei.code, want);
    if (!strstr(fx.ei.msg, "a/b.safetensors") || !strstr(fx.ei.msg, text1) || !strstr(fx.ei.msg, text2))
        fail_msg("message: %s", fx.ei.msg);
    done(&fx);
}

static void test_accepts(void **state) {
    (void)state;
    struct fixture fx = {0};
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"},"
                         "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[5,17]},"
                         "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[5,5]},"
                         "\"a\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]},"
                         "\"scalar\":{\"dtype\":\"F8_E4M3\",\"shape\":[],\"data_offsets\":[17,18]}}   ";
    assert_int_equal(parse(&fx, header, 18), OC_OK);
    assert_int_equal(fx.file.n_tensors, 4);
    const struct oc_tensor_view *t = fx.file.tensors;
    assert_string_equal(t[0].name, "a");
    assert_int_equal(t[0].dtype, OC_U8);
    assert_string_equal(t[1].name, "empty");
    assert_int_equal(t[1].n_bytes, 0);
    assert_string_equal(t[2].name, "b");
    assert_int_equal(t[2].dtype, OC_BF16);
    assert_int_equal(t[2].n_dims, 2);
    assert_int_equal(t[2].shape[0], 2);
    assert_int_equal(t[2].shape[1], 3);
    assert_int_equal(t[2].n_bytes, 12);
    assert_int_equal(t[2].data[0], 5); /* at an odd address: no alignment is assumed */
    assert_int_equal(t[3].n_dims, 0);
    assert_int_equal(t[3].dtype, OC_OTHER);
    assert_string_equal(t[3].dtype_name, "F8_E4M3");
    done(&fx);
}

static void test_accepts_no_tensors(void **state) {
    (void)state;
    struct fixture fx = {0};
    assert_int_equal(parse(&fx, "{}", 0), OC_OK);
    assert_int_equal(fx.file.n_tensors, 0);
    done(&fx);
}

static void test_short_files(void **state) {
    (void)state;
    struct oc_arena a;
    struct oc_safetensors f;
    struct oc_errinfo ei;
    uint8_t *bytes = calloc(1, 64);
    oc_arena_init(&a, 1 << 16);
    assert_int_equal(oc_weights_safetensors_parse(&a, NULL, 0, "x", &f, &ei), OC_ERR_FORMAT);
    assert_non_null(strstr(ei.msg, "0 bytes are too few"));
    assert_int_equal(oc_weights_safetensors_parse(&a, bytes, 9, "x", &f, &ei), OC_ERR_FORMAT);
    bytes[0] = 57; /* one more than what follows */
    assert_int_equal(oc_weights_safetensors_parse(&a, bytes, 64, "x", &f, &ei), OC_ERR_FORMAT);
    assert_non_null(strstr(ei.msg, "57 bytes, the file holds 56"));
    assert_non_null(strstr(ei.msg, "cut short"));
    memset(bytes, 0xFF, 8);
    assert_int_equal(oc_weights_safetensors_parse(&a, bytes, 64, "x", &f, &ei), OC_ERR_FORMAT);
    assert_non_null(strstr(ei.msg, "18446744073709551615"));
    memcpy(bytes, "version https://git-lfs.github.com/spec/v1", 42);
    assert_int_equal(oc_weights_safetensors_parse(&a, bytes, 64, "x", &f, &ei), OC_ERR_FORMAT);
    assert_non_null(strstr(ei.msg, "git lfs pull"));
    oc_arena_free(&a);
    free(bytes);
}

static void test_bad_headers(void **state) {
    (void)state;
    refuse("[]", 0, OC_ERR_FORMAT, "does not start with '{'", "");
    refuse(" {}", 0, OC_ERR_FORMAT, "does not start with '{'", "");
    refuse("{\"a\":", 0, OC_ERR_FORMAT, "safetensors header", "JSON");
    refuse("{\"a\":7}", 0, OC_ERR_FORMAT, "tensor a", "dtype is missing");
    refuse("{\"a\":{\"dtype\":\"F33\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, OC_ERR_UNSUPPORTED,
           "tensor a", "F33");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,4]}}", 4, OC_ERR_FORMAT, "tensor a",
           "shape");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, OC_ERR_FORMAT, "tensor a",
           "shape");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, OC_ERR_FORMAT, "tensor a",
           "shape");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, OC_ERR_FORMAT, "tensor a",
           "data_offsets");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, OC_ERR_FORMAT, "tensor a",
           "backwards");
    refuse("{\"a\\u001b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, OC_ERR_FORMAT,
           "control", "");
    refuse("{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, OC_ERR_FORMAT,
           "control", "");
}

static void test_lying_ranges(void **state) {
    (void)state;
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, OC_ERR_FORMAT, "byte 8",
           "holds 7");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, OC_ERR_FORMAT,
           "[3] of F32 needs 12 bytes", "holds 8");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
           OC_ERR_FORMAT, "tensor a", "too large");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
           OC_ERR_FORMAT, "tensor a", "whole bytes");
    refuse("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, OC_ERR_FORMAT, "tensor a",
           "whole bytes");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,99999999999999999999]}}", 1,
           OC_ERR_FORMAT, "tensor a", "cut short");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, OC_ERR_LIMIT,
           "9 dimensions", "at most 8");
}

static void test_holes_and_overlaps(void **state) {
    (void)state;
    const char *a = "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},";
    char text[256];
    snprintf(text, sizeof text, "%s\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", a);
    struct fixture fx = {0};
    assert_int_equal(parse(&fx, text, 8), OC_OK);
    done(&fx);
    refuse(text, 9, OC_ERR_FORMAT, "end at byte 8", "holds 9");
    snprintf(text, sizeof text, "%s\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}", a);
    refuse(text, 7, OC_ERR_FORMAT, "tensor b starts at byte 3", "inside the tensor that ends at byte 4");
    snprintf(text, sizeof text, "%s\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}}", a);
    refuse(text, 9, OC_ERR_FORMAT, "tensor b starts at byte 5", "hole after byte 4");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[1,5]}}", 5, OC_ERR_FORMAT, "tensor a",
           "hole");
}

static void test_open_missing_file(void **state) {
    (void)state;
    struct oc_arena a;
    struct oc_safetensors f;
    struct oc_errinfo ei;
    oc_arena_init(&a, 1 << 16);
    assert_int_equal(oc_weights_safetensors_open(&a, OC_TEST_TMP "/no-such.safetensors", &f, &ei),
                     OC_ERR_NOT_FOUND);
    assert_non_null(strstr(ei.msg, "no-such.safetensors"));
    assert_int_equal(oc_weights_safetensors_open(&a, OC_TEST_TMP, &f, &ei), OC_ERR_IO);
    oc_arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),           cmocka_unit_test(test_accepts_no_tensors),
        cmocka_unit_test(test_short_files),       cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_lying_ranges),      cmocka_unit_test(test_holes_and_overlaps),
        cmocka_unit_test(test_open_missing_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
