/* --print-config and the help, both from the table. */
#include <ctype.h>
#include <string.h>

#include "server/config_impl.h"

void oc_server_config_print(const struct oc_server_config *c, struct oc_buf *out) {
    oc_buf_add_str(out, "# ocellus serve --print-config; to be read with --config\n");
    for (int i = 0; i < oc_config_n_keys; i++) {
        const struct oc_config_key *k = &oc_config_keys[i];
        if (k->kind == OC_CONFIG_SECTION) {
            oc_buf_printf(out, "\n# %s\n", k->help);
            continue;
        }
        oc_buf_printf(out, "%s: ", k->key);
        oc_config_write_value(c, i, out);
        oc_buf_printf(out, "  # %s\n", c->sources[i] ? c->sources[i] : "default");
    }
}

/* ---- Help ---------------------------------------------------------------------------------------------- */

#define COLUMN 34
#define WIDTH 110

/* Words of text from column COLUMN on, further lines indented to it. */
static void put_wrapped(struct oc_buf *out, const char *text) {
    size_t at = COLUMN;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (at > COLUMN && at + 1 + n > WIDTH) {
            oc_buf_printf(out, "\n%*s", COLUMN, "");
            at = COLUMN;
        } else if (at > COLUMN) {
            oc_buf_add_char(out, ' ');
            at++;
        }
        oc_buf_add(out, text, n);
        at += n;
        text += n + (text[n] == ' ');
    }
    oc_buf_add_char(out, '\n');
}

static void put_row(struct oc_buf *out, const char *left, const char *right) {
    size_t n = strlen(left);
    if (n + 1 >= COLUMN)
        oc_buf_printf(out, "%s\n%*s", left, COLUMN, "");
    else
        oc_buf_printf(out, "%-*s", COLUMN, left);
    put_wrapped(out, right);
}

static void put_key(struct oc_buf *out, const struct oc_config_key *k) {
    struct oc_buf left, right;
    oc_buf_init(&left, 256);
    oc_buf_init(&right, 1024);
    if (k->letter)
        oc_buf_printf(&left, "  -%c, --%s", k->letter, k->flag);
    else
        oc_buf_printf(&left, "  --%s", k->flag);
    if (k->kind != OC_CONFIG_BOOL)
        oc_buf_printf(&left, " %s", k->arg);
    else if (!strcmp(k->def, "true"))
        oc_buf_printf(&left, ", --no-%s", k->flag);
    oc_buf_add_str(&right, k->help);
    bool told = !k->def || !strcmp(k->def, "runtime") || !strcmp(k->def, "0") || !strcmp(k->def, "false");
    if (k->def && !strcmp(k->def, "tier"))
        oc_buf_add_str(&right, " (default by memory, see below)");
    else if (!told)
        oc_buf_printf(&right, " (default %s)", k->def);
    put_row(out, oc_buf_str(&left), oc_buf_str(&right));
    oc_buf_free(&left);
    oc_buf_free(&right);
}

/* clang-format off: the lines of the text are the lines of the source */
static const char before[] = "usage: ocellus serve [OPTION]...\n\n"
                             "Serves models over the OpenAI API. The embedded model and those of the Hugging "
                             "Face cache are always there;\n"
                             "each is loaded by the first request that names it.\n";

static const char after[] =
    "\nWhere values come from, later ones win: the defaults, the variables of mlx-inference-server (below), "
    "the\n"
    "file, OCELLUS_ variables, options. Each option above is a key in the file, with '_' for '-' (--model is "
    "models\n"
    "there), and a variable: --queue-depth 20 is queue_depth: 20 and OCELLUS_QUEUE_DEPTH=20. Lists are "
    "repeated\n"
    "options, YAML lists, and variables with commas. A switch like --rate-limit is turned off by "
    "--no-rate-limit.\n"
    "SIZE is 8GiB, 500MB or bytes; TIME is 30s, 5m, 1h30m or seconds. The file is a YAML mapping without "
    "anchors,\n"
    "aliases and tags, in which switches are true or false.\n"
    "\nDefaults by memory (the cgroup's limit, if there is one):\n"
    "  tier           from     request-timeout  load-timeout  kept out of memory-budget\n"
    "  high-memory    64 GiB   600s             300s          20 GiB\n"
    "  medium-memory  24 GiB   300s             180s          8 GiB\n"
    "  low-memory     0        180s             120s          4 GiB, at most half\n"
    "\nVariables of mlx-inference-server and what they set:\n";
/* clang-format on */

static void put_old(struct oc_buf *out, const char *variable, const char *key, const char *remark) {
    char left[64];
    struct oc_buf right;
    oc_buf_init(&right, 512);
    snprintf(left, sizeof left, "  %s", variable);
    if (key) oc_buf_add_str(&right, key);
    if (key && remark) oc_buf_add_str(&right, "; ");
    if (remark) oc_buf_printf(&right, "%s%s", key ? "" : "nothing: ", remark);
    put_row(out, left, oc_buf_str(&right));
    oc_buf_free(&right);
}

void oc_server_config_help(struct oc_buf *out) {
    oc_buf_add_str(out, before);
    oc_buf_add_str(out, "\nConfiguration\n");
    put_row(out, "  --config FILE", "read a YAML file (or the one that OCELLUS_CONFIG names)");
    put_row(out, "  --print-config",
            "print the whole configuration as such a file, with where each value came from");
    for (int i = 0; i < oc_config_n_keys; i++) {
        const struct oc_config_key *k = &oc_config_keys[i];
        if (k->kind == OC_CONFIG_SECTION)
            oc_buf_printf(out, "\n%s\n", k->help);
        else
            put_key(out, k);
    }
    oc_buf_add_str(out, after);
#define OLD(variable, how, key, remark)                                                                      \
    if ((key) || (remark)) put_old(out, variable, key, remark);
#include "server/config.def"
}
