/* Deadlines and maxima of connections, with small values. */
#include <sys/resource.h>

#include "http/conn.h"
#include "http_rig.h"

#define HOST "Host: a\r\n\r\n"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Sends a byte every few milliseconds until the connection ends; how long that took. */
static double drip(struct rig *r, struct client *k, const char *text) {
    uint64_t begun = oc_clock_ns();
    size_t n = strlen(text);
    for (size_t i = 0; !client_ended(k) && oc_clock_ms_since(begun) < RIG_PATIENCE_MS; i++) {
        client_put(k, text + (i < n ? i : n - 1), 1);
        rig_for(r, 10);
    }
    return oc_clock_ms_since(begun);
}

static void test_slow_head(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    const struct oc_http_options o = {.header_timeout_ms = 200};
    rig_open(&r, "127.0.0.1", &o);
    client_open(&k, &r);
    rig_for(&r, 300); /* without a byte no request has begun */
    assert_int_equal(oc_http_server_n_connections(r.server), 1);
    assert_in_range((int)drip(&r, &k, "GET / HTTP/1.1\r\nX: a"), 150, 1500);
    client_must_have(&k, "HTTP/1.1 408 Request Timeout\r\n");
    client_must_have(&k, "head of the request");
    client_close(&k);
    /* The deadline is of each request, not of the connection. */
    client_open(&k, &r);
    for (int i = 0; i < 5; i++) {
        client_send(&k, &r, "GET / HTTP/1.1\r\n");
        rig_for(&r, 60);
        client_send(&k, &r, HOST);
        rig_until(&r, (client_read(&k, SIZE_MAX), client_count(&k, "\r\n\r\nok") == i + 1));
    }
    client_close(&k);
    rig_close(&r);
}

static void test_slow_body(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    const struct oc_http_options o = {.body_timeout_ms = 200};
    rig_open(&r, "127.0.0.1", &o);
    client_open(&k, &r);
    client_send(&k, &r, "POST / HTTP/1.1\r\nContent-Length: 1000\r\n" HOST);
    assert_in_range((int)drip(&r, &k, "a"), 150, 1500);
    client_must_have(&k, "HTTP/1.1 408 Request Timeout\r\n");
    client_must_have(&k, "body of the request");
    client_close(&k);
    /* A refused body that does not come ends the connection without a second answer. */
    client_open(&k, &r);
    client_send(&k, &r, "POST /refuse HTTP/1.1\r\nContent-Length: 1000\r\n" HOST);
    assert_in_range((int)drip(&r, &k, "a"), 150, 1500);
    assert_int_equal(client_count(&k, "HTTP/1.1"), 1);
    client_close(&k);
    /* A request that is being answered has no deadline here. */
    client_open(&k, &r);
    client_send(&k, &r, "POST /later HTTP/1.1\r\nContent-Length: 1\r\n" HOST "a");
    rig_for(&r, 400);
    assert_int_equal(r.n_waiting, 1);
    oc_http_respond(r.waiting[0], 200, "text/plain", OC_STR("in time"));
    rig_until(&r, client_has(&k, "in time"));
    client_close(&k);
    rig_close(&r);
}

static void test_idle(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    const struct oc_http_options o = {.idle_timeout_ms = 100};
    rig_open(&r, "127.0.0.1", &o);
    client_open(&k, &r);
    rig_until(&r, client_ended(&k)); /* nothing sent */
    assert_int_equal(k.in.n_bytes, 0);
    client_close(&k);
    client_open(&k, &r);
    for (int i = 0; i < 4; i++) {
        client_send(&k, &r, "GET / HTTP/1.1\r\n" HOST);
        rig_until(&r, client_has(&k, "ok"));
        client_forget(&k);
        rig_for(&r, 50);
    }
    client_send(&k, &r, "\r\n"); /* an empty line is no request */
    rig_until(&r, client_ended(&k));
    assert_true(k.eof);
    assert_int_equal(k.in.n_bytes, 0);
    client_close(&k);
    rig_close(&r);
}

static void test_connection_maximum(void **state) {
    (void)state;
    struct rig r;
    struct client k[3], over[OC_LIMIT_HTTP_OVERFLOW_CONNECTIONS + 4];
    const struct oc_http_options o = {.max_connections = 3};
    rig_open(&r, "127.0.0.1", &o);
    for (int i = 0; i < 3; i++) client_open(&k[i], &r);
    rig_until(&r, oc_http_server_n_connections(r.server) == 3);
    client_open(&over[0], &r);
    client_send(&over[0], &r, "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_ended(&over[0]));
    assert_true(over[0].eof);
    client_must_have(&over[0], "HTTP/1.1 503 Service Unavailable\r\n");
    client_must_have(&over[0], "Connection: close\r\n");
    client_close(&over[0]);
    assert_int_equal(r.n_requests, 0);
    rig_for(&r, 20);
    /* More of them at once than are told so are closed without a word. */
    int n_told = 0, n = (int)(sizeof(over) / sizeof(over[0]));
    for (int i = 0; i < n; i++) client_open(&over[i], &r);
    for (int i = 0; i < n; i++) rig_until(&r, client_ended(&over[i]));
    for (int i = 0; i < n; i++) n_told += client_count(&over[i], "503 Service Unavailable");
    assert_int_equal(n_told, OC_LIMIT_HTTP_OVERFLOW_CONNECTIONS);
    assert_int_equal(oc_http_server_n_connections(r.server), 3);
    for (int i = 0; i < n; i++) client_close(&over[i]);
    client_close(&k[0]);
    rig_until(&r, oc_http_server_n_connections(r.server) == 2);
    client_open(&k[0], &r);
    client_send(&k[0], &r, "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k[0], "ok"));
    for (int i = 0; i < 3; i++) client_close(&k[i]);
    rig_close(&r);
}

/* Whole networks of IPv6 count as one client. */
static void test_sources(void **state) {
    (void)state;
    static const char *const same[][2] = {{"127.0.0.1", "127.0.0.1"}, {"2001:db8:1:2::1", "2001:db8:1:2:ffff::9"}, {"::1", "::2"}},
                             *const other[][2] = {{"127.0.0.1", "127.0.0.2"}, {"2001:db8:1:2::1", "2001:db8:1:3::1"}, {"::1", "127.0.0.1"}};
    for (size_t i = 0; i < 3; i++) {
        assert_true(oc_http_listen_source(same[i][0]) == oc_http_listen_source(same[i][1]));
        assert_true(oc_http_listen_source(other[i][0]) != oc_http_listen_source(other[i][1]));
    }
}

static void open_from(struct client *k, struct rig *r, uint32_t address) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    *k = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    oc_buf_init(&k->in, 64 * OC_MIB);
    assert_int_equal(bind(k->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    a.sin_port = htons((uint16_t)oc_http_server_port(r->server));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(k->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    fcntl(k->fd, F_SETFL, O_NONBLOCK);
}

static void test_connection_maximum_of_an_address(void **state) {
    (void)state;
    struct rig r;
    struct client k[2], over[3], others[2];
    const struct oc_http_options o = {.max_connections = 100, .max_connections_per_ip = 2};
    rig_open(&r, "127.0.0.1", &o);
    for (int i = 0; i < 2; i++) client_open(&k[i], &r);
    rig_until(&r, oc_http_server_n_connections(r.server) == 2);
    for (int i = 0; i < 3; i++) {
        client_open(&over[i], &r);
        client_send(&over[i], &r, "GET / HTTP/1.1\r\n" HOST);
        rig_until(&r, client_ended(&over[i]));
        client_must_have(&over[i], "HTTP/1.1 503 Service Unavailable\r\n");
        client_must_have(&over[i], "from this address");
    }
    for (int i = 0; i < 2; i++) {
        open_from(&others[i], &r, INADDR_LOOPBACK + 1);
        client_send(&others[i], &r, "GET / HTTP/1.1\r\n" HOST);
        rig_until(&r, client_has(&others[i], "ok"));
    }
    assert_int_equal(r.n_requests, 2);
    client_close(&k[0]);
    rig_until(&r, oc_http_server_n_connections(r.server) == 3);
    client_open(&k[0], &r);
    client_send(&k[0], &r, "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k[0], "ok"));
    for (int i = 0; i < 2; i++) client_close(&k[i]);
    for (int i = 0; i < 2; i++) client_close(&others[i]);
    for (int i = 0; i < 3; i++) client_close(&over[i]);
    rig_close(&r);
}

static double cpu_ms(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

/* Without descriptors, accepting rests: no spinning, running connections are served, and later it goes on. */
static void test_no_descriptors(void **state) {
    (void)state;
    struct rig r;
    struct client k, waiting;
    struct rlimit old, low;
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    client_send(&k, &r, "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k, "ok"));
    getrlimit(RLIMIT_NOFILE, &old);
    int next = dup(0);
    close(next);
    client_open(&waiting, &r); /* takes `next`; its connection is in the backlog */
    low = old;
    low.rlim_cur = (rlim_t)next + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_int_equal(dup(0), -1);
    uv_timer_set_repeat(&r.tick, 50);
    uv_timer_again(&r.tick);
    double before = cpu_ms();
    rig_for(&r, 500);
    assert_true(cpu_ms() - before < 200);
    assert_int_equal(oc_http_server_n_connections(r.server), 1);
    client_forget(&k);
    client_send(&k, &r, "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k, "ok"));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    client_send(&waiting, &r, "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&waiting, "ok"));
    client_close(&k);
    client_close(&waiting);
    rig_close(&r);
}

static size_t rss_bytes(void) {
    char text[200] = "";
    size_t n_pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    assert_int_equal(sscanf(text, "%*u %zu", &n_pages), 1);
    return n_pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* A thousand connections that have had a request and wait for the next. */
static void test_idle_memory(void **state) {
    (void)state;
    enum { MANY = 1000 };
    struct rig r;
    struct rlimit limit, high;
    static struct client k[MANY];
    if (SANITIZED) {
        print_message("a sanitizer keeps freed memory: SKIPPED\n");
        skip();
    }
    getrlimit(RLIMIT_NOFILE, &limit);
    high = limit;
    high.rlim_cur = high.rlim_max;
    if (high.rlim_max < 2 * MANY + 100) {
        print_message("at most %lu descriptors: SKIPPED\n", (unsigned long)high.rlim_max);
        skip();
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &high), 0);
    rig_open(&r, "127.0.0.1", NULL);
    char *body = calloc(1, 200000);
    assert_non_null(body);
    size_t before = rss_bytes();
    for (int i = 0; i < MANY; i++) {
        client_open(&k[i], &r);
        client_send(&k[i], &r, "POST / HTTP/1.1\r\nContent-Length: 200000\r\n" HOST);
        client_send_n(&k[i], &r, body, 200000);
        rig_until(&r, client_has(&k[i], "ok"));
        oc_buf_free(&k[i].in);
    }
    rig_until(&r, oc_http_server_n_connections(r.server) == MANY);
    size_t grown = rss_bytes() - before;
    print_message("%d idle connections: %zu KiB\n", MANY, grown / 1024);
    assert_true(grown < 50 * OC_MIB);
    for (int i = 0; i < MANY; i++) client_close(&k[i]);
    free(body);
    rig_close(&r);
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_head),      cmocka_unit_test(test_slow_body),
        cmocka_unit_test(test_idle),           cmocka_unit_test(test_connection_maximum),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_connection_maximum_of_an_address),
        cmocka_unit_test(test_no_descriptors), cmocka_unit_test(test_idle_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
