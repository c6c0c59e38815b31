/* `messages`: checked part by part, with null fields dropped and roles brought to those that templates know.
 */
#include <stdio.h>

#include "api/request_impl.h"

struct reader {
    struct oc_arena *a;
    struct oc_api_error *e;
    struct oc_api_message_list *out;
    size_t message, part;
    char name[128]; /* of the field that is looked at */
};

/* "messages[2].role" */
static const char *in_message(struct reader *r, const char *field) {
    snprintf(r->name, sizeof r->name, "messages[%zu]%s", r->message, field);
    return r->name;
}

/* "messages[2].content[1].image_url" */
static const char *in_part(struct reader *r, const char *field, const char *inner) {
    snprintf(r->name, sizeof r->name, "messages[%zu].content[%zu]%s%s%s%s", r->message, r->part,
             *field ? "." : "", field, *inner ? "." : "", inner);
    return r->name;
}

static int shown(struct oc_str s) {
    return (int)(s.n < 40 ? s.n : 40);
}

/* ---- Pictures ------------------------------------------------------------------------------------------ */

#define PIXELS_MAX 1000000000

static bool read_detail(struct reader *r, const struct oc_json *v, const char *name,
                        enum oc_api_detail *out) {
    static const char *const words[] = {
        [OC_API_DETAIL_AUTO] = "auto", [OC_API_DETAIL_LOW] = "low", [OC_API_DETAIL_HIGH] = "high"};
    if (oc_json_is_null(v)) return true;
    for (int i = 0; i < 3 && v->type == OC_JSON_STR; i++) {
        if (!oc_str_is(v->str, words[i])) continue;
        *out = (enum oc_api_detail)i;
        return true;
    }
    return oc_api_fail(r->e, OC_API_BAD_REQUEST, name, "'%s' must be \"auto\", \"low\" or \"high\"", name);
}

/* detail, min_pixels and max_pixels of an object: the part, or what its `field` holds ("": the part itself).
 */
static bool read_wishes(struct reader *r, const struct oc_json *obj, const char *field,
                        struct oc_api_picture *p) {
    bool in = *field != '\0';
    struct {
        const char *name;
        int64_t *to;
    } pixels[] = {{"min_pixels", &p->min_pixels}, {"max_pixels", &p->max_pixels}};
    if (!read_detail(r, oc_json_get(obj, "detail"), in_part(r, in ? field : "detail", in ? "detail" : ""),
                     &p->detail))
        return false;
    for (size_t i = 0; i < 2; i++) {
        const char *name = in_part(r, in ? field : pixels[i].name, in ? pixels[i].name : "");
        if (!oc_api_value_int(oc_json_get(obj, pixels[i].name), name, 1, PIXELS_MAX, pixels[i].to, r->e))
            return false;
    }
    return true;
}

static bool too_many(struct reader *r, const char *name) {
    return oc_api_fail(r->e, OC_API_BAD_REQUEST, name, "Too many images: a request may have at most %zu",
                       r->out->max_pictures);
}

/* The picture that `field` of the part names: a string, or an object with "url". */
static bool add_picture(struct reader *r, const struct oc_json *part, const char *field) {
    struct oc_api_picture p = {.detail = OC_API_DETAIL_AUTO};
    const struct oc_json *v = oc_json_get(part, field);
    bool is_object = v && v->type == OC_JSON_OBJ;
    const struct oc_json *url = is_object ? oc_json_get(v, "url") : v;
    if (oc_json_is_null(url) || url->type != OC_JSON_STR)
        return oc_api_value_refuse(url, in_part(r, field, is_object ? "url" : ""),
                                   is_object ? "a string" : "a string or an object with \"url\"", r->e);
    if (url->str.n == 0)
        return oc_api_fail(r->e, OC_API_BAD_REQUEST, in_part(r, field, ""), "'%s' has an empty url", r->name);
    if (r->out->n_pictures == r->out->max_pictures) return too_many(r, in_part(r, field, ""));
    if (!read_wishes(r, part, "", &p)) return false;
    if (is_object && !read_wishes(r, v, field, &p)) return false;
    if (p.min_pixels && p.max_pixels && p.min_pixels > p.max_pixels)
        return oc_api_fail(r->e, OC_API_BAD_REQUEST, in_part(r, field, ""),
                           "'%s' has min_pixels over max_pixels", r->name);
    p.url = url->str;
    p.param = oc_arena_printf(r->a, "%s", in_part(r, field, ""));
    if (!p.param) return oc_api_value_no_memory(r->e);
    r->out->pictures[r->out->n_pictures++] = p;
    return true;
}

/* {"type":"image"}: the first of three names that is there, as chat/messages.h reads it. */
static bool add_image(struct reader *r, const struct oc_json *part) {
    static const char *const fields[] = {"image", "url", "path"};
    for (size_t i = 0; i < 3; i++) {
        const struct oc_json *v = oc_json_get(part, fields[i]);
        if (oc_json_is_null(v)) continue;
        if (v->type != OC_JSON_STR)
            return oc_api_value_refuse(v, in_part(r, fields[i], ""), "a string", r->e);
        return add_picture(r, part, fields[i]);
    }
    return oc_api_fail(r->e, OC_API_BAD_REQUEST, in_part(r, "", ""),
                       "'%s' names no picture: send {\"type\": \"image_url\", \"image_url\": {\"url\": ...}}",
                       r->name);
}

/* ---- Parts --------------------------------------------------------------------------------------------- */

static bool read_text(struct reader *r, const struct oc_json *part) {
    const struct oc_json *v = oc_json_get(part, "text");
    if (v && v->type == OC_JSON_STR) return true;
    return oc_api_value_refuse(v, in_part(r, "text", ""), "a string", r->e);
}

static bool read_image_url(struct reader *r, const struct oc_json *part) {
    return add_picture(r, part, "image_url");
}

static const struct part_type {
    const char *name;
    bool (*read)(struct reader *r, const struct oc_json *part);
} part_types[] = {
    {"text", read_text},       {"image_url", read_image_url},
    {"input_text", read_text}, {"input_image", read_image_url},
    {"image", add_image},
};

static bool read_part(struct reader *r, const struct oc_json *part) {
    if (part->type != OC_JSON_OBJ)
        return oc_api_value_refuse(part, in_part(r, "", ""), "an object with \"type\"", r->e);
    const struct oc_json *type = oc_json_get(part, "type");
    if (!type || type->type != OC_JSON_STR)
        return oc_api_value_refuse(type, in_part(r, "type", ""), "a string", r->e);
    for (size_t i = 0; i < sizeof part_types / sizeof *part_types; i++)
        if (oc_str_is(type->str, part_types[i].name)) return part_types[i].read(r, part);
    return oc_api_fail(r->e, OC_API_UNSUPPORTED, in_part(r, "", ""),
                       "'%s' is of type '%.*s', which is not supported here: send text or image_url", r->name,
                       shown(type->str), type->str.p);
}

/* ---- Messages ------------------------------------------------------------------------------------------ */

static const struct role {
    const char *name, *as;
    bool may_be_silent; /* content may be null */
} roles[] = {
    {"system", "system", false},      {"developer", "system", false}, {"user", "user", false},
    {"assistant", "assistant", true}, {"tool", "tool", false},        {"function", "function", false},
};

static const struct role *read_role(struct reader *r, const struct oc_json *message) {
    const struct oc_json *v = oc_json_get(message, "role");
    if (!v || v->type != OC_JSON_STR) {
        oc_api_value_refuse(v, in_message(r, ".role"), "a string", r->e);
        return NULL;
    }
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (oc_str_is(v->str, roles[i].name)) return &roles[i];
    oc_api_fail(r->e, OC_API_BAD_REQUEST, in_message(r, ".role"),
                "'%s' is '%.*s', but must be one of system, developer, user, assistant, tool, function",
                r->name, shown(v->str), v->str.p);
    return NULL;
}

static bool read_content(struct reader *r, const struct oc_json *v, bool may_be_silent) {
    if (oc_json_is_null(v) ? may_be_silent : v->type == OC_JSON_STR) return true;
    if (oc_json_is_null(v) || v->type != OC_JSON_ARR)
        return oc_api_value_refuse(v, in_message(r, ".content"), "a string or an array of parts", r->e);
    for (r->part = 0; r->part < v->n_items; r->part++)
        if (!read_part(r, &v->items[r->part])) return false;
    return true;
}

/* The other fields that templates look at must have the type they count on. */
static bool read_rest(struct reader *r, const struct oc_json *message) {
    static const char *const texts[] = {"name", "tool_call_id", "reasoning_content", "reasoning"};
    struct oc_str s;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char field[32];
        snprintf(field, sizeof field, ".%s", texts[i]);
        if (!oc_api_value_text(oc_json_get(message, texts[i]), in_message(r, field), &s, r->e)) return false;
    }
    const struct oc_json *calls = oc_json_get(message, "tool_calls");
    if (oc_json_is_null(calls) || calls->type == OC_JSON_ARR) return true;
    return oc_api_value_refuse(calls, in_message(r, ".tool_calls"), "an array", r->e);
}

static struct oc_json text_value(const char *s) {
    return (struct oc_json){.type = OC_JSON_STR, .str = oc_str_from(s)};
}

/* A copy without null fields, its role as templates know it; content that is null or missing becomes "". */
static bool copy_message(struct reader *r, const struct oc_json *from, const struct role *role,
                         struct oc_json *to) {
    *to = (struct oc_json){.type = OC_JSON_OBJ};
    to->members = oc_arena_array(r->a, from->n_members + 1, sizeof *to->members);
    if (!to->members) return oc_api_value_no_memory(r->e);
    for (size_t i = 0; i < from->n_members; i++) {
        const struct oc_json_member *m = &from->members[i];
        if (m->value.type == OC_JSON_NULL) continue;
        to->members[to->n_members] = *m;
        if (oc_str_is(m->key, "role")) to->members[to->n_members].value = text_value(role->as);
        to->n_members++;
    }
    if (oc_json_is_null(oc_json_get(from, "content")))
        to->members[to->n_members++] = (struct oc_json_member){OC_STR("content"), text_value("")};
    return true;
}

static bool read_message(struct reader *r, const struct oc_json *from, struct oc_json *to) {
    if (from->type != OC_JSON_OBJ) return oc_api_value_refuse(from, in_message(r, ""), "an object", r->e);
    const struct role *role = read_role(r, from);
    return role && read_content(r, oc_json_get(from, "content"), role->may_be_silent) && read_rest(r, from) &&
           copy_message(r, from, role, to);
}

bool oc_api_request_messages(struct oc_arena *a, const struct oc_json *messages,
                             struct oc_api_message_list *out, struct oc_api_error *e) {
    struct reader r = {.a = a, .e = e, .out = out};
    if (!messages || messages->type != OC_JSON_ARR)
        return oc_api_value_refuse(messages, "messages", "an array", e);
    if (messages->n_items == 0) return oc_api_fail(e, OC_API_BAD_REQUEST, "messages", "'messages' is empty");
    if (messages->n_items > OC_LIMIT_API_MESSAGES)
        return oc_api_fail(e, OC_API_BAD_REQUEST, "messages",
                           "'messages' has %zu messages, but may have at most %d", messages->n_items,
                           OC_LIMIT_API_MESSAGES);
    if (out->max_pictures > OC_LIMIT_IMAGES_PER_PROMPT) out->max_pictures = OC_LIMIT_IMAGES_PER_PROMPT;
    out->pictures = oc_arena_array(a, out->max_pictures, sizeof *out->pictures);
    struct oc_json list = {.type = OC_JSON_ARR, .n_items = messages->n_items};
    list.items = oc_arena_array(a, messages->n_items, sizeof *list.items);
    if (!list.items || !out->pictures) return oc_api_value_no_memory(e);
    for (; r.message < messages->n_items; r.message++)
        if (!read_message(&r, &messages->items[r.message], &list.items[r.message])) return false;
    out->messages = list;
    return true;
}
