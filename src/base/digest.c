#include "base/digest.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/random.h>

#include "base/err.h"

/* The digest cannot fail on memory it is given; what is left (no memory for a context of a few hundred bytes, a
 * library without SHA-256) leaves no sensible way on. */
void oc_digest(const struct oc_digest_piece *pieces, int n, uint8_t out[OC_DIGEST_BYTES]) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned n_out = 0;
    OC_ASSERT(ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1);
    for (int i = 0; i < n; i++)
        OC_ASSERT(pieces[i].n_bytes == 0 || EVP_DigestUpdate(ctx, pieces[i].p, pieces[i].n_bytes) == 1);
    OC_ASSERT(EVP_DigestFinal_ex(ctx, out, &n_out) == 1 && n_out == OC_DIGEST_BYTES);
    EVP_MD_CTX_free(ctx);
}

void oc_digest_hex(const uint8_t *digest, size_t n_bytes, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n_bytes; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * n_bytes] = '\0';
}

void oc_random_bytes(void *out, size_t n_bytes) {
    uint8_t *p = out;
    while (n_bytes > 0) {
        ssize_t n = getrandom(p, n_bytes, 0);
        OC_ASSERT(n > 0 || (n < 0 && errno == EINTR));
        if (n < 0) continue;
        p += n;
        n_bytes -= (size_t)n;
    }
}

int oc_digest_equal(const void *a, const void *b, size_t n) {
    return CRYPTO_memcmp(a, b, n) == 0;
}
