/* Quantisation rules of config.json: defaults, overrides in every name layout, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "weights/quant.h"

static struct oc_json parse(struct oc_arena *a, const char *text) {
    struct oc_json j;
    struct oc_errinfo ei;
    oc_arena_init(a, 1 << 20);
    assert_int_equal(oc_json_parse(a, oc_str_from(text), "config.json", &j, &ei), OC_OK);
    return j;
}

static void expect_rule(const struct oc_quant *q, const char *module, int bits, int group) {
    struct oc_quant_rule r = oc_weights_quant_rule(q, module);
    if (r.bits != bits || r.group != group) fail_msg("%s: %d bits in groups of %d", module, r.bits, r.group);
}

static void refuse(const char *text, enum oc_err want, const char *part) {
    struct oc_arena a;
    struct oc_quant q;
    struct oc_errinfo ei = {0};
    struct oc_json j = parse(&a, text);
    assert_int_equal(oc_weights_quant_read(&j, "m/config.json", &q, &ei), want);
    if (!strstr(ei.msg, "m/config.json") || !strstr(ei.msg, part)) fail_msg("message: %s", ei.msg);
    oc_arena_free(&a);
}

static void test_plain(void **state) {
    (void)state;
    struct oc_arena a;
    struct oc_quant q;
    struct oc_json j = parse(&a, "{\"quantization\":null,\"hidden_size\":8}");
    assert_int_equal(oc_weights_quant_read(&j, "c", &q, NULL), OC_OK);
    expect_rule(&q, "model.layers.0.mlp.down_proj", 0, 0);
    oc_arena_free(&a);
}

static void test_defaults(void **state) {
    (void)state;
    struct oc_arena a;
    struct oc_quant q;
    struct oc_json j = parse(&a, "{\"quantization\":{\"group_size\":32,\"bits\":8,\"mode\":\"affine\"}}");
    assert_int_equal(oc_weights_quant_read(&j, "c", &q, NULL), OC_OK);
    expect_rule(&q, "lm_head", 8, 32);
    oc_arena_free(&a);
    j = parse(&a, "{\"quantization_config\":{\"bits\":4}}");
    assert_int_equal(oc_weights_quant_read(&j, "c", &q, NULL), OC_OK);
    expect_rule(&q, "lm_head", 4, 64);
    oc_arena_free(&a);
}

/* `quantization` is MLX's own key: a quantization_config of the model it was made from does not count. */
static void test_quantization_wins(void **state) {
    (void)state;
    struct oc_arena a;
    struct oc_quant q;
    struct oc_json j = parse(&a, "{\"quantization_config\":{\"quant_method\":\"fp8\"},"
                                 "\"quantization\":{\"group_size\":128,\"bits\":4}}");
    assert_int_equal(oc_weights_quant_read(&j, "c", &q, NULL), OC_OK);
    expect_rule(&q, "anything", 4, 128);
    oc_arena_free(&a);
}

static void test_overrides(void **state) {
    (void)state;
    struct oc_arena a;
    struct oc_quant q;
    struct oc_json j =
        parse(&a, "{\"quantization\":{\"group_size\":64,\"bits\":4,"
                  "\"language_model.model.layers.0.mlp.down_proj\":{\"group_size\":32,\"bits\":8},"
                  "\"language_model.model.layers.1.mlp.down_proj\":{\"bits\":8},"
                  "\"language_model.lm_head\":{\"group_size\":128},"
                  "\"language_model.model.embed_tokens\":true,"
                  "\"vision_tower.blocks.0.attn.qkv\":false}}");
    assert_int_equal(oc_weights_quant_read(&j, "c", &q, NULL), OC_OK);
    expect_rule(&q, "language_model.model.layers.0.mlp.down_proj", 8, 32);
    expect_rule(&q, "language_model.model.layers.1.mlp.down_proj", 8, 64);
    expect_rule(&q, "language_model.model.layers.2.mlp.down_proj", 4, 64);
    expect_rule(&q, "language_model.lm_head", 4, 128);
    expect_rule(&q, "language_model.model.embed_tokens", 4, 64);
    expect_rule(&q, "vision_tower.blocks.0.attn.qkv", 0, 0);
    expect_rule(&q, "bits", 4, 64);
    /* the same modules by the names of the other two layouts */
    expect_rule(&q, "model.layers.0.mlp.down_proj", 8, 32);
    expect_rule(&q, "model.language_model.layers.0.mlp.down_proj", 8, 32);
    expect_rule(&q, "lm_head", 4, 128);
    expect_rule(&q, "visual.blocks.0.attn.qkv", 0, 0);
    expect_rule(&q, "model.visual.blocks.0.attn.qkv", 0, 0);
    /* text and vision do not mix, nor do names that only end alike */
    expect_rule(&q, "model.blocks.0.attn.qkv", 4, 64);
    expect_rule(&q, "other.layers.0.mlp.down_proj", 4, 64);
    oc_arena_free(&a);
}

static void test_refused(void **state) {
    (void)state;
    refuse("{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128}}",
           OC_ERR_UNSUPPORTED, "\"awq\"");
    refuse("{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}}", OC_ERR_UNSUPPORTED,
           "\"gptq\"");
    refuse("{\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}", OC_ERR_UNSUPPORTED,
           "\"bitsandbytes\"");
    refuse("{\"quantization_config\":{\"quant_method\":\"fp8\"}}", OC_ERR_UNSUPPORTED, "\"fp8\"");
    refuse("{\"text_config\":{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"}}}",
           OC_ERR_UNSUPPORTED, "\"compressed-tensors\"");
    refuse("{\"quantization\":{\"group_size\":32,\"bits\":4,\"mode\":\"mxfp4\"}}", OC_ERR_UNSUPPORTED,
           "\"mxfp4\"");
    refuse("{\"quantization\":{\"group_size\":64,\"bits\":3}}", OC_ERR_UNSUPPORTED, "to 3 bits");
    refuse("{\"quantization\":{\"group_size\":64,\"bits\":6}}", OC_ERR_UNSUPPORTED, "to 6 bits");
    refuse("{\"quantization\":{\"group_size\":16,\"bits\":4}}", OC_ERR_UNSUPPORTED, "groups of 16");
    refuse("{\"quantization\":{\"group_size\":64,\"bits\":4,\"m.x\":{\"bits\":2}}}", OC_ERR_UNSUPPORTED,
           "of m.x to 2");
    refuse("{\"quantization\":{\"group_size\":64,\"bits\":4,\"m.x\":{\"mode\":\"nvfp4\"}}}",
           OC_ERR_UNSUPPORTED, "of m.x is \"nvfp4\"");
    refuse("{\"quantization\":{\"group_size\":64}}", OC_ERR_FORMAT, "no number of bits");
    refuse("{\"quantization\":4}", OC_ERR_FORMAT, "not an object");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_quantization_wins),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
