#include "http/tls_session.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "http/tls_impl.h"

/* ---- The wire, as OpenSSL sees it ---------------------------------------------------------------------- */

/* OpenSSL's own memory BIOs keep the largest buffer they ever had; these keep nothing. */
static int bio_read(BIO *b, char *p, int cap) {
    struct oc_http_tls_session *s = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    if (cap <= 0) return 0;
    if (s->n_key_updates > OC_LIMIT_HTTP_TLS_KEY_UPDATES)
        return -1; /* an error, as nothing asks to try again */
    if (s->n_in == 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    size_t n = s->n_in < (size_t)cap ? s->n_in : (size_t)cap;
    memcpy(p, s->in, n);
    s->in += n;
    s->n_in -= n;
    return (int)n;
}

static int bio_write(BIO *b, const char *p, int n) {
    struct oc_http_tls_session *s = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    if (n <= 0) return 0;
    return oc_buf_add(&s->out, p, (size_t)n) ? n : -1;
}

/* Thousands of changes of keys fit into one read; a client has a use for one in many gigabytes. */
static void on_message(int is_output, int version, int type, const void *p, size_t n, SSL *ssl, void *arg) {
    struct oc_http_tls_session *s = arg;
    (void)version;
    (void)ssl;
    if (!is_output && type == SSL3_RT_HANDSHAKE && n > 0 && *(const uint8_t *)p == SSL3_MT_KEY_UPDATE)
        s->n_key_updates++;
}

static long bio_ctrl(BIO *b, int command, long n, void *p) {
    (void)b;
    (void)n;
    (void)p;
    return command == BIO_CTRL_FLUSH; /* nothing else is known: no kernel TLS, no end of file */
}

BIO_METHOD *oc_http_tls_session_method(void) {
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "session");
    if (m && BIO_meth_set_read(m, bio_read) && BIO_meth_set_write(m, bio_write) &&
        BIO_meth_set_ctrl(m, bio_ctrl))
        return m;
    BIO_meth_free(m);
    return NULL;
}

/* ---- A session ----------------------------------------------------------------------------------------- */

struct oc_http_tls_session *oc_http_tls_session_open(struct oc_http_tls *t) {
    struct oc_http_tls_session *s = calloc(1, sizeof(*s));
    BIO *wire = s ? BIO_new(t->method) : NULL;
    if (wire) s->ssl = SSL_new(t->ctx);
    if (!s || !wire || !s->ssl) {
        ERR_clear_error();
        BIO_free(wire);
        free(s);
        return NULL;
    }
    oc_buf_init(&s->out, OC_LIMIT_HTTP_TLS_OUT_BYTES);
    BIO_set_data(wire, s);
    BIO_set_init(wire, 1);
    SSL_set_bio(s->ssl, wire, wire);
    SSL_set_msg_callback(s->ssl, on_message);
    SSL_set_msg_callback_arg(s->ssl, s);
    SSL_set_accept_state(s->ssl);
    return s;
}

void oc_http_tls_session_close(struct oc_http_tls_session *s) {
    if (!s) return;
    SSL_free(s->ssl);
    oc_buf_free(&s->out);
    free(s);
}

void oc_http_tls_session_feed(struct oc_http_tls_session *s, const char *p, size_t n) {
    s->in = p;
    s->n_in = n;
    if (!s->ready) s->n_hello += n;
}

static enum oc_http_tls_state fail(struct oc_http_tls_session *s, const char *reason) {
    snprintf(s->reason, sizeof(s->reason), "%s", reason ? reason : "the connection is not in order");
    s->failed = true;
    s->n_in = 0;
    ERR_clear_error();
    return OC_HTTP_TLS_FAILED;
}

/* What the return value of a call that did not succeed means. */
static enum oc_http_tls_state state_of(struct oc_http_tls_session *s, int result) {
    int error = SSL_get_error(s->ssl, result);
    if (error == SSL_ERROR_WANT_READ) return OC_HTTP_TLS_MORE;
    if (error == SSL_ERROR_ZERO_RETURN) return OC_HTTP_TLS_ENDED;
    return fail(s, ERR_reason_error_string(ERR_peek_error()));
}

enum oc_http_tls_state oc_http_tls_session_shake(struct oc_http_tls_session *s) {
    if (s->failed) return OC_HTTP_TLS_FAILED;
    if (s->n_hello - s->n_in > OC_LIMIT_HTTP_TLS_HELLO_BYTES) return fail(s, "the handshake is too long");
    ERR_clear_error();
    int result = SSL_do_handshake(s->ssl);
    if (result == 1) {
        s->ready = true;
        return OC_HTTP_TLS_OK;
    }
    enum oc_http_tls_state state = state_of(s, result);
    return state == OC_HTTP_TLS_ENDED ? fail(s, "close notify in the handshake") : state;
}

enum oc_http_tls_state oc_http_tls_session_read(struct oc_http_tls_session *s, char *p, size_t cap,
                                                size_t *n) {
    *n = 0;
    if (s->failed) return OC_HTTP_TLS_FAILED;
    ERR_clear_error();
    int result = SSL_read_ex(s->ssl, p, cap, n);
    return result == 1 ? OC_HTTP_TLS_OK : state_of(s, result);
}

bool oc_http_tls_session_write(struct oc_http_tls_session *s, const char *p, size_t n) {
    size_t written;
    if (s->failed) return false;
    ERR_clear_error();
    int result = SSL_write_ex(s->ssl, p, n, &written);
    if (result == 1 && written == n) return true;
    fail(s, ERR_reason_error_string(ERR_peek_error()));
    return false;
}

void oc_http_tls_session_bye(struct oc_http_tls_session *s) {
    if (!s->ready || s->failed || (SSL_get_shutdown(s->ssl) & SSL_SENT_SHUTDOWN)) return;
    ERR_clear_error();
    (void)SSL_shutdown(s->ssl); /* 0: the peer's is not awaited; a failure leaves nothing to send */
    ERR_clear_error();
}
