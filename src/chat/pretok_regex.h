/* chat/pretok_regex.h - a tokenizer.json pattern run by PCRE2 with the meaning Oniguruma gives it.
 *
 * Hugging Face `tokenizers` runs patterns on Oniguruma (Ruby syntax, Unicode 16). PCRE2 is at another Unicode
 * version and differs in \s, \h, `.`, `^`, `$` and set operations, so every class is rewritten to explicit
 * ranges from chat/unicode.h, and whatever is not known to mean the same is refused. Called by chat/pretok.c. */
#ifndef OC_CHAT_PRETOK_REGEX_H
#define OC_CHAT_PRETOK_REGEX_H

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "chat/pretok.h"

/* Appends the PCRE2 form of an Oniguruma pattern. Errors: OC_ERR_UNSUPPORTED (names the construct),
 * OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_chat_regex_rewrite(struct oc_str pattern, struct oc_buf *out, struct oc_errinfo *ei);

/* Compiles a pattern; literal: it is plain text, not a regex. Errors: as above, also for a pattern that PCRE2
 * refuses or that can match nothing. */
OC_MUST_CHECK enum oc_err oc_chat_regex_open(struct oc_str pattern, bool literal, struct oc_chat_regex **out,
                                             struct oc_errinfo *ei);
void oc_chat_regex_close(struct oc_chat_regex *re);

/* First match in text (valid UTF-8) from byte `from`: *found, and its span. Errors: OC_ERR_LIMIT (the pattern
 * backtracks too much), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_chat_regex_find(const struct oc_chat_regex *re, struct oc_chat_pretok_scratch *scratch,
                                             struct oc_str text, size_t from, bool *found, size_t *start, size_t *stop,
                                             struct oc_errinfo *ei);

#endif
