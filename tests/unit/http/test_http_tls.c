/* TLS without sockets: a session against OpenSSL's client, bytes carried by hand. */
#include "tls_rig.h"

#include "base/limits.h"
#include "http/tls_session.h"

struct pair {
    struct oc_http_tls *tls;
    struct oc_http_tls_session *s;
    SSL_CTX *ctx;
    SSL *client;
    BIO *to_client, *from_client;
    size_t piece; /* the server is fed so many bytes at once; 0: all */
};

static struct tls_files files;

static void pair_open_with(struct pair *p, struct oc_http_tls *tls, int least, int most) {
    *p =
        (struct pair){.tls = tls, .s = oc_http_tls_session_open(tls), .ctx = tls_client_context(least, most)};
    assert_non_null(p->s);
    p->client = SSL_new(p->ctx);
    p->to_client = BIO_new(BIO_s_mem());
    p->from_client = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(p->to_client, -1);
    SSL_set_bio(p->client, p->to_client, p->from_client);
    SSL_set_connect_state(p->client);
}

static void pair_open(struct pair *p, int least, int most) {
    pair_open_with(p, tls_open(&files), least, most);
}

static void pair_close(struct pair *p) {
    SSL_free(p->client);
    SSL_CTX_free(p->ctx);
    oc_http_tls_session_close(p->s);
    oc_http_tls_close(p->tls);
    ERR_clear_error();
}

/* What the server has for the client. */
static void to_client(struct pair *p) {
    if (p->s->out.n_bytes) BIO_write(p->to_client, p->s->out.data, (int)p->s->out.n_bytes);
    oc_buf_free(&p->s->out);
}

/* All the client has said, taken away. The caller frees it. */
static size_t from_client(struct pair *p, char **out) {
    char *bytes;
    long n = BIO_get_mem_data(p->from_client, &bytes);
    *out = malloc((size_t)n + 1);
    memcpy(*out, bytes, (size_t)n);
    (void)BIO_reset(p->from_client);
    return (size_t)n;
}

/* Feeds the handshake; from an exact copy, so that a sanitizer sees a read past the end. */
static enum oc_http_tls_state shake_with(struct pair *p, const char *bytes, size_t n) {
    enum oc_http_tls_state state = OC_HTTP_TLS_MORE;
    for (size_t at = 0; at < n && state == OC_HTTP_TLS_MORE;) {
        size_t piece = p->piece && p->piece < n - at ? p->piece : n - at;
        char *copy = malloc(piece);
        memcpy(copy, bytes + at, piece);
        oc_http_tls_session_feed(p->s, copy, piece);
        state = oc_http_tls_session_shake(p->s);
        if (state == OC_HTTP_TLS_MORE) assert_int_equal(p->s->n_in, 0);
        if (state == OC_HTTP_TLS_OK)
            assert_int_equal(p->s->n_in, 0); /* these clients send nothing behind it */
        free(copy);
        at += piece;
    }
    return state;
}

/* The whole handshake; what became of the server's side. */
static enum oc_http_tls_state shake(struct pair *p) {
    enum oc_http_tls_state state = OC_HTTP_TLS_MORE;
    for (int i = 0; i < 10 && state == OC_HTTP_TLS_MORE; i++) {
        char *bytes;
        SSL_do_handshake(p->client);
        size_t n = from_client(p, &bytes);
        state = shake_with(p, bytes, n);
        free(bytes);
        to_client(p);
    }
    if (state == OC_HTTP_TLS_OK) assert_int_equal(SSL_do_handshake(p->client), 1);
    ERR_clear_error();
    return state;
}

/* Feeds what the client has said and decrypts all of it. */
static enum oc_http_tls_state decrypt(struct pair *p, struct oc_buf *plain) {
    char *bytes, got[1000];
    size_t n = from_client(p, &bytes), piece;
    enum oc_http_tls_state state = OC_HTTP_TLS_MORE;
    for (size_t at = 0; at < n && state == OC_HTTP_TLS_MORE; at += piece) {
        piece = p->piece && p->piece < n - at ? p->piece : n - at;
        oc_http_tls_session_feed(p->s, bytes + at, piece);
        size_t n_got;
        while ((state = oc_http_tls_session_read(p->s, got, sizeof got, &n_got)) == OC_HTTP_TLS_OK) {
            assert_true(n_got > 0);
            oc_buf_add(plain, got, n_got);
        }
        assert_int_equal(n_got, 0);
    }
    free(bytes);
    return state;
}

/* Both directions carry text. */
static void must_talk(struct pair *p) {
    struct oc_buf plain;
    char got[32] = "";
    oc_buf_init(&plain, OC_MIB);
    assert_int_equal(SSL_write(p->client, "question", 8), 8);
    assert_int_equal(decrypt(p, &plain), OC_HTTP_TLS_MORE);
    assert_string_equal(oc_buf_str(&plain), "question");
    assert_true(oc_http_tls_session_write(p->s, "answer", 6));
    to_client(p);
    assert_int_equal(SSL_read(p->client, got, sizeof got - 1), 6);
    assert_string_equal(got, "answer");
    oc_buf_free(&plain);
}

/* ---- Handshakes ---------------------------------------------------------------------------------------- */

static void test_versions(void **state) {
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct pair p;
    for (int i = 0; i < 2; i++) {
        for (size_t piece = 0; piece < 3; piece++) { /* whole, byte by byte, two at a time */
            pair_open(&p, 0, versions[i]);
            p.piece = piece;
            assert_int_equal(shake(&p), OC_HTTP_TLS_OK);
            assert_true(p.s->ready);
            assert_int_equal(SSL_version(p.client), versions[i]);
            must_talk(&p);
            must_talk(&p);
            pair_close(&p);
        }
    }
}

static void refused(struct pair *p, const char *reason) {
    assert_int_equal(shake(p), OC_HTTP_TLS_FAILED);
    assert_false(p->s->ready);
    if (!strstr(p->s->reason, reason)) fail_msg("wanted \"%s\" in \"%s\"", reason, p->s->reason);
    char *bytes;
    oc_http_tls_session_feed(p->s, "more", 4); /* and it stays so */
    assert_int_equal(oc_http_tls_session_shake(p->s), OC_HTTP_TLS_FAILED);
    assert_false(oc_http_tls_session_write(p->s, "x", 1));
    oc_http_tls_session_bye(p->s);
    assert_int_equal(p->s->out.n_bytes, 0);
    free((from_client(p, &bytes), bytes));
    pair_close(p);
}

static void test_refusals(void **state) {
    (void)state;
    struct pair p;
    pair_open(&p, 0, TLS1_1_VERSION);
    refused(&p, "unsupported protocol");
    pair_open(&p, TLS1_2_VERSION, TLS1_2_VERSION);
    assert_int_equal(SSL_set_cipher_list(p.client, "AES256-SHA:ECDHE-ECDSA-AES256-SHA"), 1); /* no AEAD */
    refused(&p, "no shared cipher");
    pair_open(&p, TLS1_3_VERSION, 0);
    assert_int_equal(SSL_set1_groups_list(p.client, "P-521"), 1);
    refused(&p, "no suitable key share");
}

static void test_protocols(void **state) {
    (void)state;
    static const unsigned char both[] = "\x02h2\x08http/1.1", h2[] = "\x02h2",
                               odd[] = "\x08http/1.2\x07http/1.";
    const unsigned char *chosen;
    unsigned n;
    struct pair p;
    pair_open(&p, 0, 0);
    assert_int_equal(SSL_set_alpn_protos(p.client, both, sizeof both - 1), 0);
    assert_int_equal(shake(&p), OC_HTTP_TLS_OK);
    SSL_get0_alpn_selected(p.client, &chosen, &n);
    assert_int_equal(n, 8);
    assert_memory_equal(chosen, "http/1.1", 8);
    must_talk(&p);
    pair_close(&p);
    pair_open(&p, 0, 0);
    SSL_set_alpn_protos(p.client, h2, sizeof h2 - 1);
    refused(&p, "no application protocol");
    pair_open(&p, 0, 0);
    SSL_set_alpn_protos(p.client, odd, sizeof odd - 1);
    refused(&p, "no application protocol");
}

/* The client's own words, when it is the one that refuses. */
static void test_client_refuses(void **state) {
    (void)state;
    struct pair p;
    pair_open(&p, 0, 0);
    SSL_set_verify(p.client, SSL_VERIFY_PEER, NULL); /* it trusts nobody */
    assert_int_equal(shake(&p), OC_HTTP_TLS_FAILED);
    if (!strstr(p.s->reason, "alert unknown ca")) fail_msg("%s", p.s->reason);
    pair_close(&p);
}

static void test_tickets(void **state) {
    (void)state;
    struct pair p, q;
    char c;
    struct oc_http_tls *tls = tls_open(&files);
    pair_open_with(&p, tls, 0, 0);
    assert_int_equal(shake(&p), OC_HTTP_TLS_OK);
    must_talk(&p);
    assert_int_equal(SSL_read(p.client, &c, 1), -1); /* takes in the ticket */
    SSL_SESSION *ticket = SSL_get1_session(p.client);
    assert_true(SSL_SESSION_is_resumable(ticket));
    pair_open_with(&q, tls, 0, 0);
    SSL_set_session(q.client, ticket);
    assert_int_equal(shake(&q), OC_HTTP_TLS_OK);
    assert_int_equal(SSL_session_reused(q.client), 1);
    must_talk(&q);
    SSL_SESSION_free(ticket);
    q.tls = NULL;
    pair_close(&q);
    pair_close(&p);
}

static void test_renegotiation(void **state) {
    (void)state;
    struct pair p;
    struct oc_buf plain;
    oc_buf_init(&plain, OC_MIB);
    pair_open(&p, TLS1_2_VERSION, TLS1_2_VERSION);
    assert_int_equal(shake(&p), OC_HTTP_TLS_OK);
    assert_int_equal(SSL_renegotiate(p.client), 1);
    assert_int_equal(SSL_do_handshake(p.client), -1);
    assert_int_equal(decrypt(&p, &plain), OC_HTTP_TLS_MORE); /* a warning for the client, no handshake */
    to_client(&p);
    assert_int_not_equal(SSL_do_handshake(p.client), 1);
    assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()), SSL_R_NO_RENEGOTIATION);
    assert_int_equal(plain.n_bytes, 0);
    pair_close(&p);
}

/* ---- Bytes that are wrong ------------------------------------------------------------------------------ */

static void test_garbage(void **state) {
    (void)state;
    static const char garbage[][64] = {
        "\x16\x03\x01\xff\xff\x01",
        "\x15\x03\x03\x00\x02\x02\x28",
        "GET / HTTP/1.1\r\n",
        "\x80\x2e\x01\x00\x02\x00\x15",
        "\xff\xff\xff\xff\xff\xff\xff",
        "\x17\x03\x03\x00\x05hello",
        "",
    };
    for (size_t i = 0; i < 2 * sizeof garbage / sizeof garbage[0]; i++) {
        struct pair p;
        pair_open(&p, 0, 0);
        p.piece = i % 2;
        assert_int_equal(shake_with(&p, garbage[i / 2], sizeof garbage[0]), OC_HTTP_TLS_FAILED);
        assert_true(p.s->failed);
        assert_string_not_equal(p.s->reason, "");
        pair_close(&p);
    }
}

static void test_random(void **state) {
    (void)state;
    uint32_t seed = 1;
    for (int i = 0; i < 300; i++) { /* a client's hello with some bytes changed */
        struct pair p;
        char *bytes;
        pair_open(&p, 0, 0);
        SSL_do_handshake(p.client);
        size_t n = from_client(&p, &bytes);
        for (int k = 0; k < 1 + i % 4; k++) {
            seed = seed * 1664525u + 1013904223u;
            bytes[(seed >> 8) % n] ^= (char)(1u << (seed >> 29));
        }
        enum oc_http_tls_state verdict = shake_with(&p, bytes, n);
        assert_true(verdict == OC_HTTP_TLS_MORE ||
                    verdict == OC_HTTP_TLS_FAILED); /* the client's Finished is missing */
        free(bytes);
        pair_close(&p);
    }
}

static void test_cut_records(void **state) {
    (void)state;
    struct pair p;
    struct oc_buf plain;
    char *bytes, got[32];
    size_t n_got;
    oc_buf_init(&plain, OC_MIB);
    pair_open(&p, 0, 0);
    SSL_do_handshake(p.client);
    size_t n = from_client(&p, &bytes);
    assert_int_equal(shake_with(&p, bytes, n / 2), OC_HTTP_TLS_MORE);
    assert_int_equal(p.s->out.n_bytes, 0);
    assert_int_equal(shake_with(&p, bytes + n / 2, n - n / 2), OC_HTTP_TLS_MORE);
    assert_true(p.s->out.n_bytes > 0);
    assert_int_equal(p.s->n_hello, n);
    free(bytes);
    to_client(&p);
    assert_int_equal(shake(&p), OC_HTTP_TLS_OK);
    SSL_write(p.client, "whole", 5);
    n = from_client(&p, &bytes);
    for (size_t i = 0; i + 1 < n; i++) { /* nothing comes out of a record before its end */
        oc_http_tls_session_feed(p.s, bytes + i, 1);
        assert_int_equal(oc_http_tls_session_read(p.s, got, sizeof got, &n_got), OC_HTTP_TLS_MORE);
    }
    oc_http_tls_session_feed(p.s, bytes + n - 1, 1);
    assert_int_equal(oc_http_tls_session_read(p.s, got, sizeof got, &n_got), OC_HTTP_TLS_OK);
    assert_int_equal(n_got, 5);
    free(bytes);
    SSL_write(p.client, "forged", 6);
    n = from_client(&p, &bytes);
    bytes[n - 1] ^= 1;
    oc_http_tls_session_feed(p.s, bytes, n);
    assert_int_equal(oc_http_tls_session_read(p.s, got, sizeof got, &n_got), OC_HTTP_TLS_FAILED);
    assert_non_null(strstr(p.s->reason, "bad record mac"));
    assert_true(p.s->out.n_bytes > 0); /* an alert */
    assert_false(oc_http_tls_session_write(p.s, "x", 1));
    free(bytes);
    oc_buf_free(&plain);
    pair_close(&p);
}

static void test_endless_hello(void **state) {
    (void)state;
    struct pair p;
    char record[5 + 16384] =
        "\x16\x03\x01\x40\x00\x01\x01\xff\xff"; /* a hello of 128 KiB, in records of 16 */
    enum oc_http_tls_state verdict = OC_HTTP_TLS_MORE;
    size_t n = 0;
    pair_open(&p, 0, 0);
    while (verdict == OC_HTTP_TLS_MORE && n < OC_MIB) {
        verdict = shake_with(&p, record, sizeof record);
        memset(record + 5, 0, 9);
        n += sizeof record;
    }
    assert_int_equal(verdict, OC_HTTP_TLS_FAILED);
    assert_true(n <= OC_LIMIT_HTTP_TLS_HELLO_BYTES + 2 * sizeof record);
    pair_close(&p);
}

/* A client may change its keys, but not all the time. */
static void test_keys_without_end(void **state) {
    (void)state;
    struct pair p;
    struct oc_buf plain;
    enum oc_http_tls_state verdict = OC_HTTP_TLS_MORE;
    oc_buf_init(&plain, OC_MIB);
    pair_open(&p, TLS1_3_VERSION, 0);
    assert_int_equal(shake(&p), OC_HTTP_TLS_OK);
    for (int i = 0; i <= OC_LIMIT_HTTP_TLS_KEY_UPDATES; i++) {
        assert_int_equal(verdict, OC_HTTP_TLS_MORE);
        if (i % 8 == 0) must_talk(&p);
        assert_int_equal(SSL_key_update(p.client, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(p.client), 1);
        verdict = decrypt(&p, &plain);
        assert_true(p.s->out.n_bytes <= OC_LIMIT_HTTP_TLS_OUT_BYTES);
    }
    assert_int_equal(verdict, OC_HTTP_TLS_FAILED);
    oc_buf_free(&plain);
    pair_close(&p);
}

/* ---- Ends and sizes ------------------------------------------------------------------------------------ */

static void test_ends(void **state) {
    (void)state;
    struct pair p;
    struct oc_buf plain;
    char c;
    oc_buf_init(&plain, OC_MIB);
    pair_open(&p, 0, 0);
    oc_http_tls_session_bye(p.s); /* before the handshake there is nothing to say */
    assert_int_equal(p.s->out.n_bytes, 0);
    assert_int_equal(shake(&p), OC_HTTP_TLS_OK);
    oc_http_tls_session_bye(p.s);
    size_t n = p.s->out.n_bytes;
    assert_true(n > 0);
    oc_http_tls_session_bye(p.s); /* once */
    assert_int_equal(p.s->out.n_bytes, n);
    to_client(&p);
    assert_int_equal(SSL_read(p.client, &c, 1), 0);
    assert_int_equal(SSL_get_error(p.client, 0), SSL_ERROR_ZERO_RETURN);
    SSL_write(p.client, "last words", 10);
    SSL_shutdown(p.client);
    assert_int_equal(decrypt(&p, &plain), OC_HTTP_TLS_ENDED);
    assert_string_equal(oc_buf_str(&plain), "last words");
    oc_buf_free(&plain);
    pair_close(&p);
}

static void test_much(void **state) {
    (void)state;
    enum { N = 3 * 1024 * 1024 };
    struct pair p;
    struct oc_buf plain;
    char *big = malloc(N), *got = malloc(N);
    oc_buf_init(&plain, 2 * N);
    for (size_t i = 0; i < N; i++) big[i] = (char)(i * 7 + i / 1000);
    pair_open(&p, 0, 0);
    p.piece = 40000;
    assert_int_equal(shake(&p), OC_HTTP_TLS_OK);
    assert_int_equal(SSL_write(p.client, big, N), N);
    assert_int_equal(decrypt(&p, &plain), OC_HTTP_TLS_MORE);
    assert_int_equal(plain.n_bytes, N);
    assert_memory_equal(plain.data, big, N);
    size_t at = 0;
    for (size_t i = 0; i < N; i += 50000) {
        size_t n = N - i < 50000 ? N - i : 50000;
        assert_true(oc_http_tls_session_write(p.s, big + i, n));
        assert_true(p.s->out.n_bytes < n + 4 * 64);
        to_client(&p);
        for (int r; (r = SSL_read(p.client, got + at, (int)(N - at))) > 0;) at += (size_t)r;
    }
    assert_int_equal(at, N);
    assert_memory_equal(got, big, N);
    static char too_much[OC_LIMIT_HTTP_TLS_OUT_BYTES];
    assert_false(oc_http_tls_session_write(p.s, too_much,
                                           sizeof too_much)); /* with its records it is over the maximum */
    free(big);
    free(got);
    oc_buf_free(&plain);
    pair_close(&p);
}

/* ---- Files --------------------------------------------------------------------------------------------- */

static void bad_files(const char *cert, const char *key, const char *file, const char *words) {
    struct oc_http_tls *tls = NULL;
    struct oc_errinfo ei = {0};
    assert_int_equal(oc_http_tls_open(cert, key, &tls, &ei), OC_ERR_USAGE);
    assert_null(tls);
    if (!strstr(ei.msg, file) || !strstr(ei.msg, words))
        fail_msg("wanted \"%s\" and \"%s\" in: %s", file, words, ei.msg);
    assert_null(strchr(ei.msg, '\n'));
    assert_int_equal(ERR_peek_error(), 0);
}

static void write_text(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_bad_files(void **state) {
    (void)state;
    char other[128];
    EVP_PKEY *key = tls_make_key(0), *weak = EVP_RSA_gen(1024);
    X509 *x;
    snprintf(other, sizeof other, "%s/other.pem", files.dir);
    bad_files("/no/cert.pem", files.key, "/no/cert.pem", "no such file");
    bad_files(files.cert, "/no/key.pem", "/no/key.pem", "no such file");
    bad_files(files.dir, files.key, files.dir, "name a PEM file");
    bad_files(files.key, files.key, files.key, "holds no PEM certificate");
    bad_files(files.cert, files.cert, files.cert, "holds no PEM key");
    write_text(other, "");
    bad_files(other, files.key, other, "holds no PEM certificate");
    bad_files(files.cert, other, other, "holds no PEM key");
    write_text(other, "-----BEGIN CERTIFICATE-----\nTWFu\n-----END CERTIFICATE-----\n");
    bad_files(other, files.key, other, "certificate 1 in");
    write_text(other, "-----BEGIN PRIVATE KEY-----\nTWFu\n-----END PRIVATE KEY-----\n");
    bad_files(files.cert, other, other, "is damaged");
    tls_write_key(other, key, NULL);
    bad_files(files.cert, other, other, "does not belong to the first certificate");
    tls_write_key(other, key, "secret");
    bad_files(files.cert, other, other, "is encrypted");
    BIO *old = BIO_new_file(other, "w"); /* the older form of encryption */
    assert_int_equal(PEM_write_bio_PrivateKey_traditional(old, key, EVP_aes_128_cbc(),
                                                          (unsigned char *)"secret", 6, NULL, NULL),
                     1);
    BIO_free(old);
    bad_files(files.cert, other, other, "is encrypted");
    x = tls_make_cert(weak, 0, 3600);
    tls_write_cert(other, x);
    bad_files(other, files.key, other, "cannot be used (ee key too small)");
    X509_free(x);
    unlink(other);
    EVP_PKEY_free(key);
    EVP_PKEY_free(weak);
}

static void warns(long from_s, long to_s, int rsa_bits, const char *a, const char *b) {
    struct tls_files t;
    tls_files_make(&t);
    tls_files_renew(&t, rsa_bits, from_s, to_s);
    struct oc_http_tls *tls = tls_open(&t);
    const char *warning = oc_http_tls_warning(tls);
    if (!strstr(warning, a) || !strstr(warning, b))
        fail_msg("wanted \"%s\" and \"%s\" in: %s", a, b, warning);
    if (!*a) assert_string_equal(warning, "");
    oc_http_tls_close(tls);
    tls_files_remove(&t);
}

static void test_warnings(void **state) {
    (void)state;
    warns(-60, 3600, 0, "", "");
    warns(-60, 3600, 2048, "", "");
    warns(-3600, -60, 0, "expired at 20", "UTC");
    warns(3600, 7200, 0, "is not valid before 20", "clients will refuse it");
    warns(-3600, -60, 2056, "expired at", "; the TLS key is RSA with 2056 bits");
}

/* Both in one file, the key last or first. */
static void test_one_file(void **state) {
    (void)state;
    for (int key_first = 0; key_first < 2; key_first++) {
        struct tls_files t;
        struct pair p;
        EVP_PKEY *key = tls_make_key(0);
        X509 *x = tls_make_cert(key, 0, 3600);
        tls_files_make(&t);
        FILE *f = fopen(t.cert, "w");
        if (key_first) PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
        PEM_write_X509(f, x);
        if (!key_first) PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
        fclose(f);
        struct oc_http_tls *tls = NULL;
        struct oc_errinfo ei = {0};
        if (oc_http_tls_open(t.cert, t.cert, &tls, &ei)) fail_msg("%s", ei.msg);
        pair_open_with(&p, tls, 0, 0);
        assert_int_equal(shake(&p), OC_HTTP_TLS_OK);
        pair_close(&p);
        X509_free(x);
        EVP_PKEY_free(key);
        tls_files_remove(&t);
    }
}

/* The chain goes out with the certificate. */
static void test_chain(void **state) {
    (void)state;
    struct tls_files t;
    struct pair p;
    EVP_PKEY *key = tls_make_key(0);
    X509 *x = tls_make_cert(key, 0, 3600);
    tls_files_make(&t);
    FILE *f = fopen(t.cert, "a");
    PEM_write_X509(f, x);
    fclose(f);
    pair_open_with(&p, tls_open(&t), 0, 0);
    assert_int_equal(shake(&p), OC_HTTP_TLS_OK);
    assert_int_equal(sk_X509_num(SSL_get_peer_cert_chain(p.client)), 2);
    assert_int_equal(X509_cmp(sk_X509_value(SSL_get_peer_cert_chain(p.client), 1), x), 0);
    pair_close(&p);
    X509_free(x);
    EVP_PKEY_free(key);
    tls_files_remove(&t);
}

static void test_reload(void **state) {
    (void)state;
    struct tls_files t;
    struct pair old, new;
    struct oc_errinfo ei = {0};
    tls_files_make(&t);
    struct oc_http_tls *tls = tls_open(&t);
    pair_open_with(&old, tls, 0, 0);
    assert_int_equal(shake(&old), OC_HTTP_TLS_OK);
    tls_files_renew(&t, 0, -3600, -60);
    assert_int_equal(oc_http_tls_reload(tls, &ei), OC_OK);
    assert_non_null(strstr(oc_http_tls_warning(tls), "expired"));
    must_talk(&old); /* as it was */
    write_text(t.cert, "half a certif");
    assert_int_equal(oc_http_tls_reload(tls, &ei), OC_ERR_USAGE);
    assert_non_null(strstr(ei.msg, t.cert));
    pair_open_with(&new, tls, 0, 0); /* with the last good ones */
    assert_int_equal(shake(&new), OC_HTTP_TLS_OK);
    must_talk(&new);
    X509 *a = SSL_get1_peer_certificate(old.client), *b = SSL_get1_peer_certificate(new.client);
    assert_int_not_equal(X509_cmp(a, b), 0);
    X509_free(a);
    X509_free(b);
    new.tls = NULL;
    pair_close(&new);
    pair_close(&old);
    tls_files_remove(&t);
}

static int setup(void **state) {
    (void)state;
    tls_files_make(&files);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tls_files_remove(&files);
    return 0;
}

#define T(t) cmocka_unit_test(t)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_versions),    T(test_refusals),      T(test_protocols),        T(test_client_refuses),
        T(test_tickets),     T(test_renegotiation), T(test_garbage),          T(test_random),
        T(test_cut_records), T(test_endless_hello), T(test_keys_without_end), T(test_ends),
        T(test_much),        T(test_bad_files),     T(test_warnings),         T(test_chain),
        T(test_reload),      T(test_one_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
