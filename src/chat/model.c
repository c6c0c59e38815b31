#include "chat/model.h"

#include <math.h>
#include <time.h>

#include "base/file.h"
#include "base/limits.h"

#define TRANSFORMERS_TOP_K 50 /* GenerationConfig's default */

/* ---- Generation defaults ------------------------------------------------------------------------------- */

static bool has_eos(const struct oc_chat_generation *g, int32_t token) {
    for (int i = 0; i < g->n_eos; i++)
        if (g->eos[i] == token) return true;
    return false;
}

/* More than OC_CHAT_MAX_EOS and doubles are left out. */
static void add_eos(struct oc_chat_generation *g, int64_t id) {
    if (id < 0 || id >= OC_LIMIT_VOCAB || g->n_eos == OC_CHAT_MAX_EOS || has_eos(g, (int32_t)id)) return;
    g->eos[g->n_eos++] = (int32_t)id;
}

/* eos_token_id: an integer or a list of them. */
static void add_eos_value(struct oc_chat_generation *g, const struct oc_json *v) {
    if (!v) return;
    if (v->type == OC_JSON_INT) add_eos(g, v->i);
    for (size_t i = 0; v->type == OC_JSON_ARR && i < v->n_items; i++)
        if (v->items[i].type == OC_JSON_INT) add_eos(g, v->items[i].i);
}

/* A number of generation_config.json and the range it must be in. Absent or null, it stays as it is:
 * transformers runs without the step that a null would steer, and so do the defaults here. */
struct number_field {
    const char *key;
    size_t at;
    double above, min, max;
    const char *allowed;
};

#define AT(field) offsetof(struct oc_chat_generation, field)
static const struct number_field number_fields[] = {
    {"temperature", AT(temperature), -INFINITY, 0, 1e6, "0 or more"},
    {"top_p", AT(top_p), 0, 0, 1, "over 0 and at most 1"},
    {"min_p", AT(min_p), -INFINITY, 0, 1, "from 0 to 1"},
    {"repetition_penalty", AT(repetition_penalty), 0, 0, 1e6, "over 0"},
};

static bool is_number(const struct oc_json *v) {
    return v->type == OC_JSON_INT || v->type == OC_JSON_DOUBLE;
}

static enum oc_err read_number(const struct oc_json *file, const struct number_field *f,
                               struct oc_chat_generation *g, struct oc_errinfo *ei) {
    const struct oc_json *v = oc_json_get(file, f->key);
    if (oc_json_is_null(v)) return OC_OK;
    if (!is_number(v)) return oc_fail(ei, OC_ERR_FORMAT, "%s must be a number", f->key);
    if (!(v->d > f->above && v->d >= f->min && v->d <= f->max))
        return oc_fail(ei, OC_ERR_FORMAT, "%s is %g, but must be %s", f->key, v->d, f->allowed);
    *(double *)((char *)g + f->at) = v->d;
    return OC_OK;
}

/* top_k: absent, it is 50 where tokens are drawn; null, 0 and what other servers write for off (-1) are off.
 */
static enum oc_err read_top_k(const struct oc_json *file, struct oc_chat_generation *g,
                              struct oc_errinfo *ei) {
    const struct oc_json *v = oc_json_get(file, "top_k");
    g->top_k = !v && g->do_sample ? TRANSFORMERS_TOP_K : 0;
    if (oc_json_is_null(v)) return OC_OK;
    if (!is_number(v)) return oc_fail(ei, OC_ERR_FORMAT, "top_k must be a number");
    int64_t k = oc_json_int_or(v, -1);
    g->top_k = k > 0 && k < OC_LIMIT_VOCAB ? (int)k : 0;
    return OC_OK;
}

static enum oc_err read_generation(const struct oc_json *file, struct oc_chat_generation *g,
                                   struct oc_errinfo *ei) {
    *g = (struct oc_chat_generation){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    g->do_sample = oc_json_bool_or(oc_json_get(file, "do_sample"), false);
    for (size_t i = 0; i < sizeof number_fields / sizeof *number_fields; i++)
        OC_TRY(read_number(file, &number_fields[i], g, ei));
    OC_TRY(read_top_k(file, g, ei));
    int64_t max_new_tokens = oc_json_int_or(oc_json_get(file, "max_new_tokens"), 0);
    g->max_new_tokens = max_new_tokens > 0 ? max_new_tokens : 0;
    return OC_OK;
}

/* Loads dir/name when it exists; *out stays null when it does not. */
static enum oc_err load(struct oc_arena *a, const char *dir, const char *name, size_t max_bytes,
                        struct oc_json *out, struct oc_errinfo *ei) {
    *out = (struct oc_json){.type = OC_JSON_NULL};
    const char *path = oc_path_join(a, dir, name);
    if (!path) return oc_fail(ei, OC_ERR_LIMIT, "%s: the path is too long", dir);
    return oc_file_exists(path) ? oc_json_load(a, path, max_bytes, out, ei) : OC_OK;
}

static enum oc_err open_generation(struct oc_chat_model *m, struct oc_arena *a, struct oc_errinfo *ei) {
    struct oc_json generation, config;
    OC_TRY(load(a, m->dir, "generation_config.json", OC_LIMIT_CONFIG_BYTES, &generation, ei));
    OC_TRY(load(a, m->dir, "config.json", OC_LIMIT_CONFIG_BYTES, &config, ei));
    enum oc_err err = read_generation(&generation, &m->generation, ei);
    if (err) return oc_fail_prefix(ei, err, "%s/generation_config.json", m->dir);
    add_eos_value(&m->generation, oc_json_get(&generation, "eos_token_id"));
    add_eos_value(&m->generation, oc_json_get(&config, "eos_token_id"));
    add_eos_value(&m->generation, oc_json_path(&config, "text_config", "eos_token_id", NULL));
    return OC_OK;
}

/* ---- Tokenizer and template ---------------------------------------------------------------------------- */

/* A special token of tokenizer_config.json: a string, or an object with its "content". NULL when not there.
 */
static const char *special_token(const struct oc_chat_model *m, const char *name) {
    const struct oc_json *v = oc_json_get(&m->tokenizer_config, name);
    if (v && v->type == OC_JSON_OBJ) v = oc_json_get(v, "content");
    return v && v->type == OC_JSON_STR ? v->str.p : NULL;
}

static enum oc_err open_tokenizer(struct oc_chat_model *m, struct oc_arena *a, struct oc_errinfo *ei) {
    const char *path = oc_path_join(a, m->dir, "tokenizer.json");
    const char *config_path = oc_path_join(a, m->dir, "tokenizer_config.json");
    if (!path || !config_path) return oc_fail(ei, OC_ERR_LIMIT, "%s: the path is too long", m->dir);
    if (!oc_file_exists(path))
        return oc_fail(ei, OC_ERR_NOT_FOUND,
                       "%s has no tokenizer.json: download the model with all its files", m->dir);
    if (!oc_file_exists(config_path)) config_path = NULL;
    OC_TRY(oc_chat_tokenizer_open(path, config_path, &m->tokenizer, ei));
    OC_TRY(
        load(&m->arena, m->dir, "tokenizer_config.json", OC_LIMIT_TOKENIZER_BYTES, &m->tokenizer_config, ei));
    /* The end of a turn, which the configs above may leave out. */
    const char *eos = special_token(m, "eos_token");
    uint32_t id = eos ? oc_chat_tokenizer_id(m->tokenizer, oc_str_from(eos)) : OC_CHAT_NO_ID;
    if (id != OC_CHAT_NO_ID) add_eos(&m->generation, id);
    return OC_OK;
}

static enum oc_err open_template(struct oc_chat_model *m, struct oc_arena *a, struct oc_errinfo *ei) {
    struct oc_str source;
    OC_TRY(oc_chat_template_find(a, m->dir, &source, ei));
    enum oc_err err = oc_chat_template_open(source, &m->template_, ei);
    return err ? oc_fail_prefix(ei, err, "the chat template of %s", m->dir) : OC_OK;
}

static enum oc_err open_parts(struct oc_chat_model *m, struct oc_arena *a, bool want_template, bool required,
                              struct oc_errinfo *ei) {
    OC_TRY(open_generation(m, a, ei));
    OC_TRY(open_tokenizer(m, a, ei));
    if (!want_template) return OC_OK;
    enum oc_err err = open_template(m, a, &m->template_error);
    if (!err || !required) return OC_OK;
    return oc_fail(ei, err, "%s", m->template_error.msg);
}

enum oc_err oc_chat_model_open(struct oc_chat_model *m, const char *dir, bool want_template,
                               bool template_required, struct oc_errinfo *ei) {
    struct oc_arena scratch; /* what nothing refers to once the model is open */
    *m = (struct oc_chat_model){.tokenizer_config = {.type = OC_JSON_NULL}};
    oc_arena_init(&m->arena, OC_LIMIT_JSON_BYTES);
    m->dir = oc_arena_strndup(&m->arena, dir, strlen(dir));
    if (!m->dir) return oc_fail(ei, OC_ERR_NOMEM, "no memory for the model of %s", dir);
    oc_arena_init(&scratch, OC_LIMIT_CHECKPOINT_BYTES);
    enum oc_err err = open_parts(m, &scratch, want_template, template_required, ei);
    oc_arena_free(&scratch);
    return err;
}

void oc_chat_model_close(struct oc_chat_model *m) {
    oc_chat_template_close(m->template_);
    oc_chat_tokenizer_close(m->tokenizer);
    oc_arena_free(&m->arena);
    *m = (struct oc_chat_model){.tokenizer_config = {.type = OC_JSON_NULL}};
}

bool oc_chat_model_is_eos(const struct oc_chat_model *m, int32_t token) {
    return has_eos(&m->generation, token);
}

/* ---- Encoding ------------------------------------------------------------------------------------------ */

static enum oc_err no_template(const struct oc_chat_model *m, struct oc_errinfo *ei) {
    if (m->template_error.code) return oc_fail(ei, m->template_error.code, "%s", m->template_error.msg);
    return oc_fail(ei, OC_ERR_NOT_FOUND, "%s was opened without its chat template", m->dir);
}

enum oc_err oc_chat_model_encode(const struct oc_chat_model *m, const struct oc_json *messages,
                                 const struct oc_json *extra, bool add_generation_prompt,
                                 struct oc_chat_ids *ids, struct oc_errinfo *ei) {
    struct oc_chat_text text;
    struct tm local;
    if (!m->template_) return no_template(m, ei);
    struct oc_chat_render r = {.messages = messages,
                               .extra = extra,
                               .add_generation_prompt = add_generation_prompt,
                               .bos_token = special_token(m, "bos_token"),
                               .eos_token = special_token(m, "eos_token"),
                               .unk_token = special_token(m, "unk_token"),
                               .pad_token = special_token(m, "pad_token"),
                               .now = time(NULL)};
    if (localtime_r(&r.now, &local)) r.utc_offset_s = (int32_t)local.tm_gmtoff;
    enum oc_err err = oc_chat_template_render(m->template_, &r, &text, ei);
    struct oc_str rendered = {oc_buf_str(&text.text), text.text.n_bytes};
    const uint8_t *origin = (const uint8_t *)oc_buf_str(&text.origin);
    if (!err) err = oc_chat_tokenizer_encode(m->tokenizer, rendered, origin, 0, ids, ei);
    oc_chat_text_free(&text);
    return err;
}
