/* One query's running softmax: after each block, acc = sum_j exp(s_j - max) v_j and sum = sum_j exp(s_j - max).
 * (Milakov, Gimelshein 2018: "Online normalizer calculation for softmax".) */
#include <math.h>

#include "kernels/ref/ref.h"

void oc_ref_softmax_start(struct oc_ref_softmax *s, int hd) {
    OC_ASSERT(hd > 0 && hd <= OC_MAX_HD);
    s->max = -INFINITY;
    s->sum = 0;
    memset(s->acc, 0, (size_t)hd * sizeof(float));
}

void oc_ref_softmax_add(struct oc_ref_softmax *s, const float *q, int hd, float scale, const float *k,
                        const float *v, int64_t ldk, int64_t ldv, int n) {
    float score[OC_REF_KEYS];
    float max = s->max;
    for (int j = 0; j < n; j++) {
        score[j] = oc_ref_dot(q, k + j * ldk, hd) * scale;
        max = fmaxf(max, score[j]);
    }
    float shrink = expf(s->max - max);
    s->max = max;
    s->sum *= shrink;
    for (int d = 0; d < hd; d++) s->acc[d] *= shrink;
    for (int j = 0; j < n; j++) {
        float p = expf(score[j] - max);
        const float *row = v + j * ldv;
        s->sum += p;
        for (int d = 0; d < hd; d++) s->acc[d] += p * row[d];
    }
}

void oc_ref_softmax_finish(const struct oc_ref_softmax *s, int hd, float *y) {
    float inv = 1.0f / s->sum;
    for (int d = 0; d < hd; d++) y[d] = s->acc[d] * inv;
}
