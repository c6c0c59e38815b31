/* chat/stop.h - stop strings in a stream of text.
 *
 * Takes the answer piece by piece, wherever the pieces are cut, and passes on all of it up to the stop string
 * that is complete first (of several complete at the same byte, the longest). Holds back only what may still
 * become one. One stream, one thread at a time. */
#ifndef OC_CHAT_STOP_H
#define OC_CHAT_STOP_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct oc_chat_stop;

/* Copies n_strings strings. Errors: OC_ERR_USAGE (an empty string, one that is not UTF-8), OC_ERR_LIMIT (over
 * OC_LIMIT_STOP_STRINGS or OC_LIMIT_STOP_BYTES), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_chat_stop_open(const struct oc_str *strings, size_t n_strings, struct oc_chat_stop **out,
                                            struct oc_errinfo *ei);
void oc_chat_stop_close(struct oc_chat_stop *st);

/* Takes a piece and appends to out what is certain. *hit becomes the index of the stop string reached, or -1;
 * once it is reached, later pieces are dropped. Errors: OC_ERR_LIMIT (out is full). */
OC_MUST_CHECK enum oc_err oc_chat_stop_feed(struct oc_chat_stop *st, struct oc_str piece, struct oc_buf *out, int *hit,
                                            struct oc_errinfo *ei);

/* Ends the stream: appends what was held back. Ready for a new stream after. Errors as above. */
OC_MUST_CHECK enum oc_err oc_chat_stop_finish(struct oc_chat_stop *st, struct oc_buf *out, struct oc_errinfo *ei);

#endif
