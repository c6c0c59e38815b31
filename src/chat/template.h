/* chat/template.h - chat templates: messages in, prompt text with the origin of every byte out.
 *
 * A template is the Jinja text that comes with a checkpoint. Ours is a subset of jinja2 3.1 as transformers
 * sets it up (sandbox, trim_blocks, lstrip_blocks, break/continue, `generation` blocks, tojson without HTML
 * escapes, raise_exception, strftime_now); what it renders is byte-equal to Python's. A construct outside of
 * the subset is refused by name and line when the template is opened. Known differences, all refusals or
 * inputs that no chat template has: integers past 64 bits in arithmetic; include, import, extends, block, do,
 * trans; `safe` and `escape` give plain strings, not Markup; str() of functions; filters batch, groupby,
 * slice.
 *
 * Origin: a byte of the result is 1 when it stands in the template's own text or literals or in a special
 * token string, and 0 when it came from messages, tools or extra, however it was cut, joined or re-cased on
 * its way; numbers keep their side too, and punctuation that tojson or repr puts around values is 0. Only
 * bytes of origin 1 may match special tokens in the tokenizer: text that a user writes can never become one.
 *
 * Called by the engine's users (cli, later the server's thread pool). An open template is immutable: any
 * number of threads may render it at once. Every rendering is bounded in depth, steps, memory and output
 * bytes. */
#ifndef OC_CHAT_TEMPLATE_H
#define OC_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "base/str.h"

struct oc_chat_template;

/* What to render; all borrowed. */
struct oc_chat_render {
    const struct oc_json *messages; /* array, as oc_chat_messages_prepare makes it */
    const struct oc_json *tools;    /* array, or NULL: the template sees None */
    const struct oc_json
        *extra; /* object of further variables (enable_thinking ...) that go over the others */
    bool add_generation_prompt;
    /* Special token strings, trusted; NULL leaves the variable undefined. */
    const char *bos_token, *eos_token, *unk_token, *pad_token;
    time_t now;              /* for strftime_now */
    int32_t utc_offset_s;    /* added to now: the local zone */
    uint64_t max_steps;      /* 0: OC_LIMIT_TEMPLATE_STEPS */
    size_t max_output_bytes; /* 0: OC_LIMIT_TEMPLATE_OUTPUT_BYTES */
    size_t max_memory_bytes; /* 0: OC_LIMIT_TEMPLATE_MEMORY_BYTES */
};

/* A rendering: origin has one byte (0 or 1) for each byte of text. */
struct oc_chat_text {
    struct oc_buf text;
    struct oc_buf origin;
};

/* Parses source (not kept). Errors: OC_ERR_FORMAT (syntax, with line), OC_ERR_UNSUPPORTED (a construct
 * outside of the subset, with line), OC_ERR_LIMIT, OC_ERR_NOMEM. *t is to be closed by the caller; NULL on
 * error. */
OC_MUST_CHECK enum oc_err oc_chat_template_open(struct oc_str source, struct oc_chat_template **t,
                                                struct oc_errinfo *ei);
void oc_chat_template_close(struct oc_chat_template *t);

/* Renders into *out, which the call initialises and the caller frees, also after an error. Errors:
 * OC_ERR_USAGE (the template refused the messages with raise_exception; its words are in the sentence),
 * OC_ERR_FORMAT (what Python would raise as an exception), OC_ERR_LIMIT, OC_ERR_UNSUPPORTED, OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_chat_template_render(const struct oc_chat_template *t,
                                                  const struct oc_chat_render *r, struct oc_chat_text *out,
                                                  struct oc_errinfo *ei);
void oc_chat_text_free(struct oc_chat_text *x);

/* What the template can read as the content of a message, found at open by rendering one user message both
 * ways and looking for its text: both, one, or (a template that refuses the trial) text only. */
bool oc_chat_template_takes_text(const struct oc_chat_template *t);
bool oc_chat_template_takes_parts(const struct oc_chat_template *t);

/* Reads the template of a model directory into the arena, in transformers' order: chat_template.jinja, then
 * chat_template.json {"chat_template"}, then tokenizer_config.json {"chat_template": text, or a list of
 * {"name", "template"} of which "default" is taken}. Errors: OC_ERR_NOT_FOUND with a sentence that says what
 * to do when there is none (ocellus invents no default), OC_ERR_FORMAT, OC_ERR_LIMIT, OC_ERR_IO,
 * OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_chat_template_find(struct oc_arena *a, const char *model_dir,
                                                struct oc_str *source, struct oc_errinfo *ei);

#endif
