/* Clients and handlers that do anything at any time, from seeds: every request that was seen ends exactly
 * once, every connection is closed in the end, and (under a sanitizer) no memory is touched after its time.
 */
#include "http_rig.h"

enum { CLIENTS = 12, STEPS = 400, SEEDS = 30 };

struct chaos {
    struct rig rig;
    struct client clients[CLIENTS];
    uint64_t random;
};

static unsigned draw(struct chaos *c, unsigned n) {
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(c->random >> 33) % n;
}

static const char *const pieces[] = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /later HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /later HTTP/1.0\r\n\r\n",
    "HEAD /later HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST /refuse HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel",
    "POST /later HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "0\r\n\r\n",
    "lo",
    "\r\n",
    "GET / HTTP/1.1\r\n",
    "Host: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
    "GET /a GET",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
};

static void client_step(struct chaos *c, struct client *k) {
    static char much[20000];
    const char *text = pieces[draw(c, sizeof(pieces) / sizeof(pieces[0]))];
    if (k->fd < 0) client_open(k, &c->rig);
    switch (draw(c, 16)) {
    case 0:
        client_close(k);
        break;
    case 1:
        client_reset(k);
        break;
    case 2:
        shutdown(k->fd, SHUT_WR);
        break;
    case 3:
        send(k->fd, much, sizeof(much), MSG_NOSIGNAL); /* never through TLS */
        break;
    case 4:
        client_read(k, draw(c, 100000));
        break;
    case 5:
        client_put(k, text, strlen(text) / 2);
        break;
    default:
        client_put(k, text, strlen(text));
    }
    if (k->fd >= 0 && client_ended(k)) client_close(k);
}

static void handler_step(struct chaos *c) {
    static char much[300000];
    struct rig *r = &c->rig;
    if (r->n_waiting == 0) return;
    unsigned i = draw(c, (unsigned)r->n_waiting);
    struct oc_http_exchange *x = r->waiting[i];
    bool over = true;
    if (oc_http_stream_begun(x)) {
        switch (draw(c, 8)) {
        case 0:
            oc_http_stream_end(x);
            break;
        case 1:
            oc_http_stream_abort(x);
            break;
        default:
            over = false;
            oc_http_stream_write(x, (struct oc_str){much, draw(c, sizeof(much))});
        }
    } else if (draw(c, 2)) {
        oc_http_respond(x, 200 + (int)draw(c, 400), "text/plain",
                        (struct oc_str){much, draw(c, sizeof(much))});
    } else {
        over = false;
        oc_http_header(x, "X-Y", "z");
        oc_http_stream_begin(x, 200, "text/plain");
    }
    if (over) r->waiting[i] = r->waiting[--r->n_waiting]; /* answered: not to be touched again */
}

static void run_seed(struct chaos *c, uint64_t seed) {
    const struct oc_http_options o = {.max_connections = CLIENTS - 2,
                                      .header_timeout_ms = 30,
                                      .body_timeout_ms = 30,
                                      .idle_timeout_ms = 30,
                                      .write_timeout_ms = 30};
    c->random = seed * 77777 + 1;
    rig_open(&c->rig, "127.0.0.1", &o);
    for (int i = 0; i < CLIENTS; i++) c->clients[i].fd = -1;
    for (int i = 0; i < STEPS; i++) {
        if (draw(c, 2)) client_step(c, &c->clients[draw(c, CLIENTS)]);
        if (c->rig.n_waiting > RIG_KEPT / 2 || draw(c, 3) == 0) handler_step(c);
        if (draw(c, 3)) rig_turn(&c->rig);
    }
    if (seed % 3 == 1) {
        oc_http_server_stop_accepting(c->rig.server);
        for (int i = 0; i < 50; i++) {
            handler_step(c);
            rig_turn(&c->rig);
        }
    }
    if (seed % 3 == 2) {
        for (int i = 0; i < CLIENTS; i++) client_close(&c->clients[i]);
        rig_until(&c->rig, oc_http_server_n_connections(c->rig.server) == 0);
    }
    rig_close(&c->rig);
    for (int i = 0; i < CLIENTS; i++) client_close(&c->clients[i]);
}

static void test_chaos(void **state) {
    (void)state;
    static struct chaos c;
    int n_requests = 0, n_finished = 0, n_gone = 0, n_errors = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        run_seed(&c, seed);
        n_requests += c.rig.n_requests;
        n_finished += c.rig.n_finished;
        n_gone += c.rig.n_gone;
        n_errors += c.rig.n_errors;
    }
    print_message("%d requests: %d finished, %d not; %d errors told\n", n_requests, n_finished, n_gone,
                  n_errors);
    assert_true(n_finished > SEEDS && n_gone > SEEDS && n_errors > SEEDS);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_chaos)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
