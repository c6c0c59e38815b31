/* cli/device.h - where the plug-in for GPUs lies. One thread. */
#ifndef OC_CLI_DEVICE_H
#define OC_CLI_DEVICE_H

#include "base/arena.h"

#define OC_CLI_DEVICE_HELP "auto (a GPU where one can be used), cpu, cuda, or cuda:N of several GPUs"

/* The path of libocellus-cuda.so: beside this program, or in ../lib/ocellus. NULL where it is in neither. */
const char *oc_cli_device_plugin(struct oc_arena *a);

#endif
