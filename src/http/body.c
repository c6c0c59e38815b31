#include "http/body.h"

#include "base/limits.h"
#include "http/ctype.h"

enum state {
    IN_LENGTH, /* Content-Length: `left` bytes to come */
    AT_SIZE,   /* chunked, from here on */
    IN_SIZE,
    BEFORE_EXT, /* blanks were seen: only ';' may follow */
    AT_EXT_NAME,
    IN_EXT_NAME,
    AFTER_EXT_NAME, /* blanks were seen: '=' or ';' may follow */
    AT_EXT_VALUE,
    IN_EXT_VALUE,
    IN_QUOTED,
    IN_QUOTED_PAIR,
    AFTER_QUOTED,
    AT_SIZE_LF,
    IN_DATA,
    AT_DATA_CR,
    AT_DATA_LF,
    AT_TRAILER,
    IN_TRAILER_NAME,
    IN_TRAILER_VALUE,
    AT_TRAILER_LF,
    AT_END_LF,
    IS_DONE,
    IS_BAD,
};

static enum state refuse(struct oc_http_body *b, int status, const char *message) {
    b->fault = (struct oc_http_fault){status, message};
    return IS_BAD;
}

static enum state refuse_chunk(struct oc_http_body *b) {
    return refuse(b, 400, "The chunked body is ill-formed.");
}

static enum state refuse_large(struct oc_http_body *b) {
    return refuse(b, 413, "The body is too large.");
}

enum oc_http_parse oc_http_body_begin(struct oc_http_body *b, const struct oc_http_head *h, size_t max_bytes,
                                      bool discard) {
    *b = (struct oc_http_body){.chunked = h->chunked, .discard = discard, .max = max_bytes};
    oc_buf_init(&b->bytes, max_bytes);
    b->state = h->chunked ? AT_SIZE : IN_LENGTH;
    if (h->chunked) return OC_HTTP_MORE;
    b->left = h->length;
    if (b->left > max_bytes) {
        b->state = refuse_large(b);
        return OC_HTTP_BAD;
    }
    /* Reserved at once, so that a large body is never copied while it grows; untouched pages cost nothing. */
    if (!discard && b->left && !oc_buf_reserve(&b->bytes, b->left)) {
        b->state = refuse(b, 503, "There is no memory for the body.");
        return OC_HTTP_BAD;
    }
    if (b->left == 0) b->state = IS_DONE;
    return b->left ? OC_HTTP_MORE : OC_HTTP_DONE;
}

void oc_http_body_free(struct oc_http_body *b) {
    oc_buf_free(&b->bytes);
}

/* ---- Steps over the bytes between the data ------------------------------------------------------------- */

static bool is_blank(uint8_t c) {
    return c == ' ' || c == '\t';
}

static enum state step_size(struct oc_http_body *b, uint8_t c) {
    int digit = oc_http_hex(c);
    if (digit >= 0) {
        if (b->state == AT_SIZE) b->left = b->n_digits = 0;
        if (++b->n_digits > OC_LIMIT_HTTP_CHUNK_DIGITS) return refuse_chunk(b);
        b->left = b->left << 4 | (unsigned)digit; /* 16 digits fill 64 bits */
        return IN_SIZE;
    }
    if (b->state == AT_SIZE) return refuse_chunk(b);
    if (c == '\r') return AT_SIZE_LF;
    if (c == ';') return AT_EXT_NAME;
    return is_blank(c) ? BEFORE_EXT : refuse_chunk(b);
}

static enum state step_before_ext(struct oc_http_body *b, uint8_t c) {
    if (c == ';') return AT_EXT_NAME;
    return is_blank(c) ? BEFORE_EXT : refuse_chunk(b);
}

static enum state step_at_ext_name(struct oc_http_body *b, uint8_t c) {
    if (is_blank(c)) return AT_EXT_NAME;
    return oc_http_is(c, OC_HTTP_TCHAR) ? IN_EXT_NAME : refuse_chunk(b);
}

static enum state step_in_ext_name(struct oc_http_body *b, uint8_t c) {
    if (oc_http_is(c, OC_HTTP_TCHAR)) return IN_EXT_NAME;
    if (c == '\r') return AT_SIZE_LF;
    if (c == ';') return AT_EXT_NAME;
    if (c == '=') return AT_EXT_VALUE;
    return is_blank(c) ? AFTER_EXT_NAME : refuse_chunk(b);
}

static enum state step_after_ext_name(struct oc_http_body *b, uint8_t c) {
    if (c == ';') return AT_EXT_NAME;
    if (c == '=') return AT_EXT_VALUE;
    return is_blank(c) ? AFTER_EXT_NAME : refuse_chunk(b);
}

static enum state step_at_ext_value(struct oc_http_body *b, uint8_t c) {
    if (is_blank(c)) return AT_EXT_VALUE;
    if (c == '"') return IN_QUOTED;
    return oc_http_is(c, OC_HTTP_TCHAR) ? IN_EXT_VALUE : refuse_chunk(b);
}

static enum state step_in_ext_value(struct oc_http_body *b, uint8_t c) {
    if (oc_http_is(c, OC_HTTP_TCHAR)) return IN_EXT_VALUE;
    if (c == '\r') return AT_SIZE_LF;
    if (c == ';') return AT_EXT_NAME;
    return is_blank(c) ? BEFORE_EXT : refuse_chunk(b);
}

static enum state step_in_quoted(struct oc_http_body *b, uint8_t c) {
    if (c == '"') return AFTER_QUOTED;
    if (c == '\\') return IN_QUOTED_PAIR;
    return oc_http_is(c, OC_HTTP_FIELD) ? IN_QUOTED : refuse_chunk(b);
}

static enum state step_in_quoted_pair(struct oc_http_body *b, uint8_t c) {
    return oc_http_is(c, OC_HTTP_FIELD) ? IN_QUOTED : refuse_chunk(b);
}

static enum state step_after_quoted(struct oc_http_body *b, uint8_t c) {
    if (c == '\r') return AT_SIZE_LF;
    if (c == ';') return AT_EXT_NAME;
    return is_blank(c) ? BEFORE_EXT : refuse_chunk(b);
}

static enum state step_size_lf(struct oc_http_body *b, uint8_t c) {
    if (c != '\n') return refuse_chunk(b);
    if (b->left == 0) return AT_TRAILER;
    return b->left > b->max - b->total ? refuse_large(b) : IN_DATA;
}

static enum state step_data_cr(struct oc_http_body *b, uint8_t c) {
    return c == '\r' ? AT_DATA_LF : refuse_chunk(b);
}

static enum state step_data_lf(struct oc_http_body *b, uint8_t c) {
    return c == '\n' ? AT_SIZE : refuse_chunk(b);
}

static enum state refuse_trailer(struct oc_http_body *b) {
    return refuse(b, 400, "The trailer fields are ill-formed.");
}

static enum state step_trailer(struct oc_http_body *b, uint8_t c) {
    if (c == '\r') return AT_END_LF;
    return oc_http_is(c, OC_HTTP_TCHAR) ? IN_TRAILER_NAME : refuse_trailer(b);
}

static enum state step_trailer_name(struct oc_http_body *b, uint8_t c) {
    if (c == ':') return IN_TRAILER_VALUE;
    return oc_http_is(c, OC_HTTP_TCHAR) ? IN_TRAILER_NAME : refuse_trailer(b);
}

static enum state step_trailer_value(struct oc_http_body *b, uint8_t c) {
    if (c == '\r') return AT_TRAILER_LF;
    return oc_http_is(c, OC_HTTP_FIELD) ? IN_TRAILER_VALUE : refuse_trailer(b);
}

static enum state step_trailer_lf(struct oc_http_body *b, uint8_t c) {
    return c == '\n' ? AT_TRAILER : refuse_trailer(b);
}

static enum state step_end_lf(struct oc_http_body *b, uint8_t c) {
    return c == '\n' ? IS_DONE : refuse_trailer(b);
}

typedef enum state step_fn(struct oc_http_body *b, uint8_t c);

static step_fn *const steps[] = {
    [AT_SIZE] = step_size,
    [IN_SIZE] = step_size,
    [BEFORE_EXT] = step_before_ext,
    [AT_EXT_NAME] = step_at_ext_name,
    [IN_EXT_NAME] = step_in_ext_name,
    [AFTER_EXT_NAME] = step_after_ext_name,
    [AT_EXT_VALUE] = step_at_ext_value,
    [IN_EXT_VALUE] = step_in_ext_value,
    [IN_QUOTED] = step_in_quoted,
    [IN_QUOTED_PAIR] = step_in_quoted_pair,
    [AFTER_QUOTED] = step_after_quoted,
    [AT_SIZE_LF] = step_size_lf,
    [AT_DATA_CR] = step_data_cr,
    [AT_DATA_LF] = step_data_lf,
    [AT_TRAILER] = step_trailer,
    [IN_TRAILER_NAME] = step_trailer_name,
    [IN_TRAILER_VALUE] = step_trailer_value,
    [AT_TRAILER_LF] = step_trailer_lf,
    [AT_END_LF] = step_end_lf,
};

static void step(struct oc_http_body *b, uint8_t c) {
    b->state = steps[b->state](b, c);
    if (b->state >= BEFORE_EXT && b->state <= AFTER_QUOTED &&
        ++b->n_ext_bytes > OC_LIMIT_HTTP_CHUNK_EXT_BYTES)
        b->state = refuse(b, 400, "The chunk extensions are too long.");
    if (b->state >= IN_TRAILER_NAME && b->state <= AT_TRAILER_LF &&
        ++b->n_trailer_bytes > OC_LIMIT_HTTP_TRAILER_BYTES)
        b->state = refuse(b, 431, "The trailer fields are too long.");
}

/* ---- Data ---------------------------------------------------------------------------------------------- */

static size_t take_data(struct oc_http_body *b, const char *p, size_t n) {
    size_t take = b->left < n ? (size_t)b->left : n;
    if (!b->discard && !oc_buf_add(&b->bytes, p, take)) {
        b->state = refuse(b, 503, "There is no memory for the body.");
        return take;
    }
    b->left -= take;
    b->total += take;
    if (b->left == 0) b->state = b->chunked ? AT_DATA_CR : IS_DONE;
    return take;
}

enum oc_http_parse oc_http_body_feed(struct oc_http_body *b, const char *p, size_t n, size_t *n_taken) {
    size_t i = 0;
    while (i < n && b->state < IS_DONE) {
        if (b->state == IN_DATA || b->state == IN_LENGTH) {
            i += take_data(b, p + i, n - i);
        } else {
            step(b, (uint8_t)p[i++]);
        }
    }
    *n_taken = i;
    if (b->state == IS_BAD) return OC_HTTP_BAD;
    return b->state == IS_DONE ? OC_HTTP_DONE : OC_HTTP_MORE;
}
