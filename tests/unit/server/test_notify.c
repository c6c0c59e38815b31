/* Messages to systemd, received by a socket of our own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/notify.h"

static int listen_at(const char *name) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strlen(name);
    memcpy(a.sun_path, name, n);
    if (name[0] == '@') a.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)),
                     0);
    return fd;
}

static void hears(int fd, const char *want) {
    char got[1024];
    ssize_t n = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
    assert_true(n >= 0);
    got[n] = '\0';
    assert_string_equal(got, want);
}

static void test_path(void **state) {
    (void)state;
    char dir[] = "/tmp/oc_notify_XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/socket", dir);
    assert_false(oc_notify_send(path, "READY=1")); /* nobody there */
    int fd = listen_at(path);
    assert_true(oc_notify_send(path, "READY=1\nSTATUS=Listening"));
    hears(fd, "READY=1\nSTATUS=Listening");
    assert_true(oc_notify_status(path, "a\nREADY=1\x7f z"));
    hears(fd, "STATUS=a READY=1  z");
    for (int i = 0; i < 100000; i++) /* a supervisor that does not read does not stop us */
        if (!oc_notify_send(path, "STATUS=full")) break;
    assert_false(oc_notify_send(path, "STATUS=full"));
    close(fd);
    unlink(path);
    rmdir(dir);
}

static void test_abstract(void **state) {
    (void)state;
    char name[64];
    snprintf(name, sizeof name, "@oc-notify-test-%d", (int)getpid());
    int fd = listen_at(name);
    assert_true(oc_notify_send(name, "STOPPING=1"));
    hears(fd, "STOPPING=1");
    close(fd);
}

static void test_bad_names(void **state) {
    (void)state;
    char big[300];
    memset(big, '/', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_true(oc_notify_send(NULL, "READY=1"));
    assert_false(oc_notify_send("", "READY=1"));
    assert_false(oc_notify_send("@", "READY=1"));
    assert_false(oc_notify_send("relative", "READY=1"));
    assert_false(oc_notify_send(big, "READY=1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_abstract),
        cmocka_unit_test(test_bad_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
