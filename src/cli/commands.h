/* cli/commands.h - the subcommands: each takes argv from its own name on and returns the exit code.
 *
 * 0: done. 1: it could not be done; one sentence on stderr says why. 2: wrong usage. 130: stopped by Ctrl-C.
 */
#ifndef OC_CLI_COMMANDS_H
#define OC_CLI_COMMANDS_H

#include <stdio.h>

#include "base/err.h"

enum oc_cli_exit {
    OC_CLI_EXIT_OK = 0,
    OC_CLI_EXIT_ERROR = 1,
    OC_CLI_EXIT_USAGE = 2,
    OC_CLI_EXIT_INTERRUPT = 130
};

int oc_cli_run_main(int argc, char **argv);
int oc_cli_serve_main(int argc, char **argv);
int oc_cli_inspect_main(int argc, char **argv);
int oc_cli_worker_main(int argc, char **argv);       /* hidden: a role of serve */
int oc_cli_image_worker_main(int argc, char **argv); /* likewise */

void oc_cli_run_help(FILE *f);
void oc_cli_serve_help(FILE *f);
void oc_cli_inspect_help(FILE *f);
void oc_cli_worker_help(FILE *f);
void oc_cli_image_worker_help(FILE *f);

/* Prints "ocellus: <message>" on stderr, for wrong usage also where the help is, and returns the exit code.
 */
int oc_cli_main_fail(const struct oc_errinfo *ei, const char *command);

#endif
