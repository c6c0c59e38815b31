#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "chat/nfc.h"
#include "chat/tokenizer_impl.h"
#include "chat/unicode.h"

static enum oc_err no_memory(struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_NOMEM, "tokenizer: out of memory for added tokens");
}

/* Reads one entry of added_tokens or added_tokens_decoder. */
static enum oc_err read_one(const struct oc_json *j, int64_t id, struct oc_chat_added *out, struct oc_errinfo *ei) {
    struct oc_str content = oc_json_str_or(oc_json_get(j, "content"), OC_STR(""));
    if (content.n == 0 || content.n > OC_LIMIT_ADDED_TOKEN_BYTES)
        return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: an added token without content, or over %d bytes",
                       OC_LIMIT_ADDED_TOKEN_BYTES);
    if (id < 0 || id >= OC_LIMIT_VOCAB)
        return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: added token '%.*s' has the id %lld; 0 to %d are possible",
                       (int)content.n, content.p, (long long)id, OC_LIMIT_VOCAB - 1);
    bool special = oc_json_bool_or(oc_json_get(j, "special"), false);
    *out = (struct oc_chat_added){
        .content = content,
        .id = (uint32_t)id,
        .special = special,
        .lstrip = oc_json_bool_or(oc_json_get(j, "lstrip"), false),
        .rstrip = oc_json_bool_or(oc_json_get(j, "rstrip"), false),
        .single_word = oc_json_bool_or(oc_json_get(j, "single_word"), false),
        .normalized = oc_json_bool_or(oc_json_get(j, "normalized"), !special),
    };
    return OC_OK;
}

/* Adds t, or replaces the token of the same content. */
static enum oc_err put(struct oc_chat_tokenizer *tok, struct oc_chat_added t, struct oc_errinfo *ei) {
    for (size_t i = 0; i < tok->n_added; i++) {
        if (!oc_str_eq(tok->added[i].content, t.content)) {
            if (tok->added[i].id == t.id)
                return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: added tokens '%.*s' and '%.*s' have the same id %u",
                               (int)t.content.n, t.content.p, (int)tok->added[i].content.n, tok->added[i].content.p,
                               t.id);
            continue;
        }
        t.content = tok->added[i].content;
        t.id = tok->added[i].id;
        tok->added[i] = t;
        return OC_OK;
    }
    char *copy = oc_arena_strndup(&tok->arena, t.content.p, t.content.n);
    if (!copy) return no_memory(ei);
    t.content.p = copy;
    tok->added[tok->n_added++] = t;
    return OC_OK;
}

enum oc_err oc_chat_added_load(struct oc_chat_tokenizer *tok, const struct oc_json *json, const struct oc_json *config,
                               struct oc_errinfo *ei) {
    const struct oc_json *list = oc_json_get(json, "added_tokens");
    const struct oc_json *more = oc_json_get(config, "added_tokens_decoder");
    size_t n_list = list && list->type == OC_JSON_ARR ? list->n_items : 0;
    size_t n_more = more && more->type == OC_JSON_OBJ ? more->n_members : 0;
    if (n_list + n_more > OC_LIMIT_ADDED_TOKENS)
        return oc_fail(ei, OC_ERR_LIMIT, "tokenizer: more than %d added tokens", OC_LIMIT_ADDED_TOKENS);
    tok->added = oc_arena_array(&tok->arena, n_list + n_more, sizeof *tok->added);
    if (!tok->added) return no_memory(ei);
    struct oc_chat_added t;
    for (size_t i = 0; i < n_list; i++) {
        OC_TRY(read_one(&list->items[i], oc_json_int_or(oc_json_get(&list->items[i], "id"), -1), &t, ei));
        OC_TRY(put(tok, t, ei));
    }
    for (size_t i = 0; i < n_more; i++) {
        const struct oc_json_member *m = &more->members[i];
        int64_t id = 0;
        for (size_t k = 0; k < m->key.n && id < OC_LIMIT_VOCAB; k++)
            id = m->key.p[k] >= '0' && m->key.p[k] <= '9' ? id * 10 + (m->key.p[k] - '0') : OC_LIMIT_VOCAB;
        OC_TRY(read_one(&m->value, m->key.n ? id : -1, &t, ei));
        OC_TRY(put(tok, t, ei));
    }
    return OC_OK;
}

static uint32_t *child_link(struct oc_chat_trie *t, uint32_t parent, uint8_t byte) {
    uint32_t *link = parent ? &t->node[parent].child : &t->root[byte];
    while (*link && t->node[*link].byte != byte) link = &t->node[*link].sibling;
    return link;
}

static void trie_add(struct oc_chat_trie *t, struct oc_str s, int32_t added) {
    uint32_t at = 0;
    for (size_t i = 0; i < s.n; i++) {
        uint32_t *link = child_link(t, at, (uint8_t)s.p[i]);
        if (!*link) {
            t->node[t->n_nodes] = (struct oc_chat_trie_node){.byte = (uint8_t)s.p[i], .added = -1};
            *link = t->n_nodes++;
        }
        at = *link;
    }
    if (at) t->node[at].added = added;
}

static enum oc_err index_one(struct oc_chat_tokenizer *tok, struct oc_chat_trie *trie, bool normalized,
                             struct oc_errinfo *ei) {
    size_t n_bytes = 0;
    struct oc_buf text;
    for (size_t i = 0; i < tok->n_added; i++) n_bytes += 3 * tok->added[i].content.n; /* NFC at most triples */
    trie->node = oc_arena_array(&tok->arena, n_bytes + 1, sizeof *trie->node);
    trie->n_nodes = 1;
    if (!trie->node) return no_memory(ei);
    oc_buf_init(&text, 4 * OC_LIMIT_ADDED_TOKEN_BYTES);
    for (size_t i = 0; i < tok->n_added; i++) {
        struct oc_str s = tok->added[i].content;
        if (tok->added[i].normalized != normalized) continue;
        oc_buf_clear(&text);
        if (normalized && tok->nfc) {
            if (!oc_chat_nfc(s, NULL, &text, NULL)) {
                oc_buf_free(&text);
                return no_memory(ei);
            }
            s = (struct oc_str){oc_buf_str(&text), text.n_bytes};
        }
        trie_add(trie, s, (int32_t)i);
    }
    oc_buf_free(&text);
    return OC_OK;
}

enum oc_err oc_chat_added_index(struct oc_chat_tokenizer *tok, struct oc_errinfo *ei) {
    OC_TRY(index_one(tok, &tok->raw, false, ei));
    return index_one(tok, &tok->normalized, true, ei);
}

/* The longest token at p, or -1; *len its length. A special token needs origin 1 throughout. */
static int32_t longest(const struct oc_chat_tokenizer *tok, const struct oc_chat_trie *t, const char *p, size_t n,
                       const uint8_t *origin, size_t *len) {
    int32_t best = -1;
    bool template_only = true;
    uint32_t at = t->root[(uint8_t)p[0]];
    for (size_t i = 0; at; i++) {
        const struct oc_chat_trie_node *node = &t->node[at];
        if (origin && !origin[i]) template_only = false;
        if (node->added >= 0 && (template_only || !tok->added[node->added].special)) {
            best = node->added;
            *len = i + 1;
        }
        if (i + 1 == n) break;
        at = node->child;
        while (at && t->node[at].byte != (uint8_t)p[i + 1]) at = t->node[at].sibling;
    }
    return best;
}

static size_t char_before(const char *p, size_t at) {
    do at--;
    while (at > 0 && ((unsigned char)p[at] & 0xC0) == 0x80);
    return at;
}

static bool word_at(struct oc_str s, size_t at) {
    uint32_t cp;
    if (at >= s.n) return false;
    oc_chat_unicode_next(s.p + at, &cp);
    return oc_chat_unicode_is_word(cp);
}

/* White space of which every byte may be taken by a token of this kind. */
static bool space_at(struct oc_str s, size_t at, const uint8_t *origin, bool special, size_t *len) {
    uint32_t cp;
    *len = oc_chat_unicode_next(s.p + at, &cp);
    for (size_t i = 0; origin && special && i < *len; i++)
        if (!origin[at + i]) return false;
    return oc_chat_unicode_prop(cp) & OC_PROP_SPACE;
}

struct oc_chat_added_match oc_chat_added_next(const struct oc_chat_tokenizer *tok, const struct oc_chat_trie *trie,
                                              struct oc_str s, const uint8_t *origin, size_t *scan, size_t done) {
    for (size_t i = *scan; i < s.n; i++) {
        size_t len, space;
        if (!trie->root[(uint8_t)s.p[i]]) continue;
        int32_t hit = longest(tok, trie, s.p + i, s.n - i, origin ? origin + i : NULL, &len);
        if (hit < 0) continue;
        const struct oc_chat_added *t = &tok->added[hit];
        struct oc_chat_added_match m = {t, i, i + len};
        *scan = i + len;
        if (t->single_word && ((i > 0 && word_at(s, char_before(s.p, i))) || word_at(s, i + len))) {
            i = *scan - 1;
            continue;
        }
        while (t->lstrip && m.start > done) {
            size_t before = char_before(s.p, m.start);
            if (!space_at(s, before, origin, t->special, &space) || before < done) break;
            m.start = before;
        }
        while (t->rstrip && m.stop < s.n && space_at(s, m.stop, origin, t->special, &space)) m.stop += space;
        return m;
    }
    *scan = s.n;
    return (struct oc_chat_added_match){0};
}
