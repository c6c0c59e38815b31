/* What only connections with TLS do: handshakes that fail, stop or never begin, and ends that are told. */
#define RIG_TLS 1
#include "http_rig.h"

#define HOST "Host: a\r\n\r\n"

/* Connected, without a handshake. */
static void open_bare(struct client *k, struct rig *r) {
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)oc_http_server_port(r->server))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *k = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    oc_buf_init(&k->in, OC_MIB);
    assert_int_equal(connect(k->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    fcntl(k->fd, F_SETFL, O_NONBLOCK);
}

static void send_bare(struct client *k, const char *p, size_t n) {
    assert_int_equal(send(k->fd, p, n, MSG_NOSIGNAL), n);
}

/* What came so far, below TLS. */
static bool bare_ended(struct client *k) {
    char buf[4096];
    for (;;) {
        ssize_t n = recv(k->fd, buf, sizeof(buf), 0);
        if (n > 0) oc_buf_add(&k->in, buf, (size_t)n);
        if (n == 0) k->eof = true;
        if (n < 0) k->reset = errno != EAGAIN;
        if (n <= 0) return k->eof || k->reset;
    }
}

/* A client's first bytes; returns how many. */
static size_t hello(struct rig *r, char *out, size_t cap) {
    SSL *ssl = SSL_new(r->client_ctx);
    BIO *to = BIO_new(BIO_s_mem()), *from = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl, to, from);
    SSL_set_connect_state(ssl);
    SSL_do_handshake(ssl);
    int n = BIO_read(from, out, (int)cap);
    assert_true(n > 100 && (size_t)n < cap);
    SSL_free(ssl);
    ERR_clear_error();
    return (size_t)n;
}

static int n_failures(const struct rig *r) {
    int n = 0;
    for (int i = 0; i < 4; i++) n += r->n_tls_failures[i];
    return n;
}

/* The deadline of a head is the handshake's, from the accept on, whatever drips. */
static void test_deadline(void **state) {
    (void)state;
    struct rig r;
    struct client silent, half, dripping, quick;
    char bytes[4096];
    const struct oc_http_options o = {.header_timeout_ms = 2000, .idle_timeout_ms = 60000};
    rig_open(&r, "127.0.0.1", &o);
    size_t n = hello(&r, bytes, sizeof(bytes));
    client_open(&quick, &r);
    open_bare(&silent, &r);
    open_bare(&half, &r);
    open_bare(&dripping, &r);
    send_bare(&half, bytes, n / 2);
    for (size_t i = 0; i < n && !bare_ended(&dripping); i++) {
        send(dripping.fd, bytes + i, 1, MSG_NOSIGNAL);
        rig_for(&r, 10);
    }
    rig_until(&r, bare_ended(&dripping) && bare_ended(&silent) && bare_ended(&half));
    assert_int_equal(dripping.in.n_bytes, 0); /* its hello was not even whole: no deadline begins anew */
    rig_until(&r, oc_http_server_n_connections(r.server) == 1);
    assert_int_equal(r.n_tls_failures[OC_HTTP_TLS_TIMEOUT], 2); /* who says nothing has not begun one */
    assert_int_equal(n_failures(&r), 2);
    client_send(&quick, &r, "GET / HTTP/1.1\r\n" HOST); /* after its handshake it has the idle time */
    rig_until(&r, client_has(&quick, "ok"));
    client_close(&quick);
    client_close(&silent);
    client_close(&half);
    client_close(&dripping);
    rig_close(&r);
}

/* Handshakes that come together follow each other over several turns of the loop, and who has had his is served between
 * them. */
static void test_many_at_once(void **state) {
    (void)state;
    enum { N = 3 * OC_LIMIT_HTTP_TURN_SHAKES };
    struct rig r;
    struct client k[N], other;
    char bytes[4096];
    int n_answered = 0, n_turns = 0;
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&other, &r);
    size_t n = hello(&r, bytes, sizeof(bytes));
    for (int i = 0; i < N; i++) open_bare(&k[i], &r);
    rig_until(&r, oc_http_server_n_connections(r.server) == N + 1);
    for (int i = 0; i < N; i++) send_bare(&k[i], bytes, n);
    client_put(&other, "GET / HTTP/1.1\r\n" HOST, strlen("GET / HTTP/1.1\r\n" HOST));
    for (; n_answered < N; n_turns++) {
        const int n_before = n_answered;
        assert_true(n_turns < 1000);
        rig_turn(&r);
        for (int i = 0; i < N; i++) {
            if (k[i].in.n_bytes > 0) continue;
            assert_false(bare_ended(&k[i]));
            n_answered += k[i].in.n_bytes > 0;
        }
        assert_true(n_answered - n_before <= OC_LIMIT_HTTP_TURN_SHAKES);
        if (n_answered > n_before && n_before == 0) assert_true(client_has(&other, "ok"));
    }
    assert_true(n_turns >= N / OC_LIMIT_HTTP_TURN_SHAKES);
    for (int i = 0; i < N; i++) client_close(&k[i]);
    client_close(&other);
    rig_until(&r, oc_http_server_n_connections(r.server) == 0);
    rig_close(&r);
}

static void test_slow_but_in_time(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    open_bare(&k, &r);
    BIO *to = BIO_new(BIO_s_mem()), *from = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(to, -1);
    SSL *ssl = SSL_new(r.client_ctx);
    SSL_set_bio(ssl, to, from);
    SSL_set_connect_state(ssl);
    while (SSL_do_handshake(ssl) !=
           1) { /* one byte of the client's at a time, the loop running between them */
        char c;
        bool sent = false;
        for (; BIO_read(from, &c, 1) == 1; sent = true) {
            send_bare(&k, &c, 1);
            rig_turn(&r);
        }
        oc_buf_clear(&k.in);
        if (sent) rig_until(&r, !bare_ended(&k) && k.in.n_bytes > 0);
        BIO_write(to, k.in.data, (int)k.in.n_bytes);
        assert_int_equal(n_failures(&r), 0);
    }
    SSL_free(ssl);
    client_close(&k);
    rig_until(&r, oc_http_server_n_connections(r.server) == 0);
    rig_close(&r);
}

static void test_plain_http(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    static char zeros[50000];
    rig_open(&r, "127.0.0.1", NULL);
    for (int i = 0; i < 2; i++) { /* a small request, and one with a body behind it */
        open_bare(&k, &r);
        const char *text =
            i ? "POST /echo HTTP/1.1\r\nContent-Length: 50000\r\n" HOST : "GET / HTTP/1.1\r\n" HOST;
        send_bare(&k, text, strlen(text));
        if (i) send_bare(&k, zeros, sizeof(zeros));
        rig_until(&r, bare_ended(&k));
        assert_true(k.eof);
        client_must_have(&k, "HTTP/1.1 400 Bad Request\r\n");
        client_must_have(&k, "Connection: close\r\n");
        client_must_have(&k, "This port speaks HTTPS");
        assert_int_equal(client_count(&k, "HTTP/1.1"), 1);
        client_close(&k);
    }
    assert_int_equal(r.n_tls_failures[OC_HTTP_TLS_PLAIN_HTTP], 2);
    assert_int_equal(n_failures(&r), 2);
    assert_int_equal(r.n_requests, 0);
    rig_until(&r, oc_http_server_n_connections(r.server) == 0);
    rig_close(&r);
}

static void test_refused(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    open_bare(&k, &r);
    send_bare(&k, "\x16\x03\x01\x00\x04\x01\x02\x03\x04", 9);
    rig_until(&r, bare_ended(&k));
    assert_true(k.eof && k.in.n_bytes == 7 && k.in.data[0] == 21); /* an alert, and an orderly end */
    client_close(&k);
    assert_int_equal(r.n_tls_failures[OC_HTTP_TLS_REFUSED], 1);

    SSL_CTX_set_verify(r.client_ctx, SSL_VERIFY_PEER, NULL);
    client_open(&k, &r);
    assert_true(k.reset);
    client_close(&k);
    rig_until(&r, r.n_tls_failures[OC_HTTP_TLS_REFUSED] == 2);
    assert_non_null(strstr(r.tls_reason, "alert unknown ca"));
    SSL_CTX_set_verify(r.client_ctx, SSL_VERIFY_NONE, NULL);
    assert_int_equal(n_failures(&r), 2);
    rig_close(&r);
}

static void test_gone(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    char bytes[4096];
    rig_open(&r, "127.0.0.1", NULL);
    size_t n = hello(&r, bytes, sizeof(bytes));
    static void (*const ways[])(struct client *) = {client_close, client_reset};
    for (int i = 0; i < 2; i++) {
        open_bare(&k, &r); /* a look at the port is no handshake */
        rig_until(&r, oc_http_server_n_connections(r.server) == 1);
        ways[i](&k);
        rig_until(&r, oc_http_server_n_connections(r.server) == 0);
        assert_int_equal(n_failures(&r), i);
        open_bare(&k, &r);
        send_bare(&k, bytes, n);
        rig_until(&r, (bare_ended(&k), k.in.n_bytes > 0));
        ways[i](&k);
        rig_until(&r, r.n_tls_failures[OC_HTTP_TLS_GONE] == i + 1);
    }
    assert_int_equal(n_failures(&r), 2);
    rig_close(&r);
}

/* Over the maximum: the handshake, then 503. */
static void test_overflow(void **state) {
    (void)state;
    struct rig r;
    struct client k, over;
    const struct oc_http_options o = {.max_connections = 1};
    rig_open(&r, "127.0.0.1", &o);
    client_open(&k, &r);
    for (int i = 0; i < 3; i++) {
        client_open(&over, &r);
        client_send(&over, &r, "GET / HTTP/1.1\r\n" HOST);
        rig_until(&r, client_ended(&over));
        assert_true(over.eof && over.bye);
        client_must_have(&over, "HTTP/1.1 503 Service Unavailable\r\n");
        client_close(&over);
    }
    assert_int_equal(r.n_requests, 0);
    client_send(&k, &r, "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k, "ok"));
    client_close(&k);
    rig_close(&r);
}

/* close_notify where all is said, none where something is missing. */
static void test_ends(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    char *large = calloc(1, 3 * OC_MIB);
    const struct oc_http_options o = {.idle_timeout_ms = 300};
    rig_open(&r, "127.0.0.1", &o);
    client_open(&k, &r); /* an idle connection's time is over */
    rig_until(&r, client_ended(&k));
    assert_true(k.eof && k.bye && k.in.n_bytes == 0);
    client_close(&k);
    rig_close(&r);

    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    client_send(&k, &r, "GET /later HTTP/1.1\r\nConnection: close\r\n" HOST);
    rig_until(&r, r.n_waiting == 1);
    oc_http_respond(r.waiting[0], 200, "text/plain", (struct oc_str){large, 3 * OC_MIB}); /* in many pieces */
    rig_until(&r, client_ended(&k));
    assert_true(k.eof && k.bye && k.in.n_bytes > 3 * OC_MIB);
    client_close(&k);

    client_open(&k, &r); /* an answer without a length of its own ends by close_notify ... */
    client_send(&k, &r, "GET /pieces HTTP/1.0\r\n\r\n");
    rig_until(&r, client_ended(&k));
    assert_true(k.eof && k.bye);
    client_must_have(&k, "\r\n\r\nonetwo");
    client_close(&k);

    client_open(&k, &r); /* ... so one that is cut short must not */
    client_send(&k, &r, "GET /later HTTP/1.0\r\n\r\n");
    rig_until(&r, r.n_waiting == 1);
    oc_http_stream_begin(r.waiting[0], 200, "text/plain");
    oc_http_stream_write(r.waiting[0], OC_STR("half"));
    rig_until(&r, client_has(&k, "half"));
    oc_http_server_close(r.server, rig_on_done, &r);
    r.server = NULL;
    rig_until(&r, r.done);
    rig_until(&r, client_ended(&k));
    assert_false(k.bye);
    client_close(&k);
    free(large);
    rig_close(&r);
}

/* A client's close_notify, and bytes that are no TLS, end what is running at once. */
static void test_client_ends(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    for (int streaming = 0; streaming < 2; streaming++) {
        for (int garbage = 0; garbage < 2; garbage++) {
            int gone = r.n_gone;
            client_open(&k, &r);
            client_send(&k, &r, "GET /later HTTP/1.1\r\n" HOST);
            rig_until(&r, r.n_waiting == 1);
            if (streaming) oc_http_stream_begin(r.waiting[0], 200, "text/plain");
            if (garbage) {
                send_bare(&k, "\x17\x03\x03\x00\x14 these are twenty bytes", 5 + 20);
            } else {
                SSL_shutdown(k.ssl);
            }
            rig_until(&r, r.n_gone == gone + 1);
            assert_int_equal(r.n_waiting, 0);
            client_close(&k);
        }
    }
    assert_int_equal(n_failures(&r), 0); /* the handshakes were in order */
    client_open(&k, &r);                 /* between requests it is answered in kind */
    client_send(&k, &r, "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k, "ok"));
    SSL_shutdown(k.ssl);
    rig_until(&r, client_ended(&k));
    assert_true(k.eof && k.bye);
    client_close(&k);
    rig_close(&r);
}

/* Small pieces that gather behind a reader who rests leave in few records. */
static void test_gathering(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    char piece[100];
    memset(piece, 'p', sizeof(piece));
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    client_send(&k, &r, "GET /later HTTP/1.1\r\n" HOST);
    rig_until(&r, r.n_waiting == 1);
    struct oc_http_exchange *x = r.waiting[0];
    oc_http_stream_begin(x, 200, "text/plain");
    size_t left = 0;
    char *much = malloc(65536);
    memset(much, 'm', 65536);
    for (int i = 0; i < 4000 && left < OC_MIB; i++) { /* until the kernel is full */
        left = oc_http_stream_write(x, (struct oc_str){much, 65536});
        rig_turn(&r);
    }
    assert_true(left >= OC_MIB);
    size_t before = left;
    for (int i = 0; i < 1000; i++) left = oc_http_stream_write(x, (struct oc_str){piece, sizeof(piece)});
    assert_int_equal(left - before, 1000 * (sizeof(piece) + 6)); /* "64\r\n...\r\n", and no record for each */
    oc_http_stream_end(x);
    rig_until(&r, (client_read(&k, SIZE_MAX), r.n_finished == 1));
    rig_until(&r, client_has(&k, "\r\n0\r\n\r\n"));
    client_close(&k);
    free(much);
    rig_close(&r);
}

/* Handshakes at every stage when the server stops or closes. */
static void test_closing(void **state) {
    (void)state;
    char bytes[4096];
    for (int stop = 0; stop < 2; stop++) {
        struct rig r;
        struct client silent, half, whole, done;
        rig_open(&r, "127.0.0.1", NULL);
        size_t n = hello(&r, bytes, sizeof(bytes));
        open_bare(&silent, &r);
        open_bare(&half, &r);
        open_bare(&whole, &r);
        send_bare(&half, bytes, n / 2);
        send_bare(&whole, bytes, n);
        rig_until(&r, (bare_ended(&whole), whole.in.n_bytes > 0));
        client_open(&done, &r);
        client_send(&done, &r, "GET / HTTP/1.1\r\n" HOST);
        rig_until(&r, client_has(&done, "ok"));
        rig_until(&r, oc_http_server_n_connections(r.server) == 4);
        if (stop) {
            oc_http_server_stop_accepting(r.server);
            rig_until(&r, oc_http_server_n_connections(r.server) == 0);
            rig_until(&r, bare_ended(&silent) && bare_ended(&half) && bare_ended(&whole));
            rig_until(&r, client_ended(&done));
            assert_true(done.bye);
        }
        rig_close(&r);
        client_close(&silent);
        client_close(&half);
        client_close(&whole);
        client_close(&done);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deadline),   cmocka_unit_test(test_slow_but_in_time), cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_plain_http), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_gone),       cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_ends),       cmocka_unit_test(test_client_ends),
        cmocka_unit_test(test_gathering),  cmocka_unit_test(test_closing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
