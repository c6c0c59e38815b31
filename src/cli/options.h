/* cli/options.h - command-line options from a table.
 *
 * A subcommand describes its options once; parsing, range checks and the help text come from that table. Used
 * by the subcommands from main's thread. */
#ifndef OC_CLI_OPTIONS_H
#define OC_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

#define OC_CLI_LIST_MAX 64

/* Values of an option that may be repeated, in the order given; the strings are argv's. */
struct oc_cli_list {
    const char *items[OC_CLI_LIST_MAX];
    int n;
};

enum oc_cli_kind {
    OC_CLI_FLAG,   /* bool */
    OC_CLI_INT,    /* int64_t in [min, max] */
    OC_CLI_FLOAT,  /* double in [min, max] */
    OC_CLI_STRING, /* const char *, argv's */
    OC_CLI_LIST,   /* struct oc_cli_list of at most max items */
};

struct oc_cli_option {
    const char *name; /* without the dashes */
    char letter;      /* one-letter form, or 0 */
    enum oc_cli_kind kind;
    size_t offset; /* of the value in the subcommand's struct */
    double min, max;
    const char *arg;  /* how the help calls the value, e.g. "N"; NULL for a flag */
    const char *help; /* one line */
};

/* Reads argv[1..] into `values`, which holds the defaults. Options and operands may be mixed; after "--" all
 * are operands. They come to argv[*first_operand..argc). Errors: OC_ERR_USAGE with a sentence (unknown
 * option, missing or bad value, out of range, too many). */
OC_MUST_CHECK enum oc_err oc_cli_options_parse(const struct oc_cli_option *table, int n_options, void *values,
                                               int argc, char **argv, int *first_operand,
                                               struct oc_errinfo *ei);

/* Prints one line per option, aligned. */
void oc_cli_options_help(const struct oc_cli_option *table, int n_options, FILE *f);

#endif
