/* Fuzz target: the server's side of TLS. The first byte says what is done with the rest:
 * 0  it is all that the server gets, whole and in pieces: both must come to the same verdict;
 * 1  it comes after a good handshake, as records nobody has made;
 * 2  a client sends it, and what is on the wire comes in uneven pieces: it must arrive as it was;
 * 3  as 2, with one byte of the wire changed: nothing may arrive that was not sent.
 * The certificate is made at the first call. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "http/tls_session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MOST = 32 * 1024 };

struct pair {
    struct oc_http_tls_session *s;
    SSL *client;
    BIO *to, *from;
    uint32_t seed;
};

static void must(int ok) {
    if (!ok) abort();
}

static void write_files(const char *cert, const char *key_file) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    must(key && x);
    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 1000000);
    X509_set_pubkey(x, key);
    must(X509_sign(x, key, EVP_sha256()) > 0);
    FILE *c = fopen(cert, "w"), *k = fopen(key_file, "w");
    must(c && k && PEM_write_X509(c, x) && PEM_write_PrivateKey(k, key, NULL, NULL, 0, NULL, NULL));
    must(fclose(c) == 0 && fclose(k) == 0);
    X509_free(x);
    EVP_PKEY_free(key);
}

static struct oc_http_tls *make_tls(void) {
    char dir[] = "/tmp/ocellus-fuzz-XXXXXX", cert[64], key[64];
    struct oc_http_tls *tls;
    must(mkdtemp(dir) != NULL);
    snprintf(cert, sizeof cert, "%s/c.pem", dir);
    snprintf(key, sizeof key, "%s/k.pem", dir);
    write_files(cert, key);
    must(oc_http_tls_open(cert, key, &tls, NULL) == OC_OK);
    unlink(cert);
    unlink(key);
    rmdir(dir);
    return tls;
}

static size_t draw(struct pair *p, size_t n) {
    p->seed = p->seed * 1664525u + 1013904223u;
    return (p->seed >> 8) % n;
}

/* Feeds bytes as one read of the socket, from an exact copy. */
static enum oc_http_tls_state feed(struct pair *p, const uint8_t *bytes, size_t n, struct oc_buf *plain) {
    enum oc_http_tls_state state = OC_HTTP_TLS_OK;
    char got[512], *copy = malloc(n ? n : 1);
    size_t n_got;
    memcpy(copy, bytes, n);
    oc_http_tls_session_feed(p->s, copy, n);
    if (!p->s->ready) state = oc_http_tls_session_shake(p->s);
    must(state == OC_HTTP_TLS_OK ? p->s->ready : !p->s->ready);
    while (state == OC_HTTP_TLS_OK) {
        state = oc_http_tls_session_read(p->s, got, sizeof got, &n_got);
        must(state == OC_HTTP_TLS_OK ? n_got > 0 && n_got <= sizeof got : n_got == 0);
        if (n_got) must(oc_buf_add(plain, got, n_got));
    }
    must(state != OC_HTTP_TLS_MORE || p->s->n_in == 0);
    must(p->s->out.n_bytes <= OC_LIMIT_HTTP_TLS_OUT_BYTES);
    must((state == OC_HTTP_TLS_FAILED) == p->s->failed && (p->s->failed == (p->s->reason[0] != '\0')));
    free(copy);
    return state;
}

static enum oc_http_tls_state feed_pieces(struct pair *p, const uint8_t *bytes, size_t n, size_t most,
                                          struct oc_buf *plain) {
    enum oc_http_tls_state state = OC_HTTP_TLS_MORE;
    for (size_t at = 0; at < n && state == OC_HTTP_TLS_MORE;) {
        size_t piece = 1 + draw(p, most);
        if (piece > n - at) piece = n - at;
        state = feed(p, bytes + at, piece, plain);
        at += piece;
    }
    return state;
}

static void pair_open(struct pair *p, struct oc_http_tls *tls, SSL_CTX *ctx, uint32_t seed) {
    *p = (struct pair){.s = oc_http_tls_session_open(tls), .client = SSL_new(ctx), .seed = seed};
    p->to = BIO_new(BIO_s_mem());
    p->from = BIO_new(BIO_s_mem());
    must(p->s && p->client && p->to && p->from);
    BIO_set_mem_eof_return(p->to, -1);
    SSL_set_bio(p->client, p->to, p->from);
    SSL_set_connect_state(p->client);
    if (seed & 1) must(SSL_set_max_proto_version(p->client, TLS1_2_VERSION));
}

static void pair_close(struct pair *p) {
    oc_http_tls_session_close(p->s);
    SSL_free(p->client);
    ERR_clear_error();
}

/* Moves what the client has said, with byte `change` of it changed if it is there. */
static enum oc_http_tls_state carry(struct pair *p, size_t *change, struct oc_buf *plain) {
    char *bytes;
    long n = BIO_get_mem_data(p->from, &bytes);
    if (n <= 0) return OC_HTTP_TLS_MORE;
    if (*change < (size_t)n) bytes[*change] ^= (char)(1u << draw(p, 8));
    *change = *change < (size_t)n ? SIZE_MAX : *change == SIZE_MAX ? SIZE_MAX : *change - (size_t)n;
    enum oc_http_tls_state state = feed_pieces(p, (uint8_t *)bytes, (size_t)n, 1 + draw(p, 3000), plain);
    (void)BIO_reset(p->from);
    if (p->s->out.n_bytes) BIO_write(p->to, p->s->out.data, (int)p->s->out.n_bytes);
    oc_buf_free(&p->s->out);
    return state;
}

static enum oc_http_tls_state shake(struct pair *p, size_t *change, struct oc_buf *plain) {
    enum oc_http_tls_state state = OC_HTTP_TLS_MORE;
    for (int i = 0; i < 6 && state == OC_HTTP_TLS_MORE && !(p->s->ready && SSL_is_init_finished(p->client));
         i++) {
        (void)SSL_do_handshake(p->client);
        state = carry(p, change, plain);
    }
    return state;
}

static void try_raw(struct oc_http_tls *tls, SSL_CTX *ctx, const uint8_t *p, size_t n, struct oc_buf *plain) {
    struct pair a, b;
    pair_open(&a, tls, ctx, 0);
    pair_open(&b, tls, ctx, (uint32_t)n * 2);
    must(!n || feed(&a, p, n, plain) == feed_pieces(&b, p, n, 40, plain));
    must(!a.s->ready && !b.s->ready && plain->n_bytes == 0); /* it knows no secret of the server's */
    pair_close(&a);
    pair_close(&b);
}

static void try_after(struct pair *p, const uint8_t *bytes, size_t n, struct oc_buf *plain) {
    size_t never = SIZE_MAX;
    must(shake(p, &never, plain) == OC_HTTP_TLS_MORE && p->s->ready);
    (void)feed_pieces(p, bytes, n, 100, plain);
    must(plain->n_bytes == 0);
    must(oc_http_tls_session_write(p->s, "x", 1) == !p->s->failed);
    oc_http_tls_session_bye(p->s);
}

static void try_sent(struct pair *p, const uint8_t *bytes, size_t n, size_t change, struct oc_buf *plain) {
    bool whole = change == SIZE_MAX;
    enum oc_http_tls_state state = shake(p, &change, plain);
    must(!whole || (state == OC_HTTP_TLS_MORE && p->s->ready));
    for (size_t at = 0, piece; at < n && state == OC_HTTP_TLS_MORE && SSL_is_init_finished(p->client);
         at += piece) {
        piece = 1 + draw(p, n - at);
        if (SSL_write(p->client, bytes + at, (int)piece) != (int)piece) break;
        state = carry(p, &change, plain);
    }
    must(plain->n_bytes <= n && (!plain->n_bytes || memcmp(plain->data, bytes, plain->n_bytes) == 0));
    must(!whole || plain->n_bytes == n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static struct oc_http_tls *tls;
    static SSL_CTX *ctx;
    struct oc_buf plain;
    struct pair p;
    if (!tls) {
        tls = make_tls();
        ctx = SSL_CTX_new(TLS_client_method());
        must(ctx != NULL);
    }
    if (n < 1 || n > MOST) return 0;
    int what = data[0] % 4;
    uint32_t seed = n > 4 ? (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[n - 1] : 0;
    oc_buf_init(&plain, 2 * MOST);
    if (what == 0) {
        try_raw(tls, ctx, data + 1, n - 1, &plain);
    } else {
        pair_open(&p, tls, ctx, seed);
        if (what == 1) try_after(&p, data + 1, n - 1, &plain);
        if (what > 1) try_sent(&p, data + 1, n - 1, what == 3 ? seed % 1500 : SIZE_MAX, &plain);
        pair_close(&p);
    }
    oc_buf_free(&plain);
    return 0;
}
