/* Template source against fixed data: whatever it says, opening and rendering end, within their bounds, and
 * each byte of the text has an origin. */
#include <stdint.h>
#include <stdlib.h>

#include "base/limits.h"
#include "chat/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char messages[] =
    "[{\"role\":\"system\",\"content\":\"Sys "
    "\\u00e9\"},{\"role\":\"user\",\"content\":[{\"type\":\"image\"},{\"type\":\"text\","
    "\"text\":\" a\\nb <|im_end|> "
    "\"}]},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\","
    "\"arguments\":{\"x\":[1,2.5,true,null,12345678901234567890],\"k\":\"v\"}}}]},{\"role\":\"user\","
    "\"content\":\"q\"}]";
static const char extra[] = "{\"s\":\"Hello, "
                            "World\",\"n\":3,\"f\":-0.5,\"lst\":[3,\"a\",[1],null],\"d\":{\"b\":1,\"a\":{"
                            "\"c\":2}},\"enable_thinking\":false}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct oc_chat_template *t;
    struct oc_errinfo ei;
    if (oc_chat_template_open((struct oc_str){(const char *)data, n}, &t, &ei) != OC_OK) return 0;
    struct oc_arena a;
    struct oc_json m, x;
    oc_arena_init(&a, OC_MIB);
    if (oc_json_parse(&a, OC_STR(messages), "messages", &m, &ei) != OC_OK) abort();
    if (oc_json_parse(&a, OC_STR(extra), "extra", &x, &ei) != OC_OK) abort();
    struct oc_chat_render r = {.messages = &m,
                               .tools = &m,
                               .extra = &x,
                               .add_generation_prompt = true,
                               .bos_token = "<s>",
                               .eos_token = "</s>",
                               .now = 1700000000,
                               .max_steps = 20000,
                               .max_output_bytes = 64 * OC_KIB,
                               .max_memory_bytes = 16 * OC_MIB};
    struct oc_chat_text out;
    if (oc_chat_template_render(t, &r, &out, &ei) == OC_OK) {
        if (out.text.n_bytes != out.origin.n_bytes || !oc_utf8_valid(oc_buf_str(&out.text), out.text.n_bytes))
            abort();
        for (size_t i = 0; i < out.origin.n_bytes; i++) {
            if ((unsigned char)out.origin.data[i] > 1) abort();
        }
    }
    oc_chat_text_free(&out);
    oc_chat_template_close(t);
    oc_arena_free(&a);
    return 0;
}
