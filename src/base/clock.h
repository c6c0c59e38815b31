/* base/clock.h - time. Any thread. */
#ifndef OC_BASE_CLOCK_H
#define OC_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Monotonic nanoseconds; the zero point means nothing. */
static inline uint64_t oc_clock_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Milliseconds since `since_ns`, itself from oc_clock_ns(). */
static inline double oc_clock_ms_since(uint64_t since_ns) {
    return (double)(oc_clock_ns() - since_ns) / 1e6;
}

#endif
