/* golden_device.h - the device that a test of this folder runs its engines on: --device cpu, fake or cuda:PATH of the plug-in. */
#ifndef GOLDEN_DEVICE_H
#define GOLDEN_DEVICE_H

#include <stdbool.h>

#include "ocellus.h"

/* Takes --device WHAT out of argv, wherever it stands; exits for one that is not known. cpu without it. */
void golden_device_read(int *argc, char **argv);

/* The parameters of an engine on it. */
void golden_device_set(struct oc_engine_params *p);

/* Whether --isa means something. */
bool golden_device_is_cpu(void);

#endif
