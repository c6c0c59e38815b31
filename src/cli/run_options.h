/* cli/run_options.h - what `ocellus run` was asked to do. */
#ifndef OC_CLI_RUN_OPTIONS_H
#define OC_CLI_RUN_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/options.h"
#include "lm/sample.h"

/* A number the user did not give is -1, or NAN for a double. */
struct oc_cli_run_options {
    const char *model, *system, *messages, *device, *isa, *batch_mode, *speculate, *prompt; /* NULL where not given */
    struct oc_cli_list images, stops;
    int64_t max_tokens, top_k, seed, threads, n_logprobs, ctx, image_max_tokens, min_pixels, max_pixels;
    double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    bool ignore_eos, raw, json, stats;
};

/* Reads argv[1..]. Errors: OC_ERR_USAGE with a sentence. */
OC_MUST_CHECK enum oc_err oc_cli_run_options_parse(struct oc_cli_run_options *o, int argc, char **argv,
                                                   struct oc_errinfo *ei);

/* Puts the user's wishes over the model's defaults; a seed of its own where none was given. */
OC_MUST_CHECK enum oc_err oc_cli_run_options_sampling(const struct oc_cli_run_options *o,
                                                      struct oc_lm_sample_params *p, struct oc_errinfo *ei);

#endif
