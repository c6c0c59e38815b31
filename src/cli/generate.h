/* cli/generate.h - the loop from a prompt to an answer: prefill, then pick, write and decode token by token.
 *
 * Owns no model; everything it works on is borrowed for the call. One thread. */
#ifndef OC_CLI_GENERATE_H
#define OC_CLI_GENERATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "chat/model.h"
#include "cli/options.h"
#include "lm/sample.h"
#include "ocellus.h"

struct oc_cli_generate_job {
    struct oc_engine *engine;
    const struct oc_chat_tokenizer *tokenizer;
    const struct oc_prompt *prompt;
    const struct oc_chat_model *ends; /* whose end tokens end the answer; NULL: none do */
    const struct oc_lm_sample_params *sample;
    const struct oc_cli_list *stops;
    int64_t max_tokens; /* of the answer; 0 or less: what the context allows */
    bool speculate;     /* verify drafts where that pays; the answer is the same */
    uint64_t start_ns;  /* when the request began, for the time to the first token */
    /* Called with each piece of text as soon as it is sure, whole UTF-8 characters only. */
    enum oc_err (*on_text)(void *arg, const char *p, size_t n, struct oc_errinfo *ei);
    void *arg;
};

enum oc_cli_finish { OC_CLI_FINISH_STOP, OC_CLI_FINISH_LENGTH, OC_CLI_FINISH_ABORT };

struct oc_cli_answer {
    struct oc_buf text; /* all that went to on_text */
    struct oc_buf
        picks; /* struct oc_lm_sample_pick of each token of the text, when logprobs were asked for */
    enum oc_cli_finish finish;             /* ABORT: Ctrl-C */
    int n_prompt, n_tokens;                /* n_tokens: picked, an end token included */
    int n_drafted, n_accepted;             /* tokens that were drafted and run; that came true */
    double prefill_ms, ttft_ms, decode_ms; /* decode: from the first token to the last */
};

/* Runs the job. Free the answer also after an error. Ctrl-C is no error. Errors: OC_ERR_LIMIT (the prompt
 * does not fit), those of the engine, the sampler and on_text. */
OC_MUST_CHECK enum oc_err oc_cli_generate(const struct oc_cli_generate_job *job, struct oc_cli_answer *out,
                                          struct oc_errinfo *ei);
void oc_cli_generate_free(struct oc_cli_answer *a);

/* Decoding speed: tokens after the first, by the time they took; 0 when there were none. */
double oc_cli_generate_tok_s(const struct oc_cli_answer *a);

#endif
