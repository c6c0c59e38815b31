/* fake_device.h - a device that is not the host, made of the CPU: for tests of everything that must not touch device memory.
 *
 * Its memory is ordinary memory, but the pointers it hands out lie where no process has any: whoever reads or writes
 * through them crashes. Its ops, put and get turn them back, and demand that they are its own where a device's must stand,
 * and the host's elsewhere. Ops are those of the CPU, so all bits must be the CPU's. */
#ifndef FAKE_DEVICE_H
#define FAKE_DEVICE_H

#include "kernels/device.h"

/* What was asked of it. */
struct fake_device_figures {
    long n_puts, n_gets, n_waits, n_weights, n_floats, n_allocations;
    uint64_t got_bytes;
};

/* With the CPU's kernels for this ISA; exits with a message when there are none. */
struct oc_device *fake_device_open(const char *isa);

struct fake_device_figures fake_device_figures(const struct oc_device *d);

/* Makes the next allocation, or the taking of the next weight, fail. */
void fake_device_fail_alloc(struct oc_device *d, int after);
void fake_device_fail_weight(struct oc_device *d, int after);

#endif
