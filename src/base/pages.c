#define _DEFAULT_SOURCE /* madvise */
#include "base/pages.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LARGE_PAGE ((size_t)2 << 20) /* of x86-64, and of aarch64 with small pages of 4 KiB */

void *oc_pages_alloc(size_t n_bytes) {
    if (n_bytes < LARGE_PAGE / 2 || n_bytes > SIZE_MAX - LARGE_PAGE) return malloc(n_bytes ? n_bytes : 1);
    const size_t rounded = (n_bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    void *p = aligned_alloc(LARGE_PAGE, rounded);
    if (p) madvise(p, rounded, MADV_HUGEPAGE); /* a wish: where it is refused small pages do as well */
    return p;
}
