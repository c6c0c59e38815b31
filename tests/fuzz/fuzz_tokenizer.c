/* Hostile tokenizer.json, a NUL, then hostile text: encoding keeps its promises whatever the vocabulary is. */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "chat/detok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_encode(const struct oc_chat_tokenizer *tok, struct oc_str text, const uint8_t *origin) {
    struct oc_chat_ids ids;
    struct oc_buf out;
    oc_chat_ids_init(&ids, 1 << 16);
    oc_buf_init(&out, OC_MIB);
    if (oc_chat_tokenizer_encode(tok, text, origin, 0, &ids, NULL) == OC_OK) {
        for (size_t i = 0; i < ids.n; i++) {
            struct oc_str bytes = oc_chat_tokenizer_bytes(tok, ids.v[i]);
            OC_ASSERT(bytes.p);
            OC_ASSERT(!origin || bytes.n == 1 || !oc_chat_tokenizer_is_special(tok, ids.v[i])); /* a user's */
        }
        if (oc_chat_detok_all(tok, ids.v, ids.n, false, &out, NULL) == OC_OK)
            OC_ASSERT(oc_utf8_valid(oc_buf_str(&out), out.n_bytes));
    }
    oc_buf_free(&out);
    oc_chat_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const uint8_t *nul = memchr(data, 0, n);
    size_t json_bytes = nul ? (size_t)(nul - data) : n;
    struct oc_str json = {(const char *)data, json_bytes};
    struct oc_chat_tokenizer *tok;
    struct oc_errinfo ei;
    if (oc_chat_tokenizer_open_json(json, (struct oc_str){0}, "fuzz", &tok, &ei) != OC_OK) {
        OC_ASSERT(ei.msg[0]);
        return 0;
    }
    struct oc_str text = {"<|a|>hello <|a|>", 16};
    if (nul) text = (struct oc_str){(const char *)nul + 1, n - json_bytes - 1};
    uint8_t *user = calloc(text.n + 1, 1);
    if (!user) abort();
    check_encode(tok, text, NULL);
    check_encode(tok, text, user);
    free(user);
    oc_chat_tokenizer_close(tok);
    return 0;
}
