/* chat/tokenizer_impl.h - what the tokenizer's own files share; nobody else includes it. */
#ifndef OC_CHAT_TOKENIZER_IMPL_H
#define OC_CHAT_TOKENIZER_IMPL_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/json.h"
#include "chat/pretok.h"
#include "chat/tokenizer.h"

#define OC_TOKEN_ADDED 1u
#define OC_TOKEN_SPECIAL 2u
#define OC_TOKEN_OUTSIDE 8u /* added only: not in the model's vocabulary, so BPE never makes it */
#define OC_TOKEN_LITERAL 4u /* has characters outside the byte alphabet: its bytes are its text */

struct oc_chat_token {
    const char *p; /* the bytes it decodes to; NULL: no such id */
    uint32_t n;
    uint32_t flags;
};

struct oc_chat_added {
    struct oc_str content;
    uint32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
};

/* A byte trie: child and sibling lists, the first level a table. Node 0 is none. */
struct oc_chat_trie_node {
    uint32_t child, sibling;
    int32_t added; /* index into added, or -1 */
    uint8_t byte;
};

struct oc_chat_trie {
    struct oc_chat_trie_node *node;
    uint32_t n_nodes;
    uint32_t root[256];
};

struct oc_chat_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: empty slot */
    uint32_t rank, id;
};

struct oc_chat_first_merge {
    uint32_t rank, id; /* of two bytes side by side; rank UINT32_MAX: none */
};

struct oc_chat_tokenizer {
    struct oc_arena arena;
    uint32_t n_vocab;
    struct oc_chat_token *token; /* [n_vocab] */
    uint64_t *slot;              /* hash table of token bytes: high half of the hash, then id; UINT64_MAX: empty */
    uint32_t slot_mask;
    struct oc_chat_merge *merge; /* hash table of merges */
    uint32_t merge_mask;
    struct oc_chat_first_merge *first; /* [256 * 256] */
    uint32_t byte_id[256];             /* OC_CHAT_NO_ID: no such token, the byte is dropped */
    bool bytes_missing, ignore_merges, nfc;
    struct oc_chat_added *added;
    size_t n_added;
    struct oc_chat_trie raw, normalized; /* added tokens matched before and after normalisation */
    struct oc_chat_pretok pretok;
    uint32_t *special;
    size_t n_special;
    uint32_t *before, *after; /* ids the post-processor puts around a text */
    size_t n_before, n_after;
};

/* tokenizer_load.c: fills an empty tokenizer. config may be NULL. */
OC_MUST_CHECK enum oc_err oc_chat_tokenizer_load(struct oc_chat_tokenizer *tok, const struct oc_json *json,
                                                 const struct oc_json *config, struct oc_errinfo *ei);
/* The id whose bytes are s, among literal tokens or the others, or OC_CHAT_NO_ID. */
uint32_t oc_chat_tokenizer_find(const struct oc_chat_tokenizer *tok, const char *p, size_t n, bool literal);
/* The same, but only tokens of the model's own vocabulary. */
uint32_t oc_chat_tokenizer_find_model(const struct oc_chat_tokenizer *tok, const char *p, size_t n, bool literal);
/* Turns a token from its byte-level form to bytes in out[n]; false: it is literal, and copied as it is. */
bool oc_chat_token_from_text(struct oc_str text, char *out, size_t *n_out);

/* tokenizer_added.c */
OC_MUST_CHECK enum oc_err oc_chat_added_load(struct oc_chat_tokenizer *tok, const struct oc_json *json,
                                             const struct oc_json *config, struct oc_errinfo *ei);
/* Builds both tries. */
OC_MUST_CHECK enum oc_err oc_chat_added_index(struct oc_chat_tokenizer *tok, struct oc_errinfo *ei);

struct oc_chat_added_match {
    const struct oc_chat_added *added; /* NULL: none */
    size_t start, stop;                /* with white space that lstrip and rstrip take */
};

/* The next added token of `trie` in text, scanning from *scan (advanced past it); white space before `done` is
 * not taken again. Origins as in encode. */
struct oc_chat_added_match oc_chat_added_next(const struct oc_chat_tokenizer *tok, const struct oc_chat_trie *trie,
                                              struct oc_str text, const uint8_t *origin, size_t *scan, size_t done);

/* tokenizer_bpe.c */
struct oc_chat_word_slot;

struct oc_chat_bpe {
    const struct oc_chat_tokenizer *tok;
    struct oc_chat_ids *ids;
    struct oc_errinfo *ei;
    struct oc_chat_word_slot *cache; /* direct-mapped, [cache_mask + 1] */
    uint32_t cache_mask;
    struct oc_buf filtered; /* a word without the bytes that have no token */
};

/* For text_bytes of text in all; free it whether init succeeds or not. */
OC_MUST_CHECK enum oc_err oc_chat_bpe_init(struct oc_chat_bpe *b, const struct oc_chat_tokenizer *tok,
                                           size_t text_bytes, struct oc_chat_ids *ids, struct oc_errinfo *ei);
void oc_chat_bpe_free(struct oc_chat_bpe *b);
/* Appends the ids of one word (an oc_chat_pretok_fn; arg is the oc_chat_bpe). */
OC_MUST_CHECK enum oc_err oc_chat_bpe_word(void *arg, struct oc_str word);
/* Fills tok->first from the merge table. */
void oc_chat_bpe_index(struct oc_chat_tokenizer *tok);
/* Slot of a pair in the merge table: its own, or the empty one where it would go. */
struct oc_chat_merge *oc_chat_merge_slot(const struct oc_chat_tokenizer *tok, uint64_t pair);

#endif
