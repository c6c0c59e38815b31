/* http/sse.h - server-sent events: the bytes of one event. */
#ifndef OC_HTTP_SSE_H
#define OC_HTTP_SSE_H

#include "base/buf.h"
#include "base/str.h"

/* Appends "data: <data>\n\n"; every line of data gets its own "data: ". */
void oc_http_sse_event(struct oc_buf *b, struct oc_str data);
/* Appends ": <text>\n\n". */
void oc_http_sse_comment(struct oc_buf *b, const char *text);

#endif
