/* cli/report.h - the figures of a run, for people (--stats) and for programs (--json).
 *
 * The JSON is OpenAI's chat.completion object with `timings` and `images` beside its fields. Both say the
 * same numbers. One thread. */
#ifndef OC_CLI_REPORT_H
#define OC_CLI_REPORT_H

#include <stdio.h>

#include "base/buf.h"
#include "cli/generate.h"
#include "cli/pictures.h"

struct oc_cli_report {
    const char *model; /* as the user named it */
    const struct oc_engine_info *info;
    const struct oc_cli_pictures *pictures;
    const struct oc_cli_answer *answer;
    const struct oc_chat_tokenizer *tokenizer;
    const struct oc_lm_sample_params *sample;
    double load_ms;
};

/* Appends the object and a newline. Errors: OC_ERR_LIMIT (over the buffer's maximum), OC_ERR_IO (no random
 * id). */
OC_MUST_CHECK enum oc_err oc_cli_report_json(const struct oc_cli_report *r, struct oc_buf *b,
                                             struct oc_errinfo *ei);

void oc_cli_report_stats(const struct oc_cli_report *r, FILE *f);

/* One line per token: its log-probability, its text, and the alternatives. */
void oc_cli_report_logprobs(const struct oc_cli_report *r, FILE *f);

#endif
