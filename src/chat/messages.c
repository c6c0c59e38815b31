#include "chat/messages.h"

#include "base/limits.h"

struct prep {
    struct oc_arena *a;
    struct oc_errinfo *ei;
    bool takes_text, takes_parts;
    struct oc_chat_messages *out;
    size_t message, part;
};

static enum oc_err no_memory(struct prep *p) {
    return oc_fail(p->ei, OC_ERR_NOMEM, "messages[%zu]: no memory", p->message);
}

static enum oc_err bad_part(struct prep *p, enum oc_err code, const char *what) {
    return oc_fail(p->ei, code, "messages[%zu].content[%zu]%s", p->message, p->part, what);
}

/* Copies an object with room for one member more; a copied object has no index, so that it may change. */
static bool copy_object(struct prep *p, const struct oc_json *from, struct oc_json *to) {
    *to = (struct oc_json){.type = OC_JSON_OBJ, .n_members = from->n_members};
    to->members = oc_arena_array(p->a, from->n_members + 1, sizeof *to->members);
    if (!to->members) return false;
    if (from->n_members) memcpy(to->members, from->members, from->n_members * sizeof *to->members);
    return true;
}

static struct oc_json *member(struct oc_json *obj, const char *key) {
    for (size_t i = 0; obj->type == OC_JSON_OBJ && i < obj->n_members; i++) {
        if (oc_str_is(obj->members[i].key, key)) return &obj->members[i].value;
    }
    return NULL;
}

static struct oc_json string_value(struct oc_str s) {
    return (struct oc_json){.type = OC_JSON_STR, .str = s};
}

/* {"type": type} or {"type": type, "text": text}. */
static bool make_part(struct prep *p, const char *type, const struct oc_str *text, struct oc_json *out) {
    *out = (struct oc_json){.type = OC_JSON_OBJ, .n_members = text ? 2 : 1};
    out->members = oc_arena_array(p->a, 2, sizeof *out->members);
    if (!out->members) return false;
    out->members[0] = (struct oc_json_member){OC_STR("type"), string_value(oc_str_from(type))};
    if (text) out->members[1] = (struct oc_json_member){OC_STR("text"), string_value(*text)};
    return true;
}

static enum oc_err add_image(struct prep *p, struct oc_str source, struct oc_json *out) {
    struct oc_chat_messages *m = p->out;
    if (!p->takes_parts) {
        return bad_part(p, OC_ERR_UNSUPPORTED, ": a picture, but this model's chat template reads text only");
    }
    if (m->n_images == OC_LIMIT_IMAGES_PER_PROMPT) {
        return oc_fail(p->ei, OC_ERR_LIMIT, "messages[%zu].content[%zu]: more than %d pictures in one prompt",
                       p->message, p->part, OC_LIMIT_IMAGES_PER_PROMPT);
    }
    m->images[m->n_images++] = (struct oc_chat_image){source, p->message, p->part};
    return make_part(p, "image", NULL, out) ? OC_OK : no_memory(p);
}

static enum oc_err image_url_part(struct prep *p, const struct oc_json *part, struct oc_json *out) {
    const struct oc_json *v = oc_json_get(part, "image_url");
    if (!v) return bad_part(p, OC_ERR_FORMAT, ": a part of type image_url without \"image_url\"");
    if (v->type == OC_JSON_OBJ) {
        v = oc_json_get(v, "url");
        if (!v || v->type != OC_JSON_STR)
            return bad_part(p, OC_ERR_FORMAT, ".image_url.url: must be a string");
    }
    if (v->type != OC_JSON_STR)
        return bad_part(p, OC_ERR_FORMAT, ".image_url: must be an object with \"url\"");
    if (!v->str.n) return bad_part(p, OC_ERR_FORMAT, ".image_url.url: is empty");
    return add_image(p, v->str, out);
}

static enum oc_err image_part(struct prep *p, const struct oc_json *part, struct oc_json *out) {
    static const char *const keys[] = {"image", "url", "path"};
    for (size_t i = 0; i < 3; i++) {
        const struct oc_json *v = oc_json_get(part, keys[i]);
        if (oc_json_is_null(v)) continue;
        if (v->type != OC_JSON_STR) {
            return oc_fail(p->ei, OC_ERR_FORMAT, "messages[%zu].content[%zu].%s: must be a string",
                           p->message, p->part, keys[i]);
        }
        return add_image(p, v->str, out);
    }
    return add_image(p, OC_STR(""), out);
}

static enum oc_err one_part(struct prep *p, const struct oc_json *part, struct oc_json *out) {
    if (part->type == OC_JSON_STR) return make_part(p, "text", &part->str, out) ? OC_OK : no_memory(p);
    if (part->type != OC_JSON_OBJ) return bad_part(p, OC_ERR_FORMAT, ": must be an object with \"type\"");
    const struct oc_json *type = oc_json_get(part, "type");
    if (!type || type->type != OC_JSON_STR) return bad_part(p, OC_ERR_FORMAT, ".type: must be a string");
    if (oc_str_is(type->str, "image_url") || oc_str_is(type->str, "input_image"))
        return image_url_part(p, part, out);
    if (oc_str_is(type->str, "image")) return image_part(p, part, out);
    if (!oc_str_is(type->str, "text") && !oc_str_is(type->str, "input_text")) {
        return oc_fail(p->ei, OC_ERR_UNSUPPORTED,
                       "messages[%zu].content[%zu].type: '%.*s' is not one of text, image_url, image",
                       p->message, p->part, (int)(type->str.n < 40 ? type->str.n : 40), type->str.p);
    }
    const struct oc_json *text = oc_json_get(part, "text");
    if (!text || text->type != OC_JSON_STR) return bad_part(p, OC_ERR_FORMAT, ".text: must be a string");
    return make_part(p, "text", &text->str, out) ? OC_OK : no_memory(p);
}

/* The text of all parts, one to a line. */
static enum oc_err join_parts(struct prep *p, const struct oc_json *parts, struct oc_json *out) {
    size_t n = 0;
    for (size_t i = 0; i < parts->n_items; i++) n += member(&parts->items[i], "text")->str.n + 1;
    char *text = oc_arena_alloc(p->a, n + 1);
    if (!text) return no_memory(p);
    n = 0;
    for (size_t i = 0; i < parts->n_items; i++) {
        struct oc_str s = member(&parts->items[i], "text")->str;
        if (i) text[n++] = '\n';
        if (s.n) memcpy(text + n, s.p, s.n);
        n += s.n;
    }
    *out = string_value((struct oc_str){text, n});
    return OC_OK;
}

static enum oc_err content_value(struct prep *p, const struct oc_json *content, struct oc_json *out) {
    *out = *content;
    if (content->type == OC_JSON_NULL || (content->type == OC_JSON_STR && p->takes_text)) return OC_OK;
    if (content->type != OC_JSON_STR && content->type != OC_JSON_ARR) {
        return oc_fail(p->ei, OC_ERR_FORMAT, "messages[%zu].content: must be a string or a list of parts",
                       p->message);
    }
    size_t n = content->type == OC_JSON_STR ? 1 : content->n_items;
    const struct oc_json *parts = content->type == OC_JSON_STR ? content : content->items;
    struct oc_json list = {.type = OC_JSON_ARR, .n_items = n};
    list.items = oc_arena_array(p->a, n, sizeof *list.items);
    if (!list.items) return no_memory(p);
    for (p->part = 0; p->part < n; p->part++) OC_TRY(one_part(p, &parts[p->part], &list.items[p->part]));
    if (!p->takes_parts) return join_parts(p, &list, out);
    *out = list;
    return OC_OK;
}

/* One tool call; its function's arguments are parsed when they are the text of a JSON object. */
static bool copy_tool_call(struct prep *p, const struct oc_json *from, struct oc_json *to) {
    *to = *from;
    const struct oc_json *args = oc_json_path(from, "function", "arguments", NULL);
    if (!args || args->type != OC_JSON_STR) return true;
    struct oc_json parsed;
    if (!args->str.n)
        parsed = (struct oc_json){.type = OC_JSON_OBJ};
    else if (oc_json_parse(p->a, args->str, "arguments", &parsed, NULL) != OC_OK ||
             parsed.type != OC_JSON_OBJ)
        return true;
    if (!copy_object(p, from, to)) return false;
    struct oc_json *function = member(to, "function");
    struct oc_json copy;
    if (!copy_object(p, function, &copy)) return false;
    *function = copy;
    *member(function, "arguments") = parsed;
    return true;
}

static enum oc_err tool_calls(struct prep *p, struct oc_json *message) {
    struct oc_json *calls = member(message, "tool_calls");
    if (!calls || calls->type != OC_JSON_ARR) return OC_OK;
    struct oc_json list = {.type = OC_JSON_ARR, .n_items = calls->n_items};
    list.items = oc_arena_array(p->a, calls->n_items, sizeof *list.items);
    if (!list.items) return no_memory(p);
    for (size_t i = 0; i < calls->n_items; i++) {
        if (!copy_tool_call(p, &calls->items[i], &list.items[i])) return no_memory(p);
    }
    *calls = list;
    return OC_OK;
}

static enum oc_err one_message(struct prep *p, const struct oc_json *from, struct oc_json *to) {
    if (from->type != OC_JSON_OBJ)
        return oc_fail(p->ei, OC_ERR_FORMAT, "messages[%zu]: must be an object", p->message);
    const struct oc_json *role = oc_json_get(from, "role");
    if (!role || role->type != OC_JSON_STR || !role->str.n) {
        return oc_fail(p->ei, OC_ERR_FORMAT, "messages[%zu].role: must be a string", p->message);
    }
    if (!copy_object(p, from, to)) return no_memory(p);
    struct oc_json *content = member(to, "content");
    if (!content && !member(to, "tool_calls")) {
        return oc_fail(p->ei, OC_ERR_FORMAT, "messages[%zu].content: is missing", p->message);
    }
    if (content) {
        struct oc_json value;
        OC_TRY(content_value(p, content, &value));
        *content = value;
    }
    return tool_calls(p, to);
}

enum oc_err oc_chat_messages_prepare(struct oc_arena *a, const struct oc_json *messages, bool takes_text,
                                     bool takes_parts, struct oc_chat_messages *out, struct oc_errinfo *ei) {
    struct prep p = {.a = a, .ei = ei, .takes_text = takes_text, .takes_parts = takes_parts, .out = out};
    *out = (struct oc_chat_messages){.n_images = 0};
    if (!messages || messages->type != OC_JSON_ARR || !messages->n_items) {
        return oc_fail(ei, OC_ERR_FORMAT, "messages: must be a list of at least one message");
    }
    out->images = oc_arena_array(a, OC_LIMIT_IMAGES_PER_PROMPT, sizeof *out->images);
    struct oc_json list = {.type = OC_JSON_ARR, .n_items = messages->n_items};
    list.items = oc_arena_array(a, messages->n_items, sizeof *list.items);
    if (!out->images || !list.items) return no_memory(&p);
    for (; p.message < messages->n_items; p.message++) {
        OC_TRY(one_message(&p, &messages->items[p.message], &list.items[p.message]));
    }
    out->list = list;
    return OC_OK;
}
