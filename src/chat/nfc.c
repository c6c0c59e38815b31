#include "chat/nfc.h"

#include <stdlib.h>

#include "chat/unicode.h"

#define NOT_INERT_STARTER 255
#define HANGUL_S 0xAC00u
#define HANGUL_L 0x1100u
#define HANGUL_V 0x1161u
#define HANGUL_T 0x11A7u
#define SORT_IN_PLACE 32 /* longer runs of marks go to qsort: no quadratic time */

struct mark {
    uint32_t cp, order; /* order: position before sorting, so that equal classes stay in order */
    uint8_t ccc;
};

struct segment {
    struct mark small[SORT_IN_PLACE], *v;
    size_t n, cap;
};

bool oc_chat_nfc_is_inert(struct oc_str s) {
    const char *p = s.p, *end = s.p + s.n;
    while (p < end) {
        uint32_t cp;
        if ((unsigned char)*p < 0xCC) { /* below U+0300 all is inert */
            p += (unsigned char)*p < 0x80 ? 1 : 2;
            continue;
        }
        p += oc_chat_unicode_next(p, &cp);
        if (oc_chat_unicode_nfc(cp)) return false;
    }
    return true;
}

static uint8_t combining_class(uint32_t cp) {
    uint8_t v = oc_chat_unicode_nfc(cp);
    return v == NOT_INERT_STARTER ? 0 : v;
}

static bool push(struct segment *g, uint32_t cp) {
    if (g->n == g->cap) {
        struct mark *v = malloc(g->cap * 2 * sizeof *v);
        if (!v) return false;
        memcpy(v, g->v, g->n * sizeof *v);
        if (g->v != g->small) free(g->v);
        g->v = v;
        g->cap *= 2;
    }
    g->v[g->n] = (struct mark){cp, (uint32_t)g->n, combining_class(cp)};
    g->n++;
    return true;
}

static bool push_decomposed(struct segment *g, uint32_t cp) {
    if (cp < 0xC0) return push(g, cp);
    if (cp - HANGUL_S < 11172) {
        uint32_t i = cp - HANGUL_S;
        if (!push(g, HANGUL_L + i / 588) || !push(g, HANGUL_V + i % 588 / 28)) return false;
        return i % 28 == 0 || push(g, HANGUL_T + i % 28);
    }
    size_t lo = 0, hi = oc_chat_n_decompositions;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (oc_chat_decompositions[mid].from < cp) lo = mid + 1;
        else hi = mid;
    }
    if (lo == oc_chat_n_decompositions || oc_chat_decompositions[lo].from != cp) return push(g, cp);
    const struct oc_chat_decomposition *d = &oc_chat_decompositions[lo];
    return push_decomposed(g, d->a) && (d->b == 0 || push(g, d->b)); /* only the first part decomposes further */
}

static int by_class(const void *pa, const void *pb) {
    const struct mark *a = pa, *b = pb;
    if (a->ccc != b->ccc) return a->ccc < b->ccc ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

static void sort_run(struct mark *v, size_t n) {
    if (n > SORT_IN_PLACE) {
        qsort(v, n, sizeof *v, by_class);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        struct mark m = v[i];
        size_t j = i;
        for (; j > 0 && v[j - 1].ccc > m.ccc; j--) v[j] = v[j - 1];
        v[j] = m;
    }
}

static void order_marks(struct segment *g) {
    for (size_t i = 0; i < g->n;) {
        size_t from = i;
        while (i < g->n && g->v[i].ccc) i++;
        if (i > from + 1) sort_run(g->v + from, i - from);
        if (i == from) i++;
    }
}

/* The composite of a and b, or 0. */
static uint32_t compose_pair(uint32_t a, uint32_t b) {
    if (a - HANGUL_L < 19 && b - HANGUL_V < 21) return HANGUL_S + ((a - HANGUL_L) * 21 + (b - HANGUL_V)) * 28;
    if (a - HANGUL_S < 11172 && (a - HANGUL_S) % 28 == 0 && b - HANGUL_T - 1 < 27) return a + (b - HANGUL_T);
    size_t lo = 0, hi = oc_chat_n_compositions;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct oc_chat_composition *c = &oc_chat_compositions[mid];
        if (c->a < a || (c->a == a && c->b < b)) lo = mid + 1;
        else hi = mid;
    }
    if (lo == oc_chat_n_compositions) return 0;
    const struct oc_chat_composition *c = &oc_chat_compositions[lo];
    return c->a == a && c->b == b ? c->to : 0;
}

/* The canonical composition algorithm of Unicode 16, section 3.11, in place. */
static void compose(struct segment *g) {
    size_t n = 0, starter = SIZE_MAX;
    int last_ccc = -1; /* class of the last character kept after the starter; -1: none */
    for (size_t i = 0; i < g->n; i++) {
        struct mark m = g->v[i];
        if (starter != SIZE_MAX && last_ccc < (int)m.ccc) {
            uint32_t c = compose_pair(g->v[starter].cp, m.cp);
            if (c) {
                g->v[starter].cp = c;
                continue;
            }
        }
        if (m.ccc == 0) {
            starter = n;
            last_ccc = -1;
        } else {
            last_ccc = m.ccc;
        }
        g->v[n++] = m;
    }
    g->n = n;
}

static bool emit(const struct segment *g, uint8_t origin, struct oc_buf *out, struct oc_buf *out_origin) {
    for (size_t i = 0; i < g->n; i++) {
        char bytes[4];
        size_t n = oc_utf8_encode(g->v[i].cp, bytes);
        if (!oc_buf_add(out, bytes, n)) return false;
        for (size_t k = 0; out_origin && k < n; k++)
            if (!oc_buf_add_char(out_origin, (char)origin)) return false;
    }
    return true;
}

static bool normalise_segment(struct oc_str s, const uint8_t *origin, struct oc_buf *out,
                              struct oc_buf *out_origin) {
    struct segment g = {.n = 0, .cap = SORT_IN_PLACE};
    g.v = g.small;
    bool ok = true;
    uint8_t from_template = 1;
    for (size_t i = 0; ok && i < s.n;) {
        uint32_t cp;
        i += oc_chat_unicode_next(s.p + i, &cp);
        ok = push_decomposed(&g, cp);
    }
    for (size_t i = 0; origin && i < s.n; i++) from_template &= origin[i];
    if (ok) {
        order_marks(&g);
        compose(&g);
        ok = emit(&g, from_template, out, origin ? out_origin : NULL);
    }
    if (g.v != g.small) free(g.v);
    return ok;
}

static bool copy(const char *p, size_t n, const uint8_t *origin, struct oc_buf *out, struct oc_buf *out_origin) {
    return oc_buf_add(out, p, n) && (!origin || oc_buf_add(out_origin, origin, n));
}

bool oc_chat_nfc(struct oc_str s, const uint8_t *origin, struct oc_buf *out, struct oc_buf *out_origin) {
    size_t done = 0, inert_at = 0, i = 0; /* inert_at: start of the last inert character seen */
    while (i < s.n) {
        uint32_t cp;
        size_t at = i;
        i += oc_chat_unicode_next(s.p + i, &cp);
        if (oc_chat_unicode_nfc(cp) == 0) {
            inert_at = at;
            continue;
        }
        size_t end = i;
        while (end < s.n) {
            size_t next = end + oc_chat_unicode_next(s.p + end, &cp);
            if (oc_chat_unicode_nfc(cp) == 0) break;
            end = next;
        }
        if (inert_at < done) inert_at = done;
        if (!copy(s.p + done, inert_at - done, origin ? origin + done : NULL, out, out_origin)) return false;
        struct oc_str seg = {s.p + inert_at, end - inert_at};
        if (!normalise_segment(seg, origin ? origin + inert_at : NULL, out, out_origin)) return false;
        done = inert_at = i = end;
    }
    return copy(s.p + done, s.n - done, origin ? origin + done : NULL, out, out_origin);
}
