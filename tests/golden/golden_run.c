#include "golden_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "golden_device.h"
#include "image/patchify.h"

#define N_PLAIN 496 /* greedy choices are made among ids below the special ones: see tools/golden_model.py */
#define NAME_BYTES 128
#define MAX_PICTURES 8
#define SAMPLE_ROWS 8
#define SAMPLE_LAYER_ROWS 4
#define SAMPLE_COLUMNS 32
#define SAMPLE_PIXELS 56

#define EXACT_BOUND 1e-4  /* of a stage's standard deviation, f32 and f16 checkpoints */
#define NARROW_BOUND 2e-2 /* the same, bf16 and quantised ones ... */
#define OWN_FACTOR 1.5    /* ... and at most so many times transformers' own bf16 error */
#define INT16_BOUND 5e-4 /* quantised ones where role D takes x as 16 bits, of the language model's stages: observed 3.3e-4 */
#define INT8_BOUND 1e-1  /* throughput mode, of the language model's stages: observed 8.2e-2 */
#define PIXEL_BOUND 1e-6  /* absolute */

struct turn {
    const struct golden_options *opt;
    struct golden_report *rep;
    struct golden_file *file;
    struct oc_engine *engine;
    struct oc_session *session;
    char at[64]; /* "case.turn": prefix of its records */
    int picture; /* the one being encoded */
    const char *case_name;
    int number;
    struct oc_prompt_picture pictures[MAX_PICTURES];
    int n_pictures;
};

static void die(const char *what, const struct oc_errinfo *ei) {
    fprintf(stderr, "%s: %s\n", what, ei ? ei->msg : "");
    exit(2);
}

static void *take(size_t n) {
    void *p = malloc(n ? n : 1);
    if (!p) die("out of memory", NULL);
    return p;
}

const char *golden_stage_name(enum stage s) {
    static const char *const names[N_STAGES] = {"pixels",    "grids", "patch_embed", "block",  "merger",
                                                "positions", "layer", "logits",      "decode", "tokens"};
    return names[s];
}

const char *golden_stage_room(enum stage s) {
    static const char *const rooms[N_STAGES] = {"image",  "models", "vision", "vision", "vision",
                                                "models", "lm",     "lm",     "engine", "engine"};
    return rooms[s];
}

/* ---- comparing -------------------------------------------------------------------------------------------- */

static void note(struct golden_report *rep, enum stage s, const char *where, double error, double bound) {
    struct stage_result *r = &rep->stages[s];
    double ratio = isfinite(error) ? (bound > 0 ? error / bound : (error > 0 ? INFINITY : 0)) : INFINITY;
    if (r->n++ && ratio <= r->ratio) return;
    r->error = error;
    r->bound = bound;
    r->ratio = ratio;
    snprintf(r->where, sizeof r->where, "%s", where);
}

/* The bound for a record, and what it is relative to: its standard deviation as stored. */
static double bound_for(const struct turn *t, enum stage s, const char *name, const char *std_name, double *std) {
    *std = golden_get(t->file, "%s", std_name)->f[0];
    if (t->rep->throughput && s >= STAGE_LAYER) return INT8_BOUND;
    if (t->rep->int16 && s >= STAGE_LAYER) return INT16_BOUND;
    if (t->rep->exact) return EXACT_BOUND;
    double own = OWN_FACTOR * golden_get(t->file, "%s.own", name)->f[0];
    return own < NARROW_BOUND ? own : NARROW_BOUND;
}

/* Holds the sample of x [n_rows, n_columns] (row stride the same) against the record `name`. */
static void compare_sample(const struct turn *t, enum stage s, const char *name, const float *x, int64_t n_rows,
                           int64_t n_columns, int most_rows) {
    const struct golden_record *r = golden_get(t->file, "%s", name);
    char std_name[NAME_BYTES];
    double std, worst = 0;
    snprintf(std_name, sizeof std_name, "%s.std", name);
    double bound = bound_for(t, s, name, std_name, &std);
    int rows = n_rows < most_rows ? (int)n_rows : most_rows;
    int columns = n_columns < SAMPLE_COLUMNS ? (int)n_columns : SAMPLE_COLUMNS;
    if (r->n_rows != rows || r->n_columns != columns) {
        note(t->rep, s, name, INFINITY, bound); /* another shape */
        return;
    }
    for (int i = 0; i < rows; i++) {
        const float *row = x + golden_pick((int)n_rows, most_rows, i) * n_columns;
        for (int j = 0; j < columns; j++) {
            double d = fabs((double)row[golden_pick((int)n_columns, SAMPLE_COLUMNS, j)] - r->f[i * columns + j]);
            if (!(d <= worst)) worst = d;
        }
    }
    note(t->rep, s, name, worst / std, bound);
}

static void on_vision_stage(void *arg, const char *stage, int layer, const float *x, int64_t n_rows, int64_t dim) {
    const struct turn *t = arg;
    char name[NAME_BYTES];
    if (layer >= 0) snprintf(name, sizeof name, "%s.%d.%s.%d", t->at, t->picture, stage, layer);
    else snprintf(name, sizeof name, "%s.%d.%s", t->at, t->picture, stage);
    enum stage s = strcmp(stage, "block") == 0    ? STAGE_BLOCK
                   : strcmp(stage, "merger") == 0 ? STAGE_MERGER
                                                  : STAGE_PATCH_EMBED;
    compare_sample(t, s, name, x, n_rows, dim, SAMPLE_ROWS);
}

static void on_lm_stage(void *arg, const char *stage, int layer, const float *x, int64_t n_rows, int64_t dim) {
    const struct turn *t = arg;
    char name[NAME_BYTES];
    if (strcmp(stage, "layer") != 0) return;
    snprintf(name, sizeof name, "%s.layer.%d", t->at, layer);
    compare_sample(t, STAGE_LAYER, name, x, n_rows, dim, SAMPLE_LAYER_ROWS);
}

static void compare_pixels(const struct turn *t, const float *patches, const struct oc_picture_plan *plan) {
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.%d.pixels", t->at, t->picture);
    const struct golden_record *r = golden_get(t->file, "%s", name);
    double worst = 0;
    for (int i = 0; i < r->n_rows; i++) {
        const float *row = patches + (int64_t)golden_pick(plan->n_patches, SAMPLE_ROWS, i) * plan->patch_dim;
        for (int j = 0; j < r->n_columns; j++) {
            double d = fabs((double)row[golden_pick(plan->patch_dim, SAMPLE_PIXELS, j)] - r->f[i * r->n_columns + j]);
            if (!(d <= worst)) worst = d;
        }
    }
    note(t->rep, STAGE_PIXELS, name, worst, PIXEL_BOUND);
}

static void compare_ints(const struct turn *t, enum stage s, const char *name, const int32_t *got,
                         const int32_t *want, int n) {
    int n_bad = 0;
    for (int i = 0; i < n; i++) n_bad += got[i] != want[i];
    note(t->rep, s, name, n_bad, 0);
}

/* ---- running ---------------------------------------------------------------------------------------------- */

static void encode_picture(struct turn *t, int width, int height, int seed) {
    struct oc_errinfo ei;
    struct oc_image img;
    struct oc_prompt_picture *p = &t->pictures[t->n_pictures];
    const struct golden_record *grids = golden_get(t->file, "%s.grids", t->at);
    char name[NAME_BYTES];
    t->picture = t->n_pictures++;
    if (oc_engine_plan_picture(t->engine, width, height, NULL, &p->plan, &ei)) die("plan", &ei);
    int32_t grid[3] = {p->plan.grid_t, p->plan.grid_h, p->plan.grid_w};
    snprintf(name, sizeof name, "%s.%d.grids", t->at, t->picture);
    compare_ints(t, STAGE_GRIDS, name, grid, grids->i + 3 * t->picture, 3);
    float *patches = take((size_t)p->plan.n_patches * p->plan.patch_dim * sizeof *patches);
    float *embedding = take((size_t)p->plan.n_tokens * oc_engine_info(t->engine)->dim * sizeof *embedding);
    golden_picture(width, height, seed, &img);
    if (oc_image_patchify_resized(&img, &p->plan, patches, &ei)) die("patchify", &ei);
    oc_image_free(&img);
    compare_pixels(t, patches, &p->plan);
    if (t->opt->fault.patches) t->opt->fault.patches(patches, &p->plan);
    if (t->opt->fault.plan) t->opt->fault.plan(&p->plan);
    struct oc_vision_trace trace = {on_vision_stage, t};
    t->engine->vision_trace = &trace;
    if (oc_engine_encode_picture(t->engine, &p->plan, patches, embedding, &ei)) die("encode", &ei);
    t->engine->vision_trace = NULL;
    free(patches);
    p->embedding = embedding;
}

/* The turn's pictures, listed in the checkpoint's pictures.txt. */
static void encode_pictures(struct turn *t) {
    char path[4096], name[32];
    int number, picture, width, height, seed;
    snprintf(path, sizeof path, "%s/pictures.txt", t->opt->model_dir);
    FILE *f = fopen(path, "r");
    if (!f) die(path, NULL);
    t->n_pictures = 0;
    while (fscanf(f, "%31s %d %d %d %d %d", name, &number, &picture, &width, &height, &seed) == 6)
        if (strcmp(name, t->case_name) == 0 && number == t->number && t->n_pictures < MAX_PICTURES)
            encode_picture(t, width, height, seed);
    fclose(f);
}

static int32_t next_position(const struct oc_session *s) {
    return s->n_tokens ? s->next_pos[s->n_tokens - 1] : 0;
}

/* Positions by models/ against the last rows of the golden's, which cover the whole history. */
static void compare_positions(const struct turn *t, const struct oc_prompt *prompt) {
    const struct golden_record *r = golden_find(t->file, "%s.positions", t->at);
    if (!r) return; /* text alone: not recorded, logits tell */
    struct oc_errinfo ei;
    int32_t next, n = prompt->n_tokens, (*pos)[3] = take((size_t)n * sizeof *pos);
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.positions", t->at);
    if (oc_model_positions(t->engine->model, prompt, next_position(t->session), pos, &next, &ei))
        die("positions", &ei);
    compare_ints(t, STAGE_POSITIONS, name, pos[0], r->i + 3 * (r->n_rows - n), 3 * n);
    int32_t delta = next - (t->session->n_tokens + n);
    snprintf(name, sizeof name, "%s.delta", t->at);
    compare_ints(t, STAGE_POSITIONS, name, &delta, golden_get(t->file, "%s.delta", t->at)->i, 1);
    free(pos);
}

static int best_token(const float *logits) {
    int best = 0;
    for (int i = 1; i < N_PLAIN; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* Logits against a record's row, whose columns are a sample when it has fewer than the vocabulary. */
static void compare_logits(const struct turn *t, enum stage s, const char *record, int row, const float *logits) {
    char name[NAME_BYTES], std_name[NAME_BYTES];
    double std, worst = 0;
    snprintf(name, sizeof name, "%s.%s", t->at, record);
    snprintf(std_name, sizeof std_name, "%s.std", t->at);
    double bound = bound_for(t, s, name, std_name, &std);
    const struct golden_record *r = golden_get(t->file, "%s", name);
    int n_vocab = oc_engine_info(t->engine)->n_vocab;
    for (int j = 0; j < r->n_columns; j++) {
        double d = fabs((double)logits[golden_pick(n_vocab, r->n_columns, j)] - r->f[row * r->n_columns + j]);
        if (!(d <= worst)) worst = d;
    }
    note(t->rep, s, name, worst / std, bound);
}

/* A step with the golden's token. Its position is the session's, shifted when that is the fault under test. */
static void decode(const struct turn *t, int32_t token) {
    struct oc_errinfo ei;
    struct oc_session *s = t->session;
    if (t->opt->fault.position_shift) {
        int32_t at = next_position(s) + t->opt->fault.position_shift;
        struct oc_row row = {.session = s, .slot = s->n_tokens, .pos = {at, at, at}, .role = OC_ROW_DECODE,
                             .token = token, .output = OC_ROW_LOGITS};
        if (oc_engine_step(t->engine, &row, 1, &ei)) die("step", &ei);
        s->logits = oc_engine_logits(t->engine, 0);
        s->next_pos[s->n_tokens] = next_position(s) + 1;
        s->n_tokens++;
    } else if (oc_session_decode(s, token, &ei)) {
        die("decode", &ei);
    }
}

/* Follows the golden's tokens, so that every step stands on the same history. */
static void decode_tokens(const struct turn *t) {
    const struct golden_record *tokens = golden_get(t->file, "%s.tokens", t->at);
    const struct golden_record *margins = golden_get(t->file, "%s.margins", t->at);
    char name[NAME_BYTES], std_name[NAME_BYTES], decode_name[NAME_BYTES];
    double std;
    snprintf(name, sizeof name, "%s.tokens", t->at);
    snprintf(std_name, sizeof std_name, "%s.std", t->at);
    snprintf(decode_name, sizeof decode_name, "%s.decode", t->at);
    double near_tie = bound_for(t, STAGE_TOKENS, decode_name, std_name, &std) * std;
    for (int i = 0; i < tokens->n_columns; i++) {
        bool same = best_token(oc_session_logits(t->session)) == tokens->i[i];
        bool tie = (!t->rep->exact || t->rep->throughput || t->rep->int16) && margins->f[i] < near_tie;
        if (!same && tie) t->rep->n_near_ties++;
        note(t->rep, STAGE_TOKENS, name, !same && !tie, 0);
        decode(t, tokens->i[i]);
        if (i + 1 < tokens->n_columns) compare_logits(t, STAGE_DECODE, "decode", i, oc_session_logits(t->session));
    }
}

static void run_turn(struct turn *t) {
    struct oc_errinfo ei;
    const struct golden_record *ids = golden_get(t->file, "%s.ids", t->at);
    encode_pictures(t);
    struct oc_prompt prompt = {ids->i, ids->n_columns, t->pictures, t->n_pictures};
    compare_positions(t, &prompt);
    struct oc_lm_trace trace = {on_lm_stage, t};
    t->engine->lm_trace = &trace;
    if (oc_session_prefill(t->session, &prompt, NULL, NULL, &ei)) die("prefill", &ei);
    t->engine->lm_trace = NULL;
    compare_logits(t, STAGE_LOGITS, "logits", 0, oc_session_logits(t->session));
    if (t->opt->fault.session) t->opt->fault.session(t->session, t->session->n_tokens);
    decode_tokens(t);
    for (int i = 0; i < t->n_pictures; i++) free((void *)t->pictures[i].embedding);
}

static void run_case(struct turn *t, const char *name) {
    struct oc_errinfo ei;
    t->case_name = name;
    if (oc_session_open(t->engine, 1024, &t->session, &ei)) die("session", &ei);
    for (t->number = 0; golden_find(t->file, "%s.%d.ids", name, t->number); t->number++) {
        snprintf(t->at, sizeof t->at, "%s.%d", name, t->number);
        run_turn(t);
    }
    oc_session_close(t->session);
}

void golden_run(const struct golden_options *opt, struct golden_report *rep) {
    struct golden_file file;
    struct oc_errinfo ei;
    char isa[32];
    struct oc_engine_params params = {.model_dir = opt->model_dir, .isa = isa, .ctx_tokens = 1024, .n_threads = 2};
    snprintf(isa, sizeof isa, "%s", opt->isa);
    char *int8 = strstr(isa, "-int8");
    if (int8) *int8 = '\0', params.batch_mode = "throughput";
    golden_device_set(&params);
    struct turn t = {.opt = opt, .rep = rep, .file = &file};
    *rep = (struct golden_report){0};
    golden_open(&file, opt->golden_path);
    if (oc_engine_open(&params, &t.engine, &ei)) die(opt->model_dir, &ei);
    snprintf(rep->isa, sizeof rep->isa, "%s", oc_engine_info(t.engine)->isa);
    rep->throughput = oc_engine_info(t.engine)->throughput;
    /* F32 and F16 weights are held to the exact bounds whatever the cache does to K and V. */
    const struct oc_lm *lm = &t.engine->model->lm;
    bool wide = lm->layers[0].q.bits == 0 && lm->layers[0].q.dtype != OC_BF16;
    bool rounds = strcmp(rep->isa, "cuda") == 0; /* role P of bf16 and quantised weights, to 11 bits */
    rep->exact = wide || (lm->kv_dtype == OC_F32 && !rounds);
    rep->int16 = lm->layers[0].q.bits != 0 && t.engine->dev->ops.x_digits == 2 && !rep->throughput;
    if (opt->fault.engine) opt->fault.engine(t.engine);
    for (int i = 0; i < file.n_records; i++) {
        char *end = strstr(file.records[i].name, ".0.ids");
        if (!end || end[6]) continue;
        char name[49];
        snprintf(name, sizeof name, "%.*s", (int)(end - file.records[i].name), file.records[i].name);
        if (!opt->only_case || strcmp(opt->only_case, name) == 0) run_case(&t, name);
    }
    oc_engine_close(t.engine);
    golden_close(&file);
}
