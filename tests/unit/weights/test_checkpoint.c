/* Checkpoints: which files are opened, names to weights, and the sentence for each thing that can be wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/convert.h"
#include "weights/checkpoint.h"

struct tensor {
    const char *name, *dtype, *shape;
    size_t n_bytes;
    const void *data; /* NULL: bytes 0, 1, 2 ... */
};

struct dir {
    char path[512];
    struct oc_checkpoint *ck;
    struct oc_errinfo ei;
};

static FILE *create(const struct dir *d, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", d->path, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    return f;
}

static void write_text(const struct dir *d, const char *name, const char *text) {
    FILE *f = create(d, name);
    fputs(text, f);
    fclose(f);
}

static void write_tensors(const struct dir *d, const char *name, const struct tensor *t, int n) {
    char header[4096];
    size_t at = 0;
    int len = snprintf(header, sizeof header, "{");
    for (int i = 0; i < n; i++) {
        len += snprintf(header + len, sizeof header - (size_t)len,
                        "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", i ? "," : "",
                        t[i].name, t[i].dtype, t[i].shape, at, at + t[i].n_bytes);
        at += t[i].n_bytes;
    }
    len += snprintf(header + len, sizeof header - (size_t)len, "}");
    FILE *f = create(d, name);
    for (int i = 0; i < 8; i++) fputc(i < 2 ? len >> (8 * i) & 0xFF : 0, f);
    fwrite(header, 1, (size_t)len, f);
    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < t[i].n_bytes; k++)
            fputc(t[i].data ? ((const uint8_t *)t[i].data)[k] : (int)(k & 0xFF), f);
    fclose(f);
}

static int setup(void **state) {
    struct dir *d = calloc(1, sizeof *d);
    snprintf(d->path, sizeof d->path, "%s/checkpoint-XXXXXX", OC_TEST_TMP);
    if (!mkdtemp(d->path)) return -1;
    write_text(d, "config.json", "{\"model_type\":\"x\"}");
    *state = d;
    return 0;
}

static int teardown(void **state) {
    static const char *const names[] = {"config.json",
                                        "model.safetensors",
                                        "model.safetensors.index.json",
                                        "model-00001-of-00002.safetensors",
                                        "model-00002-of-00002.safetensors",
                                        "other.safetensors",
                                        "consolidated.safetensors"};
    struct dir *d = *state;
    char path[1024];
    oc_weights_checkpoint_close(d->ck);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", d->path, names[i]);
        unlink(path);
    }
    rmdir(d->path);
    free(d);
    return 0;
}

static void open_ok(struct dir *d) {
    if (oc_weights_checkpoint_open(d->path, &d->ck, &d->ei) != OC_OK) fail_msg("%s", d->ei.msg);
}

static void expect_msg(const struct dir *d, const char *part) {
    if (!strstr(d->ei.msg, part)) fail_msg("expected \"%s\" in: %s", part, d->ei.msg);
}

static void open_fails(struct dir *d, enum oc_err want, const char *part) {
    assert_int_equal(oc_weights_checkpoint_open(d->path, &d->ck, &d->ei), want);
    assert_null(d->ck);
    expect_msg(d, part);
}

static const struct tensor one = {"a", "U8", "[3]", 3, NULL}, two = {"b", "U8", "[4]", 4, NULL};

static void test_single(void **state) {
    struct dir *d = *state;
    write_tensors(d, "model.safetensors", &one, 1);
    write_tensors(d, "consolidated.safetensors", &one,
                  1); /* the same weights again, as some repositories have */
    open_ok(d);
    assert_int_equal(oc_weights_n_tensors(d->ck), 1);
    assert_non_null(oc_weights_find(d->ck, "a"));
    assert_null(oc_weights_find(d->ck, "b"));
    assert_true(oc_weights_has_prefix(d->ck, "a"));
    assert_false(oc_weights_has_prefix(d->ck, "ab"));
    assert_string_equal(oc_weights_dir(d->ck), d->path);
    assert_true(oc_str_is(oc_json_get(oc_weights_config(d->ck), "model_type")->str, "x"));
}

static void test_any_name(void **state) {
    struct dir *d = *state;
    write_tensors(d, "other.safetensors", &one, 1);
    open_ok(d);
    assert_non_null(oc_weights_find(d->ck, "a"));
}

static void test_index(void **state) {
    struct dir *d = *state;
    write_tensors(d, "model-00001-of-00002.safetensors", &one, 1);
    write_tensors(d, "model-00002-of-00002.safetensors", &two, 1);
    write_text(d, "model.safetensors.index.json",
               "{\"metadata\":{},\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
               "\"b\":\"model-00002-of-00002.safetensors\"}}");
    open_ok(d);
    assert_int_equal(oc_weights_find(d->ck, "b")->n_bytes, 4);
    assert_string_equal(oc_weights_tensor_at(d->ck, 1)->name, "b");
}

static void test_parts_without_index(void **state) {
    struct dir *d = *state;
    write_tensors(d, "model-00002-of-00002.safetensors", &two, 1);
    open_fails(d, OC_ERR_NOT_FOUND, "1 of 2 parts");
    write_tensors(d, "model-00001-of-00002.safetensors", &one, 1);
    open_ok(d);
    assert_int_equal(oc_weights_n_tensors(d->ck), 2);
}

static void test_index_faults(void **state) {
    struct dir *d = *state;
    write_tensors(d, "model-00001-of-00002.safetensors", &one, 1);
    const char *index = "model.safetensors.index.json";
    write_text(d, index,
               "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
               "\"b\":\"model-00002-of-00002.safetensors\"}}");
    open_fails(d, OC_ERR_NOT_FOUND, "model-00002-of-00002.safetensors is missing");
    write_text(d, index, "{\"weight_map\":{\"b\":\"model-00001-of-00002.safetensors\"}}");
    open_fails(d, OC_ERR_FORMAT, "tensor b should stand in model-00001-of-00002.safetensors");
    write_text(d, index, "{\"weight_map\":{\"a\":\"../a.safetensors\"}}");
    open_fails(d, OC_ERR_FORMAT, "weight_map names a file");
    write_text(d, index, "{\"weight_map\":{\"a\":7}}");
    open_fails(d, OC_ERR_FORMAT, "weight_map names a file");
    write_text(d, index, "{\"weight_map\":[]}");
    open_fails(d, OC_ERR_FORMAT, "no weight_map");
    write_text(d, index, "{");
    open_fails(d, OC_ERR_FORMAT, "index.json");
    write_tensors(d, "model-00002-of-00002.safetensors", &one, 1);
    write_text(d, index,
               "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
               "\"b\":\"model-00002-of-00002.safetensors\"}}");
    open_fails(d, OC_ERR_FORMAT, "tensor a stands twice");
}

/* A repository converted to one file may keep the index of its origin. */
static void test_stale_index(void **state) {
    struct dir *d = *state;
    write_tensors(d, "model.safetensors", &one, 1);
    write_text(d, "model.safetensors.index.json",
               "{\"weight_map\":{\"z\":\"model-00001-of-00009.safetensors\"}}");
    open_ok(d);
    assert_non_null(oc_weights_find(d->ck, "a"));
}

static void test_directory_faults(void **state) {
    struct dir *d = *state;
    open_fails(d, OC_ERR_NOT_FOUND, "no *.safetensors");
    write_text(d, "config.json", "[1]");
    open_fails(d, OC_ERR_FORMAT, "not a JSON object");
    write_text(d, "config.json", "{\"quantization_config\":{\"quant_method\":\"awq\"}}");
    open_fails(d, OC_ERR_UNSUPPORTED, "\"awq\"");
    write_text(d, "config.json", "{\"model_type\":");
    open_fails(d, OC_ERR_FORMAT, "config.json");
    struct dir other = {0};
    snprintf(other.path, sizeof other.path, "%s/none", d->path);
    open_fails(&other, OC_ERR_NOT_FOUND, "no such directory");
    snprintf(other.path, sizeof other.path, "%s/config.json", d->path);
    open_fails(&other, OC_ERR_NOT_FOUND, "is a file");
    char path[1024];
    snprintf(path, sizeof path, "%s/config.json", d->path);
    unlink(path);
    open_fails(d, OC_ERR_NOT_FOUND, "no config.json");
}

/* 2 rows of 64 inputs at 4 bits in groups of 32, at an odd offset; row 1, input 33 is checked by hand. */
static void test_quantised_linear(void **state) {
    struct dir *d = *state;
    static const float scales[4] = {1, 2, 0.5f, 0.25f}, zeros[4] = {0, 0, 0, -3}, bias[2] = {10, 20};
    uint8_t q[64] = {0};
    q[32 + 16] = 0x97; /* row 1, inputs 32 and 33 */
    const struct tensor t[] = {{"pad", "U8", "[1]", 1, NULL},
                               {"l.weight", "U32", "[2,8]", 64, q},
                               {"l.scales", "F32", "[2,2]", 16, scales},
                               {"l.biases", "F32", "[2,2]", 16, zeros},
                               {"l.bias", "F32", "[2]", 8, bias},
                               {"h.weight", "F16", "[1,2]", 4, "\x00\x3c\x00\xc0"}};
    write_tensors(d, "model.safetensors", t, 6);
    write_text(d, "config.json", "{\"quantization\":{\"group_size\":32,\"bits\":4}}");
    open_ok(d);
    struct oc_weight w;
    assert_int_equal(oc_weights_linear(d->ck, "l", 2, 64, OC_BIAS_REQUIRED, &w, &d->ei), OC_OK);
    assert_int_equal(w.n, 2);
    assert_int_equal(w.k, 64);
    assert_int_equal(w.bits, 4);
    assert_int_equal(w.group, 32);
    assert_int_equal(w.dtype, OC_F32);
    assert_ptr_equal(w.w, oc_weights_find(d->ck, "l.weight")->data);
    int nibble = w.w[32 + 16] >> 4;
    float value =
        oc_load_float(w.scales, w.dtype, 3) * (float)nibble + oc_load_float(w.zero_biases, w.dtype, 3);
    assert_true(value == 0.25f * 9 - 3);
    assert_true(w.bias[0] == 10 && w.bias[1] == 20);
    assert_int_equal(oc_weights_linear(d->ck, "l", 2, 64, OC_BIAS_NONE, &w, &d->ei), OC_OK);
    assert_null(w.bias);
    assert_int_equal(oc_weights_linear(d->ck, "h", 1, 2, OC_BIAS_OPTIONAL, &w, &d->ei), OC_OK);
    assert_int_equal(w.bits, 0); /* no .scales: plain, whatever the default says */
    assert_int_equal(w.dtype, OC_F16);
    assert_null(w.bias);
    struct oc_weights_summary s;
    oc_weights_summarise(d->ck, &s);
    assert_int_equal(s.n_files, 1);
    assert_int_equal(s.n_tensors, 6);
    assert_int_equal(s.n_bytes, 1 + 64 + 16 + 16 + 8 + 4);
    assert_int_equal(s.n_q4, 128);
    assert_int_equal(s.n_f32, 2);
    assert_int_equal(s.n_f16, 2);
    assert_int_equal(s.n_other, 1);
    assert_int_equal(s.n_params, 133);
}

static void test_linear_faults(void **state) {
    struct dir *d = *state;
    const struct tensor t[] = {
        {"p.weight", "BF16", "[2,3]", 12, NULL}, {"i.weight", "I8", "[2,3]", 6, NULL},
        {"q.weight", "U32", "[2,8]", 64, NULL},  {"q.scales", "F16", "[2,1]", 4, NULL},
        {"q.biases", "BF16", "[2,1]", 4, NULL},  {"r.weight", "U32", "[2,8]", 64, NULL},
        {"r.scales", "F16", "[2,1]", 4, NULL},   {"off.weight", "U32", "[2,8]", 64, NULL},
        {"off.scales", "F16", "[2,1]", 4, NULL}, {"off.biases", "F16", "[2,1]", 4, NULL}};
    write_tensors(d, "model.safetensors", t, 10);
    write_text(d, "config.json", "{\"quantization\":{\"group_size\":64,\"bits\":4,\"off\":false}}");
    open_ok(d);
    struct oc_weight w;
    assert_int_equal(oc_weights_linear(d->ck, "none", 2, 3, OC_BIAS_NONE, &w, &d->ei), OC_ERR_NOT_FOUND);
    expect_msg(d, "tensor none.weight is missing");
    assert_int_equal(oc_weights_linear(d->ck, "p", 2, 4, OC_BIAS_NONE, &w, &d->ei), OC_ERR_FORMAT);
    expect_msg(d, "tensor p.weight has shape [2, 3], the config asks for [2, 4]");
    assert_int_equal(oc_weights_linear(d->ck, "p", 2, 3, OC_BIAS_REQUIRED, &w, &d->ei), OC_ERR_NOT_FOUND);
    expect_msg(d, "tensor p.bias is missing");
    assert_int_equal(oc_weights_linear(d->ck, "i", 2, 3, OC_BIAS_NONE, &w, &d->ei), OC_ERR_UNSUPPORTED);
    expect_msg(d, "tensor i.weight is I8");
    assert_int_equal(oc_weights_linear(d->ck, "q", 2, 64, OC_BIAS_NONE, &w, &d->ei), OC_ERR_UNSUPPORTED);
    expect_msg(d, "q.biases is BF16");
    assert_int_equal(oc_weights_linear(d->ck, "q", 2, 128, OC_BIAS_NONE, &w, &d->ei), OC_ERR_FORMAT);
    expect_msg(d, "q.weight has shape [2, 8], the config asks for [2, 16] at 4 bits in groups of 64");
    assert_int_equal(oc_weights_linear(d->ck, "q", 2, 96, OC_BIAS_NONE, &w, &d->ei), OC_ERR_UNSUPPORTED);
    expect_msg(d, "no multiple of its group of 64");
    assert_int_equal(oc_weights_linear(d->ck, "r", 2, 64, OC_BIAS_NONE, &w, &d->ei), OC_ERR_NOT_FOUND);
    expect_msg(d, "tensor r.biases is missing");
    assert_int_equal(oc_weights_linear(d->ck, "off", 2, 64, OC_BIAS_NONE, &w, &d->ei), OC_ERR_FORMAT);
    expect_msg(d, "says off is not quantised");
}

static void test_vector(void **state) {
    struct dir *d = *state;
    static const uint16_t bf16[3] = {0x3F80, 0xC000, 0x0001}, f16[3] = {0x3C00, 0x0001, 0x7C00};
    const struct tensor t[] = {
        {"pad", "U8", "[1]", 1, NULL}, {"b", "BF16", "[3]", 6, bf16}, {"h", "F16", "[3]", 6, f16}};
    write_tensors(d, "model.safetensors", t, 3);
    open_ok(d);
    const float *v;
    assert_int_equal(oc_weights_vector(d->ck, "b", 3, &v, &d->ei), OC_OK);
    assert_true(v[0] == 1 && v[1] == -2 && v[2] == 0x1p-133f);
    assert_int_equal((uintptr_t)v % 16, 0);
    assert_int_equal(oc_weights_vector(d->ck, "b", 4, &v, &d->ei), OC_ERR_FORMAT);
    expect_msg(d, "tensor b has shape [3], the config asks for [4]");
    assert_int_equal(oc_weights_vector(d->ck, "h", 3, &v, &d->ei), OC_ERR_FORMAT);
    expect_msg(d, "NaN or infinity at 2");
    assert_int_equal(oc_weights_vector(d->ck, "pad", 1, &v, &d->ei), OC_ERR_UNSUPPORTED);
    assert_int_equal(oc_weights_vector(d->ck, "c", 1, &v, &d->ei), OC_ERR_NOT_FOUND);
}

/* Element values are their own index in channels-first order, so that any permutation fault shows. */
static void test_conv(void **state) {
    struct dir *d = *state;
    enum { N = 2, CH = 3, T = 2, H = 2, W = 4, K = CH * T * H * W };
    float first[N * K], last[N * K];
    for (int i = 0; i < N * K; i++) first[i] = (float)i;
    for (int n = 0; n < N; n++)
        for (int c = 0; c < CH; c++)
            for (int p = 0; p < T * H * W; p++)
                last[(n * T * H * W + p) * CH + c] = first[(n * CH + c) * T * H * W + p];
    const struct tensor t[] = {{"pad", "U8", "[1]", 1, NULL},
                               {"first.weight", "F32", "[2,3,2,2,4]", sizeof first, first},
                               {"last.weight", "F32", "[2,2,2,4,3]", sizeof last, last},
                               {"flat.weight", "F32", "[2,48]", sizeof first, first},
                               {"pic.weight", "F32", "[2,4,4,3]", sizeof last, last},
                               {"cube.weight", "F32", "[2,2,2,2,2]", 128, first}};
    write_tensors(d, "model.safetensors", t, 6);
    open_ok(d);
    struct oc_conv_shape s = {N, CH, T, H, W, false};
    struct oc_weight w;
    static const char *const names[] = {"first", "last", "flat"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(oc_weights_conv(d->ck, names[i], s, OC_BIAS_OPTIONAL, &w, &d->ei), OC_OK);
        assert_int_equal(w.n, N);
        assert_int_equal(w.k, K);
        assert_memory_equal(w.w, first, sizeof first);
    }
    s = (struct oc_conv_shape){2, 3, 1, 4, 4, false};
    assert_int_equal(oc_weights_conv(d->ck, "pic", s, OC_BIAS_NONE, &w, &d->ei), OC_OK);
    assert_memory_equal(w.w, first, sizeof first);
    s = (struct oc_conv_shape){2, 2, 2, 2, 2, false};
    assert_int_equal(oc_weights_conv(d->ck, "cube", s, OC_BIAS_NONE, &w, &d->ei), OC_OK);
    assert_ptr_equal(w.w, oc_weights_find(d->ck, "cube.weight")->data);
    s.channels_last = true;
    assert_int_equal(oc_weights_conv(d->ck, "cube", s, OC_BIAS_NONE, &w, &d->ei), OC_OK);
    assert_true(oc_load_float(w.w, OC_F32, 1) == 2); /* channel 0, position 1 was at position 1, channel 0 */
    assert_int_equal(oc_weights_conv(d->ck, "first", s, OC_BIAS_NONE, &w, &d->ei), OC_ERR_FORMAT);
    expect_msg(d, "has shape [2, 3, 2, 2, 4], the config asks for [2, 2, 2, 2, 2]");
}

static bool count_steps(void *arg, uint64_t done_bytes, uint64_t total_bytes) {
    int *n = arg;
    assert_true(done_bytes <= total_bytes);
    return ++*n < 2;
}

static void test_prefetch(void **state) {
    struct dir *d = *state;
    write_tensors(d, "model-00001-of-00002.safetensors", &one, 1);
    write_tensors(d, "model-00002-of-00002.safetensors", &two, 1);
    open_ok(d);
    int n = 0;
    assert_int_equal(oc_weights_prefetch(d->ck, NULL, NULL, &d->ei), OC_OK);
    assert_int_equal(oc_weights_prefetch(d->ck, count_steps, &n, &d->ei), OC_ERR_CANCELLED);
    assert_int_equal(n, 2);
}

#define WITH_DIR(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DIR(test_single),
        WITH_DIR(test_any_name),
        WITH_DIR(test_index),
        WITH_DIR(test_index_faults),
        WITH_DIR(test_stale_index),
        WITH_DIR(test_parts_without_index),
        WITH_DIR(test_directory_faults),
        WITH_DIR(test_quantised_linear),
        WITH_DIR(test_linear_faults),
        WITH_DIR(test_vector),
        WITH_DIR(test_conv),
        WITH_DIR(test_prefetch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
