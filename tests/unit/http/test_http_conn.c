/* Connections over loopback: one request after the other, pipelining, refusals, the end of a server. */
#include "http/conn.h"
#include "http_rig.h"

#define HOST "Host: a\r\n\r\n"

static void test_keep_alive(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    const struct oc_http_options o = {.server_name = "test/1"};
    rig_open(&r, "127.0.0.1", &o);
    client_open(&k, &r);
    client_send(&k, &r, "GET /a?b=c HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k, "\r\n\r\nok"));
    client_must_have(&k, "HTTP/1.1 200 OK\r\nDate: ");
    client_must_have(&k, " GMT\r\nServer: test/1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok");
    client_forget(&k);
    client_send(&k, &r, "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n" HOST "hello");
    rig_until(&r, client_has(&k, "X-Mark: echo\r\n\r\nhello"));
    client_send(&k, &r,
                "\r\nPOST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" HOST
                "1\r\nx\r\n2\r\nyz\r\n0\r\n\r\n");
    rig_until(&r, client_has(&k, "\r\n\r\nxyz"));
    client_send(&k, &r, "GET /nothing HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k, "204 No Content\r\n"));
    assert_int_equal(client_count(&k, "Content-Length"), 2);
    assert_int_equal(oc_http_server_n_connections(r.server), 1);
    client_send(&k, &r, "GET / HTTP/1.1\r\nConnection: close\r\n" HOST);
    rig_until(&r, client_ended(&k));
    assert_true(k.eof);
    client_must_have(&k, "Connection: close\r\n");
    client_close(&k);
    rig_until(&r, oc_http_server_n_connections(r.server) == 0);
    assert_string_equal(oc_buf_str(&r.log),
                        "GET /a?b=c 0\nPOST /echo? 5\nPOST /echo? 3\nGET /nothing? 0\nGET /? 0\n");
    assert_int_equal(r.n_finished, 5);
    rig_close(&r);
}

static void test_head_and_old_version(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    rig_open(&r, "localhost", NULL);
    client_open(&k, &r);
    client_send(&k, &r,
                "HEAD / HTTP/1.1\r\n" HOST "HEAD /pieces HTTP/1.1\r\n" HOST "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k, "ok"));
    assert_int_equal(client_count(&k, "Content-Length: 2\r\n"), 2);
    assert_int_equal(client_count(&k, "Transfer-Encoding: chunked\r\n\r\nHTTP/1.1 200"), 1);
    assert_int_equal(client_count(&k, "ok"), 1);
    client_close(&k);

    client_open(&k, &r);
    client_send(&k, &r, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    rig_until(&r, client_has(&k, "ok"));
    client_must_have(&k, "Connection: keep-alive\r\n");
    client_send(&k, &r, "GET /pieces HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    rig_until(&r, client_ended(&k));
    client_must_have(&k, "Connection: close\r\n\r\nonetwo");
    assert_int_equal(client_count(&k, "chunked"), 0);
    client_close(&k);

    client_open(&k, &r);
    client_send(&k, &r, "GET / HTTP/1.0\r\n\r\n");
    rig_until(&r, client_ended(&k));
    client_must_have(&k, "Connection: close\r\n\r\nok");
    client_close(&k);
    rig_close(&r);
}

static void test_pipelining(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    client_send(&k, &r,
                "GET /1 HTTP/1.1\r\n" HOST "GET /later HTTP/1.1\r\n" HOST "POST /echo HTTP/1.1\r\n"
                "Content-Length: 3\r\n" HOST "abcGET /later HTTP/1.1\r\n" HOST "GET /5 HTTP/1.1\r\n" HOST);
    rig_until(&r, r.n_waiting == 1);
    rig_for(&r, 20);
    assert_int_equal(r.n_requests, 2); /* one at a time */
    client_send(&k, &r, "GET /6 HTTP/1.1\r\n" HOST);
    struct oc_http_exchange *first = r.waiting[0];
    oc_http_respond(first, 200, "text/plain", OC_STR("first"));
    assert_int_equal(r.n_requests, 2); /* nothing is called from inside the call */
    assert_int_equal(r.n_finished, 1);
    rig_until(&r, r.n_requests == 4 && r.n_waiting == 1);
    oc_http_respond(r.waiting[0], 200, "text/plain", OC_STR("second"));
    rig_until(&r, r.n_finished == 6);
    client_read(&k, SIZE_MAX);
    assert_int_equal(client_count(&k, "HTTP/1.1 200 OK"), 6);
    const char *abc = strstr(k.in.data, "\r\n\r\nabc"), *one = strstr(k.in.data, "\r\n\r\nfirst"),
               *two = strstr(k.in.data, "\r\n\r\nsecond");
    assert_true(one && abc && two && one < abc && abc < two);
    client_close(&k);
    rig_close(&r);
}

/* Hundreds of requests in one packet are all answered, in several turns of the loop; then too many bytes
 * behind a running request close the connection. */
static void test_much_pipelining(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    struct oc_buf b;
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    oc_buf_init(&b, OC_MIB);
    for (int i = 0; i < 3000; i++) oc_buf_printf(&b, "GET /%d HTTP/1.1\r\n" HOST, i);
    client_send_n(&k, &r, b.data, b.n_bytes);
    rig_until(&r, r.n_finished == 3000 || client_ended(&k));
    rig_until(&r, (client_read(&k, SIZE_MAX), client_count(&k, "\r\n\r\nok") == 3000));
    client_send(&k, &r, "GET /later HTTP/1.1\r\n" HOST);
    rig_until(&r, r.n_waiting == 1);
    oc_buf_clear(&b);
    for (size_t i = 0; i < OC_LIMIT_HTTP_PIPELINED_BYTES; i++) oc_buf_add_char(&b, 'a');
    client_send_n(&k, &r, b.data, b.n_bytes);
    rig_for(&r, 20);
    assert_int_equal(r.n_gone, 0);
    client_send_n(&k, &r, "a", 1);
    rig_until(&r, r.n_gone == 1);
    rig_until(&r, client_ended(&k));
    client_close(&k);
    oc_buf_free(&b);
    rig_close(&r);
}

static void test_expect(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    client_send(&k, &r, "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" HOST);
    rig_until(&r, client_has(&k, "HTTP/1.1 100 Continue\r\n\r\n"));
    assert_int_equal(r.n_requests, 0);
    client_send(&k, &r, "hi");
    rig_until(&r, client_has(&k, "\r\n\r\nhi"));
    client_forget(&k);
    client_send(&k, &r, "POST /refuse HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" HOST);
    rig_until(&r, client_ended(&k));
    client_must_have(&k, "HTTP/1.1 401 Unauthorized\r\n");
    assert_int_equal(client_count(&k, "100 Continue"), 0);
    client_close(&k);

    client_open(&k, &r);
    client_send(&k, &r, "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 200000000\r\n" HOST);
    rig_until(&r, client_ended(&k));
    client_must_have(&k, "HTTP/1.1 413 Content Too Large\r\n");
    assert_int_equal(client_count(&k, "100 Continue"), 0);
    client_close(&k);

    client_open(&k, &r);
    client_send(&k, &r, "POST /echo HTTP/1.1\r\nExpect: cake\r\nContent-Length: 2\r\n" HOST);
    rig_until(&r, client_ended(&k));
    client_must_have(&k, "HTTP/1.1 417 Expectation Failed\r\n");
    client_close(&k);
    assert_int_equal(r.n_requests, 1);
    rig_close(&r);
}

static void test_refusals(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    /* Without a body, and with a small one, the connection lives on. */
    client_send(&k, &r,
                "GET /refuse HTTP/1.1\r\n" HOST "POST /refuse HTTP/1.1\r\nContent-Length: 3\r\n" HOST "ab");
    rig_until(&r, (client_read(&k, SIZE_MAX), client_count(&k, "\r\n\r\nrefused") == 2));
    client_send(&k, &r, "cGET /refuse-without-answer HTTP/1.1\r\n" HOST "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k, "ok"));
    client_must_have(&k, "Content-Type: application/json\r\n");
    client_must_have(&k, "{\"status\":401,\"message\":\"Unauthorized\"}");
    assert_int_equal(client_count(&k, "Connection: close"), 0);
    assert_int_equal(r.n_requests, 1);
    client_send(&k, &r, "POST /refuse HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" HOST "1\r\nx\r\n0\r\n\r\n");
    rig_until(&r, client_ended(&k));
    assert_true(k.eof);
    client_must_have(&k, "Connection: close");
    client_close(&k);
    rig_close(&r);
}

/* A client that sends a large body without asking can read why it was refused, and the server reads little of
 * it. */
static void test_refused_body(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    const struct oc_http_options o = {.max_body_bytes = 100000};
    rig_open(&r, "127.0.0.1", &o);
    client_open(&k, &r);
    char *zeros = calloc(1, OC_MIB);
    assert_non_null(zeros);
    client_send(&k, &r, "POST /echo HTTP/1.1\r\nContent-Length: 1048576\r\n" HOST);
    client_send_n(&k, &r, zeros, 50000);
    rig_until(&r, client_has(&k, "\r\n\r\n{\"status\":413,"));
    client_must_have(&k, "Connection: close\r\n");
    client_send_n(&k, &r, zeros, OC_MIB - 50000);
    rig_until(&r, client_ended(&k));
    client_close(&k);
    rig_until(&r, oc_http_server_n_connections(r.server) == 0);

    /* The limit can be raised and lowered per request, and holds for chunks. */
    r.max_body = 10;
    client_open(&k, &r);
    client_send(&k, &r,
                "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" HOST "a\r\n0123456789\r\n1\r\n");
    rig_until(&r, client_has(&k, "413 Content Too Large"));
    client_close(&k);
    r.max_body = OC_MIB;
    client_open(&k, &r);
    client_send(&k, &r, "POST / HTTP/1.1\r\nContent-Length: 1048576\r\n" HOST);
    client_send_n(&k, &r, zeros, OC_MIB);
    rig_until(&r, client_has(&k, "ok"));
    client_close(&k);
    assert_string_equal(oc_buf_str(&r.log), "POST /? 1048576\n");
    free(zeros);
    rig_close(&r);
}

/* All bodies together have a maximum, and what ends gives its share back. */
static void test_all_bodies(void **state) {
    (void)state;
    struct rig r;
    struct client a, b;
    char text[40000];
    memset(text, 'a', sizeof(text));
    rig_open(&r, "127.0.0.1", NULL);
    r.server->max_bodies_bytes = 50000; /* the real one is too large for a test */
    for (int round = 0; round < 3; round++) {
        client_open(&a, &r);
        client_open(&b, &r);
        client_send(&a, &r, "POST /later HTTP/1.1\r\nContent-Length: 40000\r\n" HOST);
        client_send_n(&a, &r, text, 40000);
        rig_until(&r, r.n_waiting == 1);
        client_send(&b, &r, "POST / HTTP/1.1\r\nContent-Length: 40000\r\n" HOST);
        client_send_n(&b, &r, text, 10000);
        rig_for(&r, 5);
        assert_false(client_has(&b, "HTTP/1.1"));
        client_send_n(&b, &r, text, 1);
        rig_until(&r, client_has(&b, "HTTP/1.1 503 Service Unavailable"));
        oc_http_respond(r.waiting[0], 200, "text/plain", OC_STR("kept"));
        rig_until(&r, client_has(&a, "kept"));
        client_send(&a, &r, "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" HOST "c350\r\n");
        client_send_n(&a, &r, text, 40000);
        client_send_n(&a, &r, text, 10000);
        client_send(&a, &r, "\r\n0\r\n\r\n");
        rig_until(&r, (client_read(&a, SIZE_MAX), a.in.n_bytes > 50000));
        client_close(&a);
        client_close(&b);
    }
    rig_until(&r, r.server->bodies_bytes == 0 && oc_http_server_n_connections(r.server) == 0);
    rig_close(&r);
}

static void test_sigpipe(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    struct oc_errinfo ei = {0};
    struct oc_http_server *s = NULL;
    const struct oc_http_events ev = {.on_request = rig_on_request};
    rig_open(&r, "127.0.0.1", NULL);
    signal(SIGPIPE, SIG_DFL);
    assert_int_equal(oc_http_listen(&r.loop, "127.0.0.1", 0, NULL, &ev, &s, &ei), OC_ERR_USAGE);
    assert_non_null(strstr(ei.msg, "SIGPIPE"));
    signal(SIGPIPE, SIG_IGN);
    client_open(&k, &r);
    client_send(&k, &r, "GET /later HTTP/1.1\r\n" HOST);
    rig_until(&r, r.n_waiting == 1);
    oc_http_stream_begin(r.waiting[0], 200, "text/plain");
    client_reset(&k);
    for (int i = 0; i < 3; i++) oc_http_stream_write(r.waiting[0], OC_STR("to nobody"));
    assert_int_equal(r.n_gone, 0);
    rig_until(&r, r.n_gone == 1);
    rig_close(&r);
}

static void test_ill_formed(void **state) {
    (void)state;
    static const struct {
        const char *text, *wanted;
    } cases[] = {{"GET / HTTP/1.1\r\n\r\n", "400 Bad Request"},
                 {"GET / HTTP/1.1\nHost: a\n\n", "400 Bad Request"},
                 {"GET / HTTP/3.0\r\n" HOST, "505 HTTP Version Not Supported"},
                 {"CONNECT a:1 HTTP/1.1\r\n" HOST, "501 Not Implemented"},
                 {"HEAD / HTTP/1.1\r\n\r\n", "400 Bad Request"}};
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        client_open(&k, &r);
        client_send(&k, &r, cases[i].text);
        rig_until(&r, client_ended(&k));
        assert_true(k.eof);
        client_must_have(&k, cases[i].wanted);
        client_must_have(&k, "Connection: close\r\n");
        assert_int_equal(client_count(&k, "{\"status\""), cases[i].text[0] == 'H' ? 0 : 1);
        client_close(&k);
    }
    /* After an ill-formed request nothing of the connection is a request any more. */
    client_open(&k, &r);
    client_send(&k, &r, "GET / HTTP/1.1\r\n" HOST "GET / HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\n" HOST);
    rig_until(&r, client_ended(&k));
    assert_string_equal(oc_buf_str(&r.log), "GET /? 0\n");
    assert_int_equal(r.n_heads, 1);
    client_close(&k);
    rig_close(&r);
}

static void check_peer(const char *host, int family, const char *peer) {
    struct rig r;
    rig_open(&r, host, NULL);
    in_port_t port = htons((uint16_t)oc_http_server_port(r.server));
    struct sockaddr_in6 six = {
        .sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in four = {
        .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct client k = {.fd = socket(family, SOCK_STREAM, 0)};
    oc_buf_init(&k.in, OC_MIB);
    int rc = family == AF_INET6 ? connect(k.fd, (struct sockaddr *)&six, sizeof(six))
                                : connect(k.fd, (struct sockaddr *)&four, sizeof(four));
    assert_int_equal(rc, 0);
    fcntl(k.fd, F_SETFL, O_NONBLOCK);
    client_start(&k, &r);
    client_send(&k, &r, "GET /peer HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n");
    rig_until(&r, client_ended(&k));
    assert_string_equal(strstr(oc_buf_str(&k.in), "\r\n\r\n") + 4, peer);
    client_close(&k);
    rig_close(&r);
}

static void test_peers(void **state) {
    (void)state;
    check_peer("127.0.0.1", AF_INET, "127.0.0.1");
    check_peer("localhost", AF_INET, "127.0.0.1");
    check_peer("::1", AF_INET6, "::1");
}

static void test_addresses(void **state) {
    (void)state;
    struct rig r;
    struct oc_errinfo ei = {0};
    struct oc_http_server *s = NULL;
    const struct oc_http_events ev = {.on_request = rig_on_request};
    rig_open(&r, "127.0.0.1", NULL);
    static const char *const bad[] = {"", "example.com", "127.0.0", "127.0.0.1:80", "[::1]"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(oc_http_listen(&r.loop, bad[i], 0, NULL, &ev, &s, &ei), OC_ERR_USAGE);
    assert_int_equal(oc_http_listen(&r.loop, "127.0.0.1", 65536, NULL, &ev, &s, &ei), OC_ERR_USAGE);
    assert_int_equal(oc_http_listen(&r.loop, "127.0.0.1", oc_http_server_port(r.server), NULL, &ev, &s, &ei),
                     OC_ERR_IO);
    assert_non_null(strstr(ei.msg, "address already in use"));
    assert_non_null(strstr(ei.msg, "127.0.0.1"));
    rig_close(&r);
}

static void test_stop_accepting(void **state) {
    (void)state;
    struct rig r;
    struct client idle, running, late, streaming;
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&idle, &r);
    client_open(&running, &r);
    client_open(&late, &r);
    client_send(&idle, &r, "GET / HTTP/1.1\r\n" HOST);
    client_send(&late, &r, "GET / HTTP/1.1\r\nHost:");
    client_send(&running, &r, "GET /later HTTP/1.1\r\n" HOST "GET /never HTTP/1.1\r\n" HOST);
    rig_until(&r, r.n_waiting == 1 && client_has(&idle, "ok"));
    client_open(&streaming, &r);
    client_send(&streaming, &r, "GET /later HTTP/1.1\r\n" HOST);
    rig_until(&r, r.n_waiting == 2);
    struct oc_http_exchange *stream = r.waiting[1];
    oc_http_stream_begin(stream, 200, "text/plain"); /* without "Connection: close" */
    oc_http_server_stop_accepting(r.server);
    oc_http_server_stop_accepting(r.server); /* twice is once */
    rig_until(&r, client_ended(&idle));
    assert_int_equal(r.n_gone, 0);
    client_send(&late, &r, " a\r\n\r\n"); /* begun, so it is answered */
    rig_until(&r, client_ended(&late));
    client_must_have(&late, "Connection: close\r\n");
    client_must_have(&late, "ok");
    oc_http_respond(r.waiting[0], 200, "text/plain", OC_STR("last"));
    rig_until(&r, client_ended(&running));
    client_must_have(&running, "Connection: close\r\n\r\nlast");
    assert_int_equal(client_count(&running, "HTTP/1.1"), 1);
    oc_http_stream_write(stream, OC_STR("to the end"));
    oc_http_stream_end(stream);
    rig_until(&r, client_ended(&streaming));
    client_must_have(&streaming, "to the end\r\n0\r\n\r\n");
    client_close(&streaming);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)oc_http_server_port(r.server))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), -1);
    close(fd);
    client_close(&idle);
    client_close(&running);
    client_close(&late);
    rig_until(&r, oc_http_server_n_connections(r.server) == 0);
    rig_close(&r);
}

static void close_server(void *arg, struct oc_http_exchange *x, const struct oc_http_request *q) {
    struct rig *r = arg;
    rig_on_request(arg, x, q);
    oc_http_server_close(r->server, rig_on_done, r);
    assert_int_equal(r->n_gone, 0); /* not from inside */
    r->server = NULL;
}

/* Closing with requests running, being read and being answered; and from inside a callback. */
static void test_close(void **state) {
    (void)state;
    struct rig r;
    struct client k[4];
    rig_open(&r, "127.0.0.1", NULL);
    for (int i = 0; i < 4; i++) client_open(&k[i], &r);
    client_send(&k[0], &r, "GET /later HTTP/1.1\r\n" HOST);
    client_send(&k[1], &r, "GET /later HTTP/1.1\r\n" HOST);
    client_send(&k[2], &r, "POST /echo HTTP/1.1\r\nContent-Length: 4\r\n" HOST "abc");
    rig_until(&r, r.n_waiting == 2 && r.n_heads == 3);
    struct oc_http_exchange *streaming = r.waiting[1];
    oc_http_stream_begin(streaming, 200, "text/plain");
    oc_http_server_close(r.server, rig_on_done, &r);
    oc_http_stream_write(streaming, OC_STR("still allowed")); /* until on_end was called */
    assert_int_equal(r.n_gone, 0);
    r.server = NULL;
    rig_until(&r, r.done);
    assert_int_equal(r.n_gone, 2);
    for (int i = 0; i < 4; i++) {
        rig_until(&r, client_ended(&k[i]));
        client_close(&k[i]);
    }
    rig_close(&r);

    static const char *const paths[] = {"/later", "/pieces", "/"};
    for (int i = 0; i < 3; i++) {
        struct oc_http_server *s = NULL;
        const struct oc_http_events ev = {.arg = &r, .on_request = close_server, .on_end = rig_on_end};
        rig_open(&r, "127.0.0.1", NULL);
        const struct oc_http_options o = {.tls = r.tls};
        oc_http_server_close(r.server, rig_on_done, &r);
        rig_until(&r, r.done);
        r.done = false;
        assert_int_equal(oc_http_listen(&r.loop, "127.0.0.1", 0, &o, &ev, &s, NULL), OC_OK);
        r.server = s;
        client_open(&k[0], &r);
        char text[100];
        snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\n" HOST, paths[i]);
        client_send(&k[0], &r, text);
        rig_until(&r, r.done && client_ended(&k[0]));
        client_close(&k[0]);
        rig_close(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_alive),     cmocka_unit_test(test_head_and_old_version),
        cmocka_unit_test(test_pipelining),     cmocka_unit_test(test_much_pipelining),
        cmocka_unit_test(test_expect),         cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_refused_body),   cmocka_unit_test(test_all_bodies),
        cmocka_unit_test(test_sigpipe),        cmocka_unit_test(test_ill_formed),
        cmocka_unit_test(test_peers),          cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_stop_accepting), cmocka_unit_test(test_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
