#include "chat/stop.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

/* One string and its Knuth-Morris-Pratt automaton. */
struct pattern {
    char text[OC_LIMIT_STOP_BYTES];
    uint16_t fail[OC_LIMIT_STOP_BYTES + 1]; /* longest proper border of the first i bytes */
    size_t n, matched;                      /* matched: how many of its bytes the stream ends in */
};

struct oc_chat_stop {
    struct pattern pattern[OC_LIMIT_STOP_STRINGS];
    size_t n_patterns;
    char held[OC_LIMIT_STOP_BYTES];
    size_t n_held;
    int hit;
};

static size_t step(const struct pattern *p, size_t matched, char c) {
    while (matched > 0 && (matched == p->n || p->text[matched] != c)) matched = p->fail[matched];
    return p->text[matched] == c ? matched + 1 : 0;
}

static enum oc_err add(struct oc_chat_stop *st, struct oc_str s, struct oc_errinfo *ei) {
    if (s.n == 0) return oc_fail(ei, OC_ERR_USAGE, "a stop string is empty");
    if (s.n > OC_LIMIT_STOP_BYTES)
        return oc_fail(ei, OC_ERR_LIMIT, "a stop string has %zu bytes; the limit is %d", s.n, OC_LIMIT_STOP_BYTES);
    if (!oc_utf8_valid(s.p, s.n)) return oc_fail(ei, OC_ERR_USAGE, "a stop string is not UTF-8");
    struct pattern *p = &st->pattern[st->n_patterns++];
    memcpy(p->text, s.p, s.n);
    p->n = s.n;
    for (size_t i = 1; i < s.n; i++) p->fail[i + 1] = (uint16_t)step(p, p->fail[i], s.p[i]);
    return OC_OK;
}

enum oc_err oc_chat_stop_open(const struct oc_str *strings, size_t n_strings, struct oc_chat_stop **out,
                              struct oc_errinfo *ei) {
    *out = NULL;
    if (n_strings > OC_LIMIT_STOP_STRINGS)
        return oc_fail(ei, OC_ERR_LIMIT, "%zu stop strings; at most %d are possible", n_strings, OC_LIMIT_STOP_STRINGS);
    struct oc_chat_stop *st = calloc(1, sizeof *st);
    if (!st) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for stop strings");
    st->hit = -1;
    for (size_t i = 0; i < n_strings; i++) {
        enum oc_err err = add(st, strings[i], ei);
        if (err != OC_OK) {
            oc_chat_stop_close(st);
            return err;
        }
    }
    *out = st;
    return OC_OK;
}

void oc_chat_stop_close(struct oc_chat_stop *st) {
    free(st);
}

/* Advances all patterns by one byte: the longest that is now complete, or -1. */
static int advance(struct oc_chat_stop *st, char c) {
    int hit = -1;
    for (size_t k = 0; k < st->n_patterns; k++) {
        struct pattern *p = &st->pattern[k];
        p->matched = step(p, p->matched, c);
        if (p->matched == p->n && (hit < 0 || p->n > st->pattern[hit].n)) hit = (int)k;
    }
    return hit;
}

/* Passes on the first n bytes of held + piece and keeps the next n_keep. */
static void release(struct oc_chat_stop *st, struct oc_str piece, size_t n, size_t n_keep, struct oc_buf *out) {
    size_t from_held = n < st->n_held ? n : st->n_held;
    oc_buf_add(out, st->held, from_held);
    memmove(st->held, st->held + from_held, st->n_held - from_held);
    st->n_held -= from_held;
    n -= from_held;
    if (n) oc_buf_add(out, piece.p, n);
    if (n_keep < st->n_held) st->n_held = n_keep;
    size_t from_piece = n_keep - st->n_held;
    if (from_piece) memcpy(st->held + st->n_held, piece.p + n, from_piece);
    st->n_held = n_keep;
}

static enum oc_err check(const struct oc_buf *out, struct oc_errinfo *ei) {
    return out->failed ? oc_fail(ei, OC_ERR_LIMIT, "the answer is longer than %zu bytes", out->max_bytes) : OC_OK;
}

enum oc_err oc_chat_stop_feed(struct oc_chat_stop *st, struct oc_str piece, struct oc_buf *out, int *hit,
                              struct oc_errinfo *ei) {
    size_t keep = 0;
    for (size_t i = 0; i < piece.n && st->hit < 0; i++) {
        st->hit = advance(st, piece.p[i]);
        if (st->hit >= 0) release(st, piece, st->n_held + i + 1 - st->pattern[st->hit].n, 0, out);
    }
    *hit = st->hit;
    if (st->hit >= 0) return check(out, ei);
    for (size_t k = 0; k < st->n_patterns; k++)
        if (st->pattern[k].matched > keep) keep = st->pattern[k].matched;
    release(st, piece, st->n_held + piece.n - keep, keep, out);
    return check(out, ei);
}

enum oc_err oc_chat_stop_finish(struct oc_chat_stop *st, struct oc_buf *out, struct oc_errinfo *ei) {
    if (st->hit < 0) oc_buf_add(out, st->held, st->n_held);
    st->n_held = 0;
    st->hit = -1;
    for (size_t k = 0; k < st->n_patterns; k++) st->pattern[k].matched = 0;
    return check(out, ei);
}
