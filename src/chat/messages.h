/* chat/messages.h - OpenAI-style messages to the list of messages that a chat template expects.
 *
 * Content is a string or a list of parts. A text part stays {"type":"text","text":...}; picture parts
 * ({"type":"image_url","image_url":{"url":...}} or a plain url string; {"type":"image"} with "image", "url"
 * or "path", or with none of them) become {"type":"image"} in their place, and their sources are listed in
 * order. What the template can read decides the form (oc_chat_template_takes_text / _parts): a string for a
 * template of parts becomes one text part; parts for a template of text are joined with "\n", pictures
 * refused. A tool call's "arguments" in the API's form, a string of JSON, become the object that templates
 * expect. Everything else in a message is passed on. Any thread; no state. */
#ifndef OC_CHAT_MESSAGES_H
#define OC_CHAT_MESSAGES_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"
#include "base/str.h"

struct oc_chat_image {
    struct oc_str source; /* url, data url or path as the message has it; empty when the part names none */
    size_t message, part; /* where it stood: messages[message].content[part] */
};

struct oc_chat_messages {
    struct oc_json list; /* array for oc_chat_render.messages */
    struct oc_chat_image *images;
    size_t n_images;
};

/* Prepares `messages`, a JSON array that must outlive *out; new memory from the arena. Errors, which name the
 * place ("messages[2].content[1].image_url"): OC_ERR_FORMAT, OC_ERR_UNSUPPORTED (an unknown part type, or
 * pictures for a template of text), OC_ERR_LIMIT (over OC_LIMIT_IMAGES_PER_PROMPT), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_chat_messages_prepare(struct oc_arena *a, const struct oc_json *messages,
                                                   bool takes_text, bool takes_parts,
                                                   struct oc_chat_messages *out, struct oc_errinfo *ei);

#endif
