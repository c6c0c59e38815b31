/* chat/pretok.h - the pre-tokenizer: cuts text into the words that BPE merges within.
 *
 * Reads the `pre_tokenizer` of tokenizer.json: ByteLevel, Split, Digits and Sequences of them. The patterns of
 * GPT-2, Qwen2 and Llama 3 run on scanners of our own; any other goes to PCRE2, rewritten so that it means what
 * Hugging Face's engine makes of it (chat/pretok_regex.h), or is refused. A pretok is immutable after open and
 * any thread may run it with a scratch of its own. */
#ifndef OC_CHAT_PRETOK_H
#define OC_CHAT_PRETOK_H

#include <stdbool.h>

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"

struct oc_chat_regex;

#define OC_CHAT_PRETOK_STAGES 8

enum oc_chat_scan {
    OC_SCAN_GPT2,
    OC_SCAN_ONE_DIGIT,
    OC_SCAN_THREE_DIGITS,
    OC_SCAN_DIGIT,  /* one numeric character */
    OC_SCAN_DIGITS, /* a run of them */
    OC_SCAN_REGEX
};

struct oc_chat_pretok_stage {
    enum oc_chat_scan scan;
    bool keep_match, keep_gap;   /* which of the two become pieces */
    struct oc_chat_regex *regex; /* OC_SCAN_REGEX only; owned */
};

struct oc_chat_pretok {
    struct oc_chat_pretok_stage stage[OC_CHAT_PRETOK_STAGES];
    int n_stages;
    bool add_prefix_space; /* a piece that does not begin with a space gets one */
    bool byte_level;       /* a ByteLevel stands at the end of the sequence */
};

/* What one thread needs while it runs regexes; zero it first, free it last. */
struct oc_chat_pretok_scratch {
    void *match_data, *match_context, *jit_stack;
};

/* Takes one piece; anything but OC_OK stops the run. */
typedef enum oc_err oc_chat_pretok_fn(void *arg, struct oc_str piece);

/* Reads a pre_tokenizer object. Errors: OC_ERR_UNSUPPORTED (a type, behaviour or pattern, named),
 * OC_ERR_FORMAT, OC_ERR_LIMIT (too many stages), OC_ERR_NOMEM. On error *out is empty. */
OC_MUST_CHECK enum oc_err oc_chat_pretok_open(const struct oc_json *spec, struct oc_chat_pretok *out,
                                              struct oc_errinfo *ei);
void oc_chat_pretok_close(struct oc_chat_pretok *pt);

/* Calls fn for each piece of text (valid UTF-8), in order; pieces point into text, none is empty. Time is linear
 * in the text but for regexes, which have a match limit. Errors: fn's, OC_ERR_LIMIT, OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_chat_pretok_run(const struct oc_chat_pretok *pt, struct oc_chat_pretok_scratch *scratch,
                                             struct oc_str text, oc_chat_pretok_fn *fn, void *arg,
                                             struct oc_errinfo *ei);
void oc_chat_pretok_scratch_free(struct oc_chat_pretok_scratch *scratch);

#endif
