/* What the tests of TLS share: certificates made on the spot, and a client's side of OpenSSL. */
#ifndef OC_TEST_TLS_RIG_H
#define OC_TEST_TLS_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http/tls.h"

struct tls_files {
    char dir[64], cert[96], key[96];
};

static inline EVP_PKEY *tls_make_key(int rsa_bits) {
    EVP_PKEY *key = rsa_bits ? EVP_RSA_gen((unsigned)rsa_bits) : EVP_EC_gen("P-256");
    assert_non_null(key);
    return key;
}

/* Self-signed, for localhost, valid from from_s to to_s (seconds from now). */
static inline X509 *tls_make_cert(EVP_PKEY *key, long from_s, long to_s) {
    X509 *x = X509_new();
    assert_non_null(x);
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), from_s);
    X509_gmtime_adj(X509_getm_notAfter(x), to_s);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_set_pubkey(x, key);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    return x;
}

static inline void tls_write_cert(const char *path, X509 *x) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, x), 1);
    fclose(f);
}

static inline void tls_write_key(const char *path, EVP_PKEY *key, const char *password) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_PrivateKey(f, key, password ? EVP_aes_128_cbc() : NULL,
                                          (const unsigned char *)password,
                                          password ? (int)strlen(password) : 0, NULL, NULL),
                     1);
    fclose(f);
}

/* Writes a new pair over the old one. */
static inline void tls_files_renew(struct tls_files *t, int rsa_bits, long from_s, long to_s) {
    EVP_PKEY *key = tls_make_key(rsa_bits);
    X509 *x = tls_make_cert(key, from_s, to_s);
    tls_write_cert(t->cert, x);
    tls_write_key(t->key, key, NULL);
    X509_free(x);
    EVP_PKEY_free(key);
}

static inline void tls_files_make(struct tls_files *t) {
    snprintf(t->dir, sizeof t->dir, "/tmp/ocellus-tls-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
    snprintf(t->cert, sizeof t->cert, "%s/cert.pem", t->dir);
    snprintf(t->key, sizeof t->key, "%s/key.pem", t->dir);
    tls_files_renew(t, 0, -60, 3600);
}

static inline void tls_files_remove(struct tls_files *t) {
    unlink(t->cert);
    unlink(t->key);
    assert_int_equal(rmdir(t->dir), 0);
}

static inline struct oc_http_tls *tls_open(const struct tls_files *t) {
    struct oc_http_tls *tls = NULL;
    struct oc_errinfo ei = {0};
    if (oc_http_tls_open(t->cert, t->key, &tls, &ei)) fail_msg("%s", ei.msg);
    assert_non_null(tls);
    return tls;
}

/* A client's context; `least` and `most` are protocol versions, 0 for any. */
static inline SSL_CTX *tls_client_context(int least, int most) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    assert_non_null(ctx);
    SSL_CTX_set_security_level(ctx, 0);
    assert_int_equal(SSL_CTX_set_min_proto_version(ctx, least), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, most), 1);
    return ctx;
}

#endif
