/* rmsnorm, rope, kv_append, embed and the activations. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

static void one_rmsnorm(struct chk *c) {
    int64_t m = rnd_int(c, 1, 60), d = rnd_int(c, 1, 1500);
    struct mat x = mat_new(m, d, d + rnd_int(c, 0, 5)), w = mat_new(1, d, d), y = mat_new(m, d, d + 3);
    mat_random(c, &x), mat_random(c, &w);
    struct run_ctx r = run_ctx_new(c, rnd_int(c, 1, 3), m, d, d, 8);
    struct oc_rmsnorm a = {m, d, x.p, x.ld, w.p, 1e-6f, y.p, y.ld};
    c->ops.rmsnorm(&r.k, &a);
    for (int64_t i = 0; i < m; i++) {
        double sum = 0;
        for (int64_t j = 0; j < d; j++) sum += (double)x.p[i * x.ld + j] * x.p[i * x.ld + j];
        double scale = 1 / sqrt(sum / (double)d + 1e-6);
        for (int64_t j = 0; j < d; j++) {
            double want = x.p[i * x.ld + j] * scale * w.p[j];
            op_error(c, y.p[i * y.ld + j], want, fabs(want) + 1e-6);
        }
    }
    bool clean = mat_written(&y);
    if (!run_ctx_free(&r) || !clean) fail(c, "canary or poison, m %d d %d", (int)m, (int)d);
    a.y = x.p, a.ldy = x.ld; /* in place gives the same */
    struct run_ctx again = run_ctx_new(c, 2, m, d, d, 8);
    c->ops.rmsnorm(&again.k, &a);
    for (int64_t i = 0; i < m; i++) {
        if (memcmp(x.p + i * x.ld, y.p + i * y.ld, (size_t)d * 4) != 0) fail(c, "in place differs");
    }
    run_ctx_free(&again);
    c->n_cases++;
    mat_free(&x), mat_free(&w), mat_free(&y);
}

static void one_rope(struct chk *c) {
    int64_t m = rnd_int(c, 1, 50);
    int heads = rnd_int(c, 1, 20), half = rnd_int(c, 1, 70), hd = 2 * half;
    struct mat x = mat_new(m, (int64_t)heads * hd, (int64_t)heads * hd + rnd_int(c, 0, 4));
    struct mat cs = mat_new(m, half, half), sn = mat_new(m, half, half);
    mat_random(c, &x), mat_random(c, &cs), mat_random(c, &sn);
    struct mat old = mat_new(m, x.cols, x.ld);
    memcpy(old.p, x.p, x.mem.bytes);
    struct run_ctx r = run_ctx_new(c, rnd_int(c, 1, 3), m, hd, hd, hd);
    struct oc_rope a = {m, heads, hd, x.p, x.ld, cs.p, sn.p};
    c->ops.rope(&r.k, &a);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < x.cols; j++) {
            int64_t at = j % hd, first = i * x.ld + j / hd * hd, d = at % half;
            double lo = old.p[first + d], hi = old.p[first + d + half];
            double co = cs.p[i * half + d], si = sn.p[i * half + d];
            double want = at < half ? lo * co - hi * si : hi * co + lo * si;
            op_error(c, x.p[i * x.ld + j], want, fabs(lo) + fabs(hi));
        }
    }
    bool clean = mat_written(&x);
    if (!run_ctx_free(&r) || !clean) fail(c, "canary, m %d heads %d hd %d", (int)m, heads, hd);
    c->n_cases++;
    mat_free(&x), mat_free(&cs), mat_free(&sn), mat_free(&old);
}

static void one_kv_append(struct chk *c) {
    int kv_heads = rnd_int(c, 1, 4), hd = 2 * rnd_int(c, 1, 70), page_tokens = 16, n_pages = 6;
    enum oc_dtype t = rnd(c) % 2 ? OC_F32 : OC_BF16;
    int64_t m = rnd_int(c, 1, 90), cols = (int64_t)kv_heads * hd;
    size_t page = (size_t)(kv_heads * page_tokens * hd) * oc_dtype_bytes(t);
    struct fenced k = fenced_new(page * (size_t)n_pages, 0), v = fenced_new(page * (size_t)n_pages, 0);
    struct mat kin = mat_new(m, cols, cols + 2), vin = mat_new(m, cols, cols);
    mat_random(c, &kin), mat_random(c, &vin);
    int32_t pages[6] = {3, 0, 5, 1, 4, 2};
    struct oc_kv_row rows[90];
    for (int i = 0; i < m; i++) rows[i] = (struct oc_kv_row){pages, i + 3, OC_ROLE_P};
    struct run_ctx r = run_ctx_new(c, 2, m, hd, hd, hd);
    struct oc_kv_layer kv = {k.p, v.p, page, t, kv_heads, hd, page_tokens};
    struct oc_kv_append a = {m, kin.p, vin.p, kin.ld, vin.ld, rows, kv};
    c->ops.kv_append(&r.k, &a);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < cols; j++) {
            int slot = (int)i + 3;
            int64_t at = (int64_t)(j / hd * page_tokens + slot % page_tokens) * hd + j % hd;
            size_t first = (size_t)pages[slot / page_tokens] * page;
            float wk = kin.p[i * kin.ld + j], wv = vin.p[i * vin.ld + j];
            if (t == OC_BF16) wk = oc_bf16_to_f32(oc_f32_to_bf16(wk)), wv = oc_bf16_to_f32(oc_f32_to_bf16(wv));
            op_error(c, oc_load_float(k.p + first, t, at), wk, 1);
            op_error(c, oc_load_float(v.p + first, t, at), wv, 1);
        }
    }
    if (!run_ctx_free(&r) || !fenced_ok(&k) || !fenced_ok(&v)) fail(c, "canary");
    c->n_cases++;
    fenced_free(&k), fenced_free(&v);
    mat_free(&kin), mat_free(&vin);
}

static void one_embed(struct chk *c) {
    enum wformat f = (enum wformat)rnd_int(c, 0, N_WFORMATS - 1);
    int64_t n = rnd_int(c, 1, 100), k = 32 * rnd_int(c, 1, 20), m = rnd_int(c, 1, 200);
    struct weight w = weight_new(c, f, n, k, 32, OC_BF16, false);
    struct mat y = mat_new(m, k, k + rnd_int(c, 0, 3));
    int32_t ids[200];
    double row[640];
    for (int i = 0; i < m; i++) ids[i] = rnd_int(c, 0, (int)n - 1);
    struct run_ctx r = run_ctx_new(c, 2, m, k, n, 8);
    struct oc_embed a = {m, ids, &w.w, y.p, y.ld};
    c->ops.embed(&r.k, &a);
    for (int64_t i = 0; i < m; i++) {
        weight_row_double(&w.w, ids[i], row);
        for (int64_t j = 0; j < k; j++) op_error(c, y.p[i * y.ld + j], row[j], fabs(row[j]) + 0.3);
    }
    bool clean = mat_written(&y);
    if (!run_ctx_free(&r) || !clean) fail(c, "canary or poison");
    c->n_cases++;
    weight_free(&w), mat_free(&y);
}

/* Rows to other places, the places between them left alone. */
static void one_move_rows(struct chk *c) {
    int64_t m = rnd_int(c, 1, 90), d = rnd_int(c, 1, 700);
    struct mat x = mat_new(m, d, d + rnd_int(c, 0, 5)), y = mat_new(2 * m, d, d + 3), old = mat_new(2 * m, d, d + 3);
    int32_t to[90];
    mat_random(c, &x), mat_random(c, &y);
    for (int i = 0; i < m; i++) to[i] = (int32_t)((i * 37 + 11) % m * 2 + 1);
    if (m % 37 == 0) for (int i = 0; i < m; i++) to[i] = 2 * i + 1;
    memcpy(old.p, y.p, y.mem.bytes);
    struct run_ctx r = run_ctx_new(c, 2, m, d, d, 8);
    struct oc_move_rows a = {m, d, x.p, x.ld, to, y.p, y.ld};
    c->ops.move_rows(&r.k, &a);
    for (int i = 0; i < m; i++) memcpy(old.p + to[i] * old.ld, x.p + i * x.ld, (size_t)d * sizeof(float));
    bool clean = mat_written(&y);
    if (!run_ctx_free(&r) || !clean || memcmp(old.p, y.p, y.mem.bytes) != 0) fail(c, "rows are not where they belong, m %d d %d", (int)m, (int)d);
    c->n_cases++;
    mat_free(&x), mat_free(&y), mat_free(&old);
}

/* Activations through a linear with W = identity: relative error over the whole range that matters. */
static void one_act(struct chk *c, enum oc_act act) {
    enum { K = 8, M = 4096 };
    struct mat x = mat_new(M, K, K), y = mat_new(M, K, K), eye = mat_new(K, K, K);
    for (int i = 0; i < K * K; i++) eye.p[i] = i % (K + 1) == 0;
    for (int i = 0; i < M * K; i++) x.p[i] = ((float)i / (M * K) - 0.5f) * (i % 2 ? 12.0f : 170.0f) + 1e-3f;
    struct oc_weight w = {.n = K, .k = K, .dtype = OC_F32, .w = eye.mem.p};
    struct run_ctx r = run_ctx_new(c, 2, M, K, K, 8);
    struct oc_linear a = {OC_ROLE_P, M, x.p, K, &w, y.p, K, act, false};
    c->ops.linear(&r.k, &a);
    for (int i = 0; i < M * K; i++) {
        double want = act_double(act, x.p[i]);
        /* Left of -4 or so a rounded exponent alone costs many ulp of what is all but 0. */
        op_error(c, y.p[i], want, fabs(want) + 0.01 * fabs((double)x.p[i]));
    }
    if (!run_ctx_free(&r)) fail(c, "canary");
    c->n_cases++;
    mat_free(&x), mat_free(&y), mat_free(&eye);
}

void check_small(struct chk *c) {
    static const char *const acts[] = {"none", "act silu", "act gelu", "act gelu_tanh", "act quick_gelu"};
    int n = c->few ? 2 : c->quick ? 8 : 40;
    op_begin(c, "rmsnorm");
    for (int i = 0; i < n; i++) one_rmsnorm(c);
    op_end(c, 12);
    op_begin(c, "rope");
    for (int i = 0; i < n; i++) one_rope(c);
    op_end(c, 12);
    op_begin(c, "kv_append");
    for (int i = 0; i < n; i++) one_kv_append(c);
    op_end(c, 0);
    op_begin(c, "embed");
    for (int i = 0; i < n; i++) one_embed(c);
    op_end(c, 2);
    op_begin(c, "move_rows");
    for (int i = 0; i < n; i++) one_move_rows(c);
    op_end(c, 0);
    for (enum oc_act act = OC_ACT_SILU; act <= OC_ACT_QUICK_GELU; act++) {
        op_begin(c, acts[act]);
        one_act(c, act);
        op_end(c, 12);
    }
}
