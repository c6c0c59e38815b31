#include "chat/template.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/limits.h"
#include "chat/jinja.h"

#define TREE_BYTES_MAX (256 * OC_MIB)

struct oc_chat_template {
    struct oc_arena arena;
    struct jnode *body;
    bool takes_text, takes_parts;
};

static void set_var(struct jctx *cx, const char *name, struct jval v) {
    jinja_dict_put(cx, cx->vars, jinja_lit(name), v);
}

static void set_token(struct jctx *cx, const char *name, const char *token) {
    if (token) set_var(cx, name, jinja_lit(token));
}

static void set_variables(struct jctx *cx, const struct oc_chat_render *r) {
    set_var(cx, "messages", jinja_from_json(cx, r->messages, 0));
    set_var(cx, "tools", jinja_from_json(cx, r->tools, 0));
    set_var(cx, "documents", jinja_none());
    set_var(cx, "add_generation_prompt", jinja_bool(r->add_generation_prompt));
    set_token(cx, "bos_token", r->bos_token);
    set_token(cx, "eos_token", r->eos_token);
    set_token(cx, "unk_token", r->unk_token);
    set_token(cx, "pad_token", r->pad_token);
    for (size_t i = 0; r->extra && r->extra->type == OC_JSON_OBJ && i < r->extra->n_members && !cx->err;
         i++) {
        const struct oc_json_member *m = &r->extra->members[i];
        jinja_dict_put(cx, cx->vars, jinja_str(m->key.p, m->key.n, 0), jinja_from_json(cx, &m->value, 0));
    }
}

enum oc_err oc_chat_template_render(const struct oc_chat_template *t, const struct oc_chat_render *r,
                                    struct oc_chat_text *out, struct oc_errinfo *ei) {
    size_t max = r->max_output_bytes ? r->max_output_bytes : OC_LIMIT_TEMPLATE_OUTPUT_BYTES;
    struct oc_arena arena;
    oc_arena_init(&arena, r->max_memory_bytes ? r->max_memory_bytes : OC_LIMIT_TEMPLATE_MEMORY_BYTES);
    oc_buf_init(&out->text, max);
    oc_buf_init(&out->origin, max);
    struct jout text = {0};
    struct jdict vars = {0};
    struct jctx cx = {.a = &arena,
                      .ei = ei,
                      .line = 1,
                      .max_output_bytes = max,
                      .out = &text,
                      .vars = &vars,
                      .steps_left = r->max_steps ? r->max_steps : OC_LIMIT_TEMPLATE_STEPS,
                      .now = r->now + r->utc_offset_s};
    set_variables(&cx, r);
    cx.scope = jinja_scope_push(&cx);
    jinja_exec(&cx, t->body);
    if (!cx.err && (!oc_buf_add(&out->text, text.p, text.n) || !oc_buf_add(&out->origin, text.o, text.n))) {
        jinja_fail(&cx, OC_ERR_NOMEM, "no memory for the text");
    }
    oc_arena_free(&arena);
    return cx.err;
}

void oc_chat_text_free(struct oc_chat_text *x) {
    oc_buf_free(&x->text);
    oc_buf_free(&x->origin);
}

/* True if the template renders this one message and its text comes out plain. */
static bool trial(const struct oc_chat_template *t, const char *messages) {
    struct oc_arena a;
    struct oc_json j;
    struct oc_chat_text out;
    oc_arena_init(&a, OC_MIB);
    bool ok = false;
    if (oc_json_parse(&a, oc_str_from(messages), "trial", &j, NULL) == OC_OK) {
        struct oc_chat_render r = {.messages = &j,
                                   .add_generation_prompt = true,
                                   .bos_token = "",
                                   .eos_token = "",
                                   .max_steps = 100000,
                                   .max_output_bytes = OC_MIB,
                                   .max_memory_bytes = 16 * OC_MIB};
        enum oc_err err = oc_chat_template_render(t, &r, &out, NULL);
        const char *text = oc_buf_str(&out.text), *hit = err ? NULL : strstr(text, "oc-trial-text");
        ok = hit && !strstr(text, "'type'") && !strstr(text, "\"type\"");
        oc_chat_text_free(&out);
    }
    oc_arena_free(&a);
    return ok;
}

enum oc_err oc_chat_template_open(struct oc_str source, struct oc_chat_template **out,
                                  struct oc_errinfo *ei) {
    *out = NULL;
    if (source.n > OC_LIMIT_TEMPLATE_BYTES) {
        return oc_fail(ei, OC_ERR_LIMIT, "chat template: %zu bytes, the limit is %zu", source.n,
                       (size_t)OC_LIMIT_TEMPLATE_BYTES);
    }
    struct oc_chat_template *t = calloc(1, sizeof *t);
    if (!t) return oc_fail(ei, OC_ERR_NOMEM, "chat template: no memory");
    oc_arena_init(&t->arena, TREE_BYTES_MAX);
    enum oc_err err = jinja_parse(&t->arena, source, &t->body, ei);
    if (err) {
        oc_chat_template_close(t);
        return err;
    }
    t->takes_parts =
        trial(t, "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"oc-trial-text\"}]}]");
    t->takes_text = !t->takes_parts || trial(t, "[{\"role\":\"user\",\"content\":\"oc-trial-text\"}]");
    *out = t;
    return OC_OK;
}

void oc_chat_template_close(struct oc_chat_template *t) {
    if (!t) return;
    oc_arena_free(&t->arena);
    free(t);
}

bool oc_chat_template_takes_text(const struct oc_chat_template *t) {
    return t->takes_text;
}

bool oc_chat_template_takes_parts(const struct oc_chat_template *t) {
    return t->takes_parts;
}

/* The template inside a JSON value of "chat_template": text, or the "default" one of a list. */
static bool template_of(const struct oc_json *v, struct oc_str *source) {
    if (v && v->type == OC_JSON_STR) {
        *source = v->str;
        return true;
    }
    for (size_t i = 0; v && v->type == OC_JSON_ARR && i < v->n_items; i++) {
        const struct oc_json *text = oc_json_get(&v->items[i], "template");
        bool is_default = oc_str_is(oc_json_str_or(oc_json_get(&v->items[i], "name"), OC_STR("")), "default");
        if (!is_default || !text || text->type != OC_JSON_STR) continue;
        *source = text->str;
        return true;
    }
    return false;
}

static enum oc_err no_template(const char *dir, struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_NOT_FOUND,
                   "%s: no chat template (looked for chat_template.jinja, chat_template.json and "
                   "\"chat_template\" in tokenizer_config.json): give one, or use a raw prompt",
                   dir);
}

enum oc_err oc_chat_template_find(struct oc_arena *a, const char *model_dir, struct oc_str *source,
                                  struct oc_errinfo *ei) {
    static const char *const files[] = {"chat_template.jinja", "chat_template.json", "tokenizer_config.json"};
    for (size_t i = 0; i < 3; i++) {
        char *path = oc_path_join(a, model_dir, files[i]);
        if (!path) return oc_fail(ei, OC_ERR_LIMIT, "%s: the path is too long", model_dir);
        if (!oc_file_exists(path)) continue;
        if (i == 0) return oc_file_read(a, path, OC_LIMIT_TEMPLATE_BYTES, source, ei);
        struct oc_json j;
        OC_TRY(oc_json_load(a, path, i == 1 ? OC_LIMIT_CONFIG_BYTES : OC_LIMIT_TOKENIZER_BYTES, &j, ei));
        const struct oc_json *v = j.type == OC_JSON_STR ? &j : oc_json_get(&j, "chat_template");
        if (template_of(v, source)) return OC_OK;
        if (!oc_json_is_null(v))
            return oc_fail(ei, OC_ERR_FORMAT, "%s: \"chat_template\" holds no template named \"default\"",
                           path);
    }
    return no_template(model_dir, ei);
}
