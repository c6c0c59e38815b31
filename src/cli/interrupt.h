/* cli/interrupt.h - Ctrl-C.
 *
 * The first SIGINT or SIGTERM sets a flag that the generation loop looks at between steps; the second ends
 * the process at once. A signal handler can reach nothing but file-scope state: this flag is the only such
 * state of ocellus. */
#ifndef OC_CLI_INTERRUPT_H
#define OC_CLI_INTERRUPT_H

#include <stdbool.h>

/* From now on the first signal only sets the flag. */
void oc_cli_interrupt_catch(void);

bool oc_cli_interrupt_came(void);

#endif
