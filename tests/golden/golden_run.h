/* golden_run.h - running a golden checkpoint stage by stage and holding every stage against the record.
 *
 * Used by check_golden (must hold) and check_faults (must not hold when something is broken on purpose). */
#ifndef GOLDEN_RUN_H
#define GOLDEN_RUN_H

#include "golden_file.h"
#include "ocellus.h"

/* Stages in the order in which data flows: the first that fails is where to look. */
enum stage {
    STAGE_PIXELS,      /* image: patches of the resized picture */
    STAGE_GRIDS,       /* models: resized size and grid */
    STAGE_PATCH_EMBED, /* vision */
    STAGE_BLOCK,
    STAGE_MERGER,
    STAGE_POSITIONS, /* models: positions on three axes, and what follows the prompt */
    STAGE_LAYER,     /* lm: hidden state after each decoder layer, role P */
    STAGE_LOGITS,    /* lm: logits after prefill */
    STAGE_DECODE,    /* engine: logits of decoded tokens (role D, KV pages, positions that follow) */
    STAGE_TOKENS,    /* engine: greedy choices */
    N_STAGES,
};

struct stage_result {
    int n;          /* comparisons */
    double error;   /* largest |difference| over the golden's standard deviation; for ints: number that differ */
    double bound;   /* at that comparison */
    double ratio;   /* the largest error / bound: over 1 fails */
    char where[128]; /* the record */
};

/* What is changed on purpose before and while a checkpoint runs; all NULL and 0: nothing. */
struct golden_fault {
    void (*engine)(struct oc_engine *e);                     /* after opening */
    void (*plan)(struct oc_picture_plan *plan);              /* before encoding and positions */
    void (*patches)(float *patches, const struct oc_picture_plan *plan);
    void (*session)(struct oc_session *s, int n_tokens);     /* after prefill */
    int position_shift;                                      /* added to positions of what is decoded */
};

struct golden_options {
    const char *model_dir, *golden_path, *isa;
    const char *only_case; /* NULL: all */
    struct golden_fault fault;
};

struct golden_report {
    struct stage_result stages[N_STAGES];
    char isa[32];
    bool exact; /* f32 arithmetic is expected: bounds of 1e-4 and all tokens */
    bool throughput; /* batch mode: the language model's bounds are those of 8 bits */
    bool int16; /* role D takes x as 16 bits: the language model's bounds are those */
    int n_near_ties; /* tokens that differ where the golden's margin is below the bound */
};

const char *golden_stage_name(enum stage s);
const char *golden_stage_room(enum stage s);

/* Runs all cases and fills the report. Exits with a message when the checkpoint does not open or a step fails. */
void golden_run(const struct golden_options *opt, struct golden_report *out);

#endif
