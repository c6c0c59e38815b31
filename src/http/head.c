/* The machine over the bytes of a head. Each step says which bytes may come next (RFC 9112 sections 2 to 5,
 * without its leniencies); what the lines mean is head_rules.c. */
#include "http/head.h"

#include <stdlib.h>

#include "base/limits.h"
#include "http/ctype.h"

enum state {
    AT_START,
    AT_START_LF,
    IN_METHOD,
    IN_TARGET,
    IN_VERSION,
    AT_LINE_LF,
    AT_FIELD,
    IN_NAME,
    IN_VALUE,
    AT_FIELD_LF,
    AT_END_LF,
    IS_DONE,
    IS_BAD,
};

void oc_http_head_init(struct oc_http_head *h, size_t max_bytes) {
    *h = (struct oc_http_head){.max_bytes = max_bytes, .state = AT_START};
    oc_buf_init(&h->text, max_bytes);
}

void oc_http_head_free(struct oc_http_head *h) {
    oc_buf_free(&h->text);
    free(h->fields);
    oc_http_head_init(h, h->max_bytes);
}

void oc_http_head_refuse(struct oc_http_head *h, int status, const char *message) {
    h->state = IS_BAD;
    h->fault = (struct oc_http_fault){status, message};
}

static void bad(struct oc_http_head *h, const char *message) {
    oc_http_head_refuse(h, 400, message);
}

static void step_start(struct oc_http_head *h, uint8_t c, size_t at) {
    if (c == '\r' && !h->skipped_line) {
        h->state = AT_START_LF;
    } else if (oc_http_is(c, OC_HTTP_TCHAR)) {
        h->method_at = at;
        h->state = IN_METHOD;
    } else if (c == 0x16) {
        bad(h, "This port speaks HTTP without TLS.");
    } else {
        bad(h, "The request line must begin with a method.");
    }
}

static void step_start_lf(struct oc_http_head *h, uint8_t c, size_t at) {
    (void)at;
    if (c != '\n') {
        bad(h, "A CR must be followed by LF.");
        return;
    }
    h->skipped_line = true;
    h->state = AT_START;
}

static void step_method(struct oc_http_head *h, uint8_t c, size_t at) {
    if (c == ' ') {
        h->target_at = at + 1;
        h->state = IN_TARGET;
    } else if (!oc_http_is(c, OC_HTTP_TCHAR)) {
        bad(h, "The method is no token, or not followed by one blank.");
    } else if (at - h->method_at >= OC_LIMIT_HTTP_METHOD_BYTES) {
        oc_http_head_refuse(h, 501, "The method is not known.");
    }
}

static void step_target(struct oc_http_head *h, uint8_t c, size_t at) {
    if (c == ' ' && at > h->target_at) {
        h->version_at = at + 1;
        h->state = IN_VERSION;
    } else if (!oc_http_is(c, OC_HTTP_TARGET)) {
        bad(h, "The request target holds a byte that is not allowed there, or the HTTP version is missing.");
    } else if (at - h->target_at >= OC_LIMIT_HTTP_TARGET_BYTES) {
        oc_http_head_refuse(h, 414, "The request target is too long.");
    }
}

/* Said at the end of the line, so that "HTTP/2.0" is told apart from what is no version at all. */
static void check_version(struct oc_http_head *h, char major, char minor) {
    if (major != '1' || (minor != '0' && minor != '1')) {
        oc_http_head_refuse(h, 505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.");
        return;
    }
    h->minor = minor - '0';
    h->state = AT_LINE_LF;
}

static void step_version(struct oc_http_head *h, uint8_t c, size_t at) {
    static const char pattern[] = "HTTP/0.0\r"; /* '0' stands for any digit */
    size_t i = at - h->version_at;
    if (pattern[i] == '0' ? !oc_http_is(c, OC_HTTP_DIGIT) : c != (uint8_t)pattern[i]) {
        bad(h, "The request line must end in HTTP/1.1 or HTTP/1.0 and CRLF.");
        return;
    }
    if (pattern[i] == '.') return;
    if (i == 5) h->minor = c; /* kept here until the line is whole: the major digit */
    if (i == 7) h->minor = h->minor << 8 | c;
    if (c == '\r') check_version(h, (char)(h->minor >> 8), (char)(h->minor & 0xFF));
}

static void step_line_lf(struct oc_http_head *h, uint8_t c, size_t at) {
    if (c != '\n') {
        bad(h, "A CR must be followed by LF.");
        return;
    }
    h->fields_at = at + 1;
    h->state = AT_FIELD;
}

static void step_field(struct oc_http_head *h, uint8_t c, size_t at) {
    (void)at;
    if (c == '\r') {
        h->state = AT_END_LF;
    } else if (c == ' ' || c == '\t') {
        bad(h, "Header fields must not be folded over lines.");
    } else if (!oc_http_is(c, OC_HTTP_TCHAR)) {
        bad(h, "A header field must begin with its name.");
    } else if (h->n_lines >= OC_LIMIT_HTTP_HEADERS) {
        oc_http_head_refuse(h, 431, "The request has too many header fields.");
    } else {
        h->n_lines++;
        h->state = IN_NAME;
    }
}

static void step_name(struct oc_http_head *h, uint8_t c, size_t at) {
    (void)at;
    if (c == ':') {
        h->state = IN_VALUE;
    } else if (!oc_http_is(c, OC_HTTP_TCHAR)) {
        bad(h, "The name of a header field must be a token followed by a colon.");
    }
}

static void step_value(struct oc_http_head *h, uint8_t c, size_t at) {
    (void)at;
    if (c == '\r') {
        h->state = AT_FIELD_LF;
    } else if (!oc_http_is(c, OC_HTTP_FIELD)) {
        bad(h, "The value of a header field holds a control byte, or its line does not end in CRLF.");
    }
}

static void step_field_lf(struct oc_http_head *h, uint8_t c, size_t at) {
    (void)at;
    if (c == '\n') {
        h->state = AT_FIELD;
    } else {
        bad(h, "A CR must be followed by LF.");
    }
}

static void step_end_lf(struct oc_http_head *h, uint8_t c, size_t at) {
    (void)at;
    if (c == '\n') {
        h->state = IS_DONE;
    } else {
        bad(h, "A CR must be followed by LF.");
    }
}

typedef void step_fn(struct oc_http_head *h, uint8_t c, size_t at);

static step_fn *const steps[] = {
    [AT_START] = step_start,       [AT_START_LF] = step_start_lf, [IN_METHOD] = step_method,
    [IN_TARGET] = step_target,     [IN_VERSION] = step_version,   [AT_LINE_LF] = step_line_lf,
    [AT_FIELD] = step_field,       [IN_NAME] = step_name,         [IN_VALUE] = step_value,
    [AT_FIELD_LF] = step_field_lf, [AT_END_LF] = step_end_lf,
};

static void step(struct oc_http_head *h, uint8_t c, size_t at) {
    if (at >= h->max_bytes) {
        bool in_line = h->state <= IN_TARGET;
        oc_http_head_refuse(h, in_line ? 414 : 431,
                            in_line ? "The request target is too long." : "The header fields are too long.");
        return;
    }
    steps[h->state](h, c, at);
}

enum oc_http_parse oc_http_head_feed(struct oc_http_head *h, const char *p, size_t n, size_t *n_taken) {
    size_t i = 0;
    while (i < n && h->state < IS_DONE) {
        step(h, (uint8_t)p[i], h->text.n_bytes + i);
        i++;
    }
    *n_taken = i;
    if (h->state == IS_BAD) {
        oc_buf_add(&h->text, p, i ? i - 1 : 0); /* for oc_http_head_is_head; its failure changes nothing */
        return OC_HTTP_BAD;
    }
    if (!oc_buf_add(&h->text, p, i)) {
        oc_http_head_refuse(h, 503, "There is no memory for the request.");
        return OC_HTTP_BAD;
    }
    if (h->state != IS_DONE) return OC_HTTP_MORE;
    return oc_http_head_rules(h) ? OC_HTTP_DONE : OC_HTTP_BAD;
}

bool oc_http_head_begun(const struct oc_http_head *h) {
    return h->state != AT_START;
}

bool oc_http_head_is_head(const struct oc_http_head *h) {
    size_t n = h->target_at - h->method_at;
    return h->target_at > 0 && n == 5 && h->text.n_bytes >= h->target_at &&
           memcmp(h->text.data + h->method_at, "HEAD ", 5) == 0;
}
