/* http/ctype.h - classes of bytes in HTTP/1.1 heads (RFC 9110 section 5.6, RFC 3986 appendix A), and
 * comparison of ASCII names. Internal to the room; any thread. */
#ifndef OC_HTTP_CTYPE_H
#define OC_HTTP_CTYPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum {
    OC_HTTP_TCHAR = 1,  /* of a token: methods, field names, chunk extension names */
    OC_HTTP_FIELD = 2,  /* of a field value: visible, blank, tab, obs-text */
    OC_HTTP_TARGET = 4, /* of any form of request target */
    OC_HTTP_PCHAR = 8,  /* of a path segment; '%' only before two hex digits */
    OC_HTTP_DIGIT = 16,
    OC_HTTP_HEX = 32,
    OC_HTTP_NAME = 64, /* of a registered name (a host) */
};

bool oc_http_is(uint8_t c, int classes);
/* 0 to 15 for a hex digit, -1 otherwise. */
int oc_http_hex(uint8_t c);
/* Equal but for the case of ASCII letters. */
bool oc_http_same(struct oc_str s, const char *lit);
/* Without blanks and tabs at both ends. */
struct oc_str oc_http_trim(struct oc_str s);

#endif
