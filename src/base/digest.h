/* base/digest.h - SHA-256 (FIPS 180-4, through OpenSSL) and random bytes. Any thread. */
#ifndef OC_BASE_DIGEST_H
#define OC_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define OC_DIGEST_BYTES 32

/* The digest of several pieces one after the other. */
struct oc_digest_piece {
    const void *p;
    size_t n_bytes;
};
void oc_digest(const struct oc_digest_piece *pieces, int n, uint8_t out[OC_DIGEST_BYTES]);
void oc_digest_hex(const uint8_t *digest, size_t n_bytes, char *out); /* out: 2 * n_bytes + 1 */
void oc_random_bytes(void *out, size_t n_bytes);
/* Compares in a time that depends on n alone. */
int oc_digest_equal(const void *a, const void *b, size_t n);

#endif
