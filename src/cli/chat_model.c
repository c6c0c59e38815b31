#include "cli/chat_model.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "cli/models.h"

/* ---- Progress
 * ---------------------------------------------------------------------------------------------- */

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

/* ---- Tokenizer and template
 * -------------------------------------------------------------------------------- */

/* A special token of tokenizer_config.json: a string, or an object with its "content". NULL when not there.
 */
static const char *special_token(const struct oc_json *config, const char *name) {
    const struct oc_json *v = oc_json_get(config, name);
    if (v && v->type == OC_JSON_OBJ) v = oc_json_get(v, "content");
    return v && v->type == OC_JSON_STR ? v->str.p : NULL;
}

static enum oc_err open_tokenizer(struct oc_cli_chat_model *m, struct oc_errinfo *ei) {
    const char *path = oc_path_join(&m->arena, m->dir, "tokenizer.json");
    const char *config_path = oc_path_join(&m->arena, m->dir, "tokenizer_config.json");
    if (!path || !config_path) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a path");
    if (!oc_file_exists(path))
        return oc_fail(ei, OC_ERR_NOT_FOUND,
                       "%s has no tokenizer.json: download the model with all its files", m->dir);
    if (!oc_file_exists(config_path)) config_path = NULL;
    OC_TRY(oc_chat_tokenizer_open(path, config_path, &m->tokenizer, ei));
    if (config_path)
        OC_TRY(oc_json_load(&m->arena, config_path, OC_LIMIT_TOKENIZER_BYTES, &m->tokenizer_config, ei));
    const char *eos = special_token(&m->tokenizer_config, "eos_token");
    uint32_t id = eos ? oc_chat_tokenizer_id(m->tokenizer, oc_str_from(eos)) : OC_CHAT_NO_ID;
    if (id != OC_CHAT_NO_ID) oc_cli_defaults_add_eos(&m->defaults, id);
    return OC_OK;
}

static enum oc_err open_template(struct oc_cli_chat_model *m, struct oc_errinfo *ei) {
    struct oc_str source;
    OC_TRY(oc_chat_template_find(&m->arena, m->dir, &source, ei));
    enum oc_err err = oc_chat_template_open(source, &m->template_, ei);
    return err ? oc_fail_prefix(ei, err, "the chat template of %s", m->name) : OC_OK;
}

enum oc_err oc_cli_chat_model_open(struct oc_cli_chat_model *m, const char *name, bool want_template,
                                   struct oc_engine_params *p, struct oc_errinfo *ei) {
    uint64_t start_ns = oc_clock_ns();
    *m = (struct oc_cli_chat_model){.tokenizer_config = {.type = OC_JSON_NULL}};
    oc_arena_init(&m->arena, 2 * OC_LIMIT_JSON_BYTES);
    OC_TRY(oc_cli_models_find(&m->arena, name, &m->dir, &m->name, ei));
    const char *config_path = oc_path_join(&m->arena, m->dir, "config.json");
    if (!config_path || !oc_file_exists(config_path))
        return oc_fail(ei, OC_ERR_NOT_FOUND, "%s has no config.json: it is not the directory of a model",
                       m->dir);
    OC_TRY(oc_cli_defaults_read(m->dir, &m->defaults, ei));
    OC_TRY(open_tokenizer(m, ei));
    if (want_template) OC_TRY(open_template(m, ei));
    OC_TRY(open_engine(m, p, ei));
    m->load_ms = oc_clock_ms_since(start_ns);
    return OC_OK;
}

void oc_cli_chat_model_close(struct oc_cli_chat_model *m) {
    oc_engine_close(m->engine);
    oc_chat_template_close(m->template_);
    oc_chat_tokenizer_close(m->tokenizer);
    oc_arena_free(&m->arena);
}

enum oc_err oc_cli_chat_model_encode(const struct oc_cli_chat_model *m, const struct oc_json *messages,
                                     struct oc_chat_ids *ids, struct oc_errinfo *ei) {
    struct oc_chat_text text;
    struct tm local;
    struct oc_chat_render r = {.messages = messages, .add_generation_prompt = true, .now = time(NULL)};
    r.bos_token = special_token(&m->tokenizer_config, "bos_token");
    r.eos_token = special_token(&m->tokenizer_config, "eos_token");
    r.unk_token = special_token(&m->tokenizer_config, "unk_token");
    r.pad_token = special_token(&m->tokenizer_config, "pad_token");
    if (localtime_r(&r.now, &local)) r.utc_offset_s = (int32_t)local.tm_gmtoff;
    enum oc_err err = oc_chat_template_render(m->template_, &r, &text, ei);
    struct oc_str rendered = {oc_buf_str(&text.text), text.text.n_bytes};
    const uint8_t *origin = (const uint8_t *)oc_buf_str(&text.origin);
    if (!err) err = oc_chat_tokenizer_encode(m->tokenizer, rendered, origin, 0, ids, ei);
    oc_chat_text_free(&text);
    return err;
}
