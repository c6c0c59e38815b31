/* The file: one YAML mapping of keys to scalars or lists of scalars, through libyaml's events.
 *
 * What YAML can do beyond that is refused rather than guessed at: anchors, aliases, tags, a second document.
 * Scalars are read as YAML 1.2's core schema has it, so `no` is text and not false. */
#include <string.h>

#include <yaml.h>

#include "base/limits.h"
#include "server/config_impl.h"

struct file {
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    const char *name;
    struct oc_config_reader *r;
    int lines[OC_SERVER_CONFIG_MAX_KEYS]; /* where each key stood first, 0: not yet */
};

static int line_of(const struct file *f) {
    return (int)f->event.start_mark.line + 1;
}

/* Replaces the event by the next one. False after a fault of the YAML itself. */
static bool next(struct file *f) {
    if (f->has_event) yaml_event_delete(&f->event);
    f->has_event = yaml_parser_parse(&f->parser, &f->event) == 1;
    if (f->has_event) return true;
    const char *problem = f->parser.problem ? f->parser.problem : "unreadable";
    oc_config_fault(f->r, OC_ERR_FORMAT, "%s:%d: not YAML: %s", f->name, (int)f->parser.problem_mark.line + 1,
                    problem);
    return false;
}

/* Passes over the node that the current event starts. */
static bool skip(struct file *f) {
    int depth = 0;
    for (;;) {
        yaml_event_type_t t = f->event.type;
        if (t == YAML_MAPPING_START_EVENT || t == YAML_SEQUENCE_START_EVENT) depth++;
        if (t == YAML_MAPPING_END_EVENT || t == YAML_SEQUENCE_END_EVENT) depth--;
        if (depth == 0) return true;
        if (depth > OC_LIMIT_CONFIG_DEPTH) {
            oc_config_fault(f->r, OC_ERR_LIMIT, "%s:%d: nested deeper than %d", f->name, line_of(f),
                            OC_LIMIT_CONFIG_DEPTH);
            return false;
        }
        if (!next(f)) return false;
    }
}

/* What a node may not have: an anchor, a tag; and it may not be an alias. */
static bool is_plain_node(const struct file *f) {
    const yaml_event_t *e = &f->event;
    const void *anchor = NULL, *tag = NULL;
    if (e->type == YAML_SCALAR_EVENT) {
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
    } else if (e->type == YAML_SEQUENCE_START_EVENT) {
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
    } else if (e->type == YAML_MAPPING_START_EVENT) {
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
    } else if (e->type == YAML_ALIAS_EVENT) {
        anchor = e;
    }
    if (!anchor && !tag) return true;
    oc_config_fault(f->r, OC_ERR_USAGE, "%s:%d: %s", f->name, line_of(f),
                    anchor ? "anchors and aliases (& and *) are not allowed here"
                           : "tags (!) are not allowed here");
    return false;
}

static struct oc_str scalar(const struct file *f) {
    return (struct oc_str){(const char *)f->event.data.scalar.value, f->event.data.scalar.length};
}

static bool is_bare(const struct file *f) {
    return f->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static bool is_null(const struct file *f) {
    struct oc_str s = scalar(f);
    return is_bare(f) && (s.n == 0 || oc_str_is(s, "~") || oc_str_is(s, "null") || oc_str_is(s, "Null") ||
                          oc_str_is(s, "NULL"));
}

static void set_scalar(struct file *f, int key, const char *where) {
    const struct oc_config_key *k = &oc_config_keys[key];
    bool typed = k->kind == OC_CONFIG_BOOL || k->kind == OC_CONFIG_INT || k->kind == OC_CONFIG_COUNT ||
                 k->kind == OC_CONFIG_NUM;
    char text[96];
    if (typed && !is_bare(f))
        oc_config_fault(f->r, OC_ERR_USAGE,
                        "%s: %s is the text '%s' in quotation marks, write it without them", where, k->key,
                        oc_config_quote(scalar(f), text));
    else
        oc_config_set(f->r, key, scalar(f), OC_CONFIG_FILE, where);
}

/* The items of a sequence, whose start is the current event. */
static bool read_items(struct file *f, int key, const char *where) {
    oc_config_begin_list(f->r, key, OC_CONFIG_FILE, where);
    for (;;) {
        if (!next(f)) return false;
        if (f->event.type == YAML_SEQUENCE_END_EVENT) return true;
        bool plain = is_plain_node(f);
        if (plain && f->event.type == YAML_SCALAR_EVENT && !is_null(f)) {
            set_scalar(f, key, where);
            continue;
        }
        if (plain)
            oc_config_fault(f->r, OC_ERR_USAGE, "%s:%d: an item of %s must be text", f->name, line_of(f),
                            oc_config_keys[key].key);
        if (!skip(f)) return false;
    }
}

static bool read_value(struct file *f, int key) {
    const struct oc_config_key *k = &oc_config_keys[key];
    char where[160], name[96];
    snprintf(where, sizeof where, "%s:%d", oc_config_quote(oc_str_from(f->name), name), line_of(f));
    if (!is_plain_node(f)) return skip(f);
    if (f->event.type == YAML_SCALAR_EVENT) {
        if (is_null(f))
            oc_config_begin_list(f->r, key, OC_CONFIG_FILE, where);
        else
            set_scalar(f, key, where);
        return true;
    }
    if (f->event.type == YAML_SEQUENCE_START_EVENT && k->kind == OC_CONFIG_LIST)
        return read_items(f, key, where);
    oc_config_fault(f->r, OC_ERR_USAGE, "%s: %s must be %s", where, k->key,
                    k->kind == OC_CONFIG_LIST ? "a list of texts" : "a single value");
    return skip(f);
}

/* The key that the current event is; -1 after a fault. */
static int read_key(struct file *f) {
    char text[96];
    if (!is_plain_node(f)) return -1;
    if (f->event.type != YAML_SCALAR_EVENT) {
        oc_config_fault(f->r, OC_ERR_USAGE, "%s:%d: a key must be text", f->name, line_of(f));
        return -1;
    }
    int key = oc_config_find_key(scalar(f));
    if (key < 0) {
        const char *near = oc_config_nearest(scalar(f), false);
        oc_config_fault(f->r, OC_ERR_USAGE, "%s:%d: there is no key '%s'%s%s%s", f->name, line_of(f),
                        oc_config_quote(scalar(f), text), near ? ", did you mean '" : "", near ? near : "",
                        near ? "'?" : "");
        return -1;
    }
    if (f->lines[key]) {
        oc_config_fault(f->r, OC_ERR_USAGE, "%s:%d: %s stands in line %d already", f->name, line_of(f),
                        oc_config_keys[key].key, f->lines[key]);
        return -1;
    }
    f->lines[key] = line_of(f);
    return key;
}

static bool read_mapping(struct file *f) {
    for (;;) {
        if (!next(f)) return false;
        if (f->event.type == YAML_MAPPING_END_EVENT) return true;
        int key = read_key(f);
        if (key < 0 && !skip(f)) return false;
        if (!next(f)) return false;
        if (key < 0 ? !skip(f) : !read_value(f, key)) return false;
    }
}

static bool read_document(struct file *f) {
    if (!next(f)) return false;
    if (f->event.type == YAML_SCALAR_EVENT && is_plain_node(f) && is_null(f))
        return true; /* "---" and no more */
    if (f->event.type == YAML_MAPPING_START_EVENT && is_plain_node(f)) return read_mapping(f);
    oc_config_fault(f->r, OC_ERR_USAGE, "%s:%d: the file must consist of lines 'key: value'", f->name,
                    line_of(f));
    return false;
}

static void read_stream(struct file *f) {
    if (!next(f) || !next(f)) return; /* the stream's start; a document's, or the end of an empty file */
    if (f->event.type != YAML_DOCUMENT_START_EVENT) return;
    if (!read_document(f) || !next(f) || !next(f)) return; /* the document's end; the stream's */
    if (f->event.type != YAML_STREAM_END_EVENT)
        oc_config_fault(f->r, OC_ERR_USAGE, "%s:%d: a second document", f->name, line_of(f));
}

void oc_config_read_yaml(struct oc_config_reader *r, struct oc_str text, const char *name) {
    struct file f = {.r = r, .name = name};
    if (yaml_parser_initialize(&f.parser) != 1) {
        oc_config_fault(r, OC_ERR_NOMEM, "%s: out of memory", name);
        return;
    }
    yaml_parser_set_encoding(&f.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&f.parser, (const unsigned char *)text.p, text.n);
    read_stream(&f);
    if (f.has_event) yaml_event_delete(&f.event);
    yaml_parser_delete(&f.parser);
}
