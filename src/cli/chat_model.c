#include "cli/chat_model.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "cli/models.h"

/* ---- Progress ------------------------------------------------------------------------------------------ */

struct progress {
    uint64_t start_ns, shown_ns;
    bool shown;
};

/* A line that overwrites itself, ten times a second at most, and only for models that take a while. */
static void show_progress(void *arg, double fraction) {
    struct progress *p = arg;
    if (oc_clock_ms_since(p->start_ns) < 300 || (p->shown && oc_clock_ms_since(p->shown_ns) < 100)) return;
    p->shown = true;
    p->shown_ns = oc_clock_ns();
    fprintf(stderr, "\rloading %3.0f %%", fraction * 100);
    fflush(stderr);
}

static enum oc_err open_engine(struct oc_cli_chat_model *m, struct oc_engine_params *p,
                               struct oc_errinfo *ei) {
    struct progress progress = {.start_ns = oc_clock_ns()};
    p->model_dir = m->dir;
    if (isatty(STDERR_FILENO)) {
        p->progress = show_progress;
        p->progress_arg = &progress;
    }
    enum oc_err err = oc_engine_open(p, &m->engine, ei);
    if (progress.shown) fputs("\r             \r", stderr);
    return err;
}

enum oc_err oc_cli_chat_model_open(struct oc_cli_chat_model *m, const char *name, bool want_template,
                                   struct oc_engine_params *p, struct oc_errinfo *ei) {
    uint64_t start_ns = oc_clock_ns();
    *m = (struct oc_cli_chat_model){0};
    oc_arena_init(&m->arena, OC_MIB);
    OC_TRY(oc_cli_models_find(&m->arena, name, &m->dir, &m->name, ei));
    const char *config_path = oc_path_join(&m->arena, m->dir, "config.json");
    if (!config_path || !oc_file_exists(config_path))
        return oc_fail(ei, OC_ERR_NOT_FOUND, "%s has no config.json: it is not the directory of a model",
                       m->dir);
    OC_TRY(oc_chat_model_open(&m->chat, m->dir, want_template, want_template, ei));
    OC_TRY(open_engine(m, p, ei));
    m->load_ms = oc_clock_ms_since(start_ns);
    return OC_OK;
}

void oc_cli_chat_model_close(struct oc_cli_chat_model *m) {
    oc_engine_close(m->engine);
    oc_chat_model_close(&m->chat);
    oc_arena_free(&m->arena);
}

struct oc_lm_sample_params oc_cli_chat_model_sampling(const struct oc_cli_chat_model *m) {
    const struct oc_chat_generation *g = &m->chat.generation;
    struct oc_lm_sample_params s = oc_lm_sample_defaults();
    if (g->do_sample) s.temperature = (float)g->temperature;
    s.top_k = g->top_k;
    s.top_p = (float)g->top_p;
    s.min_p = (float)g->min_p;
    s.repetition_penalty = (float)g->repetition_penalty;
    return s;
}
