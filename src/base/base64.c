#include "base/base64.h"

size_t oc_base64_max_bytes(struct oc_str text) {
    return text.n / 4 * 3 + 3;
}

static int digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

enum oc_err oc_base64_decode(struct oc_str text, uint8_t *out, size_t *n_out, struct oc_errinfo *ei) {
    uint32_t bits = 0;
    size_t n_digits = 0, n_pads = 0, n = 0;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n') continue;
        int d = digit(c);
        if (c == '=')
            n_pads++;
        else if (d < 0 || n_pads)
            return oc_fail(ei, OC_ERR_FORMAT, "not base64 at byte %zu", i);
        if (c == '=') continue;
        bits = bits << 6 | (uint32_t)d;
        if (++n_digits % 4) continue;
        out[n++] = (uint8_t)(bits >> 16);
        out[n++] = (uint8_t)(bits >> 8);
        out[n++] = (uint8_t)bits;
    }
    size_t rest = n_digits % 4;
    if (rest == 1 || (n_pads && n_pads != (4 - rest) % 4))
        return oc_fail(ei, OC_ERR_FORMAT, "base64 that ends too early");
    if (rest == 2) out[n++] = (uint8_t)(bits >> 4);
    if (rest == 3) {
        out[n++] = (uint8_t)(bits >> 10);
        out[n++] = (uint8_t)(bits >> 2);
    }
    *n_out = n;
    return OC_OK;
}
