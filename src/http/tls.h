/* http/tls.h - what a server needs to speak TLS: a certificate, its key, and the rules of this house.
 *
 * One struct oc_http_tls serves any number of listening ports (http.h, oc_http_options); its owner closes it
 * after them. Belongs to the loop's thread. The rules: TLS 1.2 or 1.3; in 1.2 only ECDHE with AEAD ciphers;
 * key exchange over X25519 or P-256, which take a fraction of a millisecond; no renegotiation, no
 * compression, no early data, no sessions kept here (tickets carry them); by ALPN "http/1.1" or nothing.
 *
 * A connection is a struct oc_http_tls_session (http/tls_session.h), which knows no socket. */
#ifndef OC_HTTP_TLS_H
#define OC_HTTP_TLS_H

#include "base/err.h"

struct oc_http_tls;

/* Why a handshake came to nothing. */
enum oc_http_tls_failure {
    OC_HTTP_TLS_REFUSED,    /* by one side: no common version or cipher, a certificate not trusted, garbage */
    OC_HTTP_TLS_TIMEOUT,    /* it did not end in time */
    OC_HTTP_TLS_GONE,       /* the client left in the middle of it */
    OC_HTTP_TLS_PLAIN_HTTP, /* the client spoke HTTP without TLS; it is told so */
};

/* "refused", "timeout", "gone", "plain_http": labels of a metric. */
const char *oc_http_tls_failure_name(enum oc_http_tls_failure f);

/* cert: PEM, the server's own certificate first, then those that lead to a root. key: PEM, not encrypted.
 * Errors: OC_ERR_USAGE, a sentence that names the file and says what to do: it cannot be read or is no PEM,
 * the key is encrypted or belongs to another certificate, either is too weak; OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_http_tls_open(const char *cert, const char *key, struct oc_http_tls **out,
                                           struct oc_errinfo *ei);

/* Reads both files again; connections made from now on use them. After an error, as above, all stays as it
 * was. */
OC_MUST_CHECK enum oc_err oc_http_tls_reload(struct oc_http_tls *t, struct oc_errinfo *ei);

/* What is no error but should be known: a certificate that has expired or is not valid yet, a key whose
 * handshakes take long. Sentences, or "" when there is nothing to say; valid until the next reload. */
const char *oc_http_tls_warning(const struct oc_http_tls *t);

/* NULL is allowed. Sessions that are still open must not be used after this. */
void oc_http_tls_close(struct oc_http_tls *t);

#endif
