#include "cli/run_options.h"

#include <math.h>
#include <string.h>
#include <sys/random.h>

#include "base/limits.h"
#include "cli/commands.h"
#include "cli/device.h"
#include "ocellus.h"

#define AT(field) offsetof(struct oc_cli_run_options, field)
#define MAX_INT 2147483647.0

static const struct oc_cli_option options[] = {
    {"model", 'm', OC_CLI_STRING, AT(model), 0, 0, "MODEL",
     "a directory, or org/name in the Hugging Face cache"},
    {"image", 'i', OC_CLI_LIST, AT(images), 0, OC_LIMIT_IMAGES_PER_PROMPT, "FILE",
     "a picture, before the prompt's text; may be repeated"},
    {"messages", 0, OC_CLI_STRING, AT(messages), 0, 0, "FILE",
     "OpenAI messages (JSON) instead of PROMPT; - is stdin"},
    {"system", 's', OC_CLI_STRING, AT(system), 0, 0, "TEXT", "the system message"},
    {"raw", 0, OC_CLI_FLAG, AT(raw), 0, 0, NULL, "no chat template: PROMPT as it is, special tokens and all"},
    {"max-tokens", 'n', OC_CLI_INT, AT(max_tokens), 1, MAX_INT, "N",
     "length of the answer (default: what the context allows)"},
    {"temperature", 't', OC_CLI_FLOAT, AT(temperature), 0, 100, "T", "0 takes the likeliest token each time"},
    {"top-p", 0, OC_CLI_FLOAT, AT(top_p), 0, 1, "P",
     "draw from the likeliest tokens that have P of the mass"},
    {"top-k", 0, OC_CLI_INT, AT(top_k), 0, MAX_INT, "K", "draw from the K likeliest tokens (0: off)"},
    {"min-p", 0, OC_CLI_FLOAT, AT(min_p), 0, 1, "P",
     "leave out tokens below P of the likeliest one's probability"},
    {"repetition-penalty", 0, OC_CLI_FLOAT, AT(repetition_penalty), 0.01, 100, "R",
     "over 1: less likely what prompt or answer hold"},
    {"presence-penalty", 0, OC_CLI_FLOAT, AT(presence_penalty), -100, 100, "P",
     "subtracted from what the answer holds"},
    {"frequency-penalty", 0, OC_CLI_FLOAT, AT(frequency_penalty), -100, 100, "F",
     "the same, for each time it was said"},
    {"seed", 0, OC_CLI_INT, AT(seed), 0, 9007199254740992.0, "N", "same seed, same text"},
    {"stop", 0, OC_CLI_LIST, AT(stops), 0, OC_LIMIT_STOP_STRINGS, "TEXT",
     "end the answer before TEXT; may be repeated"},
    {"ignore-eos", 0, OC_CLI_FLAG, AT(ignore_eos), 0, 0, NULL, "go on to the full length (for measuring)"},
    {"min-pixels", 0, OC_CLI_INT, AT(min_pixels), 1, 1e9, "N", "enlarge smaller pictures to N pixels"},
    {"max-pixels", 0, OC_CLI_INT, AT(max_pixels), 1, 1e9, "N", "shrink larger pictures to N pixels"},
    {"image-max-tokens", 0, OC_CLI_INT, AT(image_max_tokens), 1, OC_LIMIT_CTX_TOKENS, "N",
     "most tokens of one picture; bounds memory"},
    {"ctx", 'c', OC_CLI_INT, AT(ctx), 1, OC_LIMIT_CTX_TOKENS, "N", "tokens of context; bounds memory"},
    {"threads", 0, OC_CLI_INT, AT(threads), 1, OC_LIMIT_THREADS, "N",
     "default: one for each core this process may use"},
    {"device", 0, OC_CLI_STRING, AT(device), 0, 0, "NAME", OC_CLI_DEVICE_HELP},
    {"isa", 0, OC_CLI_STRING, AT(isa), 0, 0, "NAME", "kernels of the CPU: auto, ref, avx2, avx512, ..."},
    {"batch-mode", 0, OC_CLI_STRING, AT(batch_mode), 0, 0, "MODE", "exact, or throughput: see below"},
    {"speculate", 0, OC_CLI_STRING, AT(speculate), 0, 0, "auto|off",
     "run likely tokens ahead where that is faster; the answer is the same (auto)"},
    {"logprobs", 0, OC_CLI_INT, AT(n_logprobs), 0, OC_LIMIT_TOP_LOGPROBS, "N",
     "log-probability of each token and of N alternatives"},
    {"json", 0, OC_CLI_FLAG, AT(json), 0, 0, NULL, "print one OpenAI chat.completion object"},
    {"stats", 0, OC_CLI_FLAG, AT(stats), 0, 0, NULL, "print times and speeds on stderr"},
};
#define N_OPTIONS ((int)(sizeof options / sizeof *options))

void oc_cli_run_help(FILE *f) {
    fputs("usage: ocellus run [OPTION]... PROMPT\n"
          "       ocellus run [OPTION]... --messages FILE.json\n\n"
          "Asks a model and prints its answer as it comes. PROMPT - is read from stdin. What no option says "
          "about\n"
          "sampling, the model's generation_config.json decides.\n\n",
          f);
    oc_cli_options_help(options, N_OPTIONS, f);
    fputs("\nBatch mode: exact is the default. throughput rounds to 8 bits what meets quantised weights while an\n"
          "answer is made. It pays where `serve` answers several at once; here it shows what it costs:\n" OC_THROUGHPUT_COST
          ".\n",
          f);
    fputs("\nExit code: 0, or 1 when it could not be done, 2 for wrong usage, 130 after Ctrl-C.\n", f);
}

static enum oc_err check(const struct oc_cli_run_options *o, int n_operands, struct oc_errinfo *ei) {
    if (n_operands > 1)
        return oc_fail(ei, OC_ERR_USAGE, "there are %d prompts: put quotes around the whole prompt",
                       n_operands);
    if (n_operands == 1 && o->messages)
        return oc_fail(ei, OC_ERR_USAGE, "give a PROMPT or --messages, not both");
    if (n_operands == 0 && !o->messages) return oc_fail(ei, OC_ERR_USAGE, "there is no PROMPT");
    if (o->messages && o->images.n)
        return oc_fail(ei, OC_ERR_USAGE,
                       "with --messages the pictures are named in that file, not with --image");
    if (o->messages && o->system)
        return oc_fail(ei, OC_ERR_USAGE,
                       "with --messages the system message is in that file, not in --system");
    if (o->raw && (o->messages || o->system))
        return oc_fail(ei, OC_ERR_USAGE, "--raw takes a PROMPT alone, without --system or --messages");
    if (o->speculate && strcmp(o->speculate, "auto") != 0 && strcmp(o->speculate, "off") != 0)
        return oc_fail(ei, OC_ERR_USAGE, "--speculate is '%s', but must be auto or off", o->speculate);
    if (o->top_p == 0) return oc_fail(ei, OC_ERR_USAGE, "--top-p must be over 0");
    if (o->min_pixels > 0 && o->max_pixels > 0 && o->min_pixels > o->max_pixels)
        return oc_fail(ei, OC_ERR_USAGE, "--min-pixels is over --max-pixels");
    for (int i = 0; i < o->stops.n; i++)
        if (!*o->stops.items[i]) return oc_fail(ei, OC_ERR_USAGE, "--stop needs some text");
    return OC_OK;
}

enum oc_err oc_cli_run_options_parse(struct oc_cli_run_options *o, int argc, char **argv,
                                     struct oc_errinfo *ei) {
    *o = (struct oc_cli_run_options){
        .max_tokens = -1,
        .top_k = -1,
        .seed = -1,
        .threads = -1,
        .n_logprobs = -1,
        .ctx = -1,
        .image_max_tokens = -1,
        .min_pixels = -1,
        .max_pixels = -1,
        .temperature = NAN,
        .top_p = NAN,
        .min_p = NAN,
        .repetition_penalty = NAN,
        .presence_penalty = NAN,
        .frequency_penalty = NAN,
    };
    int first;
    OC_TRY(oc_cli_options_parse(options, N_OPTIONS, o, argc, argv, &first, ei));
    OC_TRY(check(o, argc - first, ei));
    o->prompt = first < argc ? argv[first] : NULL;
    return OC_OK;
}

static void override(float *value, double wish) {
    if (!isnan(wish)) *value = (float)wish;
}

enum oc_err oc_cli_run_options_sampling(const struct oc_cli_run_options *o, struct oc_lm_sample_params *p,
                                        struct oc_errinfo *ei) {
    override(&p->temperature, o->temperature);
    override(&p->top_p, o->top_p);
    override(&p->min_p, o->min_p);
    override(&p->repetition_penalty, o->repetition_penalty);
    override(&p->presence_penalty, o->presence_penalty);
    override(&p->frequency_penalty, o->frequency_penalty);
    if (o->top_k >= 0) p->top_k = (int)o->top_k;
    p->n_logprobs = (int)o->n_logprobs;
    uint64_t seed = 0;
    if (o->seed < 0 && getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return oc_fail(ei, OC_ERR_IO, "the system gave no random seed: use --seed");
    p->seed = o->seed >= 0 ? (uint64_t)o->seed : seed >> 11; /* 53 bits, so that --seed can repeat it */
    return OC_OK;
}
