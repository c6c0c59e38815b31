/* The ops table: names, features, purity, refusals; and the number formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "kernels/convert.h"
#include "kernels/int16.h"
#include "kernels/ops.h"

static void dtype_sizes_and_names(void **state) {
    (void)state;
    assert_int_equal(oc_dtype_bytes(OC_F32), 4);
    assert_int_equal(oc_dtype_bytes(OC_BF16), 2);
    assert_int_equal(oc_dtype_bytes(OC_I64), 8);
    assert_int_equal(oc_dtype_bytes(OC_U8), 1);
    assert_int_equal(oc_dtype_bytes(OC_OTHER), 0);
    assert_string_equal(oc_dtype_name(OC_BF16), "BF16");
    assert_string_equal(oc_dtype_name(OC_OTHER), "other");
}

static void no_features_give_ref_and_a_full_table(void **state) {
    (void)state;
    struct oc_ops ops;
    memset(&ops, 0, sizeof ops);
    oc_ops_init(&ops, 0);
    assert_string_equal(ops.isa, "ref");
#define OC_OP(name) assert_non_null(ops.name);
#include "kernels/ops.def"
#undef OC_OP
}

static void init_is_pure(void **state) {
    (void)state;
    struct oc_ops a, b;
    memset(&a, 0, sizeof a);
    memset(&b, 0xff, sizeof b);
    oc_ops_init(&a, oc_cpu_features());
    oc_ops_init(&b, oc_cpu_features());
    assert_memory_equal(&a, &b, sizeof a);
}

static void isa_by_name(void **state) {
    (void)state;
    struct oc_ops best, ops;
    struct oc_errinfo ei;
    assert_int_equal(oc_ops_for_isa(&best, NULL, &ei), OC_OK);
    assert_int_equal(oc_ops_for_isa(&ops, "auto", &ei), OC_OK);
    assert_string_equal(ops.isa, best.isa);
    assert_int_equal(oc_ops_for_isa(&ops, "ref", &ei), OC_OK);
    assert_string_equal(ops.isa, "ref");
    assert_int_equal(oc_ops_for_isa(&ops, best.isa, &ei), OC_OK);
    assert_string_equal(ops.isa, best.isa);
}

/* Rounding to bf16 is asked for by name, never chosen: oc_cpu_features does not wish. */
static void nothing_rounds_unasked(void **state) {
    (void)state;
    struct oc_ops ops;
    assert_int_equal(oc_cpu_features() & OC_CPU_ROUND, 0);
    assert_int_equal(oc_ops_for_isa(&ops, "auto", NULL), OC_OK);
    assert_null(strstr(ops.isa, "bf16"));
#if defined(__x86_64__)
    const unsigned most = OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512BF16;
    oc_ops_init(&ops, most);
    assert_string_equal(ops.isa, "avx512");
    oc_ops_init(&ops, most | OC_CPU_ROUND | OC_CPU_AVX512VNNI | OC_CPU_BYTES);
    assert_string_equal(ops.isa, "avx512bf16");
    assert_int_equal(ops.x_digits, 0);
    oc_ops_init(&ops, most | OC_CPU_AMX);
    assert_string_equal(ops.isa, "amx");
    oc_ops_init(&ops, most | OC_CPU_AMX | OC_CPU_ROUND);
    assert_string_equal(ops.isa, "amxbf16");
    oc_ops_init(&ops, most | OC_CPU_AMX | OC_CPU_MANY);
    assert_string_equal(ops.isa, "amxmany");
    oc_ops_init(&ops, most | OC_CPU_AMX | OC_CPU_MANY | OC_CPU_ROUND);
    assert_string_equal(ops.isa, "amxbf16");
    oc_ops_init(&ops, most | OC_CPU_MANY); /* there is nothing else for many */
    assert_string_equal(ops.isa, "avx512");
#endif
}

/* x as whole numbers of bytes is what is best where there is VNNI, and can be left by name. */
static void x_is_bytes_where_it_may_be(void **state) {
    (void)state;
    struct oc_ops ops;
    assert_int_equal(oc_cpu_features() & OC_CPU_BYTES24, 0);
    if (oc_cpu_features() & OC_CPU_BYTES) assert_true(oc_cpu_features() & OC_CPU_AVX512VNNI);
#if defined(__x86_64__)
    const unsigned vnni = OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512VNNI,
                   amx = OC_CPU_AVX512BF16 | OC_CPU_AMX;
    static const struct {
        unsigned features;
        const char *isa;
        int x_digits;
    } cases[] = {
        {vnni, "avx512", 0},
        {OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_BYTES, "avx512", 0},
        {OC_CPU_AVX2 | OC_CPU_AVX512VNNI | OC_CPU_BYTES, "avx2", 0},
        {vnni | OC_CPU_BYTES, "avx512vnni", 2},
        {vnni | OC_CPU_BYTES | OC_CPU_BYTES24, "avx512vnni24", 3},
        {vnni | OC_CPU_BYTES | OC_CPU_INT8, "avx512-int8", 2},
        {vnni | OC_CPU_BYTES | amx, "amx", 2},
        {vnni | OC_CPU_BYTES | amx | OC_CPU_MANY, "amxmany", 0},
        {vnni | OC_CPU_BYTES | amx | OC_CPU_ROUND, "amxbf16", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        oc_ops_init(&ops, cases[i].features);
        assert_string_equal(ops.isa, cases[i].isa);
        assert_int_equal(ops.x_digits, cases[i].x_digits);
    }
    for (int i = 0; i < 2 && (oc_cpu_features() & OC_CPU_AVX512VNNI); i++) {
        assert_int_equal(oc_ops_for_isa(&ops, i ? "avx512vnni" : "avx512", NULL), OC_OK);
        assert_int_equal(ops.x_digits, i ? 2 : 0);
    }
#endif
}

/* A rounded value is within half a step of x, its digits make it up, and sums are those of the rounded. */
static void whole_numbers_are_the_nearest(void **state) {
    (void)state;
    float x[64], scale, sum;
    int32_t q[64];
    for (int digits = 1; digits <= OC_MAX_DIGITS; digits++) {
        for (int kind = 0; kind < 5; kind++) {
            double total = 0;
            for (int i = 0; i < 64; i++)
                x[i] = (float)((i * 37 % 64 - 31) * (kind == 1 ? 1e-20 : kind == 2 ? 1e30 : 0.37));
            if (kind == 3) x[17] = 3e4f;
            if (kind == 4) x[5] = -1e5f;
            oc_int_round_group(x, 64, oc_digits_most(digits), q, &scale, &sum);
            for (int i = 0; i < 64; i++) {
                int32_t rest = q[i], whole = 0;
                assert_true(fabs((double)x[i] - q[i] * (double)scale) <=
                            0.5001 * (double)scale + 1e-6 * fabs((double)x[i]));
                for (int d = 0, worth = 1; d < digits; d++, worth *= 256)
                    whole += oc_int_take_digit(&rest) * worth;
                assert_int_equal(rest, 0);
                assert_int_equal(whole, q[i]);
                total += q[i] * (double)scale;
            }
            assert_true(fabs(total - (double)sum) <= 1e-6 * fabs(total) + 1e-30);
        }
        for (int i = 0; i < 64; i++) x[i] = 1e-31f;
        oc_int_round_group(x, 64, oc_digits_most(digits), q, &scale, &sum);
        assert_true(q[0] == 0 && scale == 0 && sum == 0);
        x[63] = -INFINITY;
        oc_int_round_group(x, 64, oc_digits_most(digits), q, &scale, &sum);
        assert_true(q[63] == 0 && isnan(scale) && isnan(sum));
    }
}

/* So is rounding to 8 bits, and where there are no kernels for it the wish is as if it were not. */
static void int8_only_when_wished_and_there(void **state) {
    (void)state;
    struct oc_ops ops, exact;
    assert_int_equal(oc_cpu_features() & OC_CPU_INT8, 0);
    assert_int_equal(oc_ops_for_isa(&ops, "auto", NULL), OC_OK);
    assert_false(ops.int8);
    assert_int_equal(oc_ops_for_wishes(&ops, "ref", OC_CPU_INT8, NULL), OC_OK);
    assert_true(ops.int8);
    assert_string_equal(ops.isa, "ref-int8");
    assert_int_equal(oc_ops_for_wishes(&ops, "sse9", OC_CPU_INT8, NULL), OC_ERR_USAGE);
#if defined(__x86_64__)
    oc_ops_init(&ops, OC_CPU_AVX2 | OC_CPU_INT8);
    assert_string_equal(ops.isa, "avx2-int8");
    oc_ops_init(&exact, OC_CPU_AVX2 | OC_CPU_AVX512);
    oc_ops_init(&ops, OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_INT8); /* without VNNI */
    assert_memory_equal(&ops, &exact, sizeof ops);
    oc_ops_init(&ops, OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512VNNI | OC_CPU_INT8);
    assert_string_equal(ops.isa, "avx512-int8");
    assert_true(ops.int8);
#else
    oc_ops_init(&exact, OC_CPU_NEON);
    oc_ops_init(&ops, OC_CPU_NEON | OC_CPU_INT8);
    assert_string_equal(ops.isa, exact.isa);
#endif
}

static void unknown_and_absent_isas_are_refused_by_name(void **state) {
    (void)state;
    struct oc_ops ops;
    struct oc_errinfo ei;
    assert_int_equal(oc_ops_for_isa(&ops, "sse9", &ei), OC_ERR_USAGE);
    assert_non_null(strstr(ei.msg, "sse9"));
    assert_non_null(strstr(ei.msg, "avx512"));
#if defined(__x86_64__)
    const char *absent = "neon";
#else
    const char *absent = "avx2";
#endif
    assert_int_equal(oc_ops_for_isa(&ops, absent, &ei), OC_ERR_UNSUPPORTED);
    assert_non_null(strstr(ei.msg, absent));
}

static void scratch_grows_with_every_maximum(void **state) {
    (void)state;
    size_t base = oc_ops_scratch_bytes(64, 2048, 2048, 128, 2);
    assert_true(base > 0 && base % 64 == 0);
    assert_true(oc_ops_scratch_bytes(64, 200000, 2048, 128, 2) > base);
    assert_true(oc_ops_scratch_bytes(64, 2048, 2048, 128, 4) > base);
    assert_true(oc_ops_scratch_bytes(4800, 2048, 2048, 128, 2) >= base);
    assert_true(oc_ops_scratch_bytes(64, 2048, 2048, 256, 2) >= base);
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    assert_int_equal(oc_f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(oc_f32_to_bf16(oc_f32_from_bits(0x3f808000)), 0x3f80); /* tie, even below */
    assert_int_equal(oc_f32_to_bf16(oc_f32_from_bits(0x3f818000)), 0x3f82); /* tie, even above */
    assert_int_equal(oc_f32_to_bf16(oc_f32_from_bits(0x3f808001)), 0x3f81);
    assert_int_equal(oc_f32_to_bf16(oc_f32_from_bits(0x7f7fffff)), 0x7f80); /* past the largest: infinity */
    assert_int_equal(oc_f32_to_bf16(-INFINITY), 0xff80);
    assert_true(isnan(oc_bf16_to_f32(oc_f32_to_bf16(oc_f32_from_bits(0x7f800001)))));
}

static void f16_widens_exactly(void **state) {
    (void)state;
    assert_true(oc_f16_to_f32(0x3c00) == 1.0f);
    assert_true(oc_f16_to_f32(0xc500) == -5.0f);
    assert_true(oc_f16_to_f32(0x7bff) == 65504.0f);
    assert_true(oc_f16_to_f32(0x0001) == 0x1p-24f);
    assert_true(oc_f16_to_f32(0x83ff) == -0x3ffp-24f);
    assert_true(oc_f16_to_f32(0x0400) == 0x1p-14f);
    assert_true(isinf(oc_f16_to_f32(0x7c00)));
    assert_true(isnan(oc_f16_to_f32(0x7e00)));
    assert_int_equal(oc_f32_bits(oc_f16_to_f32(0x8000)), 0x80000000u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtype_sizes_and_names),
        cmocka_unit_test(no_features_give_ref_and_a_full_table),
        cmocka_unit_test(init_is_pure),
        cmocka_unit_test(isa_by_name),
        cmocka_unit_test(nothing_rounds_unasked),
        cmocka_unit_test(x_is_bytes_where_it_may_be),
        cmocka_unit_test(whole_numbers_are_the_nearest),
        cmocka_unit_test(int8_only_when_wished_and_there),
        cmocka_unit_test(unknown_and_absent_isas_are_refused_by_name),
        cmocka_unit_test(scratch_grows_with_every_maximum),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(f16_widens_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
