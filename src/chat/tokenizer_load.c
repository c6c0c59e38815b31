#define XXH_INLINE_ALL
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/limits.h"
#include "chat/tokenizer_impl.h"

#define SHOWN 48 /* bytes of a name that a message quotes */

static enum oc_err no_memory(struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_NOMEM, "tokenizer: out of memory for its tables");
}

static int shown(struct oc_str s) {
    return (int)(s.n < SHOWN ? s.n : SHOWN);
}

/* The byte that a character of GPT-2's byte alphabet stands for, or -1: printable Latin-1 stands for itself, the
 * other 68 bytes in order for U+0100 to U+0143. */
static int byte_of_char(uint32_t cp) {
    if ((cp >= 0x21 && cp <= 0x7E) || (cp >= 0xA1 && cp <= 0xAC) || (cp >= 0xAE && cp <= 0xFF)) return (int)cp;
    if (cp >= 0x100 && cp <= 0x120) return (int)(cp - 0x100);
    if (cp >= 0x121 && cp <= 0x142) return (int)(cp - 0x121 + 0x7F);
    return cp == 0x143 ? 0xAD : -1;
}

bool oc_chat_token_from_text(struct oc_str text, char *out, size_t *n_out) {
    size_t n = 0;
    for (size_t i = 0; i < text.n;) {
        uint32_t cp;
        i += oc_utf8_decode(text.p + i, text.n - i, &cp);
        int b = byte_of_char(cp);
        if (b < 0) {
            memcpy(out, text.p, text.n);
            *n_out = text.n;
            return false;
        }
        out[n++] = (char)b;
    }
    *n_out = n;
    return true;
}

static bool token_is(const struct oc_chat_token *t, const char *p, size_t n, bool literal) {
    return t->n == n && !(t->flags & OC_TOKEN_LITERAL) == !literal && memcmp(t->p, p, n) == 0;
}

/* Slot of the token with these bytes, or the empty one where it would go; *tag is its high half. */
static uint64_t *find_slot(const struct oc_chat_tokenizer *tok, const char *p, size_t n, bool literal, uint64_t *tag) {
    uint64_t hash = XXH3_64bits(p, n) + literal;
    uint32_t i = (uint32_t)hash & tok->slot_mask;
    *tag = hash & 0xFFFFFFFF00000000u;
    for (; tok->slot[i] != UINT64_MAX; i = (i + 1) & tok->slot_mask) {
        if ((tok->slot[i] & 0xFFFFFFFF00000000u) != *tag) continue;
        if (token_is(&tok->token[(uint32_t)tok->slot[i]], p, n, literal)) break;
    }
    return &tok->slot[i];
}

uint32_t oc_chat_tokenizer_find(const struct oc_chat_tokenizer *tok, const char *p, size_t n, bool literal) {
    uint64_t tag;
    return (uint32_t)*find_slot(tok, p, n, literal, &tag); /* an empty slot's low half is OC_CHAT_NO_ID */
}

uint32_t oc_chat_tokenizer_find_model(const struct oc_chat_tokenizer *tok, const char *p, size_t n, bool literal) {
    uint32_t id = oc_chat_tokenizer_find(tok, p, n, literal);
    return id != OC_CHAT_NO_ID && (tok->token[id].flags & OC_TOKEN_OUTSIDE) ? OC_CHAT_NO_ID : id;
}

/* Gives id the token `text`; scratch takes its bytes. */
static enum oc_err add_token(struct oc_chat_tokenizer *tok, struct oc_str text, int64_t id, char **pool,
                             struct oc_errinfo *ei) {
    if (id < 0 || id >= tok->n_vocab)
        return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: token '%.*s' has the impossible id %lld", shown(text), text.p,
                       (long long)id);
    struct oc_chat_token *t = &tok->token[id];
    if (t->p)
        return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: two tokens have the id %lld, '%.*s' is one", (long long)id,
                       shown(text), text.p);
    size_t n;
    bool literal = !oc_chat_token_from_text(text, *pool, &n);
    uint64_t tag, *slot = find_slot(tok, *pool, n, literal, &tag);
    if (*slot != UINT64_MAX) return OC_OK; /* cannot be: keys of an object differ, and so do their bytes */
    *t = (struct oc_chat_token){*pool, (uint32_t)n, literal ? OC_TOKEN_LITERAL : 0};
    *slot = tag | (uint32_t)id;
    *pool += n;
    return OC_OK;
}

static enum oc_err load_vocab(struct oc_chat_tokenizer *tok, const struct oc_json *vocab, struct oc_errinfo *ei) {
    if (!vocab || vocab->type != OC_JSON_OBJ || vocab->n_members == 0)
        return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: model.vocab is missing or empty");
    int64_t max_id = 0;
    size_t n_bytes = 1;
    for (size_t i = 0; i < vocab->n_members; i++) {
        int64_t id = oc_json_int_or(&vocab->members[i].value, -1);
        if (id > max_id) max_id = id;
        n_bytes += vocab->members[i].key.n;
    }
    for (size_t i = 0; i < tok->n_added; i++) {
        if (tok->added[i].id > max_id) max_id = tok->added[i].id;
        n_bytes += tok->added[i].content.n;
    }
    if (max_id >= OC_LIMIT_VOCAB)
        return oc_fail(ei, OC_ERR_LIMIT, "tokenizer: a token has the id %lld; ids below %d are possible",
                       (long long)max_id, OC_LIMIT_VOCAB);
    size_t n_slots = 16;
    while (n_slots < 2 * (vocab->n_members + tok->n_added)) n_slots *= 2;
    tok->n_vocab = (uint32_t)max_id + 1;
    tok->token = oc_arena_array(&tok->arena, tok->n_vocab, sizeof *tok->token);
    tok->slot = oc_arena_array(&tok->arena, n_slots, sizeof *tok->slot);
    char *pool = oc_arena_alloc(&tok->arena, n_bytes);
    if (!tok->token || !tok->slot || !pool) return no_memory(ei);
    tok->slot_mask = (uint32_t)n_slots - 1;
    memset(tok->slot, 0xFF, n_slots * sizeof *tok->slot);
    for (size_t i = 0; i < vocab->n_members; i++) {
        const struct oc_json_member *m = &vocab->members[i];
        OC_TRY(add_token(tok, m->key, oc_json_int_or(&m->value, -1), &pool, ei));
    }
    char bytes[OC_LIMIT_ADDED_TOKEN_BYTES];
    for (size_t i = 0; i < tok->n_added; i++) {
        struct oc_chat_added *t = &tok->added[i];
        size_t n;
        bool literal = !oc_chat_token_from_text(t->content, bytes, &n);
        uint32_t id = oc_chat_tokenizer_find(tok, bytes, n, literal);
        if (id == OC_CHAT_NO_ID) {
            OC_TRY(add_token(tok, t->content, id = t->id, &pool, ei));
            tok->token[id].flags |= OC_TOKEN_OUTSIDE;
        }
        t->id = id; /* the model's own id wins, as in `tokenizers` */
        tok->token[id].flags |= OC_TOKEN_ADDED | (t->special ? OC_TOKEN_SPECIAL : 0);
    }
    return OC_OK;
}

static void load_bytes(struct oc_chat_tokenizer *tok) {
    for (unsigned b = 0; b < 256; b++) {
        char c = (char)b;
        tok->byte_id[b] = oc_chat_tokenizer_find_model(tok, &c, 1, false);
        if (tok->byte_id[b] == OC_CHAT_NO_ID) tok->bytes_missing = true;
    }
}

/* One merge: "a b" or ["a", "b"]. */
static bool read_merge(const struct oc_json *j, struct oc_str *a, struct oc_str *b) {
    if (j->type == OC_JSON_ARR && j->n_items == 2) {
        *a = oc_json_str_or(&j->items[0], OC_STR(""));
        *b = oc_json_str_or(&j->items[1], OC_STR(""));
    } else if (j->type == OC_JSON_STR) {
        const char *space = memchr(j->str.p, ' ', j->str.n);
        if (!space) return false;
        *a = (struct oc_str){j->str.p, (size_t)(space - j->str.p)};
        *b = (struct oc_str){space + 1, j->str.n - a->n - 1};
    } else {
        return false;
    }
    return a->n > 0 && b->n > 0;
}

/* The id of a merged token. Vocabularies mostly list them in the order of the merges, so the one after the last
 * is tried first: that saves a search of a table larger than the caches. */
static uint32_t find_merged(const struct oc_chat_tokenizer *tok, const char *p, size_t n, bool literal, uint32_t last) {
    uint32_t next = last + 1;
    if (next < tok->n_vocab && tok->token[next].p && token_is(&tok->token[next], p, n, literal) &&
        !(tok->token[next].flags & OC_TOKEN_OUTSIDE))
        return next;
    return oc_chat_tokenizer_find_model(tok, p, n, literal);
}

/* *last is the token that the merge before gave, and becomes the one this merge gives. */
static enum oc_err add_merge(struct oc_chat_tokenizer *tok, const struct oc_json *j, uint32_t rank, char *scratch,
                             uint32_t *last, struct oc_errinfo *ei) {
    struct oc_str a, b;
    size_t na, nb, nab;
    if (!read_merge(j, &a, &b))
        return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: merge %u is neither \"a b\" nor [\"a\", \"b\"]", rank);
    if (a.n + b.n > OC_MIB) return oc_fail(ei, OC_ERR_LIMIT, "tokenizer: merge %u is over 1 MiB", rank);
    /* Side by side in scratch: where neither is literal, the two are the bytes of the merged token. */
    bool la = !oc_chat_token_from_text(a, scratch, &na);
    bool lb = !oc_chat_token_from_text(b, scratch + na, &nb);
    uint32_t left = oc_chat_tokenizer_find_model(tok, scratch, na, la);
    uint32_t right = oc_chat_tokenizer_find_model(tok, scratch + na, nb, lb);
    if (la || lb) {
        memcpy(scratch, a.p, a.n);
        memcpy(scratch + a.n, b.p, b.n);
        nab = a.n + b.n;
    } else {
        nab = na + nb;
    }
    uint32_t both = find_merged(tok, scratch, nab, la || lb, *last);
    if (left == OC_CHAT_NO_ID || right == OC_CHAT_NO_ID || both == OC_CHAT_NO_ID)
        return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: merge %u ('%.*s' with '%.*s') names a token that is not in the "
                                          "vocabulary", rank, shown(a), a.p, shown(b), b.p);
    *last = both;
    if (tok->token[both].flags & OC_TOKEN_SPECIAL) return OC_OK; /* text never merges into a special token */
    struct oc_chat_merge *m = oc_chat_merge_slot(tok, (uint64_t)left << 32 | right);
    *m = (struct oc_chat_merge){(uint64_t)left << 32 | right, rank, both};
    return OC_OK;
}

static enum oc_err load_merges(struct oc_chat_tokenizer *tok, const struct oc_json *merges, struct oc_errinfo *ei) {
    if (!merges || merges->type != OC_JSON_ARR) return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: model.merges is missing");
    if (merges->n_items > OC_LIMIT_VOCAB) return oc_fail(ei, OC_ERR_LIMIT, "tokenizer: too many merges");
    size_t n_slots = 16;
    while (2 * n_slots < 3 * merges->n_items) n_slots *= 2;
    tok->merge = oc_arena_array(&tok->arena, n_slots, sizeof *tok->merge);
    tok->first = oc_arena_array(&tok->arena, 65536, sizeof *tok->first);
    char *scratch = malloc(OC_MIB + 16);
    if (!tok->merge || !tok->first || !scratch) {
        free(scratch);
        return no_memory(ei);
    }
    tok->merge_mask = (uint32_t)n_slots - 1;
    for (size_t i = 0; i < n_slots; i++) tok->merge[i] = (struct oc_chat_merge){UINT64_MAX, UINT32_MAX, 0};
    enum oc_err err = OC_OK;
    uint32_t last = 0;
    for (size_t i = 0; err == OC_OK && i < merges->n_items; i++)
        err = add_merge(tok, &merges->items[i], (uint32_t)i, scratch, &last, ei);
    free(scratch);
    if (err == OC_OK) oc_chat_bpe_index(tok);
    return err;
}

static enum oc_err refuse_if(bool bad, const char *what, struct oc_errinfo *ei) {
    if (!bad) return OC_OK;
    return oc_fail(ei, OC_ERR_UNSUPPORTED, "tokenizer: %s is not supported; byte-level BPE is", what);
}

static bool has_text(const struct oc_json *v) {
    return v && v->type == OC_JSON_STR && v->str.n > 0;
}

static enum oc_err check_model(const struct oc_json *model, struct oc_errinfo *ei) {
    struct oc_str type = oc_json_str_or(oc_json_get(model, "type"), OC_STR("BPE"));
    if (!model || model->type != OC_JSON_OBJ) return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: no \"model\" object");
    if (!oc_str_is(type, "BPE"))
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "tokenizer: model type '%.*s' is not supported; byte-level BPE is",
                       shown(type), type.p);
    OC_TRY(refuse_if(oc_json_bool_or(oc_json_get(model, "byte_fallback"), false), "BPE with byte_fallback", ei));
    OC_TRY(refuse_if(has_text(oc_json_get(model, "continuing_subword_prefix")), "a continuing_subword_prefix", ei));
    return refuse_if(has_text(oc_json_get(model, "end_of_word_suffix")), "an end_of_word_suffix", ei);
}

static enum oc_err load_normalizer(struct oc_chat_tokenizer *tok, const struct oc_json *n, int depth,
                                   struct oc_errinfo *ei) {
    struct oc_str type = oc_json_str_or(oc_json_get(n, "type"), OC_STR("(none)"));
    if (oc_json_is_null(n)) return OC_OK;
    if (oc_str_is(type, "NFC")) return tok->nfc = true, OC_OK;
    const struct oc_json *list = oc_json_get(n, "normalizers");
    if (!oc_str_is(type, "Sequence") || !list || list->type != OC_JSON_ARR || depth > 4)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "tokenizer: normalizer '%.*s' is not supported; NFC is", shown(type),
                       type.p);
    for (size_t i = 0; i < list->n_items; i++) OC_TRY(load_normalizer(tok, &list->items[i], depth + 1, ei));
    return OC_OK;
}

/* Ids of a TemplateProcessing's single form, in order: before its sequence, then after. */
static enum oc_err load_template(struct oc_chat_tokenizer *tok, const struct oc_json *p, struct oc_errinfo *ei) {
    const struct oc_json *single = oc_json_get(p, "single"), *specials = oc_json_get(p, "special_tokens");
    bool after = false;
    if (!single || single->type != OC_JSON_ARR || single->n_items > 64)
        return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: TemplateProcessing without a short \"single\" list");
    for (size_t i = 0; i < single->n_items; i++) {
        const struct oc_json *special = oc_json_get(&single->items[i], "SpecialToken");
        if (!special) {
            after = true;
            continue;
        }
        const struct oc_json *name = oc_json_get(special, "id");
        const struct oc_json *entry = name ? oc_json_get_str(specials, oc_json_str_or(name, OC_STR(""))) : NULL;
        const struct oc_json *ids = oc_json_get(entry, "ids");
        if (!ids || ids->type != OC_JSON_ARR || ids->n_items > 64)
            return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: TemplateProcessing names a special token without ids");
        for (size_t k = 0; k < ids->n_items; k++) {
            int64_t id = oc_json_int_or(&ids->items[k], -1);
            if (id < 0 || id >= tok->n_vocab || tok->n_before + tok->n_after == 64)
                return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: TemplateProcessing adds the impossible id %lld",
                               (long long)id);
            if (after) tok->after[tok->n_after++] = (uint32_t)id;
            else tok->before[tok->n_before++] = (uint32_t)id;
        }
    }
    return OC_OK;
}

static enum oc_err load_post(struct oc_chat_tokenizer *tok, const struct oc_json *p, int depth, struct oc_errinfo *ei) {
    struct oc_str type = oc_json_str_or(oc_json_get(p, "type"), OC_STR("(none)"));
    if (oc_json_is_null(p) || oc_str_is(type, "ByteLevel")) return OC_OK;
    if (oc_str_is(type, "TemplateProcessing")) return load_template(tok, p, ei);
    const struct oc_json *list = oc_json_get(p, "processors");
    if (!oc_str_is(type, "Sequence") || !list || list->type != OC_JSON_ARR || depth > 4)
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "tokenizer: post-processor '%.*s' is not supported; ByteLevel and TemplateProcessing are",
                       shown(type), type.p);
    for (size_t i = 0; i < list->n_items; i++) OC_TRY(load_post(tok, &list->items[i], depth + 1, ei));
    return OC_OK;
}

static enum oc_err load_specials(struct oc_chat_tokenizer *tok, struct oc_errinfo *ei) {
    tok->special = oc_arena_array(&tok->arena, tok->n_added, sizeof *tok->special);
    if (!tok->special) return no_memory(ei);
    for (uint32_t id = 0; id < tok->n_vocab; id++)
        if (tok->token[id].flags & OC_TOKEN_SPECIAL) tok->special[tok->n_special++] = id;
    return OC_OK;
}

enum oc_err oc_chat_tokenizer_load(struct oc_chat_tokenizer *tok, const struct oc_json *json,
                                   const struct oc_json *config, struct oc_errinfo *ei) {
    const struct oc_json *model = oc_json_get(json, "model"), *decoder = oc_json_get(json, "decoder");
    struct oc_str decoder_type = oc_json_str_or(oc_json_get(decoder, "type"), OC_STR("(none)"));
    OC_TRY(check_model(model, ei));
    OC_TRY(load_normalizer(tok, oc_json_get(json, "normalizer"), 0, ei));
    OC_TRY(oc_chat_pretok_open(oc_json_get(json, "pre_tokenizer"), &tok->pretok, ei));
    if (!oc_str_is(decoder_type, "ByteLevel"))
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "tokenizer: decoder '%.*s' is not supported; ByteLevel is",
                       shown(decoder_type), decoder_type.p);
    tok->ignore_merges = oc_json_bool_or(oc_json_get(model, "ignore_merges"), false);
    tok->before = oc_arena_array(&tok->arena, 64, sizeof *tok->before);
    tok->after = oc_arena_array(&tok->arena, 64, sizeof *tok->after);
    if (!tok->before || !tok->after) return no_memory(ei);
    OC_TRY(oc_chat_added_load(tok, json, config, ei));
    OC_TRY(load_vocab(tok, oc_json_get(model, "vocab"), ei));
    load_bytes(tok);
    OC_TRY(refuse_if(tok->bytes_missing && has_text(oc_json_get(model, "unk_token")),
                     "an unk_token with a vocabulary that lacks some of the 256 bytes", ei));
    OC_TRY(load_merges(tok, oc_json_get(model, "merges"), ei));
    OC_TRY(oc_chat_added_index(tok, ei));
    OC_TRY(load_specials(tok, ei));
    return load_post(tok, oc_json_get(json, "post_processor"), 0, ei);
}
