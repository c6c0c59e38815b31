#include "chat/detok.h"

#include <string.h>

void oc_chat_detok_init(struct oc_chat_detok *d, const struct oc_chat_tokenizer *tok, bool skip_special) {
    *d = (struct oc_chat_detok){.tok = tok, .skip_special = skip_special};
}

/* Appends bytes with what is ill-formed in them replaced. */
static void emit(struct oc_buf *out, const char *p, size_t n) {
    if (oc_utf8_valid(p, n)) {
        oc_buf_add(out, p, n);
        return;
    }
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        char bytes[4];
        i += oc_utf8_decode(p + i, n - i, &cp);
        oc_buf_add(out, bytes, oc_utf8_encode(cp, bytes));
    }
}

/* Emits pending but for the tail of it that more bytes could complete. */
static void settle_pending(struct oc_chat_detok *d, struct oc_buf *out) {
    size_t tail = oc_utf8_incomplete_tail(d->pending, d->n_pending);
    emit(out, d->pending, d->n_pending - tail);
    memmove(d->pending, d->pending + d->n_pending - tail, tail);
    d->n_pending = tail;
}

static enum oc_err check(const struct oc_buf *out, struct oc_errinfo *ei) {
    return out->failed ? oc_fail(ei, OC_ERR_LIMIT, "the answer is longer than %zu bytes", out->max_bytes) : OC_OK;
}

enum oc_err oc_chat_detok_feed(struct oc_chat_detok *d, uint32_t id, struct oc_buf *out, struct oc_errinfo *ei) {
    struct oc_str s = oc_chat_tokenizer_bytes(d->tok, id);
    if (!s.p || (d->skip_special && oc_chat_tokenizer_is_special(d->tok, id))) return OC_OK;
    while (d->n_pending && s.n) {
        d->pending[d->n_pending++] = *s.p++;
        s.n--;
        settle_pending(d, out);
    }
    size_t tail = oc_utf8_incomplete_tail(s.p, s.n);
    emit(out, s.p, s.n - tail);
    if (tail) {
        memcpy(d->pending, s.p + s.n - tail, tail);
        d->n_pending = tail;
    }
    return check(out, ei);
}

enum oc_err oc_chat_detok_finish(struct oc_chat_detok *d, struct oc_buf *out, struct oc_errinfo *ei) {
    emit(out, d->pending, d->n_pending);
    d->n_pending = 0;
    return check(out, ei);
}

enum oc_err oc_chat_detok_all(const struct oc_chat_tokenizer *tok, const uint32_t *ids, size_t n_ids,
                              bool skip_special, struct oc_buf *out, struct oc_errinfo *ei) {
    struct oc_chat_detok d;
    oc_chat_detok_init(&d, tok, skip_special);
    for (size_t i = 0; i < n_ids; i++) OC_TRY(oc_chat_detok_feed(&d, ids[i], out, ei));
    return oc_chat_detok_finish(&d, out, ei);
}
