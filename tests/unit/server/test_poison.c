/* Pictures that were at work when a process died. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "server/poison.h"

#define HOUR_MS (3600u * 1000u)

static const uint8_t *digest(int i) {
    static uint8_t d[32];
    memset(d, 0, sizeof d);
    memcpy(d, &i, sizeof i);
    return d;
}

static struct oc_server_poison *open_one(void) {
    struct oc_server_poison *p;
    struct oc_errinfo ei;
    assert_int_equal(oc_server_poison_open(&p, &ei), OC_OK);
    return p;
}

static void two_deaths_in_a_row(void **state) {
    struct oc_server_poison *p = open_one();
    (void)state;
    assert_int_equal(oc_server_poison_blame(p, digest(1), 10), 1);
    assert_false(oc_server_poison_refuses(p, digest(1), 10));
    assert_int_equal(oc_server_poison_blame(p, digest(1), 20), 2);
    assert_true(oc_server_poison_refuses(p, digest(1), 20));
    assert_false(oc_server_poison_refuses(p, digest(2), 20));
    assert_int_equal(oc_server_poison_n(p), 1);
    oc_server_poison_close(p);
}

static void a_success_between_clears(void **state) {
    struct oc_server_poison *p = open_one();
    (void)state;
    oc_server_poison_blame(p, digest(1), 10);
    oc_server_poison_clear(p, digest(1));
    assert_int_equal(oc_server_poison_n(p), 0);
    oc_server_poison_blame(p, digest(1), 30);
    assert_false(oc_server_poison_refuses(p, digest(1), 30));
    oc_server_poison_close(p);
}

static void it_is_forgotten_after_an_hour(void **state) {
    struct oc_server_poison *p = open_one();
    (void)state;
    oc_server_poison_blame(p, digest(1), 0);
    oc_server_poison_blame(p, digest(1), 0);
    assert_true(oc_server_poison_refuses(p, digest(1), HOUR_MS));
    assert_false(oc_server_poison_refuses(p, digest(1), HOUR_MS + 1));
    assert_int_equal(oc_server_poison_blame(p, digest(1), HOUR_MS + 1), 1);
    oc_server_poison_close(p);
}

static void the_list_is_bounded(void **state) {
    struct oc_server_poison *p = open_one();
    (void)state;
    for (int i = 0; i < 2 * OC_LIMIT_SERVER_POISON; i++) {
        oc_server_poison_blame(p, digest(i), (uint64_t)i);
        oc_server_poison_blame(p, digest(i), (uint64_t)i);
    }
    assert_int_equal(oc_server_poison_n(p), OC_LIMIT_SERVER_POISON);
    assert_true(oc_server_poison_refuses(p, digest(2 * OC_LIMIT_SERVER_POISON - 1), 600));
    assert_false(oc_server_poison_refuses(p, digest(0), 600));
    oc_server_poison_close(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_deaths_in_a_row),
        cmocka_unit_test(a_success_between_clears),
        cmocka_unit_test(it_is_forgotten_after_an_hour),
        cmocka_unit_test(the_list_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
