/* bench_tls: how long one TLS handshake, and one piece of output, hold the server's loop.
 *
 * A client in the same process shakes hands N times for each kind of key and version; what the server's side
 * spends is counted, per call (the longest is what the loop is held for) and per handshake. The key is made
 * anew, the client brings no ticket. CPU time of the thread, so that other programs disturb less. */
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/limits.h"
#include "http/tls_session.h"

enum { N = 400 };

static double cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int less(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct oc_http_tls *make_tls(int rsa_bits) {
    char dir[] = "/tmp/ocellus-bench-XXXXXX", cert[64], key_file[64];
    struct oc_http_tls *tls = NULL;
    struct oc_errinfo ei = {0};
    EVP_PKEY *key = rsa_bits ? EVP_RSA_gen((unsigned)rsa_bits) : EVP_EC_gen("P-256");
    X509 *x = X509_new();
    if (!key || !x || !mkdtemp(dir)) exit(1);
    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 100000);
    X509_set_pubkey(x, key);
    X509_sign(x, key, EVP_sha256());
    snprintf(cert, sizeof cert, "%s/c.pem", dir);
    snprintf(key_file, sizeof key_file, "%s/k.pem", dir);
    FILE *c = fopen(cert, "w"), *k = fopen(key_file, "w");
    if (!c || !k || !PEM_write_X509(c, x) || !PEM_write_PrivateKey(k, key, NULL, NULL, 0, NULL, NULL))
        exit(1);
    fclose(c);
    fclose(k);
    if (oc_http_tls_open(cert, key_file, &tls, &ei)) {
        fprintf(stderr, "%s\n", ei.msg);
        exit(1);
    }
    unlink(cert);
    unlink(key_file);
    rmdir(dir);
    X509_free(x);
    EVP_PKEY_free(key);
    return tls;
}

/* One handshake: what the server's side took in all, and in its longest call. */
static struct oc_http_tls_session *shake(struct oc_http_tls *tls, SSL *client, double *all_us,
                                         double *longest_us) {
    BIO *to = BIO_new(BIO_s_mem()), *from = BIO_new(BIO_s_mem());
    enum oc_http_tls_state state = OC_HTTP_TLS_MORE;
    char bytes[32768];
    BIO_set_mem_eof_return(to, -1);
    SSL_set_bio(client, to, from);
    SSL_set_connect_state(client);
    double begun = cpu_us();
    struct oc_http_tls_session *s = oc_http_tls_session_open(tls);
    *all_us = *longest_us = cpu_us() - begun;
    while (state == OC_HTTP_TLS_MORE) {
        SSL_do_handshake(client);
        int n = BIO_read(from, bytes, sizeof bytes);
        if (n <= 0) exit(1);
        begun = cpu_us();
        oc_http_tls_session_feed(s, bytes, (size_t)n);
        state = oc_http_tls_session_shake(s);
        double took = cpu_us() - begun;
        *all_us += took;
        if (took > *longest_us) *longest_us = took;
        BIO_write(to, s->out.data, (int)s->out.n_bytes);
        oc_buf_free(&s->out);
    }
    if (state != OC_HTTP_TLS_OK || SSL_do_handshake(client) != 1) exit(1);
    return s;
}

static void bench_key(const char *name, int rsa_bits, int version) {
    struct oc_http_tls *tls = make_tls(rsa_bits);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    static double all[N], longest[N];
    SSL_CTX_set_max_proto_version(ctx, version);
    for (int i = 0; i < N; i++) {
        SSL *client = SSL_new(ctx);
        oc_http_tls_session_close(shake(tls, client, &all[i], &longest[i]));
        SSL_free(client);
    }
    qsort(all, N, sizeof all[0], less);
    qsort(longest, N, sizeof longest[0], less);
    printf("%-12s TLS 1.%d  longest call: median %6.0f us, p99 %6.0f us   handshake: median %6.0f us\n", name,
           version == TLS1_3_VERSION ? 3 : 2, longest[N / 2], longest[N * 99 / 100], all[N / 2]);
    SSL_CTX_free(ctx);
    oc_http_tls_close(tls);
}

static void bench_output(void) {
    static char piece[OC_LIMIT_HTTP_TLS_SEAL_BYTES];
    static double took[N];
    struct oc_http_tls *tls = make_tls(0);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *client = SSL_new(ctx);
    double all, longest;
    struct oc_http_tls_session *s = shake(tls, client, &all, &longest);
    for (int i = 0; i < N; i++) {
        double begun = cpu_us();
        if (!oc_http_tls_session_write(s, piece, sizeof piece)) exit(1);
        took[i] = cpu_us() - begun;
        oc_buf_free(&s->out);
    }
    qsort(took, N, sizeof took[0], less);
    printf("%zu KiB of output (%s): median %.0f us, p99 %.0f us\n", sizeof piece / 1024,
           SSL_get_cipher(client), took[N / 2], took[N * 99 / 100]);
    SSL_free(client);
    SSL_CTX_free(ctx);
    oc_http_tls_session_close(s);
    oc_http_tls_close(tls);
}

int main(void) {
    static const struct {
        const char *name;
        int rsa_bits;
    } kinds[] = {{"ECDSA P-256", 0}, {"RSA-2048", 2048}, {"RSA-3072", 3072}, {"RSA-4096", 4096}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bench_key(kinds[i].name, kinds[i].rsa_bits, TLS1_3_VERSION);
        bench_key(kinds[i].name, kinds[i].rsa_bits, TLS1_2_VERSION);
    }
    bench_output();
    return 0;
}
