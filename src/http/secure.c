/* A connection with TLS: bytes of the wire to the session, what it decrypts to the requests, what is to be
 * sent through it. */
#include "http/conn.h"

bool oc_http_secure_is_shaking(const struct oc_http_conn *c) {
    return c->tls && !c->tls->ready;
}

/* A step that says something signs or makes keys, and many of them hold up whoever else is served. Steps that
 * only gather bytes cost nothing and are not counted. */
static void count_step(struct oc_http_conn *c) {
    if (c->server->n_shakes++ == 0) oc_http_server_wake(c->server); /* the next turn counts anew */
}

bool oc_http_secure_must_wait(const struct oc_http_conn *c) {
    return c->phase == OC_HTTP_OPEN && oc_http_secure_is_shaking(c) &&
           c->server->n_shakes >= OC_LIMIT_HTTP_TURN_SHAKES;
}

void oc_http_secure_lost(struct oc_http_conn *c, enum oc_http_tls_failure failure, const char *reason) {
    const struct oc_http_events *ev = &c->server->ev;
    if (c->phase != OC_HTTP_OPEN || !oc_http_secure_is_shaking(c) || c->tls->n_hello == 0) return;
    if (ev->on_tls_failure) ev->on_tls_failure(ev->arg, c->peer, failure, reason);
}

/* ---- Output -------------------------------------------------------------------------------------------- */

bool oc_http_secure_seal(struct oc_http_conn *c) {
    size_t n = c->out.n_bytes - c->n_sealed;
    if (n == 0) return true;
    if (n > OC_LIMIT_HTTP_TLS_SEAL_BYTES) n = OC_LIMIT_HTTP_TLS_SEAL_BYTES;
    if (!oc_http_tls_session_write(c->tls, c->out.data + c->n_sealed, n)) return false;
    c->n_sealed += n;
    if (c->n_sealed == c->out.n_bytes) {
        oc_buf_free(&c->out);
        c->n_sealed = 0;
    }
    return true;
}

void oc_http_secure_bye(struct oc_http_conn *c) {
    oc_http_tls_session_bye(c->tls);
    oc_http_output_flush(c);
}

/* ---- Input --------------------------------------------------------------------------------------------- */

/* No record of TLS begins with a letter, and every request does. The connection goes on without TLS, for as
 * long as it takes to say that. */
static bool speaks_http(const struct oc_http_conn *c, char first) {
    return c->tls->n_hello == 0 && first >= 'A' && first <= 'Z';
}

static void refuse_http(struct oc_http_conn *c) {
    c->tls->n_hello = 1;
    oc_http_secure_lost(c, OC_HTTP_TLS_PLAIN_HTTP, "the client spoke HTTP without TLS");
    oc_http_tls_session_close(c->tls);
    c->tls = NULL;
    oc_http_input_refuse(c, 400, "This port speaks HTTPS: the address must begin with https://");
    oc_http_conn_advance(c);
}

/* True once the handshake is done. */
static bool shake(struct oc_http_conn *c) {
    enum oc_http_tls_state state = oc_http_tls_session_shake(c->tls);
    if (state != OC_HTTP_TLS_MORE || c->tls->out.n_bytes) count_step(c);
    if (state == OC_HTTP_TLS_FAILED) oc_http_secure_lost(c, OC_HTTP_TLS_REFUSED, c->tls->reason);
    oc_http_output_flush(c);
    if (c->broken) {
        oc_http_conn_close(c);
    } else if (state == OC_HTTP_TLS_FAILED) {
        oc_http_conn_linger(c); /* the alert must reach the client */
    } else if (state == OC_HTTP_TLS_OK && c->overflow) {
        oc_http_conn_refuse_overflow(c);
    } else if (state == OC_HTTP_TLS_OK) {
        oc_http_conn_rearm(c);
        return true;
    }
    return false;
}

/* All that can be decrypted: a callback may end the connection on the way. */
static void decrypt(struct oc_http_conn *c) {
    char *plain = c->server->plain_bytes;
    while (c->phase == OC_HTTP_OPEN) {
        size_t n;
        enum oc_http_tls_state state =
            oc_http_tls_session_read(c->tls, plain, OC_LIMIT_HTTP_TLS_RECORD_BYTES, &n);
        if (state == OC_HTTP_TLS_OK) {
            oc_http_input(c, plain, n);
        } else {
            oc_http_output_flush(c); /* an alert, or the answer to a change of keys */
            if (state != OC_HTTP_TLS_MORE) oc_http_conn_close(c);
            break;
        }
    }
}

void oc_http_secure_input(struct oc_http_conn *c, const char *p, size_t n) {
    if (speaks_http(c, *p)) {
        refuse_http(c);
        return;
    }
    oc_http_tls_session_feed(c->tls, p, n);
    if (!c->tls->ready && !shake(c)) return;
    decrypt(c);
    oc_http_conn_settle(c); /* a write may have failed */
}
