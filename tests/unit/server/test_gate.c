/* The gate: keys, Host, Origin, content type, the token bucket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "server/gate.h"

static const struct oc_str NONE = {NULL, 0};

static struct oc_gate *open_gate(const struct oc_gate_params *p) {
    struct oc_gate *g;
    struct oc_errinfo ei = {0};
    if (oc_gate_open(p, &g, &ei) != OC_OK) print_error("%s\n", ei.msg);
    assert_non_null(g);
    return g;
}

/* Opens a gate with these keys in a file; the error's sentence comes in ei. */
static enum oc_err open_with_keys(const char *text, size_t n, struct oc_gate **g, struct oc_errinfo *ei) {
    char path[] = "/tmp/oc_keys_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, n) == (ssize_t)n);
    close(fd);
    struct oc_gate_params p = {.keys_file = path, .rate_limit = true, .rate_per_minute = 60, .rate_burst = 2};
    enum oc_err err = oc_gate_open(&p, g, ei);
    unlink(path);
    return err;
}

static int key_of(const struct oc_gate *g, const char *authorization, const char *x_api_key) {
    uint8_t salt[16];
    return oc_gate_key(g, authorization ? oc_str_from(authorization) : NONE,
                       x_api_key ? oc_str_from(x_api_key) : NONE, salt);
}

static void test_no_keys(void **state) {
    (void)state;
    struct oc_gate_params p = {0};
    struct oc_gate *g = open_gate(&p);
    uint8_t salt[16], zero[16] = {0};
    memset(salt, 1, sizeof salt);
    assert_false(oc_gate_has_keys(g));
    assert_int_equal(oc_gate_key(g, OC_STR("Bearer anything"), NONE, salt), 0);
    assert_memory_equal(salt, zero, 16);
    assert_int_equal(key_of(g, NULL, NULL), 0);
    oc_gate_close(g);
}

static void test_keys(void **state) {
    (void)state;
    static const char text[] =
        "# comment\n\nsecret-one\n  team secret-two  \r\n\tk3\t\n#secret-four\nsecret-five";
    struct oc_gate *g;
    struct oc_errinfo ei = {0};
    assert_int_equal(open_with_keys(text, sizeof text - 1, &g, &ei), OC_OK);
    assert_true(oc_gate_has_keys(g));
    static const struct {
        const char *authorization, *x_api_key;
        int want;
    } cases[] = {
        {"Bearer secret-one", NULL, 0},
        {"bearer secret-two", NULL, 1},
        {"BEARER   k3  ", NULL, 2},
        {NULL, "secret-five", 3},
        {NULL, " secret-two ", 1},
        {"Bearer wrong", "secret-one", 0},
        {NULL, NULL, -1},
        {"", "", -1},
        {"Bearer", NULL, -1},
        {"Bearer ", NULL, -1},
        {"secret-one", NULL, -1},
        {"Basic secret-one", NULL, -1},
        {"Bearer secret-on", NULL, -1},
        {"Bearer secret-onex", NULL, -1},
        {"Bearer SECRET-ONE", NULL, -1},
        {"Bearer team", NULL, -1},
        {"Bearer #secret-four", NULL, -1},
        {"Bearer secret-four", NULL, -1},
        {"Bearersecret-one", NULL, -1},
        {NULL, "Bearer secret-one", -1},
        {"Bearer secret-one secret-one", NULL, -1},
        {"Bearer team secret-two", NULL, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int got = key_of(g, cases[i].authorization, cases[i].x_api_key);
        if (got != cases[i].want) print_error("case %zu\n", i);
        assert_int_equal(got, cases[i].want);
    }
    uint8_t a[16], b[16], c[16], zero[16] = {0};
    oc_gate_key(g, OC_STR("Bearer secret-one"), NONE, a);
    oc_gate_key(g, OC_STR("Bearer secret-two"), NONE, b);
    oc_gate_key(g, NONE, OC_STR("secret-one"), c);
    assert_memory_equal(a, c, 16);
    assert_memory_not_equal(a, b, 16);
    assert_memory_not_equal(a, zero, 16);
    assert_int_equal(oc_gate_key(g, OC_STR("Bearer x"), NONE, a), -1);
    assert_memory_equal(a, zero, 16);
    assert_string_equal(oc_gate_key_name(g, 0), "");
    assert_string_equal(oc_gate_key_name(g, 1), "team");
    assert_string_equal(oc_gate_key_name(g, -1), "");
    char big[4096];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_int_equal(key_of(g, NULL, big), -1);
    assert_int_equal(oc_gate_key(g, NONE, (struct oc_str){"secret-one\0", 11}, a), -1);
    /* each key has its own bucket */
    double wait;
    assert_true(oc_gate_take(g, 0, 0, &wait) && oc_gate_take(g, 0, 0, &wait) &&
                !oc_gate_take(g, 0, 0, &wait));
    assert_true(oc_gate_take(g, 3, 0, &wait));
    oc_gate_close(g);
}

static void test_bad_key_files(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t n;
        enum oc_err err;
        const char *part;
    } cases[] = {
        {"", 0, OC_ERR_USAGE, "holds no key"},
        {"# only\n\n", 8, OC_ERR_USAGE, "holds no key"},
        {"a b c\n", 6, OC_ERR_FORMAT, ":1: a line is"},
        {"one\ntwo\none\n", 12, OC_ERR_FORMAT, ":3: this key stands in the file twice"},
        {"ok\nk\xc3\xa9y\n", 8, OC_ERR_FORMAT, ":2: a line is"},
        {"k\0y\n", 4, OC_ERR_FORMAT, ":1: a line is"},
    };
    struct oc_gate *g;
    struct oc_errinfo ei;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(open_with_keys(cases[i].text, cases[i].n, &g, &ei), cases[i].err);
        assert_null(g);
        assert_non_null(strstr(ei.msg, cases[i].part));
    }
    struct oc_gate_params p = {.keys_file = "/nowhere/keys"};
    assert_int_equal(oc_gate_open(&p, &g, &ei), OC_ERR_IO);
    char *many = malloc(16 * (OC_LIMIT_SERVER_API_KEYS + 1));
    size_t n = 0;
    for (int i = 0; i <= OC_LIMIT_SERVER_API_KEYS; i++) n += (size_t)sprintf(many + n, "key%d\n", i);
    assert_int_equal(open_with_keys(many, n, &g, &ei), OC_ERR_LIMIT);
    free(many);
}

static void test_hosts(void **state) {
    (void)state;
    static const char *const hosts[] = {"ocellus.example", "*.wild.example", "under_score"};
    struct oc_gate_params p = {.hosts = hosts, .n_hosts = 3};
    struct oc_gate *g = open_gate(&p);
    static const char *const good[] = {"127.0.0.1",
                                       "127.0.0.1:11440",
                                       "10.1.2.3",
                                       "8.8.8.8:80",
                                       "[::1]",
                                       "[::1]:11440",
                                       "[2001:db8::1]:1",
                                       "[::ffff:1.2.3.4]",
                                       "localhost",
                                       "LOCALHOST:11440",
                                       "localhost.",
                                       "a.localhost",
                                       "x.y.localhost:1",
                                       "ocellus.example",
                                       "Ocellus.Example:11440",
                                       "ocellus.example.",
                                       "a.wild.example",
                                       "a.b.WILD.example:8",
                                       "under_score",
                                       "localhost:"};
    static const char *const bad[] = {"",
                                      ":80",
                                      "evil.example",
                                      "localhost.evil.example",
                                      "127.0.0.1.evil.example",
                                      "ocellus.example.evil",
                                      "evilocellus.example",
                                      "xlocalhost",
                                      "0x7f.1",
                                      "2130706433",
                                      "127.1",
                                      "0177.0.0.1",
                                      "::1",
                                      "[::1",
                                      "::1]",
                                      "[localhost]",
                                      "[127.0.0.1]",
                                      "[fe80::1%25eth0]",
                                      "[fe80::1%eth0]",
                                      "127.0.0.1:80a",
                                      "127.0.0.1:-1",
                                      "127.0.0.1:123456",
                                      "127.0.0.1 ",
                                      " 127.0.0.1",
                                      "user@localhost",
                                      "localhost/",
                                      "localhost#",
                                      "localhost?x",
                                      "localhost..",
                                      "..localhost",
                                      ".localhost",
                                      "wild.example",
                                      ".wild.example",
                                      "localhost:80:80",
                                      "[::1]x",
                                      "[]",
                                      "[]:80",
                                      "*",
                                      "local host",
                                      "localhost\\.evil",
                                      "\xef\xbc\xa1.localhost"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!oc_gate_host_ok(g, oc_str_from(good[i]))) print_error("refused %s\n", good[i]);
        assert_true(oc_gate_host_ok(g, oc_str_from(good[i])));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (oc_gate_host_ok(g, oc_str_from(bad[i]))) print_error("passed %s\n", bad[i]);
        assert_false(oc_gate_host_ok(g, oc_str_from(bad[i])));
    }
    assert_false(oc_gate_host_ok(g, NONE));
    assert_false(oc_gate_host_ok(g, (struct oc_str){"localhost\0", 10}));
    assert_false(oc_gate_host_ok(g, (struct oc_str){"127.0.0.1\0", 10}));
    char big[400];
    memset(big, 'a', sizeof big);
    memcpy(big + sizeof big - 10, ".localhost", 10);
    assert_false(oc_gate_host_ok(g, (struct oc_str){big, sizeof big}));
    oc_gate_close(g);
    static const char *const any[] = {"*"};
    p = (struct oc_gate_params){.hosts = any, .n_hosts = 1};
    g = open_gate(&p);
    assert_true(oc_gate_host_ok(g, OC_STR("evil.example")));
    assert_false(oc_gate_host_ok(g, OC_STR("evil example")));
    oc_gate_close(g);
    struct oc_errinfo ei;
    assert_int_equal(open_with_keys("k1", 2, &g, &ei), OC_OK);
    assert_true(oc_gate_host_ok(g, OC_STR("api.example"))); /* the key guards it */
    assert_false(oc_gate_host_ok(g, OC_STR("api example")));
    oc_gate_close(g);
}

static void test_origins(void **state) {
    (void)state;
    static const char *const origins[] = {"https://good.example", "http://[::1]:3000/", "tauri://localhost"};
    struct oc_gate_params p = {.origins = origins, .n_origins = 3};
    struct oc_gate *g = open_gate(&p);
    static const struct {
        const char *origin, *host;
        bool ok;
    } cases[] = {
        {"", "localhost", true},
        {"https://good.example", "localhost:11440", true},
        {"HTTPS://Good.Example", "localhost:11440", true},
        {"http://[::1]:3000", "localhost:11440", true},
        {"tauri://localhost", "localhost:11440", true},
        {"http://127.0.0.1:11440", "127.0.0.1:11440", true},
        {"https://api.example", "api.example", true},
        {"https://api.example", "api.example:443", true},
        {"https://api.example:443", "api.example", true},
        {"http://localhost", "LOCALHOST:80", true},
        {"null", "localhost", false},
        {"NULL", "localhost", false},
        {"http://good.example", "localhost", false},
        {"https://good.example:444", "localhost", false},
        {"https://good.example.evil", "localhost", false},
        {"https://good.example/", "localhost", false},
        {"https://evilgood.example", "localhost", false},
        {"http://localhost:3000", "localhost:11440", false},
        {"http://localhost", "localhost:11440", false},
        {"http://localhost", "localhost:443", false},
        {"https://localhost", "localhost:80", false},
        {"ftp://localhost", "localhost", false},
        {"localhost", "localhost", false},
        {"http://", "", false},
        {"http://", ":80", false},
        {"http://evil http://localhost", "localhost", false},
        {"file://", "localhost", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool got = oc_gate_origin_ok(g, oc_str_from(cases[i].origin), oc_str_from(cases[i].host));
        if (got != cases[i].ok) print_error("%s at %s\n", cases[i].origin, cases[i].host);
        assert_int_equal(got, cases[i].ok);
    }
    oc_gate_close(g);
    static const char *const any[] = {"*"};
    p = (struct oc_gate_params){.origins = any, .n_origins = 1};
    g = open_gate(&p);
    assert_true(oc_gate_origin_ok(g, OC_STR("https://evil.example"), OC_STR("localhost")));
    assert_false(oc_gate_origin_ok(g, OC_STR("null"), OC_STR("localhost")));
    oc_gate_close(g);
}

static void test_bad_lists(void **state) {
    (void)state;
    static const char *const hosts[] = {"a:80", "http://a", "",     "a/b", "*a", "a*",
                                        "*.",   ".a",       "a..b", "a b", "**"};
    static const char *const origins[] = {"good.example", "https://",    "https://a/b",
                                          "HTTP://a",     "https://a:b", "null",
                                          "://a",         "https:a",     "https://*.a"};
    struct oc_gate *g;
    struct oc_errinfo ei;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct oc_gate_params p = {.hosts = &hosts[i], .n_hosts = 1};
        if (oc_gate_open(&p, &g, &ei) == OC_OK) print_error("took %s\n", hosts[i]);
        assert_null(g);
        assert_int_equal(ei.code, OC_ERR_USAGE);
    }
    for (size_t i = 0; i < sizeof origins / sizeof origins[0]; i++) {
        struct oc_gate_params p = {.origins = &origins[i], .n_origins = 1};
        if (oc_gate_open(&p, &g, &ei) == OC_OK) print_error("took %s\n", origins[i]);
        assert_null(g);
        assert_non_null(strstr(ei.msg, origins[i]));
    }
}

static void test_json(void **state) {
    (void)state;
    static const char *const good[] = {
        "application/json",   "Application/JSON",   "application/json; charset=utf-8",
        "application/json;x", " application/json ", "application/json ;a=b"};
    static const char *const bad[] = {"",
                                      "text/plain",
                                      "application/jsonx",
                                      "application/json+x",
                                      "text/plain; application/json",
                                      "application/x-www-form-urlencoded",
                                      "application/json, text/plain",
                                      "json",
                                      "application/jso"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(oc_gate_is_json(oc_str_from(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(oc_gate_is_json(oc_str_from(bad[i])));
    assert_false(oc_gate_is_json(NONE));
}

/* Item 98. */
static void test_burst(void **state) {
    (void)state;
    struct oc_gate_params p = {.rate_limit = false, .rate_burst = 10};
    struct oc_gate *g = open_gate(&p);
    double wait = -1;
    for (int i = 0; i < 100; i++) assert_true(oc_gate_take(g, 0, 0, &wait));
    assert_true(oc_gate_tokens(g, 0, 0) == 10 && wait == 0);
    oc_gate_close(g);
    p = (struct oc_gate_params){.rate_limit = true, .rate_per_minute = 5, .rate_burst = 5};
    g = open_gate(&p);
    for (int i = 0; i < 5; i++) assert_true(oc_gate_take(g, 0, 1000, &wait));
    assert_false(oc_gate_take(g, 0, 1000, &wait));
    assert_float_equal(wait, 12, 1e-6);
    assert_false(oc_gate_take(g, 0, 0, &wait)); /* time that runs backwards fills nothing */
    assert_float_equal(wait, 12, 1e-6);
    oc_gate_give(g, 0);
    assert_true(oc_gate_take(g, 0, 1000, &wait));
    oc_gate_close(g);
}

/* Item 99: 60 a minute, burst 1. */
static void test_refill(void **state) {
    (void)state;
    struct oc_gate_params p = {.rate_limit = true, .rate_per_minute = 60, .rate_burst = 1};
    struct oc_gate *g = open_gate(&p);
    double wait;
    assert_true(oc_gate_take(g, 0, 5000, &wait));
    assert_false(oc_gate_take(g, 0, 5000, &wait));
    assert_float_equal(wait, 1.0, 1e-9);
    assert_false(oc_gate_take(g, 0, 5900, &wait));
    assert_true(wait >= 1); /* never less than a second */
    assert_true(oc_gate_take(g, 0, 6000, &wait));
    assert_true(oc_gate_tokens(g, 0, 1000000) == 1); /* and never more than the burst */
    oc_gate_give(g, 0);
    oc_gate_give(g, 0);
    assert_true(oc_gate_tokens(g, 0, 6000) == 1);
    oc_gate_close(g);
}

/* Item 100. */
static void test_tokens(void **state) {
    (void)state;
    struct oc_gate_params p = {.rate_limit = true, .rate_per_minute = 10, .rate_burst = 10};
    struct oc_gate *g = open_gate(&p);
    double wait;
    assert_true(oc_gate_tokens(g, 0, 7) == 10);
    for (int i = 0; i < 3; i++) assert_true(oc_gate_take(g, 0, 7, &wait));
    assert_float_equal(oc_gate_tokens(g, 0, 7), 7.0, 1e-9);
    assert_float_equal(oc_gate_tokens(g, 0, 3007), 7.5, 1e-9);
    assert_float_equal(oc_gate_tokens(g, 0, 7), 7.0, 1e-9); /* looking takes nothing */
    oc_gate_close(g);
}

/* Whoever waits as long as told gets through; over a long time exactly the rate passes. */
static void test_waiting_as_told(void **state) {
    (void)state;
    static const int rates[] = {1, 3, 7, 59, 60, 61, 1000, 90000};
    for (size_t k = 0; k < sizeof rates / sizeof rates[0]; k++) {
        struct oc_gate_params p = {.rate_limit = true, .rate_per_minute = rates[k], .rate_burst = 1};
        struct oc_gate *g = open_gate(&p);
        uint64_t now = 123456789;
        double wait;
        for (int i = 0; i < 200; i++) {
            if (oc_gate_take(g, 0, now, &wait)) continue;
            now += (uint64_t)(wait * 1000 + 0.9999);
            assert_true(oc_gate_take(g, 0, now, &wait));
        }
        oc_gate_close(g);
    }
    struct oc_gate_params p = {.rate_limit = true, .rate_per_minute = 61, .rate_burst = 5};
    struct oc_gate *g = open_gate(&p);
    int n = 0;
    double wait;
    for (uint64_t now = 0; now <= 600000; now += 7) n += oc_gate_take(g, 0, now, &wait);
    assert_int_equal(n, 614); /* 5, and 61 a minute for 599.998 s */
    oc_gate_close(g);
}

/* Item 101. */
static void test_bad_rates(void **state) {
    (void)state;
    struct oc_gate *g;
    struct oc_errinfo ei;
    struct oc_gate_params p = {.rate_limit = true, .rate_per_minute = 0, .rate_burst = 1};
    assert_int_equal(oc_gate_open(&p, &g, &ei), OC_ERR_USAGE);
    p = (struct oc_gate_params){.rate_limit = true, .rate_per_minute = 60, .rate_burst = 0};
    assert_int_equal(oc_gate_open(&p, &g, &ei), OC_ERR_USAGE);
    p.rate_limit = false;
    assert_int_equal(oc_gate_open(&p, &g, &ei), OC_OK);
    oc_gate_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_keys),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_bad_key_files),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_bad_lists),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_burst),
        cmocka_unit_test(test_refill),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_waiting_as_told),
        cmocka_unit_test(test_bad_rates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
