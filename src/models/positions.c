/* Positions on three axes. Formula: get_rope_index of transformers' Qwen2.5-VL: text counts up on all axes; a picture's
 * tokens share the time, and count rows and columns of its merged grid; what follows starts past the largest. */
#include "models/model.h"

static int max3(int a, int b, int c) {
    int m = a > b ? a : b;
    return m > c ? m : c;
}

static void place_picture(const struct oc_picture_plan *p, int32_t start, int32_t (*pos)[3]) {
    int h = p->grid_h / p->merge, w = p->grid_w / p->merge;
    for (int i = 0; i < p->n_tokens; i++) {
        pos[i][0] = start + i / (h * w);
        pos[i][1] = start + i / w % h;
        pos[i][2] = start + i % w;
    }
}

/* True if all n tokens are the placeholder. */
static bool is_run(const int32_t *tokens, int n, int32_t placeholder) {
    for (int i = 0; i < n; i++)
        if (tokens[i] != placeholder) return false;
    return true;
}

enum oc_err oc_model_positions(const struct oc_model *m, const struct oc_prompt *prompt, int32_t start,
                               int32_t (*pos)[3], int32_t *next, struct oc_errinfo *ei) {
    int32_t at = start;
    int picture = 0;
    for (int i = 0; i < prompt->n_tokens;) {
        if (m->image_token < 0 || prompt->tokens[i] != m->image_token) {
            pos[i][0] = pos[i][1] = pos[i][2] = at++;
            i++;
            continue;
        }
        if (picture == prompt->n_pictures)
            return oc_fail(ei, OC_ERR_FORMAT, "the prompt has more picture placeholders than its %d pictures", prompt->n_pictures);
        const struct oc_picture_plan *p = &prompt->pictures[picture].plan;
        if (i + p->n_tokens > prompt->n_tokens || !is_run(prompt->tokens + i, p->n_tokens, m->image_token))
            return oc_fail(ei, OC_ERR_FORMAT, "picture %d needs %d placeholders in a row", picture + 1, p->n_tokens);
        place_picture(p, at, pos + i);
        at += max3(p->grid_t, p->grid_h / p->merge, p->grid_w / p->merge);
        i += p->n_tokens;
        picture++;
    }
    if (picture != prompt->n_pictures)
        return oc_fail(ei, OC_ERR_FORMAT, "%d pictures were given, but the prompt has places for %d", prompt->n_pictures, picture);
    *next = at;
    return OC_OK;
}
