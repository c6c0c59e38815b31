/* Streams over loopback: framing, back-pressure, their ends, and clients that leave. */
#include "http_rig.h"

#define HOST "Host: a\r\n\r\n"
#define LATER "GET /later HTTP/1.1\r\n" HOST

static struct oc_http_exchange *ask(struct rig *r, struct client *k, const char *request) {
    int before = r->n_waiting;
    client_send(k, r, request);
    rig_until(r, r->n_waiting == before + 1);
    return r->waiting[before];
}

static void test_framing(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    struct oc_http_exchange *x = ask(&r, &k, LATER);
    oc_http_header(x, "Cache-Control", "no-store");
    oc_http_stream_begin(x, 200, "text/event-stream");
    rig_until(&r, client_has(&k, "\r\n\r\n")); /* the head does not wait for the first piece */
    client_must_have(
        &k,
        "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nCache-Control: no-store\r\n\r\n");
    assert_int_equal(oc_http_stream_write(x, OC_STR("data: 1\n\n")), 0);
    rig_until(&r, client_has(&k, "\r\n\r\n9\r\ndata: 1\n\n\r\n"));
    oc_http_stream_write(x, OC_STR(""));
    oc_http_stream_write(x, OC_STR("0123456789abcdefg"));
    oc_http_stream_end(x);
    assert_int_equal(r.n_finished, 0);
    rig_until(&r, r.n_finished == 1);
    rig_until(&r, client_has(&k, "\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n"));
    assert_int_equal(client_count(&k, "\r\n0\r\n"), 1); /* the empty piece was none */
    client_send(&k, &r, "GET / HTTP/1.1\r\n" HOST);
    rig_until(&r, client_has(&k, "\r\n\r\nok"));
    client_close(&k);
    rig_close(&r);
}

/* An aborted stream must look cut short: no last chunk, or RST where nothing frames it. */
static void test_abort(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    struct oc_http_exchange *x = ask(&r, &k, LATER);
    oc_http_stream_begin(x, 200, "text/plain");
    oc_http_stream_write(x, OC_STR("half"));
    oc_http_stream_abort(x);
    assert_int_equal(r.n_gone, 0);
    rig_until(&r, client_ended(&k));
    assert_int_equal(r.n_gone, 1);
    client_must_have(&k, "4\r\nhalf\r\n");
    assert_int_equal(client_count(&k, "\r\n0\r\n"), 0);
    client_close(&k);

    client_open(&k, &r);
    x = ask(&r, &k, "GET /later HTTP/1.0\r\n\r\n");
    oc_http_stream_begin(x, 200, "text/plain");
    oc_http_stream_write(x, OC_STR("half"));
    rig_until(&r, client_has(&k, "half"));
    oc_http_stream_abort(x);
    rig_until(&r, client_ended(&k));
    assert_true(k.reset);
    assert_int_equal(r.n_gone, 2);
    client_close(&k);
    rig_close(&r);
}

/* How long until the server knows, in milliseconds. */
static double time_to_notice(struct rig *r, struct client *k, void (*leave)(struct client *)) {
    int before = r->n_gone;
    uint64_t left = oc_clock_ns();
    leave(k);
    rig_until(r, r->n_gone == before + 1);
    return (double)(r->gone_ns - left) / 1e6;
}

static void half_close(struct client *k) {
    shutdown(k->fd, SHUT_WR);
}

static void test_client_leaves(void **state) {
    (void)state;
    static void (*const ways[])(struct client *) = {client_close, client_reset, half_close};
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    for (int begun = 0; begun < 3; begun++) { /* before the answer, in it, and with another request behind */
        for (size_t i = 0; i < 3; i++) {
            client_open(&k, &r);
            struct oc_http_exchange *x = ask(&r, &k, LATER);
            if (begun) oc_http_stream_begin(x, 200, "text/plain");
            if (begun == 2) client_send(&k, &r, "GET /next HTTP/1.1\r\n" HOST);
            rig_for(&r, 5);
            assert_true(time_to_notice(&r, &k, ways[i]) < 100);
            assert_int_equal(r.n_waiting, 0);
            if (k.fd >= 0) client_close(&k);
        }
    }
    /* Away in the middle of a head or a body: nothing to end. */
    client_open(&k, &r);
    client_send(&k, &r, "GET / HT");
    client_close(&k);
    client_open(&k, &r);
    client_send(&k, &r, "POST / HTTP/1.1\r\nContent-Length: 5\r\n" HOST "abc");
    client_close(&k);
    rig_until(&r, oc_http_server_n_connections(r.server) == 0);
    assert_null(strstr(oc_buf_str(&r.log), "/next"));
    assert_int_equal(r.n_requests, 9);
    assert_int_equal(r.n_finished, 0);
    rig_close(&r);
}

/* A reader that stops: what is written waits up to the high-water mark; it is told when to go on; nothing is
 * lost. */
static void test_back_pressure(void **state) {
    (void)state;
    enum { PIECE = 10000, TOTAL = 8 * 1024 * 1024 };
    struct rig r;
    struct client k;
    static char piece[PIECE];
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    struct oc_http_exchange *x = ask(&r, &k, LATER);
    oc_http_stream_begin(x, 200, "application/octet-stream");
    memset(piece, 'p', PIECE);
    size_t sent = 0, most = 0, left = 0;
    int n_pauses = 0;
    uint64_t begun = oc_clock_ns();
    while (sent < TOTAL && oc_clock_ms_since(begun) < RIG_PATIENCE_MS) {
        while (left <= OC_LIMIT_HTTP_OUT_HIGH_BYTES && sent < TOTAL) {
            left = oc_http_stream_write(x, (struct oc_str){piece, PIECE});
            sent += PIECE;
            if (left > most) most = left;
        }
        int drains = r.n_drains;
        n_pauses++;
        while (sent < TOTAL && r.n_drains == drains) {
            client_read(&k, 20000);
            rig_turn(&r);
            assert_true(oc_clock_ms_since(begun) < RIG_PATIENCE_MS);
        }
        left = 0;
    }
    assert_true(sent >= TOTAL);
    assert_true(n_pauses > 1 && r.n_drains == n_pauses - 1);
    assert_in_range(most, OC_LIMIT_HTTP_OUT_HIGH_BYTES, OC_LIMIT_HTTP_OUT_HIGH_BYTES + PIECE + 20);
    oc_http_stream_end(x);
    rig_until(&r, (client_read(&k, SIZE_MAX), r.n_finished == 1));
    rig_until(&r, client_has(&k, "\r\n0\r\n\r\n"));
    size_t n_p = 0;
    for (size_t i = strstr(k.in.data, "\r\n\r\n") - k.in.data; i < k.in.n_bytes; i++)
        n_p += k.in.data[i] == 'p';
    assert_int_equal(n_p, sent);
    client_close(&k);
    rig_close(&r);
}

/* Who writes on against a stopped reader is cut off at the maximum. */
static void test_output_maximum(void **state) {
    (void)state;
    struct rig r;
    struct client k;
    rig_open(&r, "127.0.0.1", NULL);
    client_open(&k, &r);
    struct oc_http_exchange *x = ask(&r, &k, LATER);
    oc_http_stream_begin(x, 200, "text/plain");
    char *mib = calloc(1, OC_MIB);
    assert_non_null(mib);
    size_t most = 0;
    for (int i = 0; i < 400; i++) {
        size_t left = oc_http_stream_write(x, (struct oc_str){mib, 100000});
        if (left > most) most = left;
    }
    assert_int_equal(r.n_gone, 0);
    assert_in_range(most, OC_LIMIT_HTTP_OUT_MAX_BYTES - 200000, OC_LIMIT_HTTP_OUT_MAX_BYTES);
    rig_until(&r, r.n_gone == 1);
    rig_until(&r, client_ended(&k));
    assert_true(k.in.n_bytes < 20 * OC_MIB);
    client_close(&k);

    /* A whole answer may be larger than that, and arrives. */
    char *large = calloc(9, OC_MIB);
    assert_non_null(large);
    client_open(&k, &r);
    x = ask(&r, &k, LATER);
    oc_http_respond(x, 200, "text/plain", (struct oc_str){large, 9 * OC_MIB});
    free(large);
    rig_for(&r, 20);
    assert_int_equal(r.n_finished, 0);
    rig_until(&r, (client_read(&k, SIZE_MAX), r.n_finished == 1));
    rig_until(&r, (client_read(&k, SIZE_MAX), k.in.n_bytes > 9 * OC_MIB));
    client_close(&k);
    free(mib);
    rig_close(&r);
}

/* A reader that has stopped for good is cut off when the write timeout is over, one that reads slowly is not.
 */
static void test_write_timeout(void **state) {
    (void)state;
    struct rig r;
    struct client still, slow;
    const struct oc_http_options o = {.write_timeout_ms = 200};
    char *mib = calloc(1, OC_MIB);
    assert_non_null(mib);
    rig_open(&r, "127.0.0.1", &o);
    client_open(&still, &r);
    client_open(&slow, &r);
    struct oc_http_exchange *a = ask(&r, &still, LATER), *b = ask(&r, &slow, LATER);
    oc_http_stream_begin(a, 200, "text/plain");
    oc_http_stream_begin(b, 200, "text/plain");
    for (int i = 0; i < 12; i++) { /* more than the kernel takes */
        if (oc_http_stream_write(a, (struct oc_str){mib, OC_MIB}) > 2 * OC_MIB) break;
    }
    for (int i = 0; i < 12; i++) {
        if (oc_http_stream_write(b, (struct oc_str){mib, OC_MIB}) > 2 * OC_MIB) break;
    }
    uint64_t begun = oc_clock_ns();
    while (r.n_gone == 0 && oc_clock_ms_since(begun) < RIG_PATIENCE_MS) {
        rig_for(&r, 5);
        client_read(&slow, 16384);
    }
    assert_int_equal(r.n_gone, 1);
    assert_true(oc_clock_ms_since(begun) > 150);
    assert_true(r.n_waiting == 1 && r.waiting[0] == b);
    client_close(&still);
    client_close(&slow);
    free(mib);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_framing),        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_client_leaves),  cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_output_maximum), cmocka_unit_test(test_write_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
