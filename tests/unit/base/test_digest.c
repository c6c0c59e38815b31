/* SHA-256 against the examples of FIPS 180-4 and NIST, pieces against the whole, hexadecimal, random bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/digest.h"

static void hex_of(const void *p, size_t n, char out[2 * OC_DIGEST_BYTES + 1]) {
    uint8_t digest[OC_DIGEST_BYTES];
    oc_digest(&(struct oc_digest_piece){p, n}, 1, digest);
    oc_digest_hex(digest, sizeof digest, out);
}

static void test_known_answers(void **state) {
    (void)state;
    static const struct {
        const char *text, *hex;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char hex[2 * OC_DIGEST_BYTES + 1];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hex_of(cases[i].text, strlen(cases[i].text), hex);
        assert_string_equal(hex, cases[i].hex);
    }
    char *million = malloc(1000000);
    memset(million, 'a', 1000000);
    hex_of(million, 1000000, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

static void test_pieces_are_the_whole(void **state) {
    (void)state;
    uint8_t bytes[300], whole[OC_DIGEST_BYTES], parts[OC_DIGEST_BYTES];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7);
    oc_digest(&(struct oc_digest_piece){bytes, sizeof bytes}, 1, whole);
    for (size_t cut = 0; cut <= sizeof bytes; cut += 13) {
        const struct oc_digest_piece p[3] = {{bytes, cut}, {NULL, 0}, {bytes + cut, sizeof bytes - cut}};
        oc_digest(p, 3, parts);
        assert_true(oc_digest_equal(whole, parts, sizeof whole));
    }
    bytes[17] ^= 1;
    oc_digest(&(struct oc_digest_piece){bytes, sizeof bytes}, 1, parts);
    assert_false(oc_digest_equal(whole, parts, sizeof whole));
    assert_true(oc_digest_equal(whole, parts, 0));
    oc_digest(NULL, 0, parts);
    assert_int_equal(parts[0], 0xe3);
}

static void test_hex(void **state) {
    (void)state;
    char out[7];
    oc_digest_hex((const uint8_t[]){0x00, 0x9f, 0xff}, 3, out);
    assert_string_equal(out, "009fff");
    oc_digest_hex(NULL, 0, out);
    assert_string_equal(out, "");
}

static void test_random_bytes_differ(void **state) {
    (void)state;
    uint8_t a[4096] = {0}, b[4096] = {0};
    int n_zero = 0;
    oc_random_bytes(a, sizeof a);
    oc_random_bytes(b, sizeof b);
    oc_random_bytes(NULL, 0);
    for (size_t i = 0; i < sizeof a; i++) n_zero += a[i] == 0;
    assert_memory_not_equal(a, b, sizeof a);
    assert_true(n_zero < 100); /* 16 are expected */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_pieces_are_the_whole),
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_random_bytes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
