/* Fetching: data URLs, files, and http against a server of our own on 127.0.0.1; and that nothing private is
 * reached. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/limits.h"
#include "server/address.h"
#include "server/fetch_impl.h"

#define MAX_BYTES 5000

/* ---- A server ------------------------------------------------------------------------------------------ */

struct server {
    int fds[2]; /* listening: 127.0.0.1 and ::1, the latter -1 where there is no IPv6 */
    int stop[2];
    int port;
    pthread_t thread;
    atomic_int n_connections;
    char last_request[4096];
};

/* Waits until fd can be read; false when the server is to stop or nothing comes for 5 s. */
static bool wait_readable(const struct server *s, int fd) {
    struct pollfd p[2] = {{.fd = s->stop[0], .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    return poll(p, 2, 5000) > 0 && p[1].revents && !p[0].revents;
}

static void say(int fd, const char *text) {
    for (size_t n = strlen(text); n;) {
        ssize_t got = send(fd, text, n, MSG_NOSIGNAL);
        if (got <= 0) return;
        text += got;
        n -= (size_t)got;
    }
}

static void say_bytes(int fd, int n, const char *extra) {
    char head[256], body[8192];
    memset(body, 'B', sizeof body);
    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\n%s\r\n", extra);
    say(fd, head);
    for (body[sizeof body - 1] = '\0'; n > 0; n -= (int)sizeof body - 1) {
        if (n < (int)sizeof body - 1) body[n] = '\0';
        say(fd, body);
    }
}

static void redirect(int fd, const char *to) {
    char head[12000];
    snprintf(head, sizeof head, "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 6\r\n\r\nmoved\n", to);
    say(fd, head);
}

/* "/redirect?TEXT" leads to TEXT; the rest is a table. */
static void answer(struct server *s, int fd, const char *path) {
    char text[256];
    if (!strncmp(path, "/redirect?", 10))
        redirect(fd, path + 10);
    else if (!strcmp(path, "/loop"))
        redirect(fd, "/loop");
    else if (!strcmp(path, "/a/relative"))
        redirect(fd, "../ok");
    else if (!strcmp(path, "/ok"))
        say_bytes(fd, 7, "Content-Length: 7\r\n");
    else if (!strcmp(path, "/most"))
        say_bytes(fd, MAX_BYTES, "Content-Length: 5000\r\n");
    else if (!strcmp(path, "/big"))
        say_bytes(fd, MAX_BYTES + 1, "Content-Length: 5001\r\n");
    else if (!strcmp(path, "/big-unsaid"))
        say_bytes(fd, 100000, "Connection: close\r\n");
    else if (!strcmp(path, "/endless-chunks")) {
        say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (int i = 0; i < 1000; i++) say(fd, "a\r\n0123456789\r\n");
    } else if (!strcmp(path, "/chunks"))
        say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    else if (!strcmp(path, "/gzip"))
        say(fd, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc");
    else if (!strcmp(path, "/short"))
        say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    else if (!strcmp(path, "/empty"))
        say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    else if (!strcmp(path, "/204"))
        say(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    else if (!strcmp(path, "/500"))
        say(fd, "HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\nx");
    else if (!strcmp(path, "/401"))
        say(fd, "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n");
    else if (!strcmp(path, "/304"))
        say(fd, "HTTP/1.1 304 Not Modified\r\n\r\n");
    else if (!strcmp(path, "/garbage"))
        say(fd, "SSH-2.0-OpenSSH_9\r\n");
    else if (!strcmp(path, "/headers")) {
        say(fd, "HTTP/1.1 200 OK\r\n");
        for (int i = 0; i < 3000; i++) say(fd, "X-Filler: 0123456789012345678901234567890123456789\r\n");
        say(fd, "Content-Length: 3\r\n\r\nabc");
    } else if (!strcmp(path, "/silent"))
        wait_readable(s, fd); /* until the client leaves */
    else if (!strcmp(path, "/stalls")) {
        say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
        wait_readable(s, fd);
    } else {
        snprintf(text, sizeof text, "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone");
        say(fd, text);
    }
}

static void serve_one(struct server *s, int fd) {
    char head[12000], path[11000];
    size_t n = 0;
    while (n + 1 < sizeof head && wait_readable(s, fd)) {
        ssize_t got = recv(fd, head + n, sizeof head - 1 - n, 0);
        if (got <= 0) break;
        n += (size_t)got;
        head[n] = '\0';
        if (strstr(head, "\r\n\r\n")) break;
    }
    head[n] = '\0';
    snprintf(s->last_request, sizeof s->last_request, "%s", head);
    if (sscanf(head, "GET %10999s ", path) == 1) answer(s, fd, path);
    shutdown(fd, SHUT_WR);
    char rest[1024];
    while (wait_readable(s, fd) && recv(fd, rest, sizeof rest, 0) > 0) continue;
}

static void *serve(void *arg) {
    struct server *s = arg;
    for (;;) {
        struct pollfd p[3] = {{.fd = s->stop[0], .events = POLLIN},
                              {.fd = s->fds[0], .events = POLLIN},
                              {.fd = s->fds[1], .events = POLLIN}};
        if (poll(p, 3, -1) < 0 || p[0].revents) return NULL;
        for (int i = 1; i < 3; i++) {
            int fd = p[i].revents ? accept(p[i].fd, NULL, NULL) : -1;
            if (fd < 0) continue;
            atomic_fetch_add(&s->n_connections, 1);
            serve_one(s, fd);
            close(fd);
        }
    }
}

static void server_start(struct server *s) {
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t n = sizeof four;
    memset(s, 0, sizeof *s);
    assert_int_equal(pipe(s->stop), 0);
    s->fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->fds[0], (struct sockaddr *)&four, sizeof four), 0);
    assert_int_equal(listen(s->fds[0], 16), 0);
    assert_int_equal(getsockname(s->fds[0], (struct sockaddr *)&four, &n), 0);
    s->port = ntohs(four.sin_port);
    six.sin6_port = four.sin_port;
    s->fds[1] = socket(AF_INET6, SOCK_STREAM, 0);
    if (s->fds[1] >= 0 &&
        (bind(s->fds[1], (struct sockaddr *)&six, sizeof six) != 0 || listen(s->fds[1], 16) != 0)) {
        close(s->fds[1]);
        s->fds[1] = -1;
    }
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s) {
    assert_int_equal(write(s->stop[1], "x", 1), 1);
    pthread_join(s->thread, NULL);
    close(s->stop[0]);
    close(s->stop[1]);
    close(s->fds[0]);
    if (s->fds[1] >= 0) close(s->fds[1]);
}

/* ---- Fetching ------------------------------------------------------------------------------------------ */

struct fixture {
    struct server server;
    struct oc_fetch_options o;
    struct oc_errinfo ei;
    char body[2 * MAX_BYTES];
    uint64_t n;
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    server_start(&f->server);
    f->o = (struct oc_fetch_options){.remote = true,
                                     .max_bytes = MAX_BYTES,
                                     .timeout_ms = 4000,
                                     .connect_timeout_ms = 2000,
                                     .max_redirects = 3,
                                     .allow_private = true};
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    server_stop(&f->server);
    free(f);
    return 0;
}

/* Fetches; on success the bytes are in f->body, and the memfd was looked at and closed. */
static enum oc_err fetch_str(struct fixture *f, struct oc_str url) {
    int fd = 77;
    memset(&f->ei, 0, sizeof f->ei);
    enum oc_err err = oc_fetch(url, &f->o, &fd, &f->n, &f->ei);
    if (err) {
        assert_int_equal(fd, -1);
        assert_true(f->ei.code == err && f->ei.msg[0]);
        assert_int_equal(f->n, 0);
        return err;
    }
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, f->n);
    assert_true(f->n > 0 && f->n <= f->o.max_bytes);
    assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(ftruncate(fd, 1), -1);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    if (f->n < sizeof f->body) assert_int_equal(pread(fd, f->body, sizeof f->body, 0), f->n);
    f->body[f->n < sizeof f->body ? f->n : 0] = '\0';
    close(fd);
    return OC_OK;
}

static enum oc_err fetch(struct fixture *f, const char *url) {
    return fetch_str(f, oc_str_from(url));
}

static enum oc_err fetch_path(struct fixture *f, const char *path) {
    char url[12000];
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", f->server.port, path);
    return fetch(f, url);
}

static void check(struct fixture *f, enum oc_err got, enum oc_err want, const char *part) {
    if (got != want || (part && !strstr(f->ei.msg, part)))
        print_error("%s: %s\n", oc_err_name(got), f->ei.msg);
    assert_int_equal(got, want);
    if (part) assert_non_null(strstr(f->ei.msg, part));
}

/* ---- data: (items 61 to 64) ---------------------------------------------------------------------------- */

static void test_data(void **state) {
    struct fixture *f = *state;
    static const char *const good[] = {
        "data:image/png;base64,aGVsbG8=", "DATA:IMAGE/Svg+XML;BASE64,aGVsbG8=",
        "data:image/jpeg;name=a.jpg;base64,aGVsbG8=", "data:image/x-icon;charset=utf-8;base64,aGVsbG8"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        check(f, fetch(f, good[i]), OC_OK, NULL);
        assert_string_equal(f->body, "hello");
        assert_int_equal(f->n, 5);
    }
}

static void test_bad_data(void **state) {
    struct fixture *f = *state;
    static const struct {
        const char *url;
        enum oc_err err;
        const char *part;
    } cases[] = {
        {"data:text/plain;base64,aGVsbG8=", OC_ERR_UNSUPPORTED, "not of an image type"},
        {"data:;base64,aGVsbG8=", OC_ERR_UNSUPPORTED, "image type"},
        {"data:image;base64,aGVsbG8=", OC_ERR_UNSUPPORTED, "image type"},
        {"data:image/;base64,aGVsbG8=", OC_ERR_UNSUPPORTED, "image type"},
        {"data:image/p ng;base64,aGVsbG8=", OC_ERR_FORMAT, "no URL has"},
        {"data: image/png;base64,aGVsbG8=", OC_ERR_FORMAT, "a byte at 5 that no URL has"},
        {"data:image/png;x=\xff;base64,aGVsbG8=", OC_ERR_FORMAT, "a byte at 17"},
        {"data:image/png,notbase64", OC_ERR_UNSUPPORTED, "must be base64"},
        {"data:image/png;base64;x=y,aGVsbG8=", OC_ERR_UNSUPPORTED, "must be base64"},
        {"data:,", OC_ERR_UNSUPPORTED, "must be base64"},
        {"data:image/png;base64", OC_ERR_FORMAT, "no comma"},
        {"data:", OC_ERR_FORMAT, "no comma"},
        {"data:image/png;base64,", OC_ERR_FORMAT, "empty"},
        {"data:image/png;base64,!!!invalid!!!", OC_ERR_FORMAT, "broken: not base64 at byte 0"},
        {"data:image/png;base64,aGVs bG8=", OC_ERR_FORMAT, "not base64 at byte 4"},
        {"data:image/png;base64,aGVs\nbG8=", OC_ERR_FORMAT, "not base64 at byte 4"},
        {"data:image/png;base64, aGVsbG8=", OC_ERR_FORMAT, "not base64 at byte 0"},
        {"data:image/png;base64,aGVsbG8=\n", OC_ERR_FORMAT, "not base64 at byte 8"},
        {"data:image/png;base64,aGVsbG8%3D", OC_ERR_FORMAT, "not base64 at byte 7"},
        {"data:image/png;base64,aGVs_G8=", OC_ERR_FORMAT, "not base64"},
        {"data:image/png;base64,aGVsbG8==", OC_ERR_FORMAT, "too early"},
        {"data:image/png;base64,aGVsb", OC_ERR_FORMAT, "too early"},
        {"data:image/png;base64,aG=sbG8=", OC_ERR_FORMAT, "not base64 at byte 3"},
        {"data:image/png;base64,====", OC_ERR_FORMAT, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(f, fetch(f, cases[i].url), cases[i].err, cases[i].part);
    check(f, fetch_str(f, (struct oc_str){"data:image/png;base64,aGVs\0G8=", 30}), OC_ERR_FORMAT,
          "not base64");
    char big[600];
    memset(big, 'a', sizeof big);
    memcpy(big, "data:image/", 11);
    memcpy(big + 590, ";base64,aa", 10);
    check(f, fetch_str(f, (struct oc_str){big, sizeof big}), OC_ERR_FORMAT,
          "no comma within its first 256 bytes");
}

static void test_data_size(void **state) {
    struct fixture *f = *state;
    static const struct {
        int n_digits, n_pads;
        enum oc_err err;
    } cases[] = {{6667, 1, OC_OK}, {6668, 0, OC_ERR_LIMIT}, {6667, 0, OC_OK},
                 {6664, 0, OC_OK}, {6672, 0, OC_ERR_LIMIT}, {1000000, 0, OC_ERR_LIMIT}};
    char *url = malloc(1100000);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = (size_t)sprintf(url, "data:image/png;base64,");
        memset(url + n, 'A', (size_t)cases[i].n_digits);
        n += (size_t)cases[i].n_digits;
        memset(url + n, '=', (size_t)cases[i].n_pads);
        n += (size_t)cases[i].n_pads;
        check(f, fetch_str(f, (struct oc_str){url, n}), cases[i].err,
              cases[i].err ? "at most 5000 are allowed" : NULL);
        if (cases[i].n_digits == 6667) assert_int_equal(f->n, MAX_BYTES);
    }
    /* item 64: the real limit */
    f->o.max_bytes = OC_LIMIT_API_PICTURE_BYTES;
    size_t head = 22, digits = ((size_t)OC_LIMIT_API_PICTURE_BYTES + 1 + 2) / 3 * 4;
    url = realloc(url, head + digits);
    memcpy(url, "data:image/png;base64,", head);
    memset(url + head, 'A', digits);
    url[head + digits - 1] = '='; /* 10485760 = 3 * 3495253 + 1: two pads make it exact */
    check(f, fetch_str(f, (struct oc_str){url, head + digits}), OC_ERR_LIMIT,
          "the picture has 10485761 bytes, at most 10485760 are allowed");
    url[head + digits - 2] = '=';
    check(f, fetch_str(f, (struct oc_str){url, head + digits}), OC_OK, NULL);
    assert_int_equal(f->n, 10485760);
    free(url);
}

/* ---- http (items 67, 68) ------------------------------------------------------------------------------- */

static void test_http(void **state) {
    struct fixture *f = *state;
    check(f, fetch_path(f, "/ok"), OC_OK, NULL);
    assert_string_equal(f->body, "BBBBBBB");
    assert_null(strstr(f->server.last_request, "Authorization"));
    assert_null(strstr(f->server.last_request, "Cookie"));
    assert_non_null(strstr(f->server.last_request, "User-Agent: ocellus\r\n"));
    check(f, fetch_path(f, "/chunks"), OC_OK, NULL);
    assert_string_equal(f->body, "abcdefg");
    check(f, fetch_path(f, "/most"), OC_OK, NULL);
    assert_int_equal(f->n, MAX_BYTES);
    check(f, fetch_path(f, "/gzip"), OC_OK, NULL); /* the bytes as they are: no decompression, no bomb */
    assert_string_equal(f->body, "abc");
    char url[128];
    snprintf(url, sizeof url, "HTTP://LOCALHOST:%d/ok?q=%%20#fragment", f->server.port);
    check(f, fetch(f, url), OC_ERR_NOT_FOUND, "404"); /* the path of the test server has the query in it */
    assert_non_null(strstr(f->server.last_request, "GET /ok?q=%20 HTTP/1.1\r\n"));
}

static void test_http_errors(void **state) {
    struct fixture *f = *state;
    static const struct {
        const char *path;
        enum oc_err err;
        const char *part;
    } cases[] = {
        {"/big", OC_ERR_LIMIT, "larger than the 5000 bytes"},
        {"/big-unsaid", OC_ERR_LIMIT, "larger than the 5000 bytes"},
        {"/endless-chunks", OC_ERR_LIMIT, "larger than the 5000 bytes"},
        {"/short", OC_ERR_IO, NULL},
        {"/empty", OC_ERR_FORMAT, "empty"},
        {"/nowhere", OC_ERR_NOT_FOUND, "answered 404"},
        {"/204", OC_ERR_IO, "answered 204"},
        {"/304", OC_ERR_IO, "answered 304"},
        {"/401", OC_ERR_IO, "answered 401"},
        {"/500", OC_ERR_IO, "answered 500"},
        {"/garbage", OC_ERR_IO, NULL},
        {"/headers", OC_ERR_LIMIT, "65536 bytes beside"},
        {"/loop", OC_ERR_IO, "more than 3 redirects"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(f, fetch_path(f, cases[i].path), cases[i].err, cases[i].part);
    char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/x", f->server.port + 1 == 65536 ? 1 : f->server.port + 1);
    enum oc_err err = fetch(f, url); /* most likely nobody listens there */
    assert_true(err == OC_ERR_IO || err == OC_ERR_NOT_FOUND);
    f->o.remote = false;
    check(f, fetch_path(f, "/ok"), OC_ERR_USAGE, "fetches no pictures by URL");
}

static void test_timeouts(void **state) {
    struct fixture *f = *state;
    static const char *const paths[] = {"/silent", "/stalls"};
    f->o.timeout_ms = 300;
    for (int i = 0; i < 2; i++) {
        uint64_t began = oc_clock_ns();
        check(f, fetch_path(f, paths[i]), OC_ERR_IO, "timeout");
        double ms = oc_clock_ms_since(began);
        assert_true(ms > 250 && ms < 3500);
    }
    f->o.timeout_ms = 0;
    check(f, fetch_path(f, "/ok"), OC_ERR_IO, "timeout");
}

static void *cancel_soon(void *arg) {
    usleep(200000);
    atomic_store((atomic_bool *)arg, true);
    return NULL;
}

static void test_cancel(void **state) {
    struct fixture *f = *state;
    atomic_bool cancelled = false;
    pthread_t t;
    f->o.cancelled = &cancelled;
    f->o.timeout_ms = 20000;
    uint64_t began = oc_clock_ns();
    assert_int_equal(pthread_create(&t, NULL, cancel_soon, &cancelled), 0);
    check(f, fetch_path(f, "/stalls"), OC_ERR_CANCELLED, NULL);
    assert_true(oc_clock_ms_since(began) < 4000);
    pthread_join(t, NULL);
    check(f, fetch(f, "data:image/png;base64,aGVsbG8="), OC_ERR_CANCELLED, NULL);
}

static void test_redirects(void **state) {
    struct fixture *f = *state;
    char path[12000];
    check(f, fetch_path(f, "/redirect?/ok"), OC_OK, NULL);
    check(f, fetch_path(f, "/a/relative"), OC_OK, NULL);
    check(f, fetch_path(f, "/redirect?/redirect?/redirect?/ok"), OC_OK, NULL);
    assert_string_equal(f->body, "BBBBBBB");
    check(f, fetch_path(f, "/redirect?/redirect?/redirect?/redirect?/ok"), OC_ERR_IO,
          "more than 3 redirects");
    snprintf(path, sizeof path, "/redirect?http://user:pw@127.0.0.1:%d/ok", f->server.port);
    check(f, fetch_path(f, path), OC_ERR_USAGE, "user names");
    static const char *const schemes[] = {
        "file:///etc/passwd", "ftp://127.0.0.1/x",   "gopher://127.0.0.1/x", "data:image/png;base64,aGVsbG8=",
        "dict://127.0.0.1/x", "javascript:alert(1)", "unix:/run/x"};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        snprintf(path, sizeof path, "/redirect?%s", schemes[i]);
        int before = atomic_load(&f->server.n_connections);
        enum oc_err err = fetch_path(f, path);
        if (err != OC_ERR_UNSUPPORTED && err != OC_ERR_FORMAT && err != OC_ERR_IO && err != OC_ERR_NOT_FOUND)
            print_error("%s\n", schemes[i]);
        assert_true(err != OC_OK);
        assert_true(atomic_load(&f->server.n_connections) <= before + 2);
    }
    f->o.max_redirects = 0;
    check(f, fetch_path(f, "/redirect?/ok"), OC_ERR_IO, "more than 0 redirects");
}

static void test_bad_urls(void **state) {
    struct fixture *f = *state;
    static const struct {
        const char *url;
        enum oc_err err;
    } cases[] = {
        {"", OC_ERR_UNSUPPORTED},
        {"ftp://127.0.0.1/x", OC_ERR_UNSUPPORTED},
        {"ftps://127.0.0.1/x", OC_ERR_UNSUPPORTED},
        {"gopher://127.0.0.1:70/x", OC_ERR_UNSUPPORTED},
        {"javascript:alert(1)", OC_ERR_UNSUPPORTED},
        {"http:", OC_ERR_UNSUPPORTED},
        {"http:/127.0.0.1/", OC_ERR_UNSUPPORTED},
        {"http+unix://x/y", OC_ERR_UNSUPPORTED},
        {"http://", OC_ERR_FORMAT},
        {"http:///", OC_ERR_FORMAT},
        {"http://:80/", OC_ERR_FORMAT},
        {"http://a b/", OC_ERR_FORMAT},
        {"http://127.0.0.1/a b", OC_ERR_FORMAT},
        {"http://127.0.0.1/\r\nX: y", OC_ERR_FORMAT},
        {"http://127.0.0.1\\@8.8.8.8/", OC_ERR_FORMAT},
        {"http://127.0.0.1:99999/", OC_ERR_FORMAT},
        {"http://127.0.0.1:0/", OC_ERR_USAGE},
        {"http://127.0.0.1:x/", OC_ERR_FORMAT},
        {"http://user@127.0.0.1/", OC_ERR_USAGE},
        {"http://user:pw@127.0.0.1/", OC_ERR_USAGE},
        {"http://@127.0.0.1:1/", OC_ERR_USAGE},
        {"http://[::1/", OC_ERR_FORMAT},
        {"http://[::1%25lo]/", OC_ERR_FORMAT},
        {"http://[zz]/", OC_ERR_FORMAT},
        {"/etc/passwd", OC_ERR_USAGE},
        {"./x.png", OC_ERR_USAGE},
        {"file:///etc/passwd", OC_ERR_USAGE},
        {"C:\\x.png", OC_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum oc_err err = fetch(f, cases[i].url);
        if (err != cases[i].err) print_error("%s gives %s: %s\n", cases[i].url, oc_err_name(err), f->ei.msg);
        assert_int_equal(err, cases[i].err);
    }
    check(f, fetch_str(f, (struct oc_str){"http://127.0.0.1/\0x", 19}), OC_ERR_FORMAT, "NUL");
    char big[OC_LIMIT_URL_BYTES + 10];
    memset(big, 'a', sizeof big);
    memcpy(big, "http://127.0.0.1/", 17);
    check(f, fetch_str(f, (struct oc_str){big, OC_LIMIT_URL_BYTES + 1}), OC_ERR_LIMIT, "8192");
}

/* ---- Nothing private ----------------------------------------------------------------------------------- */

/* %d is the port of a server that must not be reached. Only literals and names that resolve on this machine.
 */
static const char *const forbidden[] = {
    "http://127.0.0.1:%d/ok",
    "http://127.0.0.1:%d",
    "https://127.0.0.1:%d/ok",
    "HTTP://127.0.0.1:%d/ok",
    "http://127.0.0.1.:%d/ok",
    "http://127.1:%d/ok",
    "http://127.0.1:%d/ok",
    "http://0x7f.1:%d/ok",
    "http://0x7f000001:%d/ok",
    "http://0X7F.0x0.0x0.0x1:%d/ok",
    "http://0177.0.0.1:%d/ok",
    "http://0177.1:%d/ok",
    "http://017700000001:%d/ok",
    "http://2130706433:%d/ok",
    "http://127.000.000.001:%d/ok",
    "http://%%31%%32%%37.0.0.1:%d/ok",
    "http://127%%2e0%%2e0%%2e1:%d/ok",
    "http://127.0.0.1%%00.example:%d/ok",
    "http://127.0.0.1%%23:%d/ok",
    "http://0:%d/ok",
    "http://0.0.0.0:%d/ok",
    "http://0x0:%d/ok",
    "http://00000000000:%d/ok",
    "http://localhost:%d/ok",
    "http://LocalHost:%d/ok",
    "http://localhost.:%d/ok",
    "http://a.localhost:%d/ok",
    "http://127.8.8.8:%d/ok",
    "http://[::1]:%d/ok",
    "http://[0:0:0:0:0:0:0:1]:%d/ok",
    "http://[0000::0001]:%d/ok",
    "http://[::]:%d/ok",
    "http://[::ffff:127.0.0.1]:%d/ok",
    "http://[::ffff:7f00:1]:%d/ok",
    "http://[::FFFF:7F00:0001]:%d/ok",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:%d/ok",
    "http://[::ffff:0:127.0.0.1]:%d/ok",
    "http://[::127.0.0.1]:%d/ok",
    "http://[64:ff9b::127.0.0.1]:%d/ok",
    "http://[64:ff9b:1::127.0.0.1]:%d/ok",
    "http://[2002:7f00:1::]:%d/ok",
    "http://[2001:0:7f00:1::]:%d/ok",
    "http://[fe80::1]:%d/ok",
    "http://[fe80::1%%25lo]:%d/ok",
    "http://[fec0::1]:%d/ok",
    "http://[fc00::1]:%d/ok",
    "http://[fd00:ec2::254]:%d/latest/meta-data/",
    "http://[ff02::1]:%d/ok",
    "http://[100::1]:%d/ok",
    "http://[2001:db8::1]:%d/ok",
    "http://[3fff::1]:%d/ok",
    "http://[5f00::1]:%d/ok",
    "http://user@127.0.0.1:%d/ok",
    "http://8.8.8.8@127.0.0.1:%d/ok",
    "http://8.8.8.8:80@127.0.0.1:%d/ok",
    "http://127.0.0.1:%d#@8.8.8.8/",
    "http://127.0.0.1:%d?@8.8.8.8/",
    "http://127.0.0.1:%d\\@8.8.8.8/",
    "http:///127.0.0.1:%d/ok",
    "http:/127.0.0.1:%d/ok",
    "http:127.0.0.1:%d/ok",
    "http:\\\\127.0.0.1:%d/ok",
    "//127.0.0.1:%d/ok",
    "http://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.\xe2\x93\xaa.\xe2\x93\xaa.\xe2\x91\xa0:%d/ok", /* circled
                                                                                                   digits */
    "http://127\xe3\x80\x82"
    "0\xe3\x80\x82"
    "0\xe3\x80\x82"
    "1:%d/ok", /* ideographic full stops */
    "http://10.0.0.1:%d/ok",
    "http://10.255.255.255:%d/ok",
    "http://172.16.0.1:%d/ok",
    "http://172.31.255.1:%d/ok",
    "http://192.168.0.1:%d/ok",
    "http://192.168.1.254:%d/ok",
    "http://169.254.169.254:%d/latest/meta-data/",
    "http://0xa9fea9fe:%d/latest/meta-data/",
    "http://2852039166:%d/latest/meta-data/",
    "http://0251.0376.0251.0376:%d/",
    "http://[::ffff:a9fe:a9fe]:%d/latest/meta-data/",
    "http://100.64.0.1:%d/ok",
    "http://100.100.100.200:%d/latest/meta-data/",
    "http://192.0.0.192:%d/",
    "http://192.0.2.1:%d/",
    "http://198.18.0.1:%d/",
    "http://198.51.100.1:%d/",
    "http://203.0.113.1:%d/",
    "http://224.0.0.1:%d/",
    "http://240.0.0.1:%d/",
    "http://255.255.255.255:%d/",
    "file:///etc/passwd?%d",
    "/etc/passwd?%d",
    "gopher://127.0.0.1:%d/_GET%%20/ok",
    "dict://127.0.0.1:%d/ok",
    "ftp://127.0.0.1:%d/ok",
    "ldap://127.0.0.1:%d/ok",
    "tftp://127.0.0.1:%d/ok",
    "smb://127.0.0.1:%d/ok",
    "telnet://127.0.0.1:%d/ok",
    "ws://127.0.0.1:%d/ok",
    "jar:http://127.0.0.1:%d/ok!/",
    "url:http://127.0.0.1:%d/ok",
    " http://127.0.0.1:%d/ok",
    "http://{127.0.0.1,8.8.8.8}:%d/ok",
    "http://[127.0.0.1]:%d/ok",
};

static void test_nothing_private(void **state) {
    struct fixture *f = *state;
    size_t n = sizeof forbidden / sizeof forbidden[0];
    assert_true(n >= 60);
    f->o.allow_private = false;
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* must not be looked at */
    setenv("ALL_PROXY", "socks5h://127.0.0.1:1", 1);
    for (size_t i = 0; i < n; i++) {
        char url[256];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(url, sizeof url, forbidden[i], f->server.port);
#pragma GCC diagnostic pop
        enum oc_err err = fetch(f, url);
        if (err == OC_OK || err == OC_ERR_IO || err == OC_ERR_CANCELLED)
            print_error("%s: %s %s\n", url, oc_err_name(err), f->ei.msg);
        assert_true(err == OC_ERR_USAGE || err == OC_ERR_FORMAT || err == OC_ERR_UNSUPPORTED ||
                    err == OC_ERR_NOT_FOUND);
        if (strcasestr(url, "localhost")) /* nothing about what a name resolves to */
            assert_true(!strstr(f->ei.msg, "127.0.0.1") && !strstr(f->ei.msg, "::1"));
    }
    assert_int_equal(atomic_load(&f->server.n_connections), 0);
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
    check(f, fetch_path(f, "/ok"), OC_ERR_USAGE, "the address of 127.0.0.1 is not allowed (loopback)");
}

struct one_port {
    int port, n_asked;
};

/* The first server counts as public; everything else is judged as usual. */
static bool vet_one_port(void *arg, const struct sockaddr *a, socklen_t len, const char **why) {
    struct one_port *p = arg;
    struct sockaddr_in in;
    p->n_asked++;
    if (a->sa_family == AF_INET) {
        memcpy(&in, a, sizeof in);
        if (ntohs(in.sin_port) == p->port) return true;
    }
    return oc_address_is_global(a, len, why);
}

/* A public server that redirects inwards: the second address is vetted like the first. */
static void test_redirect_inwards(void **state) {
    struct fixture *f = *state;
    struct server inner;
    server_start(&inner);
    static const char *const targets[] = {"http://127.0.0.1:%d/ok",  "http://localhost:%d/ok",
                                          "http://[::1]:%d/ok",      "//127.0.0.1:%d/ok",
                                          "http://2130706433:%d/ok", "http://[::ffff:127.0.0.1]:%d/ok",
                                          "http://0:%d/ok"};
    struct one_port p = {f->server.port, 0};
    f->o.allow_private = false;
    int fd;
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        char url[256], target[128];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(target, sizeof target, targets[i], inner.port);
#pragma GCC diagnostic pop
        snprintf(url, sizeof url, "http://127.0.0.1:%d/redirect?%s", f->server.port, target);
        p.n_asked = 0;
        check(f, oc_fetch_with(oc_str_from(url), &f->o, vet_one_port, &p, &fd, &f->n, &f->ei), OC_ERR_USAGE,
              "is not allowed (");
        assert_true(p.n_asked >= 2);
    }
    assert_int_equal(atomic_load(&inner.n_connections), 0);
    char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/redirect?/ok", f->server.port);
    assert_int_equal(oc_fetch_with(oc_str_from(url), &f->o, vet_one_port, &p, &fd, &f->n, &f->ei), OC_OK);
    close(fd);
    server_stop(&inner);
}

static void *fetch_many(void *arg) {
    struct fixture *f = arg;
    char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/ok", f->server.port);
    for (int i = 0; i < 10; i++) {
        int fd;
        uint64_t n;
        struct oc_errinfo ei;
        if (oc_fetch(oc_str_from(url), &f->o, &fd, &n, &ei) != OC_OK || n != 7) return arg;
        close(fd);
    }
    return NULL;
}

static void test_threads(void **state) {
    struct fixture *f = *state;
    pthread_t t[4];
    void *bad;
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, fetch_many, f), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
}

/* ---- Files (item 69) ----------------------------------------------------------------------------------- */

static void put(const char *dir, const char *name, size_t n) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *o = fopen(path, "w");
    assert_non_null(o);
    for (size_t i = 0; i < n; i++) fputc('F', o);
    fclose(o);
}

static void link_to(const char *dir, const char *name, const char *target) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(symlink(target, path), 0);
}

static void make_tree(char *dir) {
    char path[256];
    assert_non_null(mkdtemp(dir));
    static const char *const dirs[] = {"media", "media/sub", "media/a b", "outside", "media2"};
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, dirs[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    put(dir, "media/x.png", 7);
    put(dir, "media/sub/y.png", 7);
    put(dir, "media/a b/z.png", 7);
    put(dir, "media/big.png", MAX_BYTES + 1);
    put(dir, "media/empty.png", 0);
    put(dir, "outside/secret.png", 7);
    put(dir, "media2/secret.png", 7);
    link_to(dir, "media/inside.png", "sub/y.png");
    link_to(dir, "media/out.png", "../outside/secret.png");
    link_to(dir, "media/outdir", "../outside");
    snprintf(path, sizeof path, "%s/outside/secret.png", dir);
    link_to(dir, "media/absolute.png", path);
    link_to(dir, "media/self.png", "self.png");
    link_to(dir, "media/fd", "/proc/self/fd");
    link_to(dir, "alias", "media");
    snprintf(path, sizeof path, "%s/media/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
}

static void remove_tree(const char *dir) {
    static const char *const names[] = {"media/x.png",
                                        "media/sub/y.png",
                                        "media/a b/z.png",
                                        "media/big.png",
                                        "media/empty.png",
                                        "outside/secret.png",
                                        "media2/secret.png",
                                        "media/inside.png",
                                        "media/out.png",
                                        "media/outdir",
                                        "media/absolute.png",
                                        "media/self.png",
                                        "media/fd",
                                        "media/fifo",
                                        "alias",
                                        "media/sub",
                                        "media/a b",
                                        "media",
                                        "outside",
                                        "media2",
                                        ""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(remove(path), 0);
    }
}

static void test_files(void **state) {
    struct fixture *f = *state;
    char dir[] = "/tmp/oc_fetch_XXXXXX", media[64], url[512];
    make_tree(dir);
    snprintf(media, sizeof media, "%s/media", dir);
    f->o.media_dir = media;
    f->o.remote = false; /* one has nothing to do with the other */
    static const struct {
        const char *url; /* %s: the directory above media */
        enum oc_err err;
        const char *part;
    } cases[] = {
        {"%s/media/x.png", OC_OK, NULL},
        {"%s/media//sub///y.png", OC_OK, NULL},
        {"%s/alias/x.png", OC_ERR_USAGE,
         "leads out"}, /* another name for the directory than the one it was given by */
        {"x.png", OC_OK, NULL},
        {"./x.png", OC_OK, NULL},
        {"sub/y.png", OC_OK, NULL},
        {"sub/../x.png", OC_OK, NULL},
        {"inside.png", OC_OK, NULL},
        {"file://%s/media/x.png", OC_OK, NULL},
        {"FILE://localhost%s/media/x.png", OC_OK, NULL},
        {"file:%s/media/x.png", OC_OK, NULL},
        {"file://%s/media/a%%20b/z.png", OC_OK, NULL},
        {"%s/media/a b/z.png", OC_OK, NULL},
        {"a%%20b/z.png", OC_ERR_NOT_FOUND, "not found"}, /* a path is no URL */
        {"%s/media/none.png", OC_ERR_NOT_FOUND, "not found"},
        {"none/x.png", OC_ERR_NOT_FOUND, "not found"},
        {"x.png/y", OC_ERR_NOT_FOUND, "not found"},
        {"%s/media/sub", OC_ERR_USAGE, "not a file"},
        {"%s/media/", OC_ERR_USAGE, "leads out"},
        {"%s/media", OC_ERR_USAGE, "leads out"},
        {".", OC_ERR_USAGE, "not a file"},
        {"fifo", OC_ERR_USAGE, "not a file"},
        {"big.png", OC_ERR_LIMIT, "the picture has 5001 bytes, at most 5000 are allowed"},
        {"empty.png", OC_ERR_FORMAT, "empty"},
        {"%s/media2/secret.png", OC_ERR_USAGE, "leads out"},
        {"%s/outside/secret.png", OC_ERR_USAGE, "leads out"},
        {"%s/media/../outside/secret.png", OC_ERR_USAGE, "leads out"},
        {"%s/media/sub/../../outside/secret.png", OC_ERR_USAGE, "leads out"},
        {"../outside/secret.png", OC_ERR_USAGE, "leads out"},
        {"..", OC_ERR_USAGE, "leads out"},
        {"file://%s/media/%%2e%%2e/outside/secret.png", OC_ERR_USAGE, "leads out"},
        {"out.png", OC_ERR_USAGE, "leads out"},
        {"outdir/secret.png", OC_ERR_USAGE, "leads out"},
        {"absolute.png", OC_ERR_USAGE, "leads out"},
        {"self.png", OC_ERR_USAGE, "leads out"},
        {"fd/0", OC_ERR_USAGE, "leads out"},
        {"/etc/passwd", OC_ERR_USAGE, "leads out"},
        {"/", OC_ERR_USAGE, "leads out"},
        {"file:///etc/passwd", OC_ERR_USAGE, "leads out"},
        {"file://%s/media/x.png?y", OC_ERR_USAGE, "not a path"},
        {"file://%s/media/x%%00.png", OC_ERR_USAGE, "not a path"},
        {"file://%s/media/x%%2", OC_ERR_USAGE, "not a path"},
        {"file://other.host%s/media/x.png", OC_ERR_USAGE, "not a path"},
        {"file://", OC_ERR_USAGE, "not a path"},
        {"file:x.png", OC_ERR_USAGE, "not a path"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
        snprintf(url, sizeof url, cases[i].url, dir);
#pragma GCC diagnostic pop
        enum oc_err err = fetch(f, url);
        if (err != cases[i].err) print_error("%s\n", url);
        check(f, err, cases[i].err, cases[i].part);
        if (!err) assert_string_equal(f->body, "FFFFFFF");
        if (err) assert_null(strstr(f->ei.msg, dir));
    }
    char alias[64];
    snprintf(alias, sizeof alias, "%s/alias/", dir); /* given by a link, both its names are good */
    f->o.media_dir = alias;
    snprintf(url, sizeof url, "%s/alias/x.png", dir);
    check(f, fetch(f, url), OC_OK, NULL);
    snprintf(url, sizeof url, "%s/media/x.png", dir);
    check(f, fetch(f, url), OC_OK, NULL);
    snprintf(url, sizeof url, "%s/outside/secret.png", dir);
    check(f, fetch(f, url), OC_ERR_USAGE, "leads out");
    f->o.media_dir = "/nowhere";
    check(f, fetch(f, "x.png"), OC_ERR_IO, "media directory");
    remove_tree(dir);
}

/* The way for kernels without openat2 lets less through, never more. */
static void test_old_kernels(void **state) {
    (void)state;
    char dir[] = "/tmp/oc_fetch_XXXXXX", media[64];
    make_tree(dir);
    snprintf(media, sizeof media, "%s/media", dir);
    int at = open(media, O_PATH | O_DIRECTORY);
    static const struct {
        const char *path;
        int error; /* 0: opens */
    } cases[] = {{"x.png", 0},
                 {"sub/y.png", 0},
                 {"./sub//y.png", 0},
                 {"a b/z.png", 0},
                 {"none", ENOENT},
                 {"x.png/y", ENOTDIR},
                 {"..", EXDEV},
                 {"../outside/secret.png", EXDEV},
                 {"sub/../x.png", EXDEV},
                 {"out.png", ELOOP},
                 {"inside.png", ELOOP},
                 {"outdir/secret.png", ENOTDIR},
                 {"absolute.png", ELOOP},
                 {"fd/0", ENOTDIR}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        errno = 0;
        int fd = oc_fetch_open_beneath(at, cases[i].path, true);
        int e = errno;
        if ((fd >= 0) != (cases[i].error == 0)) print_error("%s: %d %s\n", cases[i].path, fd, strerror(e));
        assert_int_equal(fd >= 0, cases[i].error == 0);
        if (fd < 0) assert_int_equal(e, cases[i].error);
        if (fd >= 0) close(fd);
    }
    char name[400];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(oc_fetch_open_beneath(at, name, true), -1);
    close(at);
    remove_tree(dir);
}

static int count_fds(void) {
    int n = 0;
    for (int fd = 0; fd < 1024; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static int start_all(void **state) {
    static int before; /* no descriptor may stay open */
    struct oc_errinfo ei;
    before = count_fds();
    *state = &before;
    return oc_fetch_init(&ei);
}

static int end_all(void **state) {
    oc_fetch_exit();
    return count_fds() != *(int *)*state;
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_data),
        T(test_bad_data),
        T(test_data_size),
        T(test_http),
        T(test_http_errors),
        T(test_timeouts),
        T(test_cancel),
        T(test_redirects),
        T(test_bad_urls),
        T(test_nothing_private),
        T(test_threads),
        T(test_files),
        T(test_redirect_inwards),
        cmocka_unit_test(test_old_kernels),
    };
    return cmocka_run_group_tests(tests, start_all, end_all);
}
