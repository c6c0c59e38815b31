/* Addresses that pictures may and may not come from. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

#include "server/address.h"

static bool judge(const char *text, const char **why) {
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct sockaddr_in four = {.sin_family = AF_INET};
    if (inet_pton(AF_INET, text, &four.sin_addr) == 1)
        return oc_address_is_global((const struct sockaddr *)&four, sizeof four, why);
    if (inet_pton(AF_INET6, text, &six.sin6_addr) != 1) print_error("%s is no address\n", text);
    assert_int_equal(inet_pton(AF_INET6, text, &six.sin6_addr), 1);
    return oc_address_is_global((const struct sockaddr *)&six, sizeof six, why);
}

static const struct {
    const char *address, *why;
} refused[] = {
    {"0.0.0.0", "this network"},
    {"0.1.2.3", "this network"},
    {"0.255.255.255", "this network"},
    {"10.0.0.0", "private"},
    {"10.255.255.255", "private"},
    {"100.64.0.0", "shared address space"},
    {"100.127.255.255", "shared address space"},
    {"100.100.100.200", "shared address space"}, /* a cloud's metadata */
    {"127.0.0.1", "loopback"},
    {"127.255.255.254", "loopback"},
    {"169.254.0.0", "link-local"},
    {"169.254.169.254", "link-local"}, /* the clouds' metadata */
    {"169.254.255.255", "link-local"},
    {"172.16.0.0", "private"},
    {"172.31.255.255", "private"},
    {"192.0.0.0", "IETF protocols"},
    {"192.0.0.8", "IETF protocols"},
    {"192.0.0.192", "IETF protocols"}, /* a cloud's metadata */
    {"192.0.0.255", "IETF protocols"},
    {"192.0.2.1", "documentation"},
    {"192.31.196.1", "AS112"},
    {"192.52.193.1", "AMT"},
    {"192.88.99.1", "6to4 relays"},
    {"192.168.0.0", "private"},
    {"192.168.255.255", "private"},
    {"192.175.48.1", "AS112"},
    {"198.18.0.0", "benchmarking"},
    {"198.19.255.255", "benchmarking"},
    {"198.51.100.7", "documentation"},
    {"203.0.113.7", "documentation"},
    {"224.0.0.1", "multicast"},
    {"239.255.255.250", "multicast"},
    {"240.0.0.1", "reserved"},
    {"255.255.255.254", "reserved"},
    {"255.255.255.255", "broadcast"},
    {"::", "unspecified"},
    {"::1", "loopback"},
    {"::2", "this network"},
    {"::127.0.0.1", "loopback"},
    {"::10.1.2.3", "private"},
    {"::ffff:127.0.0.1", "loopback"},
    {"::ffff:10.0.0.1", "private"},
    {"::ffff:169.254.169.254", "link-local"},
    {"::ffff:0.0.0.0", "this network"},
    {"::ffff:255.255.255.255", "broadcast"},
    {"::ffff:0:127.0.0.1", "not global unicast"}, /* IPv4-translated */
    {"64:ff9b::127.0.0.1", "loopback"},
    {"64:ff9b::192.168.1.1", "private"},
    {"64:ff9b::169.254.169.254", "link-local"},
    {"64:ff9b:0:1::8.8.8.8", "not global unicast"},
    {"64:ff9b:1::8.8.8.8", "local translation"},
    {"64:ff9b:1:ffff::1", "local translation"},
    {"100::1", "discard"},
    {"100:0:0:1::1", "dummy prefix"},
    {"100:0:0:2::1", "not global unicast"},
    {"2001::1", "this network"},                         /* Teredo without a server */
    {"2001:0:7f00:1:0:0:f7f7:f7f7", "loopback"},         /* Teredo, server 127.0.0.1 */
    {"2001:0:808:808:0:0:80ff:fffe", "loopback"},        /* Teredo, client 127.0.0.1 */
    {"2001:0:4136:e378:8000:63bf:3f57:fefe", "private"}, /* Teredo, client 192.168.1.1 */
    {"2001:1::1", "IETF protocols"},
    {"2001:2::1", "benchmarking"},
    {"2001:3::1", "AMT"},
    {"2001:4:112::1", "AS112"},
    {"2001:5::1", "IETF protocols"},
    {"2001:10::1", "ORCHID"},
    {"2001:2f:ffff::1", "ORCHID"},
    {"2001:30::1", "drone identifiers"},
    {"2001:1ff::1", "IETF protocols"},
    {"2001:db8::1", "documentation"},
    {"2001:db8:ffff:ffff::", "documentation"},
    {"2002:7f00:1::", "loopback"}, /* 6to4 of 127.0.0.1 */
    {"2002:a00:1::1", "private"},
    {"2002:c0a8:101:1::1", "private"},
    {"2002:a9fe:a9fe::", "link-local"},
    {"2002::", "this network"},
    {"2620:4f:8000::1", "AS112"},
    {"2606:4700::5efe:10.0.0.1", "private"}, /* ISATAP */
    {"2606:4700::200:5efe:127.0.0.1", "loopback"},
    {"3fff::1", "documentation"},
    {"3fff:fff:ffff::1", "documentation"},
    {"4000::1", "not global unicast"},
    {"5f00::1", "segment routing"},
    {"1::1", "not global unicast"},
    {"8000::1", "not global unicast"},
    {"fc00::1", "unique local"},
    {"fd00:ec2::254", "unique local"}, /* a cloud's metadata */
    {"fe00::1", "not global unicast"},
    {"fe80::1", "link-local"},
    {"febf:ffff::1", "link-local"},
    {"fec0::1", "site-local"},
    {"feff::1", "site-local"},
    {"ff02::1", "multicast"},
    {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"},
};

static const char *const global[] = {
    "1.0.0.0",
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "203.0.114.0",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "::8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2000::1",
    "2001:200::1",
    "2001:db7::1",
    "2001:db9::1",
    "2001:4860:4860::8888",
    "2002:808:808::1",
    "2001:0:4136:e378:8000:63bf:f7f7:f7f7",
    "2606:4700:4700::1111",
    "2a00:1450::1",
    "3ffe::1",
    "3fff:1000::1",
    "2606:4700::5efe:8.8.8.8",
};

static void test_refused(void **state) {
    (void)state;
    assert_true(sizeof refused / sizeof refused[0] >= 60);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const char *why = NULL;
        bool ok = judge(refused[i].address, &why);
        if (ok || strcmp(why, refused[i].why) != 0)
            print_error("%s: %s\n", refused[i].address, ok ? "passed" : why);
        assert_false(ok);
        assert_string_equal(why, refused[i].why);
    }
}

static void test_global(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof global / sizeof global[0]; i++) {
        const char *why = NULL;
        bool ok = judge(global[i], &why);
        if (!ok) print_error("%s: %s\n", global[i], why);
        assert_true(ok);
        assert_null(why);
    }
}

/* Every way to write an IPv4 address into IPv6 is judged like the address itself. */
static void test_wrapped_alike(void **state) {
    (void)state;
    unsigned seed = 5;
    for (int i = 0; i < 20000; i++) {
        uint32_t a = (uint32_t)rand_r(&seed) << 16 ^ (uint32_t)rand_r(&seed);
        if (i % 3 == 0) a = (a & 0x00FFFFFF) | 0x7F000000u;
        struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(a)};
        const char *why, *why6;
        bool ok = oc_address_is_global((const struct sockaddr *)&four, sizeof four, &why);
        for (int form = 0; form < 4; form++) {
            struct sockaddr_in6 six = {.sin6_family = AF_INET6};
            uint8_t *p = six.sin6_addr.s6_addr;
            uint32_t be = htonl(a), inverted = htonl(~a);
            if (form == 0) memcpy(p + 10, "\xff\xff", 2);
            if (form == 1) memcpy(p, "\x00\x64\xff\x9b", 4);
            if (form == 2) memcpy(p, "\x20\x02", 2);
            if (form == 3) memcpy(p, "\x20\x01\x00\x00\x08\x08\x08\x08", 8);
            memcpy(form == 2 ? p + 2 : p + 12, form == 3 ? &inverted : &be, 4);
            assert_int_equal(oc_address_is_global((const struct sockaddr *)&six, sizeof six, &why6), ok);
            if (!ok) assert_string_equal(why, why6);
        }
    }
}

static void test_other_families(void **state) {
    (void)state;
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/run/x"};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x08080808)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    const char *why;
    assert_false(oc_address_is_global((const struct sockaddr *)&un, sizeof un, &why));
    assert_string_equal(why, "no internet address");
    assert_false(oc_address_is_global((const struct sockaddr *)&four, 4, &why));
    assert_false(oc_address_is_global((const struct sockaddr *)&four, 0, &why));
    assert_false(oc_address_is_global((const struct sockaddr *)&six, sizeof(struct sockaddr_in), &why));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_global),
        cmocka_unit_test(test_wrapped_alike),
        cmocka_unit_test(test_other_families),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
