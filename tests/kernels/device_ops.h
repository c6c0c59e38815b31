/* tests/kernels/device_ops.h - the checker over a device that a plug-in opens. */
#ifndef OC_TESTS_KERNELS_DEVICE_OPS_H
#define OC_TESTS_KERNELS_DEVICE_OPS_H

#include "kernels/device.h"

struct chk;
struct under_test;

/* Opens the plug-in; *ops becomes ops over host memory that run on it, their context's device being *out. False with a sentence. */
bool device_ops(const char *path, struct oc_ops *ops, struct under_test **out, struct oc_errinfo *ei);
struct oc_device *device_of(const struct under_test *t);
void device_ops_close(struct under_test *t);

void check_device(struct chk *c, struct oc_device *d);
/* Linears at the shapes of real models: a row's bits must not depend on the rows beside it. */
void check_real_bits(struct chk *c, struct under_test *t);
/* The last check: what it does to the device lasts. */
void check_refusal(struct chk *c, struct under_test *t);
void bench_device(struct oc_device *d, bool quick);

#endif
