/* http/tls_impl.h - what tls.c and tls_session.c share. */
#ifndef OC_HTTP_TLS_IMPL_H
#define OC_HTTP_TLS_IMPL_H

#include <openssl/ssl.h>

#include "http/tls.h"

struct oc_http_tls {
    SSL_CTX *ctx;
    BIO_METHOD *method; /* of a session's lent input and gathered output */
    char *cert, *key;   /* paths */
    char warning[400];
};

/* The method; NULL when there is no memory. Its BIOs carry a struct oc_http_tls_session. */
BIO_METHOD *oc_http_tls_session_method(void);

#endif
