/* cli/defaults.h - what a model's own files say about sampling and where its answers end.
 *
 * From generation_config.json, config.json and tokenizer_config.json, as transformers reads them. */
#ifndef OC_CLI_DEFAULTS_H
#define OC_CLI_DEFAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "lm/sample.h"
#include "ocellus.h"

struct oc_cli_defaults {
    struct oc_lm_sample_params sample; /* temperature 0 where do_sample is false or absent */
    int64_t max_new_tokens;            /* 0: not said */
    int32_t eos[OC_MAX_EOS];
    int n_eos;
};

/* Reads the files of a model directory; one that is missing says nothing. The answer ends at any eos_token_id
 * of generation_config.json or config.json (an integer or a list; nested text_config too). Errors:
 * OC_ERR_FORMAT (broken JSON, a value of the wrong type), OC_ERR_LIMIT, OC_ERR_IO, OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_cli_defaults_read(const char *dir, struct oc_cli_defaults *out,
                                               struct oc_errinfo *ei);

/* Adds an end token; more than OC_MAX_EOS and doubles are left out. */
void oc_cli_defaults_add_eos(struct oc_cli_defaults *d, int64_t id);

bool oc_cli_defaults_is_eos(const struct oc_cli_defaults *d, int32_t token);

#endif
