/* base/base64.h - RFC 4648 base64, decoding. Any thread; no state. */
#ifndef OC_BASE_BASE64_H
#define OC_BASE_BASE64_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* Bytes that `text` may decode to at most. */
size_t oc_base64_max_bytes(struct oc_str text);

/* Decodes text into out, which has room for oc_base64_max_bytes(text). The standard alphabet; whitespace is
 * skipped; the padding may be left out, but what is there must be right. Errors: OC_ERR_FORMAT with the
 * position. */
OC_MUST_CHECK enum oc_err oc_base64_decode(struct oc_str text, uint8_t *out, size_t *n_out,
                                           struct oc_errinfo *ei);

#endif
