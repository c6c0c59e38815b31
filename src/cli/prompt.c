#include "cli/prompt.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "chat/messages.h"

/* ---- Reading ------------------------------------------------------------------------------------------- */

static enum oc_err read_stdin(struct oc_arena *a, struct oc_str *out, struct oc_errinfo *ei) {
    return oc_file_read_fd(a, STDIN_FILENO, "standard input", OC_LIMIT_PROMPT_BYTES, out, ei);
}

static void add_field(struct oc_buf *b, const char *before, struct oc_str text) {
    oc_buf_add_str(b, before);
    oc_json_write_str(b, text);
}

/* The messages that --system, --image and PROMPT stand for. Each picture is a part whose source is its path.
 */
static enum oc_err compose(struct oc_cli_prompt *p, const struct oc_cli_run_options *o, struct oc_str text,
                           struct oc_arena *a, struct oc_errinfo *ei) {
    struct oc_buf b;
    oc_buf_init(&b, OC_LIMIT_JSON_BYTES);
    oc_buf_add_char(&b, '[');
    if (o->system) {
        add_field(&b, "{\"role\":\"system\",\"content\":", oc_str_from(o->system));
        oc_buf_add_str(&b, "},");
    }
    oc_buf_add_str(&b, "{\"role\":\"user\",\"content\":");
    if (o->images.n) {
        oc_buf_add_char(&b, '[');
        for (int i = 0; i < o->images.n; i++) oc_buf_add_str(&b, "{\"type\":\"image\"},");
        add_field(&b, "{\"type\":\"text\",\"text\":", text);
        oc_buf_add_str(&b, "}]");
    } else {
        oc_json_write_str(&b, text);
    }
    oc_buf_add_str(&b, "}]");
    enum oc_err err =
        b.failed ? oc_fail(ei, OC_ERR_LIMIT, "the prompt is over %zu MiB", b.max_bytes >> 20) : OC_OK;
    struct oc_str json = {oc_buf_str(&b), b.n_bytes};
    if (!err) err = oc_json_parse(a, json, "the prompt", &p->messages, ei);
    oc_buf_free(&b);
    return err;
}

/* "dir/" of "dir/file", or NULL when there is none. */
static const char *dir_of(struct oc_arena *a, const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return NULL;
    return oc_arena_strndup(a, path, slash == path ? 1 : (size_t)(slash - path));
}

static enum oc_err read_messages(struct oc_cli_prompt *p, const char *path, struct oc_arena *a,
                                 struct oc_errinfo *ei) {
    struct oc_str text;
    bool from_stdin = !strcmp(path, "-");
    const char *name = from_stdin ? "standard input" : path;
    if (from_stdin)
        OC_TRY(oc_file_read_fd(a, STDIN_FILENO, name, OC_LIMIT_JSON_BYTES, &text, ei));
    else
        OC_TRY(oc_file_read(a, path, OC_LIMIT_JSON_BYTES, &text, ei));
    OC_TRY(oc_json_parse(a, text, name, &p->messages, ei));
    const struct oc_json *inner = oc_json_get(&p->messages, "messages"); /* a whole request */
    if (inner) p->messages = *inner;
    if (!from_stdin) p->base_dir = dir_of(a, path);
    if (p->messages.type != OC_JSON_ARR || p->messages.n_items == 0)
        return oc_fail(ei, OC_ERR_FORMAT,
                       "%s holds no messages: [{\"role\": \"user\", \"content\": ...}, ...]", name);
    return OC_OK;
}

enum oc_err oc_cli_prompt_read(struct oc_cli_prompt *p, const struct oc_cli_run_options *o,
                               struct oc_arena *a, struct oc_errinfo *ei) {
    *p = (struct oc_cli_prompt){.messages = {.type = OC_JSON_NULL}};
    oc_chat_ids_init(&p->ids, OC_LIMIT_CTX_TOKENS);
    if (o->messages) return read_messages(p, o->messages, a, ei);
    struct oc_str text = oc_str_from(o->prompt);
    if (!strcmp(o->prompt, "-")) {
        OC_TRY(read_stdin(a, &text, ei));
        if (!o->raw && oc_str_ends(text, OC_STR("\n")))
            text.n--; /* the newline of echo is not part of the question */
    }
    p->sources = oc_arena_array(a, (size_t)o->images.n, sizeof *p->sources);
    if (!p->sources) return oc_fail(ei, OC_ERR_NOMEM, "no memory for %d pictures", o->images.n);
    p->n_sources = o->images.n;
    for (int i = 0; i < o->images.n; i++) p->sources[i].uri = oc_str_from(o->images.items[i]);
    if (!o->raw) return compose(p, o, text, a, ei);
    p->raw = text;
    return OC_OK;
}

/* ---- Encoding ------------------------------------------------------------------------------------------ */

/* Takes the pictures that a file of messages names. */
static enum oc_err take_sources(struct oc_cli_prompt *p, const struct oc_chat_messages *prepared,
                                struct oc_arena *a, struct oc_errinfo *ei) {
    p->sources = oc_arena_array(a, prepared->n_images, sizeof *p->sources);
    if (!p->sources) return oc_fail(ei, OC_ERR_NOMEM, "no memory for %zu pictures", prepared->n_images);
    p->n_sources = (int)prepared->n_images;
    for (int i = 0; i < p->n_sources; i++) {
        const struct oc_chat_image *image = &prepared->images[i];
        if (image->source.n == 0)
            return oc_fail(ei, OC_ERR_FORMAT, "messages[%zu].content[%zu] names no picture: it needs a url",
                           image->message, image->part);
        p->sources[i] = (struct oc_cli_picture_source){image->source, p->base_dir};
    }
    return OC_OK;
}

enum oc_err oc_cli_prompt_encode(struct oc_cli_prompt *p, const struct oc_cli_chat_model *m,
                                 struct oc_arena *a, struct oc_errinfo *ei) {
    const struct oc_chat_template *t = m->chat.template_;
    if (!t) return oc_chat_tokenizer_encode(m->chat.tokenizer, p->raw, NULL, 0, &p->ids, ei);
    struct oc_chat_messages prepared;
    OC_TRY(oc_chat_messages_prepare(a, &p->messages, oc_chat_template_takes_text(t),
                                    oc_chat_template_takes_parts(t), &prepared, ei));
    if (!p->sources) OC_TRY(take_sources(p, &prepared, a, ei));
    enum oc_err err = oc_chat_model_encode(&m->chat, &prepared.list, NULL, true, &p->ids, ei);
    /* What a template refuses is bad input, not a wrong option. */
    return err == OC_ERR_USAGE ? oc_fail_prefix(ei, ei->code = OC_ERR_FORMAT, "the chat template") : err;
}

void oc_cli_prompt_free(struct oc_cli_prompt *p) {
    oc_chat_ids_free(&p->ids);
}
