/* http/tls_session.h - TLS of one connection, between bytes from the wire and bytes to it. Internal to the
 * room.
 *
 * It never waits: input is lent to it, output gathers in `out`, and whoever owns the socket moves both. The
 * loop's thread only. Memory: OpenSSL's buffers of a record are released while nothing is under way; before
 * the handshake is done OC_LIMIT_HTTP_TLS_HELLO_BYTES and one read are taken at most; `out` has a maximum,
 * past which the session fails. */
#ifndef OC_HTTP_TLS_SESSION_H
#define OC_HTTP_TLS_SESSION_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "http/tls.h"

enum oc_http_tls_state {
    OC_HTTP_TLS_OK,     /* the handshake is done; bytes were read */
    OC_HTTP_TLS_MORE,   /* all input is used up */
    OC_HTTP_TLS_ENDED,  /* the peer has ended its side by close_notify */
    OC_HTTP_TLS_FAILED, /* `reason` says why; `out` may hold an alert for the peer */
};

struct oc_http_tls_session {
    struct ssl_st *ssl;
    const char *in; /* lent input that is not used up */
    size_t n_in;
    struct oc_buf out; /* for the wire; the owner empties it */
    size_t n_hello;    /* input before the end of the handshake */
    int n_key_updates; /* of the peer */
    bool ready;        /* the handshake is done */
    bool failed;
    char reason[128]; /* in OpenSSL's words; those of the peer's alerts hold "alert" */
};

/* NULL when there is no memory. */
struct oc_http_tls_session *oc_http_tls_session_open(struct oc_http_tls *t);
void oc_http_tls_session_close(struct oc_http_tls_session *s); /* NULL is allowed */

/* Lends input; the bytes must stay until a call below has said MORE, ENDED or FAILED. */
void oc_http_tls_session_feed(struct oc_http_tls_session *s, const char *p, size_t n);

/* Goes on with the handshake: OK, MORE or FAILED. */
enum oc_http_tls_state oc_http_tls_session_shake(struct oc_http_tls_session *s);

/* Decrypts up to cap bytes: OK with *n > 0, MORE, ENDED or FAILED. After the handshake. */
enum oc_http_tls_state oc_http_tls_session_read(struct oc_http_tls_session *s, char *p, size_t cap,
                                                size_t *n);

/* Encrypts n > 0 bytes into `out`; false when that failed. After the handshake. */
bool oc_http_tls_session_write(struct oc_http_tls_session *s, const char *p, size_t n);

/* Puts close_notify into `out`, if the session is in a state to say it. */
void oc_http_tls_session_bye(struct oc_http_tls_session *s);

#endif
