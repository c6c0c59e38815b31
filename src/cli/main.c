/* cli/main.c - the command `ocellus`: picks the subcommand. */
#include <signal.h>
#include <string.h>

#include "cli/commands.h"

struct subcommand {
    const char *name;
    int (*main)(int argc, char **argv); /* NULL: not in this version */
    void (*help)(FILE *f);
    const char *summary; /* NULL: hidden, for serve alone */
};

static const struct subcommand subcommands[] = {
    {"run", oc_cli_run_main, oc_cli_run_help, "ask a model about text and pictures, print the answer"},
    {"inspect", oc_cli_inspect_main, oc_cli_inspect_help, "say what a model is and what memory it takes"},
    {"serve", oc_cli_serve_main, oc_cli_serve_help, "answer requests over the OpenAI API"},
    {"chat", NULL, NULL, NULL},
    {"pull", NULL, NULL, NULL},
    {"list", NULL, NULL, NULL},
    {"rm", NULL, NULL, NULL},
    {"verify", NULL, NULL, NULL},
    {"bench", NULL, NULL, NULL},
    {"recommend", NULL, NULL, NULL},
    {"quantize", NULL, NULL, NULL},
    {"doctor", NULL, NULL, NULL},
    {"worker", oc_cli_worker_main, oc_cli_worker_help, NULL},
    {"image-worker", oc_cli_image_worker_main, oc_cli_image_worker_help, NULL},
};
#define N_SUBCOMMANDS (sizeof subcommands / sizeof *subcommands)

static void help(FILE *f) {
    fputs("ocellus looks at pictures and answers questions about them, on this machine.\n\n"
          "usage: ocellus COMMAND [OPTION]... [ARGUMENT]...\n\n",
          f);
    for (size_t i = 0; i < N_SUBCOMMANDS; i++)
        if (subcommands[i].summary) fprintf(f, "  %-10s %s\n", subcommands[i].name, subcommands[i].summary);
    fputs("  help       say more about a command: ocellus help run\n\n"
          "  --version  print the version\n",
          f);
}

static const struct subcommand *find(const char *name) {
    for (size_t i = 0; i < N_SUBCOMMANDS; i++)
        if (!strcmp(subcommands[i].name, name)) return &subcommands[i];
    return NULL;
}

int oc_cli_main_fail(const struct oc_errinfo *ei, const char *command) {
    fprintf(stderr, "ocellus: %s\n", ei->msg);
    if (ei->code != OC_ERR_USAGE) return OC_CLI_EXIT_ERROR;
    fprintf(stderr, "Try: ocellus help%s%s\n", command ? " " : "", command ? command : "");
    return OC_CLI_EXIT_USAGE;
}

/* Help on stdout that could not be written is an error like any other. */
static int flushed(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return OC_CLI_EXIT_OK;
    struct oc_errinfo ei;
    oc_fail(&ei, OC_ERR_IO, "standard output could not be written");
    return oc_cli_main_fail(&ei, NULL);
}

static int no_such_command(const char *name, const struct subcommand *planned) {
    struct oc_errinfo ei;
    if (planned)
        oc_fail(&ei, OC_ERR_USAGE, "the command '%s' is planned, but this version does not have it yet",
                name);
    else
        oc_fail(&ei, OC_ERR_USAGE, "there is no command '%s'", name);
    return oc_cli_main_fail(&ei, NULL);
}

static int help_main(const char *name) {
    const struct subcommand *c = name ? find(name) : NULL;
    if (name && (!c || !c->main)) return no_such_command(name, c);
    if (c)
        c->help(stdout);
    else
        help(stdout);
    return flushed();
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN); /* a reader that went away is seen at the write */
    if (argc < 2) {
        help(stderr);
        return OC_CLI_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) return help_main(NULL);
    if (!strcmp(name, "help")) return help_main(argc > 2 ? argv[2] : NULL);
    if (!strcmp(name, "--version") || !strcmp(name, "version")) {
        puts("ocellus " OC_VERSION);
        return flushed();
    }
    const struct subcommand *c = find(name);
    if (!c || !c->main) return no_such_command(name, c);
    if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) return help_main(name);
    return c->main(argc - 1, argv + 1);
}
