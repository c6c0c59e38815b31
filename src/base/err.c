#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum oc_err oc_fail(struct oc_errinfo *ei, enum oc_err code, const char *fmt, ...) {
    OC_ASSERT(code != OC_OK);
    if (!ei) return code;
    va_list ap;
    va_start(ap, fmt);
    ei->code = code;
    vsnprintf(ei->msg, sizeof ei->msg, fmt, ap);
    va_end(ap);
    return code;
}

enum oc_err oc_fail_prefix(struct oc_errinfo *ei, enum oc_err code, const char *fmt, ...) {
    if (!ei) return code;
    char old[OC_ERRINFO_MAX];
    memcpy(old, ei->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(ei->msg, sizeof ei->msg, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof ei->msg) return code;
    snprintf(ei->msg + n, sizeof ei->msg - (size_t)n, ": %s", old);
    return code;
}

const char *oc_err_name(enum oc_err code) {
    static const char *const names[] = {
        [OC_OK] = "ok",           [OC_ERR_USAGE] = "usage",     [OC_ERR_IO] = "io",
        [OC_ERR_NOT_FOUND] = "not_found", [OC_ERR_FORMAT] = "format", [OC_ERR_UNSUPPORTED] = "unsupported",
        [OC_ERR_LIMIT] = "limit", [OC_ERR_NOMEM] = "no_memory", [OC_ERR_CANCELLED] = "cancelled",
    };
    if ((unsigned)code >= sizeof names / sizeof names[0]) return "unknown";
    return names[code];
}

void oc_assert_failed(const char *expr, const char *file, int line) {
    fprintf(stderr, "ocellus: bug: %s at %s:%d\n", expr, file, line);
    abort();
}
