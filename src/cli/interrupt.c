#include "cli/interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t came;

static void handle(int signal_number) {
    (void)signal_number;
    came = 1;
}

void oc_cli_interrupt_catch(void) {
    struct sigaction sa = {.sa_handler = handle, .sa_flags = SA_RESTART | (int)SA_RESETHAND};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

bool oc_cli_interrupt_came(void) {
    return came != 0;
}
