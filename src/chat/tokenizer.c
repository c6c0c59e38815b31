#include "chat/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "chat/nfc.h"
#include "chat/tokenizer_impl.h"

void oc_chat_ids_init(struct oc_chat_ids *ids, size_t max) {
    *ids = (struct oc_chat_ids){.max = max};
}

void oc_chat_ids_free(struct oc_chat_ids *ids) {
    free(ids->v);
    oc_chat_ids_init(ids, ids->max);
}

enum oc_err oc_chat_ids_push(struct oc_chat_ids *ids, uint32_t id, struct oc_errinfo *ei) {
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        if (cap > ids->max) cap = ids->max;
        if (ids->n >= cap) return oc_fail(ei, OC_ERR_LIMIT, "the text has more than %zu tokens", ids->max);
        uint32_t *v = realloc(ids->v, cap * sizeof *v);
        if (!v) return oc_fail(ei, OC_ERR_NOMEM, "tokenizer: out of memory");
        ids->v = v;
        ids->cap = cap;
    }
    ids->v[ids->n++] = id;
    return OC_OK;
}

static enum oc_err open_parsed(const struct oc_json *json, const struct oc_json *config, const char *name,
                               struct oc_chat_tokenizer **out, struct oc_errinfo *ei) {
    struct oc_chat_tokenizer *tok = calloc(1, sizeof *tok);
    if (!tok) return oc_fail(ei, OC_ERR_NOMEM, "%s: out of memory", name);
    oc_arena_init(&tok->arena, OC_LIMIT_TOKENIZER_PARSE_BYTES);
    enum oc_err err = oc_chat_tokenizer_load(tok, json, config, ei);
    if (err != OC_OK) {
        oc_chat_tokenizer_close(tok);
        return oc_fail_prefix(ei, err, "%s", name);
    }
    *out = tok;
    return OC_OK;
}

enum oc_err oc_chat_tokenizer_open_json(struct oc_str text, struct oc_str config_text, const char *name,
                                        struct oc_chat_tokenizer **out, struct oc_errinfo *ei) {
    struct oc_arena arena;
    struct oc_json json, config;
    *out = NULL;
    oc_arena_init(&arena, OC_LIMIT_TOKENIZER_PARSE_BYTES);
    enum oc_err err = OC_OK;
    if (text.n > OC_LIMIT_TOKENIZER_BYTES)
        err = oc_fail(ei, OC_ERR_LIMIT, "%s: over %zu bytes", name, OC_LIMIT_TOKENIZER_BYTES);
    if (err == OC_OK) err = oc_json_parse(&arena, text, name, &json, ei);
    if (err == OC_OK && config_text.n) err = oc_json_parse(&arena, config_text, name, &config, ei);
    if (err == OC_OK) err = open_parsed(&json, config_text.n ? &config : NULL, name, out, ei);
    oc_arena_free(&arena);
    return err;
}

enum oc_err oc_chat_tokenizer_open(const char *path, const char *config_path, struct oc_chat_tokenizer **out,
                                   struct oc_errinfo *ei) {
    struct oc_arena arena;
    struct oc_json json, config;
    *out = NULL;
    oc_arena_init(&arena, OC_LIMIT_TOKENIZER_PARSE_BYTES);
    enum oc_err err = oc_json_load(&arena, path, OC_LIMIT_TOKENIZER_BYTES, &json, ei);
    if (err == OC_OK && config_path) err = oc_json_load(&arena, config_path, OC_LIMIT_CONFIG_BYTES, &config, ei);
    if (err == OC_OK) err = open_parsed(&json, config_path ? &config : NULL, path, out, ei);
    oc_arena_free(&arena);
    return err;
}

void oc_chat_tokenizer_close(struct oc_chat_tokenizer *tok) {
    if (!tok) return;
    oc_chat_pretok_close(&tok->pretok);
    oc_arena_free(&tok->arena);
    free(tok);
}

/* One call of encode. */
struct encoder {
    const struct oc_chat_tokenizer *tok;
    struct oc_chat_bpe bpe;
    struct oc_chat_pretok_scratch pretok;
    struct oc_buf clean, clean_origin; /* the text made valid UTF-8 */
    struct oc_buf nfc, nfc_origin;     /* one piece normalised */
    struct oc_buf prefixed;            /* one piece with a space before it */
    struct oc_errinfo *ei;
};

static enum oc_err too_big(struct encoder *e) {
    return oc_fail(e->ei, OC_ERR_NOMEM, "tokenizer: out of memory for a text");
}

/* Replaces ill-formed bytes by U+FFFD, which is a template's only if all of them were. */
static enum oc_err clean_utf8(struct encoder *e, struct oc_str *text, const uint8_t **origin) {
    if (oc_utf8_valid(text->p, text->n)) return OC_OK;
    for (size_t i = 0; i < text->n;) {
        uint32_t cp;
        char bytes[4];
        uint8_t all = 1;
        size_t taken = oc_utf8_decode(text->p + i, text->n - i, &cp), n = oc_utf8_encode(cp, bytes);
        if (!oc_buf_add(&e->clean, bytes, n)) return too_big(e);
        for (size_t k = 0; *origin && k < taken; k++) all &= (*origin)[i + k];
        for (size_t k = 0; *origin && k < n; k++)
            if (!oc_buf_add_char(&e->clean_origin, (char)all)) return too_big(e);
        i += taken;
    }
    *text = (struct oc_str){oc_buf_str(&e->clean), e->clean.n_bytes};
    if (*origin) *origin = (const uint8_t *)oc_buf_str(&e->clean_origin);
    return OC_OK;
}

static enum oc_err encode_words(struct encoder *e, struct oc_str s) {
    if (e->tok->pretok.add_prefix_space && s.n && s.p[0] != ' ') {
        oc_buf_clear(&e->prefixed);
        if (!oc_buf_add_char(&e->prefixed, ' ') || !oc_buf_add(&e->prefixed, s.p, s.n)) return too_big(e);
        s = (struct oc_str){oc_buf_str(&e->prefixed), e->prefixed.n_bytes};
    }
    return oc_chat_pretok_run(&e->tok->pretok, &e->pretok, s, oc_chat_bpe_word, &e->bpe, e->ei);
}

typedef enum oc_err piece_fn(struct encoder *e, struct oc_str s, const uint8_t *origin);

/* Cuts s at the added tokens of a trie; what lies between goes to `between`. */
static enum oc_err cut_added(struct encoder *e, const struct oc_chat_trie *trie, struct oc_str s,
                             const uint8_t *origin, piece_fn *between) {
    size_t scan = 0, done = 0;
    while (trie->n_nodes > 1) {
        struct oc_chat_added_match m = oc_chat_added_next(e->tok, trie, s, origin, &scan, done);
        if (!m.added) break;
        if (m.start > done)
            OC_TRY(between(e, (struct oc_str){s.p + done, m.start - done}, origin ? origin + done : NULL));
        OC_TRY(oc_chat_ids_push(e->bpe.ids, m.added->id, e->ei));
        done = m.stop;
    }
    if (done >= s.n) return OC_OK;
    return between(e, (struct oc_str){s.p + done, s.n - done}, origin ? origin + done : NULL);
}

static enum oc_err encode_normalized(struct encoder *e, struct oc_str s, const uint8_t *origin) {
    (void)origin;
    return encode_words(e, s);
}

static enum oc_err encode_raw(struct encoder *e, struct oc_str s, const uint8_t *origin) {
    if (e->tok->nfc && !oc_chat_nfc_is_inert(s)) {
        oc_buf_clear(&e->nfc);
        oc_buf_clear(&e->nfc_origin);
        if (!oc_chat_nfc(s, origin, &e->nfc, &e->nfc_origin)) return too_big(e);
        s = (struct oc_str){oc_buf_str(&e->nfc), e->nfc.n_bytes};
        if (origin) origin = (const uint8_t *)oc_buf_str(&e->nfc_origin);
    }
    return cut_added(e, &e->tok->normalized, s, origin, encode_normalized);
}

static enum oc_err encode_text(struct encoder *e, struct oc_str text, const uint8_t *origin, unsigned flags) {
    const struct oc_chat_tokenizer *tok = e->tok;
    bool around = flags & OC_CHAT_ENCODE_ADD_SPECIAL;
    OC_TRY(clean_utf8(e, &text, &origin));
    for (size_t i = 0; around && i < tok->n_before; i++) OC_TRY(oc_chat_ids_push(e->bpe.ids, tok->before[i], e->ei));
    OC_TRY(cut_added(e, &tok->raw, text, origin, encode_raw));
    for (size_t i = 0; around && i < tok->n_after; i++) OC_TRY(oc_chat_ids_push(e->bpe.ids, tok->after[i], e->ei));
    return OC_OK;
}

enum oc_err oc_chat_tokenizer_encode(const struct oc_chat_tokenizer *tok, struct oc_str text, const uint8_t *origin,
                                     unsigned flags, struct oc_chat_ids *ids, struct oc_errinfo *ei) {
    struct encoder e = {.tok = tok, .ei = ei};
    if (text.n > OC_LIMIT_PROMPT_BYTES)
        return oc_fail(ei, OC_ERR_LIMIT, "the text has %zu bytes; the limit is %zu", text.n, OC_LIMIT_PROMPT_BYTES);
    struct oc_buf *const bufs[] = {&e.clean, &e.clean_origin, &e.nfc, &e.nfc_origin, &e.prefixed};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++) oc_buf_init(bufs[i], 9 * OC_LIMIT_PROMPT_BYTES + 1);
    enum oc_err err = oc_chat_bpe_init(&e.bpe, tok, text.n, ids, ei);
    if (err == OC_OK) err = encode_text(&e, text, origin, flags);
    oc_chat_bpe_free(&e.bpe);
    oc_chat_pretok_scratch_free(&e.pretok);
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++) oc_buf_free(bufs[i]);
    return err;
}

uint32_t oc_chat_tokenizer_n_vocab(const struct oc_chat_tokenizer *tok) {
    return tok->n_vocab;
}

uint32_t oc_chat_tokenizer_id(const struct oc_chat_tokenizer *tok, struct oc_str token) {
    char small[256], *bytes = token.n <= sizeof small ? small : malloc(token.n);
    size_t n;
    if (!bytes) return OC_CHAT_NO_ID;
    bool literal = !oc_chat_token_from_text(token, bytes, &n);
    uint32_t id = oc_chat_tokenizer_find(tok, bytes, n, literal);
    if (bytes != small) free(bytes);
    return id;
}

struct oc_str oc_chat_tokenizer_bytes(const struct oc_chat_tokenizer *tok, uint32_t id) {
    if (id >= tok->n_vocab) return (struct oc_str){NULL, 0};
    return (struct oc_str){tok->token[id].p, tok->token[id].n};
}

bool oc_chat_tokenizer_is_special(const struct oc_chat_tokenizer *tok, uint32_t id) {
    return id < tok->n_vocab && (tok->token[id].flags & OC_TOKEN_SPECIAL);
}

bool oc_chat_tokenizer_is_added(const struct oc_chat_tokenizer *tok, uint32_t id) {
    return id < tok->n_vocab && (tok->token[id].flags & OC_TOKEN_ADDED);
}

const uint32_t *oc_chat_tokenizer_special_ids(const struct oc_chat_tokenizer *tok, size_t *n) {
    *n = tok->n_special;
    return tok->special;
}
