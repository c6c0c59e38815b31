/* Certificates, keys and the rules. Sessions are tls_session.c. */
#include "http/tls.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/limits.h"
#include "http/tls_impl.h"

#define CIPHERS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"
#define GROUPS "X25519:P-256" /* the larger ones take longer than the loop may */
enum { QUICK_RSA_BITS = 2048 };

const char *oc_http_tls_failure_name(enum oc_http_tls_failure f) {
    static const char *const names[] = {"refused", "timeout", "gone", "plain_http"};
    return names[f];
}

/* ---- Rules --------------------------------------------------------------------------------------------- */

/* A client that names protocols must name HTTP/1.1. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *n_out, const unsigned char *in,
                           unsigned n, void *arg) {
    static const char wanted[] = "http/1.1";
    (void)ssl;
    (void)arg;
    for (unsigned i = 0; i < n && in[i] < n - i; i += 1u + in[i]) {
        if (in[i] != sizeof(wanted) - 1 || memcmp(in + i + 1, wanted, in[i]) != 0) continue;
        *out = in + i + 1;
        *n_out = in[i];
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool set_rules(SSL_CTX *ctx) {
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) && SSL_CTX_set_cipher_list(ctx, CIPHERS_1_2) &&
           SSL_CTX_set1_groups_list(ctx, GROUPS);
}

/* ---- Files --------------------------------------------------------------------------------------------- */

static const char *openssl_reason(void) {
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason ? reason : "no reason is known";
}

static enum oc_err read_pem(struct oc_arena *a, const char *what, const char *path, struct oc_str *out,
                            struct oc_errinfo *ei) {
    struct oc_errinfo why;
    enum oc_err err = oc_file_read(a, path, OC_LIMIT_HTTP_TLS_FILE_BYTES, out, &why);
    if (err == OC_OK || err == OC_ERR_NOMEM) return err ? oc_fail(ei, err, "%s", why.msg) : OC_OK;
    return oc_fail(ei, OC_ERR_USAGE, "the %s cannot be read: %s: name a PEM file that this user may read",
                   what, why.msg);
}

/* The first certificate is the server's own, the others follow it on the wire. */
static enum oc_err add_chain(SSL_CTX *ctx, BIO *pem, const char *path, struct oc_errinfo *ei) {
    for (int n = 0;; n++) {
        X509 *x = PEM_read_bio_X509(pem, NULL, NULL, NULL);
        if (!x) {
            bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
            if (at_end && n > 0) return OC_OK;
            if (at_end)
                return oc_fail(ei, OC_ERR_USAGE,
                               "%s holds no PEM certificate: tls_cert must hold the server's own, from "
                               "-----BEGIN CERTIFICATE----- on, and after it those that lead to a root",
                               path);
            return oc_fail(ei, OC_ERR_USAGE, "certificate %d in %s is damaged (%s): write the file anew",
                           n + 1, path, openssl_reason());
        }
        int ok = n == 0 ? SSL_CTX_use_certificate(ctx, x) : SSL_CTX_add1_chain_cert(ctx, x);
        X509_free(x);
        if (!ok)
            return oc_fail(ei, OC_ERR_USAGE, "certificate %d in %s cannot be used (%s): have a new one made",
                           n + 1, path, openssl_reason());
    }
}

static enum oc_err load_cert(SSL_CTX *ctx, const char *path, struct oc_arena *a, struct oc_errinfo *ei) {
    struct oc_str text;
    OC_TRY(read_pem(a, "certificate", path, &text, ei));
    BIO *pem = BIO_new_mem_buf(text.p, (int)text.n);
    if (!pem) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a certificate");
    enum oc_err err = add_chain(ctx, pem, path, ei);
    BIO_free(pem);
    return err;
}

/* Nobody is there to be asked for a password. */
static int no_password(char *p, int cap, int for_writing, void *arg) {
    (void)p;
    (void)cap;
    (void)for_writing;
    *(bool *)arg = true;
    return -1;
}

static enum oc_err parse_key(struct oc_str text, const char *path, EVP_PKEY **out, struct oc_errinfo *ei) {
    bool encrypted = false;
    BIO *pem = BIO_new_mem_buf(text.p, (int)text.n);
    if (!pem) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a key");
    *out = PEM_read_bio_PrivateKey(pem, NULL, no_password, &encrypted);
    BIO_free(pem);
    if (*out) return OC_OK;
    if (encrypted)
        return oc_fail(
            ei, OC_ERR_USAGE,
            "the key in %s is encrypted, and nobody is asked for its password here: decrypt it (openssl "
            "pkey -in FILE -out NEW), and let only this user read the new file",
            path);
    if (!strstr(text.p, "PRIVATE KEY-----")) /* OpenSSL's reason does not tell */
        return oc_fail(ei, OC_ERR_USAGE,
                       "%s holds no PEM key: tls_key must hold the certificate's private key, from "
                       "-----BEGIN PRIVATE KEY----- on",
                       path);
    return oc_fail(ei, OC_ERR_USAGE, "the key in %s is damaged (%s): write the file anew", path,
                   openssl_reason());
}

static enum oc_err use_key(SSL_CTX *ctx, EVP_PKEY *key, const struct oc_http_tls *t, struct oc_errinfo *ei) {
    if (X509_check_private_key(SSL_CTX_get0_certificate(ctx), key) != 1)
        return oc_fail(
            ei, OC_ERR_USAGE,
            "the key in %s does not belong to the first certificate in %s: give the two that were made "
            "together, the server's own certificate first",
            t->key, t->cert);
    if (SSL_CTX_use_PrivateKey(ctx, key) != 1)
        return oc_fail(ei, OC_ERR_USAGE, "the key in %s cannot be used (%s): have a new one made", t->key,
                       openssl_reason());
    return OC_OK;
}

static enum oc_err load_key(SSL_CTX *ctx, const struct oc_http_tls *t, struct oc_arena *a,
                            struct oc_errinfo *ei) {
    struct oc_str text;
    EVP_PKEY *key = NULL;
    OC_TRY(read_pem(a, "key", t->key, &text, ei));
    enum oc_err err = parse_key(text, t->key, &key, ei);
    OPENSSL_cleanse((char *)text.p, text.n);
    if (!err) err = use_key(ctx, key, t, ei);
    EVP_PKEY_free(key);
    return err;
}

static enum oc_err make_context(const struct oc_http_tls *t, SSL_CTX **out, struct oc_errinfo *ei) {
    struct oc_arena arena;
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx || !set_rules(ctx)) {
        enum oc_err err = oc_fail(ei, OC_ERR_NOMEM, "OpenSSL cannot be set up for TLS: %s", openssl_reason());
        SSL_CTX_free(ctx);
        return err;
    }
    oc_arena_init(&arena, 4 * OC_LIMIT_HTTP_TLS_FILE_BYTES);
    enum oc_err err = load_cert(ctx, t->cert, &arena, ei);
    if (!err) err = load_key(ctx, t, &arena, ei);
    oc_arena_free(&arena);
    ERR_clear_error();
    if (err) {
        SSL_CTX_free(ctx);
        return err;
    }
    *out = ctx;
    return OC_OK;
}

/* ---- Warnings ------------------------------------------------------------------------------------------ */

static void day_of(const ASN1_TIME *when, char *out, size_t cap) {
    struct tm t;
    if (!ASN1_TIME_to_tm(when, &t) || !strftime(out, cap, "%Y-%m-%d %H:%M UTC", &t))
        snprintf(out, cap, "an unknown time");
}

static void look(struct oc_http_tls *t) {
    const X509 *x = SSL_CTX_get0_certificate(t->ctx);
    const EVP_PKEY *key = SSL_CTX_get0_privatekey(t->ctx);
    char day[40];
    int n = 0;
    size_t cap = sizeof(t->warning);
    t->warning[0] = '\0';
    if (X509_cmp_current_time(X509_get0_notAfter(x)) < 0) {
        day_of(X509_get0_notAfter(x), day, sizeof(day));
        n = snprintf(t->warning, cap, "the TLS certificate expired at %s: clients will refuse it", day);
    } else if (X509_cmp_current_time(X509_get0_notBefore(x)) > 0) {
        day_of(X509_get0_notBefore(x), day, sizeof(day));
        n = snprintf(t->warning, cap, "the TLS certificate is not valid before %s: clients will refuse it",
                     day);
    }
    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA || EVP_PKEY_get_bits(key) <= QUICK_RSA_BITS) return;
    snprintf(
        t->warning + n, cap - (size_t)n,
        "%sthe TLS key is RSA with %d bits: each handshake holds up all others for milliseconds; an ECDSA "
        "P-256 key does not",
        n ? "; " : "", EVP_PKEY_get_bits(key));
}

const char *oc_http_tls_warning(const struct oc_http_tls *t) {
    return t->warning;
}

/* ---- The whole ----------------------------------------------------------------------------------------- */

enum oc_err oc_http_tls_open(const char *cert, const char *key, struct oc_http_tls **out,
                             struct oc_errinfo *ei) {
    struct oc_http_tls *t = calloc(1, sizeof(*t));
    if (!t) return oc_fail(ei, OC_ERR_NOMEM, "no memory for TLS");
    t->cert = strdup(cert);
    t->key = strdup(key);
    t->method = oc_http_tls_session_method();
    enum oc_err err = t->cert && t->key && t->method ? make_context(t, &t->ctx, ei)
                                                     : oc_fail(ei, OC_ERR_NOMEM, "no memory for TLS");
    if (err) {
        oc_http_tls_close(t);
        return err;
    }
    look(t);
    *out = t;
    return OC_OK;
}

enum oc_err oc_http_tls_reload(struct oc_http_tls *t, struct oc_errinfo *ei) {
    SSL_CTX *ctx;
    OC_TRY(make_context(t, &ctx, ei));
    SSL_CTX_free(t->ctx); /* sessions hold theirs */
    t->ctx = ctx;
    look(t);
    return OC_OK;
}

void oc_http_tls_close(struct oc_http_tls *t) {
    if (!t) return;
    SSL_CTX_free(t->ctx);
    BIO_meth_free(t->method);
    free(t->cert);
    free(t->key);
    free(t);
}
