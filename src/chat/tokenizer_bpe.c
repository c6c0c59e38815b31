#define XXH_INLINE_ALL
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/limits.h"
#include "chat/tokenizer_impl.h"

#define POSITION_BITS 7
#define SHORT_WORD (1 << POSITION_BITS) /* bytes; up to here a scan for the lowest rank beats a heap */
#define WORD_KEY 22
#define WORD_IDS 8
#define NO_RANK UINT32_MAX

/* One remembered word, a cache line. n 0: empty. */
struct oc_chat_word_slot {
    uint64_t hash;
    uint8_t n, n_ids;
    char key[WORD_KEY];
    uint32_t ids[WORD_IDS];
};

enum oc_err oc_chat_bpe_init(struct oc_chat_bpe *b, const struct oc_chat_tokenizer *tok, size_t text_bytes,
                             struct oc_chat_ids *ids, struct oc_errinfo *ei) {
    size_t n_slots = 64;
    while (n_slots < text_bytes / 16 && n_slots < 16384) n_slots *= 2;
    *b = (struct oc_chat_bpe){.tok = tok, .ids = ids, .ei = ei, .cache_mask = (uint32_t)n_slots - 1};
    oc_buf_init(&b->filtered, OC_LIMIT_WORD_BYTES);
    b->cache = calloc(n_slots, sizeof *b->cache);
    return b->cache ? OC_OK : oc_fail(ei, OC_ERR_NOMEM, "tokenizer: out of memory");
}

void oc_chat_bpe_free(struct oc_chat_bpe *b) {
    free(b->cache);
    oc_buf_free(&b->filtered);
}

_Static_assert((uint64_t)OC_LIMIT_VOCAB << POSITION_BITS < UINT32_MAX, "a rank and a position share 32 bits");

struct oc_chat_merge *oc_chat_merge_slot(const struct oc_chat_tokenizer *tok, uint64_t pair) {
    uint64_t h = pair * 0x9E3779B97F4A7C15u;
    uint32_t i = (uint32_t)(h >> 32 ^ h >> 15) & tok->merge_mask;
    while (tok->merge[i].pair != pair && tok->merge[i].pair != UINT64_MAX) i = (i + 1) & tok->merge_mask;
    return &tok->merge[i];
}

static inline uint32_t find_merge(const struct oc_chat_tokenizer *tok, uint32_t a, uint32_t b, uint32_t *id) {
    const struct oc_chat_merge *m = oc_chat_merge_slot(tok, (uint64_t)a << 32 | b);
    *id = m->id;
    return m->rank; /* NO_RANK in an empty slot */
}

void oc_chat_bpe_index(struct oc_chat_tokenizer *tok) {
    for (unsigned a = 0; a < 256; a++) {
        for (unsigned b = 0; b < 256; b++) {
            struct oc_chat_first_merge *f = &tok->first[a << 8 | b];
            f->rank = NO_RANK;
            if (tok->byte_id[a] == OC_CHAT_NO_ID || tok->byte_id[b] == OC_CHAT_NO_ID) continue;
            f->rank = find_merge(tok, tok->byte_id[a], tok->byte_id[b], &f->id);
        }
    }
}

/* The candidate merge of the pair that begins at position i: its rank, then i, so that the least of all candidates
 * is the leftmost of the lowest rank. Ranks are below OC_LIMIT_VOCAB, so this fits. */
static inline uint32_t candidate(uint32_t rank, size_t i) {
    return rank == NO_RANK ? NO_RANK : rank << POSITION_BITS | (uint32_t)i;
}

/* Merges a word of 2..SHORT_WORD bytes into id[]; returns how many ids are left. Positions stay where they are, a
 * merged-away one is skipped by next[]: the search for the least candidate is a plain loop over all of them. */
static size_t merge_short(const struct oc_chat_tokenizer *tok, const uint8_t *p, size_t n, uint32_t *id) {
    uint32_t cand[SHORT_WORD], to[SHORT_WORD];
    uint8_t next[SHORT_WORD], prev[SHORT_WORD];
    size_t n_pad = (n + 7) & ~(size_t)7;
    for (size_t i = 0; i < n; i++) {
        id[i] = tok->byte_id[p[i]];
        next[i] = (uint8_t)(i + 1);
        prev[i] = (uint8_t)(i - 1);
        if (i + 1 == n) break;
        const struct oc_chat_first_merge *f = &tok->first[p[i] << 8 | p[i + 1]];
        cand[i] = candidate(f->rank, i);
        to[i] = f->id;
    }
    for (size_t i = n - 1; i < n_pad; i++) cand[i] = NO_RANK;
    for (;;) {
        uint32_t best = NO_RANK;
        for (size_t i = 0; i < n_pad; i++) best = cand[i] < best ? cand[i] : best;
        if (best == NO_RANK) break;
        size_t at = best & (SHORT_WORD - 1), gone = next[at], after = next[gone];
        id[at] = to[at];
        cand[gone] = NO_RANK;
        next[at] = (uint8_t)after;
        cand[at] = NO_RANK;
        if (after < n) {
            prev[after] = (uint8_t)at;
            cand[at] = candidate(find_merge(tok, id[at], id[after], &to[at]), at);
        }
        if (at == 0) continue;
        size_t before = prev[at];
        cand[before] = candidate(find_merge(tok, id[before], id[at], &to[before]), before);
    }
    size_t n_ids = 0;
    for (size_t i = 0; i < n; i = next[i]) id[n_ids++] = id[i];
    return n_ids;
}

/* A long word: symbols in a linked list, candidate merges in a binary heap of rank << 32 | position. An entry is
 * stale, and skipped, when the position's rank has changed since. */
struct symbol {
    uint32_t id, prev, next, rank, to;
};

struct long_word {
    struct symbol *s;
    uint64_t *heap;
    size_t n_heap, cap_heap;
};

static bool heap_push(struct long_word *w, uint64_t v) {
    if (w->n_heap == w->cap_heap) {
        uint64_t *more = realloc(w->heap, w->cap_heap * 2 * sizeof *more);
        if (!more) return false;
        w->heap = more;
        w->cap_heap *= 2;
    }
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > v; i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = v;
    return true;
}

static uint64_t heap_pop(struct long_word *w) {
    uint64_t top = w->heap[0], v = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= w->n_heap) break;
        if (c + 1 < w->n_heap && w->heap[c + 1] < w->heap[c]) c++;
        if (w->heap[c] >= v) break;
        w->heap[i] = w->heap[c];
        i = c;
    }
    if (w->n_heap) w->heap[i] = v;
    return top;
}

/* Looks up the pair that begins at position i and makes it a candidate. */
static bool consider(const struct oc_chat_tokenizer *tok, struct long_word *w, uint32_t i) {
    struct symbol *s = &w->s[i];
    s->rank = s->next == UINT32_MAX ? NO_RANK : find_merge(tok, s->id, w->s[s->next].id, &s->to);
    return s->rank == NO_RANK || heap_push(w, (uint64_t)s->rank << 32 | i);
}

static bool merge_long(const struct oc_chat_tokenizer *tok, const uint8_t *p, uint32_t n, struct long_word *w) {
    w->cap_heap = n;
    w->s = malloc(n * sizeof *w->s);
    w->heap = malloc(w->cap_heap * sizeof *w->heap);
    if (!w->s || !w->heap) return false;
    for (uint32_t i = 0; i < n; i++)
        w->s[i] = (struct symbol){.id = tok->byte_id[p[i]], .prev = i - 1, .next = i + 1 < n ? i + 1 : UINT32_MAX};
    for (uint32_t i = 0; i < n; i++)
        if (!consider(tok, w, i)) return false;
    while (w->n_heap > 0) {
        uint64_t top = heap_pop(w);
        uint32_t at = (uint32_t)top;
        struct symbol *s = &w->s[at];
        if (s->rank != (uint32_t)(top >> 32)) continue;
        struct symbol *gone = &w->s[s->next];
        s->id = s->to;
        s->next = gone->next;
        gone->rank = NO_RANK;
        if (s->next != UINT32_MAX) w->s[s->next].prev = at;
        if (!consider(tok, w, at)) return false;
        if (s->prev != UINT32_MAX && !consider(tok, w, s->prev)) return false;
    }
    return true;
}

static enum oc_err long_word(struct oc_chat_bpe *b, const uint8_t *p, size_t n) {
    struct long_word w = {0};
    enum oc_err err = OC_OK;
    if (n > OC_LIMIT_WORD_BYTES)
        return oc_fail(b->ei, OC_ERR_LIMIT, "tokenizer: the text has a word of %zu bytes; the limit is %zu", n,
                       OC_LIMIT_WORD_BYTES);
    if (!merge_long(b->tok, p, (uint32_t)n, &w)) err = oc_fail(b->ei, OC_ERR_NOMEM, "tokenizer: out of memory");
    for (uint32_t i = 0; err == OC_OK && i != UINT32_MAX; i = w.s[i].next)
        err = oc_chat_ids_push(b->ids, w.s[i].id, b->ei);
    free(w.s);
    free(w.heap);
    return err;
}

static enum oc_err push_all(struct oc_chat_bpe *b, const uint32_t *id, size_t n) {
    for (size_t i = 0; i < n; i++) OC_TRY(oc_chat_ids_push(b->ids, id[i], b->ei));
    return OC_OK;
}

/* The word without the bytes that no token stands for, as `tokenizers` drops them. */
static enum oc_err drop_missing(struct oc_chat_bpe *b, struct oc_str *word) {
    oc_buf_clear(&b->filtered);
    for (size_t i = 0; i < word->n; i++) {
        if (b->tok->byte_id[(uint8_t)word->p[i]] == OC_CHAT_NO_ID) continue;
        if (!oc_buf_add_char(&b->filtered, word->p[i]))
            return oc_fail(b->ei, OC_ERR_LIMIT, "tokenizer: the text has a word over %zu bytes", OC_LIMIT_WORD_BYTES);
    }
    *word = (struct oc_str){oc_buf_str(&b->filtered), b->filtered.n_bytes};
    return OC_OK;
}

enum oc_err oc_chat_bpe_word(void *arg, struct oc_str word) {
    struct oc_chat_bpe *b = arg;
    const struct oc_chat_tokenizer *tok = b->tok;
    if (tok->bytes_missing) OC_TRY(drop_missing(b, &word));
    if (word.n == 0) return OC_OK;
    const uint8_t *p = (const uint8_t *)word.p;
    if (word.n == 1) return oc_chat_ids_push(b->ids, tok->byte_id[*p], b->ei);
    struct oc_chat_word_slot *slot = NULL;
    uint64_t hash = 0;
    if (word.n <= WORD_KEY) {
        hash = XXH3_64bits(word.p, word.n);
        slot = &b->cache[hash & b->cache_mask];
        if (slot->hash == hash && slot->n == word.n && memcmp(slot->key, word.p, word.n) == 0)
            return push_all(b, slot->ids, slot->n_ids);
    }
    uint32_t id[SHORT_WORD];
    size_t n_ids = 0;
    if (tok->ignore_merges) {
        id[0] = oc_chat_tokenizer_find_model(tok, word.p, word.n, false);
        if (id[0] != OC_CHAT_NO_ID && !(tok->token[id[0]].flags & OC_TOKEN_SPECIAL)) n_ids = 1;
    }
    if (n_ids == 0) {
        if (word.n > SHORT_WORD) return long_word(b, p, word.n);
        n_ids = merge_short(tok, p, word.n, id);
    }
    if (slot && n_ids <= WORD_IDS) {
        slot->hash = hash;
        slot->n = (uint8_t)word.n;
        slot->n_ids = (uint8_t)n_ids;
        memcpy(slot->key, word.p, word.n);
        memcpy(slot->ids, id, n_ids * sizeof *id);
    }
    return push_all(b, id, n_ids);
}
