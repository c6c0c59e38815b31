/* check_faults MODELS_DIR GOLDEN_DIR: would the goldens notice?
 *
 * Breaks a golden checkpoint in memory, one mistake at a time, and demands that some stage exceeds its bound at least
 * tenfold, and that the first stage over its bound is the one where the mistake was made. Nothing in src/ knows of this. */
#include <stdio.h>
#include <string.h>

#include "engine/engine.h"
#include "golden_run.h"

#define MODEL "vl-f32" /* the tightest bounds: it notices most */
#define TENFOLD 10.0

static void swap_ints(int *a, int *b) {
    int t = *a;
    *a = *b;
    *b = t;
}

static void swap_height_width(struct oc_picture_plan *plan) {
    swap_ints(&plan->grid_h, &plan->grid_w);
}

static void wrong_mrope_section(struct oc_engine *e) {
    swap_ints(&e->model->lm.rope_section[0], &e->model->lm.rope_section[1]);
}

static void mrope_rotated(struct oc_engine *e) {
    int *section = e->model->lm.rope_section, first = section[0];
    section[0] = section[1], section[1] = section[2], section[2] = first;
}

static void mrope_ignored(struct oc_engine *e) {
    int *section = e->model->lm.rope_section;
    section[0] += section[1] + section[2], section[1] = section[2] = 0;
}

static void no_window_mask(struct oc_engine *e) {
    for (int i = 0; i < e->model->vision.n_blocks; i++) e->model->vision.blocks[i].full_attention = true;
}

/* Each full-attention block one later, the last one first. */
static void wrong_full_layer(struct oc_engine *e) {
    struct oc_vision *v = &e->model->vision;
    bool last = v->blocks[v->n_blocks - 1].full_attention;
    for (int i = v->n_blocks - 1; i > 0; i--) v->blocks[i].full_attention = v->blocks[i - 1].full_attention;
    v->blocks[0].full_attention = last;
}

/* Patches of a merge block column by column instead of row by row. */
static void wrong_merge_order(float *patches, const struct oc_picture_plan *plan) {
    for (int64_t block = 0; block < plan->n_patches / 4; block++) {
        float *a = patches + (4 * block + 1) * plan->patch_dim, *b = a + plan->patch_dim;
        for (int i = 0; i < plan->patch_dim; i++) {
            float t = a[i];
            a[i] = b[i];
            b[i] = t;
        }
    }
}

/* Every KV page is looked for one place later than where it was written; the last place shows a page never written.
 * (Full pages in another order alone would change nothing: attention does not care.) */
static void shift_pages(struct oc_session *s, int n_tokens) {
    int n_used = (n_tokens + OC_LM_PAGE_TOKENS - 1) / OC_LM_PAGE_TOKENS;
    int32_t first = s->pages[0];
    for (int i = 0; i < n_used; i++) s->pages[i] = s->pages[i + 1];
    s->pages[n_used] = first;
}

static void drop_qkv_bias(struct oc_engine *e) {
    for (int i = 0; i < e->model->lm.n_layers; i++) {
        struct oc_lm_layer *l = &e->model->lm.layers[i];
        l->q.bias = l->k.bias = l->v.bias = NULL;
    }
}

static void drop_one_k_bias(struct oc_engine *e) {
    e->model->lm.layers[1].k.bias = NULL;
}

static void drop_vision_qkv_bias(struct oc_engine *e) {
    for (int i = 0; i < e->model->vision.n_blocks; i++) e->model->vision.blocks[i].qkv.bias = NULL;
}

static const struct fault {
    const char *name, *case_name;
    struct golden_fault fault;
    enum stage first; /* where it must show first */
} faults[] = {
    {"height and width swapped", "wide", {.plan = swap_height_width}, STAGE_BLOCK},
    {"positions off by one after a picture", "square", {.position_shift = 1}, STAGE_DECODE},
    {"wrong mrope_section", "wide", {.engine = wrong_mrope_section}, STAGE_LAYER},
    {"mrope_section rotated", "large", {.engine = mrope_rotated}, STAGE_LAYER},
    {"mrope_section ignored", "large", {.engine = mrope_ignored}, STAGE_LAYER},
    {"wrong mrope_section", "large", {.engine = wrong_mrope_section}, STAGE_LAYER},
    {"no window mask", "square", {.engine = no_window_mask}, STAGE_BLOCK},
    {"wrong full-attention layer", "square", {.engine = wrong_full_layer}, STAGE_BLOCK},
    {"merge order", "square", {.patches = wrong_merge_order}, STAGE_PATCH_EMBED},
    {"a page shifted", "square", {.session = shift_pages}, STAGE_DECODE},
    {"QKV bias dropped", "text", {.engine = drop_qkv_bias}, STAGE_LAYER},
    {"one K bias dropped", "text", {.engine = drop_one_k_bias}, STAGE_LAYER},
    {"vision QKV bias dropped", "small", {.engine = drop_vision_qkv_bias}, STAGE_BLOCK},
};

/* Runs one fault (or none, when f is NULL: then every stage must hold). */
static bool check(const char *models, const char *goldens, const char *model, const struct fault *f, const char *case_name) {
    char model_dir[4096], golden_path[4096];
    snprintf(model_dir, sizeof model_dir, "%s/%s", models, model);
    snprintf(golden_path, sizeof golden_path, "%s/%s/golden.bin", goldens, model);
    struct golden_options opt = {.model_dir = model_dir, .golden_path = golden_path, .isa = "auto", .only_case = case_name};
    struct golden_report rep;
    if (f) opt.fault = f->fault;
    golden_run(&opt, &rep);
    int first = -1, worst = 0;
    for (int s = 0; s < N_STAGES; s++) {
        const struct stage_result *r = &rep.stages[s];
        if (first < 0 && r->ratio > 1) first = s;
        if (r->bound > 0 && r->ratio > rep.stages[worst].ratio) worst = s;
        if (rep.stages[worst].bound <= 0) worst = s;
    }
    const struct stage_result *w = &rep.stages[worst];
    bool ok = f ? first == (int)f->first && w->bound > 0 && w->ratio >= TENFOLD : first < 0;
    printf("%-10s %-6s %-38s first over its bound: %-11s; worst: %-11s %.1e, bound %.1e, %.0f times%s\n", model,
           case_name, f ? f->name : "(nothing)", first < 0 ? "none" : golden_stage_name((enum stage)first),
           golden_stage_name((enum stage)worst), w->error, w->bound, w->ratio, ok ? "" : "  <-- FAILS");
    return ok;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: check_faults MODELS_DIR GOLDEN_DIR\n");
        return 2;
    }
    bool good = true;
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        good = check(argv[1], argv[2], MODEL, NULL, faults[i].case_name) && good;
        good = check(argv[1], argv[2], MODEL, &faults[i], faults[i].case_name) && good;
    }
    return good ? 0 : 1;
}
