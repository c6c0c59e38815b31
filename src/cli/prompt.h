/* cli/prompt.h - what the user asks: from options, stdin or a file of messages to token ids and pictures.
 *
 * Reading comes before the model is loaded, encoding after. One thread. */
#ifndef OC_CLI_PROMPT_H
#define OC_CLI_PROMPT_H

#include "base/arena.h"
#include "base/json.h"
#include "cli/chat_model.h"
#include "cli/pictures.h"
#include "cli/run_options.h"

struct oc_cli_prompt {
    struct oc_str raw;                     /* the whole prompt, when it has no template; else empty */
    struct oc_json messages;               /* OpenAI messages, as written */
    const char *base_dir;                  /* picture paths count from here; NULL: the working directory */
    struct oc_cli_picture_source *sources; /* in the order of the prompt */
    int n_sources;
    struct oc_chat_ids ids; /* after encoding; each picture is one placeholder */
};

/* Reads stdin or the file of messages as the options say; all memory from the arena. Errors:
 * OC_ERR_NOT_FOUND, OC_ERR_IO, OC_ERR_FORMAT (JSON, or not a list of messages), OC_ERR_LIMIT, OC_ERR_NOMEM.
 */
OC_MUST_CHECK enum oc_err oc_cli_prompt_read(struct oc_cli_prompt *p, const struct oc_cli_run_options *o,
                                             struct oc_arena *a, struct oc_errinfo *ei);

/* Turns it into ids and finds its pictures. Errors: OC_ERR_FORMAT (a message or part that is not as it should
 * be, or that the template refuses), those of the tokenizer. */
OC_MUST_CHECK enum oc_err oc_cli_prompt_encode(struct oc_cli_prompt *p, const struct oc_cli_chat_model *m,
                                               struct oc_arena *a, struct oc_errinfo *ei);
void oc_cli_prompt_free(struct oc_cli_prompt *p);

#endif
