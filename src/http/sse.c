#include "http/sse.h"

/* CR, LF and CRLF all end a line of an event stream, so each of them must begin a new "data: ". */
static size_t line_end(struct oc_str s, size_t at) {
    while (at < s.n && s.p[at] != '\n' && s.p[at] != '\r') at++;
    return at;
}

void oc_http_sse_event(struct oc_buf *b, struct oc_str data) {
    size_t at = 0;
    for (;;) {
        size_t end = line_end(data, at);
        oc_buf_add_str(b, "data: ");
        oc_buf_add(b, data.p + at, end - at);
        oc_buf_add_char(b, '\n');
        if (end == data.n) break;
        at = end + 1;
        if (data.p[end] == '\r' && at < data.n && data.p[at] == '\n') at++;
    }
    oc_buf_add_char(b, '\n');
}

void oc_http_sse_comment(struct oc_buf *b, const char *text) {
    oc_buf_add_str(b, ": ");
    for (; *text; text++) oc_buf_add_char(b, *text == '\n' || *text == '\r' ? ' ' : *text);
    oc_buf_add_str(b, "\n\n");
}
