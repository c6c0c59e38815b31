/* What is made of the bits by which Linux describes an aarch64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/impl.h"

/* AT_HWCAP and AT_HWCAP2 as Linux gives them; bits that mean nothing here are set as well. */
static void arm_features_by_the_bits_of_the_system(void **state) {
    (void)state;
    enum { FP = 1, ASIMD = 1 << 1, ASIMDDP = 1 << 20, OTHERS = 1 << 5 | 1 << 12 | 1 << 22 };
    enum { I8MM = 1 << 13, BF16 = 1 << 14, OTHERS_2 = 1 << 9 | 1 << 12 };
    enum { DOTPROD = OC_CPU_NEON | OC_CPU_DOTPROD | OC_CPU_BYTES };
    static const struct {
        uint64_t hwcap, hwcap2;
        unsigned want;
    } cases[] = {
        {0, 0, 0},
        {FP | OTHERS, OTHERS_2, 0},
        {ASIMDDP, I8MM | BF16, 0},
        {FP | ASIMD, 0, OC_CPU_NEON},
        {FP | ASIMD | OTHERS, OTHERS_2, OC_CPU_NEON},
        {FP | ASIMD | ASIMDDP, 0, DOTPROD},
        {FP | ASIMD, I8MM, OC_CPU_NEON}, /* which would be odd: the kernels for I8MM use SDOT as well */
        {FP | ASIMD | ASIMDDP, I8MM, DOTPROD | OC_CPU_I8MM},
        {FP | ASIMD, BF16, OC_CPU_NEON | OC_CPU_BFMMLA},
        {FP | ASIMD | ASIMDDP | OTHERS, I8MM | BF16 | OTHERS_2, DOTPROD | OC_CPU_I8MM | OC_CPU_BFMMLA},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(oc_cpu_arm_features(cases[i].hwcap, cases[i].hwcap2), cases[i].want);
    }
}

/* Bits have one meaning each. */
static void features_are_different_bits(void **state) {
    (void)state;
    static const unsigned all[] = {OC_CPU_AVX2,       OC_CPU_AVX512, OC_CPU_NEON, OC_CPU_AVX512BF16, OC_CPU_AMX,  OC_CPU_ROUND,
                                   OC_CPU_AVX512VNNI, OC_CPU_INT8,   OC_CPU_MANY, OC_CPU_DOTPROD,    OC_CPU_I8MM, OC_CPU_BFMMLA,
                                   OC_CPU_BYTES,      OC_CPU_BYTES24};
    unsigned seen = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_int_equal(seen & all[i], 0);
        assert_true(all[i] != 0 && (all[i] & (all[i] - 1)) == 0);
        seen |= all[i];
    }
}

/* This machine has what its architecture has, and no wish. */
static void nothing_of_another_architecture(void **state) {
    (void)state;
    unsigned have = oc_cpu_features();
    assert_int_equal(have & (OC_CPU_ROUND | OC_CPU_INT8 | OC_CPU_MANY | OC_CPU_BYTES24), 0);
#if defined(__x86_64__)
    assert_int_equal(have & (OC_CPU_NEON | OC_CPU_DOTPROD | OC_CPU_I8MM | OC_CPU_BFMMLA), 0);
#elif defined(__aarch64__)
    assert_int_equal(have & (OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512BF16 | OC_CPU_AVX512VNNI | OC_CPU_AMX), 0);
    assert_true(have & OC_CPU_NEON);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arm_features_by_the_bits_of_the_system),
        cmocka_unit_test(features_are_different_bits),
        cmocka_unit_test(nothing_of_another_architecture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
