/* image/resample.h - the inner loops of resize.c, for what the processor offers.
 *
 * All of them give the same bits: sums of bytes times weights of 22 fractional bits, exact in 32 bits,
 * rounded and clipped once at the end. Pure; any thread. */
#ifndef OC_IMAGE_RESAMPLE_H
#define OC_IMAGE_RESAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    OC_IMAGE_WEIGHT_BITS = 22,
    OC_IMAGE_ROW_SLACK = 64, /* bytes behind a row that `rows` may read */
};

/* For output i: weights[i * n_taps .. + count[i]] applies to inputs from first[i] on; first and first + count
 * never fall. */
struct oc_image_weights {
    int n_in, n_out, n_taps;
    int *first, *count;
    int32_t *weights;
    void *prepared; /* what `prepare` made of them, or NULL; for free() */
};

struct oc_image_resample {
    const char *name;
    bool (*is_supported)(void);
    /* For `rows` with these weights; false when out of memory. NULL: there is nothing to prepare. */
    bool (*prepare)(struct oc_image_weights *w);
    /* Pixels of 3 bytes: w->n_out for each of four rows of w->n_in. Rows of input have OC_IMAGE_ROW_SLACK
     * readable bytes behind them; nothing is written behind a row of output. The same row may stand there
     * several times. */
    void (*rows)(const uint8_t *const in[4], const struct oc_image_weights *w, uint8_t *const out[4]);
    /* One row of n_bytes from n >= 1 rows of input that lie `stride` apart, the i-th times k[i]. */
    void (*columns)(const uint8_t *in, size_t stride, const int32_t *k, int n, size_t n_bytes, uint8_t *out);
};

/* The i-th of what this program was built with, the plainest first; NULL: there are no more. Ask is_supported
 * before use. */
const struct oc_image_resample *oc_image_resample_at(int i);

/* The best one that this processor supports. */
const struct oc_image_resample *oc_image_resample_best(void);

extern const struct oc_image_resample oc_image_resample_plain;
#if defined(__x86_64__)
extern const struct oc_image_resample oc_image_resample_avx2, oc_image_resample_avx512vbmi;
#endif

#endif
