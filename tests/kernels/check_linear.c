/* linear, linear_glu and linear3 against double precision, all formats, both roles, ragged shapes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "kernels/int16.h"

/* want[m, n] = x W^T + bias, mag the sum of absolute values. */
struct oracle {
    double *want, *mag;
};

/* How the ISA under test multiplies these weights: what bf16 takes from x and W is taken from the oracle too, so that
 * the bound is on the products and sums alone. Two bf16 are of x alone: W stays what it is. A gated pair of two kinds is not
 * cut by AMX, nor where x is two. */
static enum isa_bf16 in_bf16(const struct chk *c, enum oc_role role, const struct oc_weight *const *w, int n_w) {
    if (role != OC_ROLE_P) return BF16_NONE;
    for (int i = 0; i < n_w; i++) {
        if (w[i]->bits == 0 && w[i]->dtype != OC_BF16) return BF16_NONE;
        bool pairs_in_f32 = strncmp(c->ops.isa, "amx", 3) == 0 || isa_bf16(c->ops.isa) == BF16_SPLIT;
        if (n_w == 2 && w[i]->group != w[0]->group && pairs_in_f32 && isa_bf16(c->ops.isa) != INT16_BLOCKS) return BF16_NONE;
    }
    return isa_bf16(c->ops.isa);
}

/* The bytes of the whole numbers that role `role` of the ISA under test makes of the x that w meets; 0: it does not. */
static int digits_of(const struct chk *c, enum oc_role role, const struct oc_weight *w) {
    if (w->bits == 0) return 0;
    if (role == OC_ROLE_P) return c->ops.int16 ? 2 : 0;
    return c->ops.int8 ? 1 : c->ops.x_digits;
}

/* x as whole numbers of so many digits, group for group; x itself where that is 0. */
static double *seen_x(const struct mat *x, const struct oc_weight *w, int digits) {
    double *seen = malloc((size_t)(x->rows * x->cols) * sizeof *seen);
    OC_ASSERT(seen);
    for (int64_t i = 0; i < x->rows * x->cols; i++) seen[i] = x->p[i / x->cols * x->ld + i % x->cols];
    for (int64_t g = 0; digits && g < x->rows * x->cols; g += w->group) {
        float group[128], scale, sum;
        int32_t q[128];
        for (int i = 0; i < w->group; i++) group[i] = (float)seen[g + i];
        oc_int_round_group(group, w->group, oc_digits_most(digits), q, &scale, &sum);
        for (int i = 0; i < w->group; i++) seen[g + i] = q[i] * (double)scale;
    }
    return seen;
}

/* A row of whole numbers, and what one is worth in each block of k. */
struct int16_row {
    int32_t *q;
    float *scales;
};

enum { INT16_BLOCK = 256, INT16_MOST = 32639 };

static struct int16_row int16_row_new(int64_t k) {
    struct int16_row r = {malloc((size_t)k * sizeof *r.q), malloc((size_t)(k / INT16_BLOCK + 1) * sizeof *r.scales)};
    OC_ASSERT(r.q && r.scales);
    return r;
}

static void int16_row_free(struct int16_row *r) {
    free(r->q), free(r->scales);
}

static float int16_scale(struct int16_row *r, int64_t k, float most) {
    r->scales[k / INT16_BLOCK] = most > 1e-30f ? most / INT16_MOST : 0;
    return most > 1e-30f ? INT16_MOST / most : 0;
}

static void int16_of_floats(const double *v, int64_t n, struct int16_row *r) {
    for (int64_t k = 0; k < n; k += INT16_BLOCK) {
        int64_t end = k + INT16_BLOCK < n ? k + INT16_BLOCK : n;
        float most = 0;
        for (int64_t i = k; i < end; i++) most = fmaxf(most, fabsf((float)v[i]));
        float inverse = int16_scale(r, k, most);
        for (int64_t i = k; i < end; i++) r->q[i] = (int32_t)nearbyintf((float)v[i] * inverse);
    }
}

/* Of quantised weights the largest that a group can have counts, whether it has it or not. */
static void int16_of_weight(const struct oc_weight *w, int64_t n, const double *row, struct int16_row *r) {
    if (!w->bits) {
        int16_of_floats(row, w->k, r);
        return;
    }
    const uint8_t *in = w->w + (size_t)n * oc_weight_row_bytes(w);
    int64_t first = n * (w->k / w->group);
    for (int64_t k = 0; k < w->k; k += INT16_BLOCK) {
        int64_t end = k + INT16_BLOCK < w->k ? k + INT16_BLOCK : w->k;
        float most = 0, top = (float)((1 << w->bits) - 1);
        for (int64_t g = k / w->group; g < end / w->group; g++) {
            float scale = oc_load_float(w->scales, w->dtype, first + g), zero = oc_load_float(w->zero_biases, w->dtype, first + g);
            most = fmaxf(most, fmaxf(fabsf(zero), fabsf(fmaf(scale, top, zero))));
        }
        float inverse = int16_scale(r, k, most);
        for (int64_t i = k; i < end; i++) {
            int q = w->bits == 8 ? in[i] : i % 2 ? in[i / 2] >> 4 : in[i / 2] & 15;
            float scale = oc_load_float(w->scales, w->dtype, first + i / w->group) * inverse;
            r->q[i] = (int32_t)nearbyintf(fmaf((float)q, scale, oc_load_float(w->zero_biases, w->dtype, first + i / w->group) * inverse));
        }
    }
}

/* Without the product of the low bytes. */
static void int16_dot(const struct int16_row *x, const struct int16_row *w, int64_t n, double *sum, double *mag) {
    for (int64_t k = 0; k < n; k++) {
        double worth = (double)x->scales[k / INT16_BLOCK] * w->scales[k / INT16_BLOCK];
        double product = (double)x->q[k] * w->q[k];
        *sum += worth * (product - (int8_t)(uint8_t)(x->q[k] & 255) * (int8_t)(uint8_t)(w->q[k] & 255));
        *mag += worth * fabs(product);
    }
}

static struct oracle int16_oracle(const struct mat *x, const struct oc_weight *w) {
    size_t count = (size_t)(x->rows * w->n);
    struct oracle o = {calloc(count, sizeof(double)), calloc(count, sizeof(double))};
    double *row = malloc((size_t)w->k * sizeof(double));
    struct int16_row *xs = malloc((size_t)x->rows * sizeof *xs), ws = int16_row_new(w->k);
    OC_ASSERT(o.want && o.mag && row && xs);
    for (int64_t i = 0; i < x->rows; i++) {
        for (int64_t k = 0; k < w->k; k++) row[k] = x->p[i * x->ld + k];
        xs[i] = int16_row_new(w->k);
        int16_of_floats(row, w->k, &xs[i]);
    }
    for (int64_t n = 0; n < w->n; n++) {
        weight_row_double(w, n, row);
        int16_of_weight(w, n, row, &ws);
        for (int64_t i = 0; i < x->rows; i++) {
            double sum = w->bias ? w->bias[n] : 0, mag = fabs(sum);
            int16_dot(&xs[i], &ws, w->k, &sum, &mag);
            o.want[i * w->n + n] = sum;
            o.mag[i * w->n + n] = mag;
        }
    }
    for (int64_t i = 0; i < x->rows; i++) int16_row_free(&xs[i]);
    int16_row_free(&ws);
    free(row), free(xs);
    return o;
}

static struct oracle oracle_new(const struct mat *x, const struct oc_weight *w, enum isa_bf16 how, int digits) {
    if (how == INT16_BLOCKS) return int16_oracle(x, w);
    size_t count = (size_t)(x->rows * w->n);
    struct oracle o = {calloc(count, sizeof(double)), calloc(count, sizeof(double))};
    double *row = malloc((size_t)w->k * sizeof(double)), *seen = seen_x(x, w, digits);
    OC_ASSERT(o.want && o.mag && row);
    for (int64_t n = 0; n < w->n; n++) {
        weight_row_double(w, n, row);
        for (int64_t i = 0; i < x->rows; i++) {
            double sum = w->bias ? w->bias[n] : 0, mag = fabs(sum);
            for (int64_t k = 0; k < w->k; k++) {
                struct parts a = parts_of(seen[i * x->cols + k], how), b = parts_of(row[k], how == BF16_SPLIT ? BF16_NONE : how);
                sum += (a.high + a.low) * b.high;
                mag += fabs(a.high * b.high);
            }
            o.want[i * w->n + n] = sum;
            o.mag[i * w->n + n] = mag;
        }
    }
    free(row), free(seen);
    return o;
}

static void oracle_free(struct oracle *o) {
    free(o->want);
    free(o->mag);
}

static const enum oc_dtype float_types[] = {OC_F32, OC_F16, OC_BF16};
static const int groups[] = {32, 64, 128};

/* A random k that the format allows. */
static int64_t pick_k(struct chk *c, enum wformat f, int group) {
    if (f == W_Q4 || f == W_Q8) return (int64_t)group * rnd_int(c, 1, c->quick ? 700 / group : 1500 / group);
    return rnd_int(c, 1, c->quick ? 600 : 1300);
}

static int64_t pick_m(struct chk *c, enum oc_role role) {
    static const int few[] = {1, 1, 2, 3, 4, 5, 7, 8, 13, 64, 70};
    static const int many[] = {1, 5, 6, 7, 12, 25, 33, 100, 391};
    return role == OC_ROLE_D ? RND_OF(c, few) : RND_OF(c, many);
}

static struct weight pick_weight(struct chk *c, enum wformat f, int64_t n, int64_t k, int group) {
    return weight_new(c, f, n, k, group, RND_OF(c, float_types), rnd(c) % 2);
}

static struct mat pick_mat(struct chk *c, int64_t rows, int64_t cols) {
    struct mat m = mat_new(rows, cols, cols + (rnd(c) % 2 ? rnd_int(c, 1, 9) : 0));
    mat_random(c, &m);
    return m;
}

static void one_linear(struct chk *c, enum oc_role role, enum wformat f) {
    int group = RND_OF(c, groups), threads = rnd_int(c, 1, 3);
    int64_t k = pick_k(c, f, group), n = rnd_int(c, 1, 300), m = pick_m(c, role);
    struct weight w = pick_weight(c, f, n, k, group);
    struct mat x = pick_mat(c, m, k), y = pick_mat(c, m, n), old = mat_new(m, n, y.ld);
    bool add = rnd(c) % 2;
    enum oc_act act = add ? OC_ACT_NONE : (enum oc_act)rnd_int(c, OC_ACT_NONE, OC_ACT_QUICK_GELU);
    memcpy(old.p, y.p, y.mem.bytes);
    if (!add) mat_poison(&y);
    struct run_ctx r = run_ctx_new(c, threads, m, k, n, 8);
    struct oc_linear a = {role, m, x.p, x.ld, &w.w, y.p, y.ld, act, add};
    c->ops.linear(&r.k, &a);
    const struct oc_weight *weights[] = {&w.w};
    struct oracle o = oracle_new(&x, &w.w, in_bf16(c, role, weights, 1), digits_of(c, role, &w.w));
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double want = act_double(act, o.want[i * n + j]), mag = o.mag[i * n + j];
            if (add) want += old.p[i * y.ld + j], mag += fabs(old.p[i * y.ld + j]);
            op_error(c, y.p[i * y.ld + j], want, mag);
        }
    }
    bool clean = mat_written(&y);
    if (!run_ctx_free(&r) || !clean) fail(c, "canary or poison, m %d n %d k %d", (int)m, (int)n, (int)k);
    c->n_cases++;
    oracle_free(&o);
    mat_free(&x), mat_free(&y), mat_free(&old);
    weight_free(&w);
}

static void one_glu(struct chk *c, enum oc_role role) {
    int group = RND_OF(c, groups), threads = rnd_int(c, 1, 3);
    enum wformat f = (enum wformat)rnd_int(c, 0, N_WFORMATS - 1);
    int64_t k = pick_k(c, W_Q4, group), n = rnd_int(c, 1, 300), m = pick_m(c, role);
    enum oc_act act = (enum oc_act)rnd_int(c, OC_ACT_SILU, OC_ACT_QUICK_GELU);
    struct weight gate = pick_weight(c, f, n, k, group);
    int up_group = rnd(c) % 8 || group == 32 ? group : 32;
    struct weight up = pick_weight(c, rnd(c) % 4 ? f : W_BF16, n, k, up_group);
    struct mat x = pick_mat(c, m, k), y = pick_mat(c, m, n);
    mat_poison(&y);
    struct run_ctx r = run_ctx_new(c, threads, m, k, n, 8);
    struct oc_linear_glu a = {role, m, x.p, x.ld, &gate.w, &up.w, y.p, y.ld, act};
    c->ops.linear_glu(&r.k, &a);
    const struct oc_weight *weights[] = {&gate.w, &up.w};
    enum isa_bf16 bf16 = in_bf16(c, role, weights, 2);
    /* Role P takes both of a pair the same way. */
    bool apart = role == OC_ROLE_P && gate.w.group != up.w.group;
    int of_gate = apart ? 0 : digits_of(c, role, &gate.w), of_up = apart ? 0 : digits_of(c, role, &up.w);
    struct oracle og = oracle_new(&x, &gate.w, bf16, of_gate), ou = oracle_new(&x, &up.w, bf16, of_up);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            int64_t at = i * n + j;
            double g = act_double(act, og.want[at]);
            double mag = og.mag[at] * fabs(ou.want[at]) + fabs(g) * ou.mag[at];
            op_error(c, y.p[i * y.ld + j], g * ou.want[at], mag);
        }
    }
    bool clean = mat_written(&y);
    if (!run_ctx_free(&r) || !clean) fail(c, "canary or poison, m %d n %d k %d", (int)m, (int)n, (int)k);
    c->n_cases++;
    oracle_free(&og), oracle_free(&ou);
    mat_free(&x), mat_free(&y);
    weight_free(&gate), weight_free(&up);
}

static void one_linear3(struct chk *c, enum oc_role role) {
    int group = RND_OF(c, groups), threads = rnd_int(c, 1, 3);
    int64_t k = pick_k(c, W_Q4, group), m = pick_m(c, role);
    struct mat x = pick_mat(c, m, k), y[3];
    struct weight w[3];
    struct oc_linear3 a = {.role = role, .m = m, .x = x.p, .ldx = x.ld};
    for (int i = 0; i < 3; i++) {
        int64_t n = rnd_int(c, 1, 200);
        w[i] = pick_weight(c, (enum wformat)rnd_int(c, 0, N_WFORMATS - 1), n, k, rnd(c) % 4 ? group : 32);
        y[i] = pick_mat(c, m, n);
        mat_poison(&y[i]);
        a.w[i] = &w[i].w, a.y[i] = y[i].p, a.ldy[i] = y[i].ld;
    }
    struct run_ctx r = run_ctx_new(c, threads, m, k, 200, 8);
    c->ops.linear3(&r.k, &a);
    bool clean = run_ctx_free(&r);
    for (int i = 0; i < 3; i++) {
        struct oracle o = oracle_new(&x, &w[i].w, in_bf16(c, role, a.w, 3), digits_of(c, role, &w[i].w));
        for (int64_t at = 0; at < m * w[i].w.n; at++) {
            int64_t row = at / w[i].w.n, col = at % w[i].w.n;
            op_error(c, y[i].p[row * y[i].ld + col], o.want[at], o.mag[at]);
        }
        oracle_free(&o);
        clean = clean && mat_written(&y[i]);
        mat_free(&y[i]), weight_free(&w[i]);
    }
    if (!clean) fail(c, "canary or poison, m %d k %d", (int)m, (int)k);
    c->n_cases++;
    mat_free(&x);
}

/* Rows of x of which no two values are alike in size: the kinds of uneven_row, in order. */
enum { EVEN, TINY, HUGE_ROW, ONE_OUTLIER, OUTLIERS, ALL_SIZES, POSITIVE, SINGLE, ZEROS, SUBNORMAL, NOT_FINITE, N_UNEVEN };

static void uneven_row(struct chk *c, int kind, float *x, int64_t k) {
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    int64_t at = rnd_int(c, 0, (int)k - 1);
    for (int64_t i = 0; i < k; i++) {
        float v = rnd_float(c);
        if (kind == TINY) v *= 0x1p-100f;
        if (kind == HUGE_ROW) v *= 0x1p+100f;
        if (kind == OUTLIERS && rnd(c) % 64 == 0) v *= 4000;
        if (kind == ALL_SIZES) v = ldexpf(v, -rnd_int(c, 0, 30));
        if (kind == POSITIVE) v = fabsf(v) + 1;
        if (kind == SINGLE || kind == ZEROS) v = 0;
        if (kind == SUBNORMAL) v *= 0x1p-130f;
        x[i] = v;
    }
    if (kind == ONE_OUTLIER) x[at] = 3e4f;
    if (kind == SINGLE) x[at] = 1.1f;
    if (kind == NOT_FINITE) x[at] = RND_OF(c, bad);
}

/* Errors count in what kernels add up: q, or q less the middle of its range, and the zero bias apart. */
static void uneven_error(struct chk *c, const struct oc_weight *w, int64_t n, const double *x, float got) {
    double want = 0, mag = 1e-37;
    for (int64_t k = 0; k < w->k; k++) {
        int64_t g = n * (w->k / w->group) + k / w->group;
        double scale = oc_load_float(w->scales, w->dtype, g), zero = oc_load_float(w->zero_biases, w->dtype, g);
        uint8_t byte = w->w[(size_t)n * oc_weight_row_bytes(w) + (size_t)k * w->bits / 8];
        int q = w->bits == 8 ? byte : k % 2 ? byte >> 4 : byte & 15;
        want += (scale * q + zero) * x[k];
        mag += (fabs(scale) * (1 << (w->bits - 1)) + fabs(zero)) * fabs(x[k]);
    }
    op_error(c, got, want, mag);
}

static void one_uneven(struct chk *c, enum oc_role role, enum wformat f) {
    int group = RND_OF(c, groups);
    int64_t k = pick_k(c, f, group), n = rnd_int(c, 1, 40), m = N_UNEVEN;
    struct weight w = pick_weight(c, f, n, k, group);
    w.w.bias = NULL;
    struct mat x = pick_mat(c, m, k), y = pick_mat(c, m, n);
    int kinds = rnd_int(c, 0, N_UNEVEN - 1); /* the row of kind 0 */
    for (int64_t i = 0; i < m; i++) uneven_row(c, (int)(i + kinds) % N_UNEVEN, x.p + i * x.ld, k);
    struct run_ctx r = run_ctx_new(c, 2, m, k, n, 8);
    struct oc_linear a = {role, m, x.p, x.ld, &w.w, y.p, y.ld, OC_ACT_NONE, false};
    c->ops.linear(&r.k, &a);
    const bool blocks = role == OC_ROLE_P && isa_bf16(c->ops.isa) == INT16_BLOCKS;
    double *seen = seen_x(&x, &w.w, digits_of(c, role, &w.w));
    struct oracle o = {0};
    if (blocks) o = int16_oracle(&x, &w.w);
    for (int64_t at = 0; at < m * n; at++) {
        float got = y.p[at / n * y.ld + at % n];
        bool finite = (at / n + kinds) % N_UNEVEN != NOT_FINITE;
        if (finite && blocks) {
            op_error(c, got, o.want[at], o.mag[at]);
        } else if (finite) {
            uneven_error(c, &w.w, at % n, seen + at / n * k, got);
        } else if (isfinite(got)) {
            fail(c, "%g of an x that is not finite, n %d k %d", (double)got, (int)n, (int)k);
        }
    }
    if (!run_ctx_free(&r)) fail(c, "canary of the scratch");
    c->n_cases++;
    oracle_free(&o);
    free(seen);
    mat_free(&x), mat_free(&y);
    weight_free(&w);
}

void check_linear(struct chk *c) {
    static const char *const role_names[] = {"P", "D"};
    /* The GPU's tensor cores cut sums where a sum should be rounded: up to a unit of the sum for each 16 k. Observed: 11.3. */
    double bound_p = strcmp(c->ops.isa, "cuda") == 0 ? 24 : 12;
    int n = c->few ? 2 : c->quick ? 6 : 25;
    char name[64];
    for (enum oc_role role = OC_ROLE_P; role <= OC_ROLE_D; role++) {
        for (enum wformat f = 0; f < N_WFORMATS; f++) {
            snprintf(name, sizeof name, "linear %s %s", role_names[role], wformat_name(f));
            op_begin(c, name);
            for (int i = 0; i < n; i++) one_linear(c, role, f);
            op_end(c, role == OC_ROLE_P ? bound_p : 12);
        }
        snprintf(name, sizeof name, "linear_glu %s", role_names[role]);
        op_begin(c, name);
        for (int i = 0; i < n; i++) one_glu(c, role);
        op_end(c, role == OC_ROLE_P ? bound_p : 12);
        snprintf(name, sizeof name, "linear3 %s", role_names[role]);
        op_begin(c, name);
        for (int i = 0; i < n; i++) one_linear3(c, role);
        op_end(c, role == OC_ROLE_P ? bound_p : 12);
    }
    if (c->ops.int16 || isa_bf16(c->ops.isa) == INT16_BLOCKS) {
        op_begin(c, "linear P, uneven x");
        for (int i = 0; i < 2 * n; i++) one_uneven(c, OC_ROLE_P, i % 2 ? W_Q4 : W_Q8);
        op_end(c, 24); /* as in role D: one x 30,000 times larger makes sums that all later groups are rounded to. Observed: 16.6 */
    }
    op_begin(c, "linear D, uneven x");
    for (int i = 0; i < n; i++) one_uneven(c, OC_ROLE_D, i % 2 ? W_Q4 : W_Q8);
    op_end(c, 24); /* ref, whose sums have one lane, comes to 18.4 where one x is 30,000 times larger */
}

void check_not_finite(struct chk *c, enum oc_role role, enum wformat f, int m, int n, int k) {
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    struct weight w = weight_new(c, f, n, k, 64, OC_BF16, false);
    struct mat x = mat_new(m, k, k), y = mat_new(m, n, n);
    int row = rnd_int(c, 0, m - 1);
    mat_random(c, &x);
    x.p[row * k + rnd_int(c, 0, k - 1)] = RND_OF(c, bad);
    struct run_ctx r = run_ctx_new(c, 2, m, k, n, 8);
    struct oc_linear a = {role, m, x.p, x.ld, &w.w, y.p, y.ld, OC_ACT_NONE, false};
    c->ops.linear(&r.k, &a);
    for (int i = 0; i < m * n; i++) {
        if (!isnan(y.p[i]) == (i / n != row)) continue;
        fail(c, "row %d, with x not finite in row %d", i / n, row);
        break;
    }
    if (!run_ctx_free(&r)) fail(c, "canary of the scratch");
    c->n_cases++;
    mat_free(&x), mat_free(&y);
    weight_free(&w);
}
