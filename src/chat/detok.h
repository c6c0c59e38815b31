/* chat/detok.h - token ids back to text, a token at a time.
 *
 * Gives out whole UTF-8 characters only: bytes of a character whose rest may come with the next token wait.
 * Ill-formed bytes become U+FFFD. All pieces together equal what Hugging Face `decode` gives for the whole
 * sequence with clean_up_tokenization_spaces off. One stream, one thread at a time; owns no memory. */
#ifndef OC_CHAT_DETOK_H
#define OC_CHAT_DETOK_H

#include "base/buf.h"
#include "chat/tokenizer.h"

struct oc_chat_detok {
    const struct oc_chat_tokenizer *tok; /* borrowed */
    bool skip_special;
    char pending[4];
    size_t n_pending;
};

/* skip_special leaves out the tokens flagged special. */
void oc_chat_detok_init(struct oc_chat_detok *d, const struct oc_chat_tokenizer *tok, bool skip_special);

/* Appends to out the characters that id completes; an id that names no token gives none. Errors: OC_ERR_LIMIT
 * (out is full). */
OC_MUST_CHECK enum oc_err oc_chat_detok_feed(struct oc_chat_detok *d, uint32_t id, struct oc_buf *out,
                                             struct oc_errinfo *ei);

/* Ends the stream: a waiting part of a character becomes U+FFFD. Ready for a new stream after. Errors as above. */
OC_MUST_CHECK enum oc_err oc_chat_detok_finish(struct oc_chat_detok *d, struct oc_buf *out, struct oc_errinfo *ei);

/* A whole sequence at once. Errors as above. */
OC_MUST_CHECK enum oc_err oc_chat_detok_all(const struct oc_chat_tokenizer *tok, const uint32_t *ids, size_t n_ids,
                                            bool skip_special, struct oc_buf *out, struct oc_errinfo *ei);

#endif
