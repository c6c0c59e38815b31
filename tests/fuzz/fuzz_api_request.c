/* Any bytes as the body of a request: what is accepted can be handed on, what is refused says why in an
 * object that is JSON. */
#include <stdint.h>

#include "api/request.h"
#include "base/limits.h"
#include "chat/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MAX_PICTURES 3

static void check_error(const struct oc_api_error *e) {
    struct oc_arena a;
    struct oc_buf b;
    struct oc_json j;
    oc_arena_init(&a, OC_MIB);
    oc_buf_init(&b, OC_MIB);
    OC_ASSERT(e->message[0] != '\0');
    OC_ASSERT(oc_api_error_status(e->problem) == 400 || oc_api_error_status(e->problem) == 413);
    oc_api_error_write(&b, e);
    OC_ASSERT(oc_json_parse(&a, (struct oc_str){b.data, b.n_bytes}, "error", &j, NULL) == OC_OK);
    oc_buf_free(&b);
    oc_arena_free(&a);
}

static void check_messages(struct oc_arena *a, const struct oc_json *messages,
                           const struct oc_api_request *r) {
    struct oc_chat_messages m;
    struct oc_errinfo ei;
    enum oc_err err = oc_chat_messages_prepare(a, messages, true, true, &m, &ei);
    OC_ASSERT(err == OC_OK || err == OC_ERR_NOMEM);
    OC_ASSERT(err || !r || m.n_images == r->n_pictures);
    for (size_t i = 0; r && !err && i < m.n_images; i++)
        OC_ASSERT(oc_str_eq(m.images[i].source, r->pictures[i].url) && r->pictures[i].url.n);
}

static void check_request(struct oc_arena *a, const struct oc_api_request *r) {
    OC_ASSERT(r->n >= 1 && r->n <= OC_LIMIT_API_CHOICES && r->n_stop <= OC_LIMIT_STOP_STRINGS);
    OC_ASSERT(r->max_tokens >= 0 && r->top_logprobs >= 0 && r->top_logprobs <= OC_LIMIT_TOP_LOGPROBS);
    OC_ASSERT(!r->temperature.given || (r->temperature.value >= 0 && r->temperature.value <= 2));
    OC_ASSERT(!r->top_p.given || (r->top_p.value > 0 && r->top_p.value <= 1));
    OC_ASSERT(!r->top_k.given || r->top_k.value >= 0);
    OC_ASSERT(r->n_pictures <= MAX_PICTURES && r->n_biases <= OC_LIMIT_API_BIASES);
    for (size_t i = 0; i < r->n_prompt_tokens; i++)
        OC_ASSERT(r->prompt_tokens[i] >= 0 && r->prompt_tokens[i] < OC_LIMIT_VOCAB);
    if (r->is_chat)
        check_messages(a, &r->messages, r);
    else
        OC_ASSERT(r->prompt.n > 0 || r->n_prompt_tokens > 0);
}

static void run(struct oc_str body, int kind) {
    struct oc_arena a;
    struct oc_api_error e = {0};
    struct oc_api_request r;
    struct oc_api_tokenize t;
    struct oc_api_detokenize d;
    oc_arena_init(&a, 16 * OC_MIB);
    bool ok = kind < 2    ? oc_api_request_parse(&a, body, kind == 0, MAX_PICTURES, &r, &e)
              : kind == 2 ? oc_api_tokenize_parse(&a, body, &t, &e)
                          : oc_api_detokenize_parse(&a, body, &d, &e);
    if (!ok) check_error(&e);
    if (ok && kind < 2) check_request(&a, &r);
    if (ok && kind == 2 && t.messages.type == OC_JSON_ARR) check_messages(&a, &t.messages, NULL);
    oc_arena_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    for (int kind = 0; kind < 4; kind++) run((struct oc_str){(const char *)data, n}, kind);
    return 0;
}
