#define _GNU_SOURCE /* environ */
#include "server/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "server/config_impl.h"
#include "server/machine.h"

const struct oc_config_key oc_config_keys[] = {
#define SECTION(title) {.kind = OC_CONFIG_SECTION, .help = title},
#define X(field, kind, key, flag, letter, arg, min, max, def, help)                                          \
    {OC_CONFIG_##kind, key, flag, letter, arg, offsetof(struct oc_server_config, field), min, max, def, help},
#include "server/config.def"
};
const int oc_config_n_keys = sizeof oc_config_keys / sizeof oc_config_keys[0];
_Static_assert(sizeof oc_config_keys / sizeof oc_config_keys[0] <= OC_SERVER_CONFIG_MAX_KEYS,
               "too many keys");

/* What the server this one follows chose by the machine's memory; its idle times are not among it. */
static const struct tier {
    int64_t min_gib;
    const char *name, *request_timeout, *load_timeout;
    int64_t reserve_gib;
} tiers[] = {
    {64, "high-memory", "600s", "300s", 20},
    {24, "medium-memory", "300s", "180s", 8},
    {0, "low-memory", "180s", "120s", 4},
};

/* ---- Faults and notes ---------------------------------------------------------------------------------- */

void oc_config_fault(struct oc_config_reader *r, enum oc_err err, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (r->n_faults++ == 0) {
        r->err = err;
        snprintf(r->first, sizeof r->first, "%s", text);
    }
    if (r->n_faults > OC_LIMIT_CONFIG_FAULTS) return;
    if (r->n_faults == OC_LIMIT_CONFIG_FAULTS) snprintf(text, sizeof text, "and more");
    if (r->faults) oc_buf_printf(r->faults, "%s\n", text);
}

void oc_config_note(struct oc_config_reader *r, const char *fmt, ...) {
    struct oc_server_list *notes = &r->c->notes;
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const char *p = notes->n < OC_SERVER_MAX_LIST ? oc_arena_strndup(&r->c->arena, text, strlen(text)) : NULL;
    if (p) notes->items[notes->n++] = p;
}

/* ---- Names --------------------------------------------------------------------------------------------- */

static int find(struct oc_str name, bool flags) {
    for (int i = 0; i < oc_config_n_keys; i++) {
        const char *s = flags ? oc_config_keys[i].flag : oc_config_keys[i].key;
        if (s && oc_str_is(name, s)) return i;
    }
    return -1;
}

/* Fields carry their unit in their name; whoever writes a flag that way means the same. */
static int find_with_unit(struct oc_str name, bool flags) {
    static const char *const units[] = {"s", "bytes", "px", "tokens"};
    int key = find(name, flags);
    for (size_t i = 0; key < 0 && i < sizeof units / sizeof units[0]; i++) {
        size_t n = strlen(units[i]);
        if (name.n < n + 2 || memcmp(name.p + name.n - n, units[i], n) != 0) continue;
        if (name.p[name.n - n - 1] == (flags ? '-' : '_'))
            key = find((struct oc_str){name.p, name.n - n - 1}, flags);
    }
    return key;
}

int oc_config_find_key(struct oc_str name) {
    return find_with_unit(name, false);
}

int oc_config_find_flag(struct oc_str name) {
    return find_with_unit(name, true);
}

/* Levenshtein's distance; names of more than 40 bytes are far from everything. */
static int distance(struct oc_str a, struct oc_str b) {
    int row[41];
    if (a.n > 40 || b.n > 40) return 100;
    for (int k = 0; k <= (int)b.n; k++) row[k] = k;
    for (size_t i = 0; i < a.n; i++) {
        int diagonal = row[0];
        row[0] = (int)i + 1;
        for (size_t k = 0; k < b.n; k++) {
            int best = diagonal + (a.p[i] != b.p[k]);
            diagonal = row[k + 1];
            if (row[k] + 1 < best) best = row[k] + 1;
            if (row[k + 1] + 1 < best) best = row[k + 1] + 1;
            row[k + 1] = best;
        }
    }
    return row[b.n];
}

const char *oc_config_nearest(struct oc_str name, bool flags) {
    const char *nearest = NULL;
    int least = name.n < 6 ? 3 : 5; /* from here on nothing is near */
    for (int i = 0; i < oc_config_n_keys; i++) {
        const char *s = flags ? oc_config_keys[i].flag : oc_config_keys[i].key;
        int d = s ? distance(name, oc_str_from(s)) : 100;
        if (d >= least) continue;
        least = d;
        nearest = s;
    }
    return nearest;
}

/* ---- Defaults ------------------------------------------------------------------------------------------ */

static int64_t to_gib(int64_t bytes) {
    return (bytes + (int64_t)OC_GIB / 2) / (int64_t)OC_GIB;
}

static const struct tier *tier_of(int64_t memory_bytes) {
    const struct tier *t = tiers;
    while (to_gib(memory_bytes) < t->min_gib) t++;
    return t;
}

/* Where the instance keeps its lock: what systemd made for it, the user's directory, or one in /tmp. */
static void runtime_dir(const struct oc_config_world *w, char *out, size_t cap) {
    const char *unit = oc_config_getenv(w, "RUNTIME_DIRECTORY"),
               *user = oc_config_getenv(w, "XDG_RUNTIME_DIR");
    if (unit)
        snprintf(out, cap, "%.*s", (int)strcspn(unit, ":"), unit);
    else if (user)
        snprintf(out, cap, "%s/ocellus", user);
    else
        snprintf(out, cap, "/tmp/ocellus-%u", (unsigned)getuid());
}

static void set_tier_default(struct oc_config_reader *r, const struct tier *t, int key) {
    const struct oc_config_key *k = &oc_config_keys[key];
    const char *text = !strcmp(k->key, "request_timeout") ? t->request_timeout
                       : !strcmp(k->key, "load_timeout")  ? t->load_timeout
                       : !strcmp(k->key, "machine_type")  ? t->name
                                                          : "0";
    char where[96];
    snprintf(where, sizeof where, "default of the tier %s, %lld GiB of memory", t->name,
             (long long)to_gib(r->world->memory_bytes));
    oc_config_set(r, key, oc_str_from(text), OC_CONFIG_DEFAULT, where);
}

static void set_defaults(struct oc_config_reader *r) {
    const struct tier *t = tier_of(r->world->memory_bytes);
    char dir[OC_LIMIT_PATH_BYTES];
    r->c->tier = t->name;
    r->c->memory_bytes = r->world->memory_bytes;
    for (int i = 0; i < oc_config_n_keys; i++) {
        const char *def = oc_config_keys[i].def;
        r->c->sources[i] = "default";
        if (!def) continue;
        if (!strcmp(def, "tier")) {
            set_tier_default(r, t, i);
        } else if (!strcmp(def, "runtime")) {
            runtime_dir(r->world, dir, sizeof dir);
            oc_config_set(r, i, oc_str_from(dir), OC_CONFIG_DEFAULT, "default");
        } else {
            oc_config_set(r, i, oc_str_from(def), OC_CONFIG_DEFAULT, "default");
        }
    }
}

/* ---- Flags --------------------------------------------------------------------------------------------- */

enum { NO_KEY = -1, CONFIG_FILE = -2, PRINT_CONFIG = -3 };

struct flag {
    int key;           /* or one of the above */
    const char *value; /* NULL: a fault was told */
    char where[96];    /* as it was written, without its value */
};

static void unknown_flag(struct oc_config_reader *r, const char *arg, struct oc_str name) {
    char text[96];
    const char *near = oc_config_nearest(name, true);
    if (r)
        oc_config_fault(r, OC_ERR_USAGE, "there is no option %s%s%s%s",
                        oc_config_quote(oc_str_from(arg), text), near ? ", did you mean --" : "",
                        near ? near : "", near ? "?" : "");
}

/* The key of a long flag's name; *off is set for the --no- form of a switch. */
static int find_long(struct oc_str name, bool *off) {
    *off = false;
    if (oc_str_is(name, "config")) return CONFIG_FILE;
    if (oc_str_is(name, "print-config")) return PRINT_CONFIG;
    int key = oc_config_find_flag(name);
    if (key >= 0 || !oc_str_starts(name, OC_STR("no-"))) return key;
    key = oc_config_find_flag((struct oc_str){name.p + 3, name.n - 3});
    *off = key >= 0 && oc_config_keys[key].kind == OC_CONFIG_BOOL;
    return *off ? key : NO_KEY;
}

static int find_letter(char c) {
    for (int i = 0; i < oc_config_n_keys; i++)
        if (c && oc_config_keys[i].letter == c) return i;
    return NO_KEY;
}

/* The value: `attached` when the flag has one in its own argument, else the next argument, for a switch
 * "true". */
static void take_value(struct oc_config_reader *r, struct flag *f, const char *attached, bool off, int argc,
                       char **argv, int *i) {
    bool is_switch = f->key == PRINT_CONFIG || (f->key >= 0 && oc_config_keys[f->key].kind == OC_CONFIG_BOOL);
    if (attached && (off || f->key == PRINT_CONFIG)) {
        if (r) oc_config_fault(r, OC_ERR_USAGE, "%s takes no value", f->where);
    } else if (attached) {
        f->value = attached;
    } else if (is_switch) {
        f->value = off ? "false" : "true";
    } else if (*i + 1 < argc) {
        f->value = argv[++*i];
    } else if (r) {
        oc_config_fault(r, OC_ERR_USAGE, "%s needs a value", f->where);
    }
}

/* Reads the flag at argv[*i], and moves *i to its last argument. Without r faults are passed over. */
static struct flag read_flag(struct oc_config_reader *r, int argc, char **argv, int *i) {
    struct flag f = {.key = NO_KEY};
    const char *arg = argv[*i], *attached = NULL;
    bool off = false;
    char text[96];
    if (arg[0] != '-' || !arg[1] || !strcmp(arg, "--")) {
        if (r)
            oc_config_fault(r, OC_ERR_USAGE, "'%s' is not an option: models are given by --model",
                            oc_config_quote(oc_str_from(arg), text));
        return f;
    }
    struct oc_str name = {arg + 2, strcspn(arg + 2, "=")};
    if (arg[1] == '-') {
        f.key = find_long(name, &off);
        attached = name.p[name.n] ? name.p + name.n + 1 : NULL;
        oc_config_quote((struct oc_str){arg, name.n + 2}, f.where);
    } else {
        f.key = find_letter(arg[1]);
        attached = arg[2] ? arg + 2 : NULL;
        oc_config_quote((struct oc_str){arg, 2}, f.where);
    }
    if (f.key == NO_KEY)
        unknown_flag(r, arg, name);
    else
        take_value(r, &f, attached, off, argc, argv, i);
    return f;
}

/* What must be known before anything else is read. */
static void look_ahead(int argc, char **argv, const char **config_file, bool *show) {
    for (int i = 0; i < argc; i++) {
        struct flag f = read_flag(NULL, argc, argv, &i);
        if (f.key == CONFIG_FILE && f.value) *config_file = f.value;
        if (f.key == PRINT_CONFIG && f.value) *show = true;
    }
}

static void read_flags(struct oc_config_reader *r, int argc, char **argv) {
    for (int i = 0; i < argc; i++) {
        struct flag f = read_flag(r, argc, argv, &i);
        if (f.key >= 0 && f.value) oc_config_set(r, f.key, oc_str_from(f.value), OC_CONFIG_FLAG, f.where);
    }
}

/* ---- What no single value shows ------------------------------------------------------------------------ */

static const char *source(const struct oc_config_reader *r, const char *key) {
    const char *s = r->c->sources[oc_config_find_key(oc_str_from(key))];
    return s ? s : "?";
}

static void check_rates(struct oc_config_reader *r) {
    const struct oc_server_config *c = r->c;
    if (!c->rate_limit) return;
    if (c->rate_per_minute < 1 || c->rate_burst < 1)
        oc_config_fault(r, OC_ERR_USAGE,
                        "rate_limit is on: rate_per_minute (%d) and rate_burst (%d) must be at least 1",
                        c->rate_per_minute, c->rate_burst);
    else if (c->rate_burst > c->rate_per_minute)
        oc_config_fault(r, OC_ERR_USAGE, "rate_burst (%d, %s) must not be above rate_per_minute (%d, %s)",
                        c->rate_burst, source(r, "rate_burst"), c->rate_per_minute,
                        source(r, "rate_per_minute"));
}

static void check_queue(struct oc_config_reader *r) {
    const int *t = r->c->queue_timeout_s;
    if (t[0] < t[1] || t[1] < t[2])
        oc_config_fault(
            r, OC_ERR_USAGE,
            "queue_timeout_high (%ds) must not be below queue_timeout_normal (%ds), and that not below "
            "queue_timeout_low (%ds)",
            t[0], t[1], t[2]);
    if (r->reject_threshold >= 0 && r->reject_threshold < r->c->queue_depth)
        oc_config_fault(r, OC_ERR_USAGE,
                        "MLX_QUEUE_REJECT_THRESHOLD (%lld) must not be below queue_depth (%d, %s)",
                        (long long)r->reject_threshold, r->c->queue_depth, source(r, "queue_depth"));
}

static void check_memory(struct oc_config_reader *r) {
    struct oc_server_config *c = r->c;
    int64_t reserve = tier_of(c->memory_bytes)->reserve_gib * (int64_t)OC_GIB;
    if (c->memory_budget_bytes == 0) /* a small machine keeps half */
        c->memory_budget_bytes =
            c->memory_bytes - reserve > c->memory_bytes / 2 ? c->memory_bytes - reserve : c->memory_bytes / 2;
    if (c->memory_budget_bytes > c->memory_bytes)
        oc_config_fault(r, OC_ERR_USAGE,
                        "memory_budget (%.1f GiB, %s) is more than the %.1f GiB that this process may use",
                        (double)c->memory_budget_bytes / OC_GIB, source(r, "memory_budget"),
                        (double)c->memory_bytes / OC_GIB);
    if (c->kv_tokens && c->kv_tokens < c->ctx_tokens)
        oc_config_fault(r, OC_ERR_USAGE, "kv_tokens (%lld) must not be below ctx (%d), or 0",
                        (long long)c->kv_tokens, c->ctx_tokens);
}

static void check_together(struct oc_config_reader *r) {
    const struct oc_server_config *c = r->c;
    if (c->port && c->port == c->admin_port)
        oc_config_fault(r, OC_ERR_USAGE, "port (%s) and admin_port (%s) are both %d, they must differ",
                        source(r, "port"), source(r, "admin_port"), c->port);
    check_rates(r);
    check_queue(r);
    check_memory(r);
    if (!c->tls_cert != !c->tls_key)
        oc_config_fault(r, OC_ERR_USAGE, "%s: %s is given without %s: TLS needs both, or neither",
                        source(r, c->tls_cert ? "tls_cert" : "tls_key"), c->tls_cert ? "tls_cert" : "tls_key",
                        c->tls_cert ? "tls_key" : "tls_cert");
    if (c->media_dir && !oc_file_is_dir(c->media_dir))
        oc_config_fault(r, OC_ERR_USAGE, "%s: media_dir %s is no directory", source(r, "media_dir"),
                        c->media_dir);
}

/* ---- Reading ------------------------------------------------------------------------------------------- */

static void read_file(struct oc_config_reader *r, const char *path) {
    struct oc_arena a;
    struct oc_str text;
    struct oc_errinfo ei;
    char name[96];
    if (!path) return;
    oc_config_quote(oc_str_from(path), name);
    oc_arena_init(&a, 2 * OC_LIMIT_SERVER_CONFIG_BYTES);
    enum oc_err err = oc_file_read(&a, path, OC_LIMIT_SERVER_CONFIG_BYTES, &text, &ei);
    if (err)
        oc_config_fault(r, err == OC_ERR_NOT_FOUND ? OC_ERR_IO : err, "the configuration cannot be read: %s",
                        ei.msg);
    else
        oc_config_read_yaml(r, text, name);
    r->c->config_file = oc_arena_strndup(&r->c->arena, path, strlen(path));
    oc_arena_free(&a);
}

/* Values of the environment that are no settings of this server; the strings are the environment's own. */
static void read_surroundings(struct oc_config_reader *r) {
    const struct oc_config_world *w = r->world;
    r->c->hub_env = (struct oc_hub_env){oc_config_getenv(w, "HF_HUB_CACHE"), oc_config_getenv(w, "HF_HOME"),
                                        oc_config_getenv(w, "XDG_CACHE_HOME"), oc_config_getenv(w, "HOME")};
    r->c->embedded_models = oc_config_getenv(w, "OCELLUS_MODELS");
    r->c->notify_socket = oc_config_getenv(w, "NOTIFY_SOCKET");
}

static enum oc_err conclude(struct oc_config_reader *r, struct oc_errinfo *ei) {
    if (!r->n_faults) return OC_OK;
    oc_server_config_free(r->c);
    if (r->n_faults == 1) return oc_fail(ei, r->err, "%s", r->first);
    return oc_fail(ei, r->err, "%d faults in the configuration, the first: %s", r->n_faults, r->first);
}

enum oc_err oc_config_read_in(const struct oc_config_world *w, int argc, char **argv,
                              struct oc_server_config *out, bool *show, struct oc_errinfo *ei,
                              struct oc_buf *all_faults) {
    struct oc_config_reader r = {.c = out, .world = w, .faults = all_faults, .reject_threshold = -1};
    const char *file = oc_config_getenv(w, "OCELLUS_CONFIG");
    *out = (struct oc_server_config){0};
    oc_arena_init(&out->arena, 2 * OC_LIMIT_SERVER_CONFIG_BYTES);
    *show = false;
    look_ahead(argc, argv, &file, show);
    set_defaults(&r);
    read_surroundings(&r);
    oc_config_read_old_env(&r);
    read_file(&r, file);
    oc_config_read_env(&r);
    read_flags(&r, argc, argv);
    if (!r.n_faults || r.err != OC_ERR_NOMEM) check_together(&r);
    return conclude(&r, ei);
}

enum oc_err oc_server_config_read(int argc, char **argv, struct oc_server_config *out, bool *show,
                                  struct oc_errinfo *ei, struct oc_buf *all_faults) {
    struct oc_config_world w = {(const char *const *)environ, oc_machine_memory()};
    return oc_config_read_in(&w, argc, argv, out, show, ei, all_faults);
}

void oc_server_config_free(struct oc_server_config *c) {
    oc_arena_free(&c->arena);
    *c = (struct oc_server_config){0};
}
