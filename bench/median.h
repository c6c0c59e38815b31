/* bench/median.h - the middle of some timings. */
#ifndef OC_BENCH_MEDIAN_H
#define OC_BENCH_MEDIAN_H

#include <stdlib.h>

static int median_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of n >= 1 values, the upper one of two middles. Sorts v. */
static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, median_compare);
    return v[n / 2];
}

#endif
