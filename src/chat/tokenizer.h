/* chat/tokenizer.h - byte-level BPE: text to token ids, and what each id is.
 *
 * Reads a Hugging Face tokenizer.json and gives the ids that the `tokenizers` library gives. Byte-level BPE only
 * (GPT-2, Llama 3, Qwen2 and their kin); other kinds are refused by name. A tokenizer is immutable after open:
 * any number of threads may use one. Decoding is chat/detok.h. */
#ifndef OC_CHAT_TOKENIZER_H
#define OC_CHAT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct oc_chat_tokenizer;

#define OC_CHAT_NO_ID UINT32_MAX

/* A growing array of token ids with a maximum; owner: whoever called init. */
struct oc_chat_ids {
    uint32_t *v;
    size_t n, cap, max;
};

void oc_chat_ids_init(struct oc_chat_ids *ids, size_t max);
void oc_chat_ids_free(struct oc_chat_ids *ids);
/* Errors: OC_ERR_LIMIT (max reached), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_chat_ids_push(struct oc_chat_ids *ids, uint32_t id, struct oc_errinfo *ei);

/* Opens tokenizer.json. config_path, a tokenizer_config.json whose `added_tokens_decoder` adds tokens or changes
 * their flags, may be NULL. Errors: those of oc_json_load; OC_ERR_FORMAT (a merge of unknown tokens, two tokens
 * with one id, ...); OC_ERR_UNSUPPORTED (model type, normalizer, pattern: named); OC_ERR_LIMIT; OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_chat_tokenizer_open(const char *path, const char *config_path,
                                                 struct oc_chat_tokenizer **out, struct oc_errinfo *ei);

/* The same from JSON text; config may be empty. `name` stands in messages. */
OC_MUST_CHECK enum oc_err oc_chat_tokenizer_open_json(struct oc_str json, struct oc_str config, const char *name,
                                                      struct oc_chat_tokenizer **out, struct oc_errinfo *ei);
void oc_chat_tokenizer_close(struct oc_chat_tokenizer *tok);

/* flags of encode: add what the post-processor adds around a single text (Llama 3: its begin token). */
#define OC_CHAT_ENCODE_ADD_SPECIAL 1u

/* Appends the ids of text. Ill-formed UTF-8 counts as U+FFFD, as Python's decode("utf-8", "replace") does it.
 * origin: NULL for a raw prompt, in which every added token is recognised; else one byte per byte of text, 1
 * where the chat template wrote it and 0 where a user did. A token flagged special is then recognised only where
 * all its bytes have origin 1, and never comes out of merges. (A special token that is a single byte of the base
 * alphabet, which some models use for padding, remains that byte's only name and is exempt.) Added tokens not
 * flagged special are recognised anywhere.
 * On error the ids appended so far stay. Errors: OC_ERR_LIMIT (ids->max; text over OC_LIMIT_PROMPT_BYTES or with
 * a word over OC_LIMIT_WORD_BYTES; a regex's match limit), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_chat_tokenizer_encode(const struct oc_chat_tokenizer *tok, struct oc_str text,
                                                   const uint8_t *origin, unsigned flags, struct oc_chat_ids *ids,
                                                   struct oc_errinfo *ei);

/* One more than the highest id; some ids below it may name no token. */
uint32_t oc_chat_tokenizer_n_vocab(const struct oc_chat_tokenizer *tok);

/* The id of a token as tokenizer.json writes it (byte-level form, "\u0120the"), or OC_CHAT_NO_ID. */
uint32_t oc_chat_tokenizer_id(const struct oc_chat_tokenizer *tok, struct oc_str token);

/* The bytes that decoding the id gives (maybe part of a character); p is NULL when the id names no token. Lives
 * as long as tok. */
struct oc_str oc_chat_tokenizer_bytes(const struct oc_chat_tokenizer *tok, uint32_t id);

bool oc_chat_tokenizer_is_special(const struct oc_chat_tokenizer *tok, uint32_t id);
bool oc_chat_tokenizer_is_added(const struct oc_chat_tokenizer *tok, uint32_t id);

/* The special ids in ascending order, *n of them; lives as long as tok. */
const uint32_t *oc_chat_tokenizer_special_ids(const struct oc_chat_tokenizer *tok, size_t *n);

#endif
