/* base/pages.h - large blocks of memory in large pages.
 *
 * The first touch of a page costs about a microsecond, whatever its size: 24 MB of patches in pages of 4 KiB
 * take 10 ms before anything is written to them, in pages of 2 MiB one (docs/KERNELS.md, "From bytes to
 * patches"). Any thread. */
#ifndef OC_BASE_PAGES_H
#define OC_BASE_PAGES_H

#include <stddef.h>

/* n_bytes of memory with any contents, NULL when there is none; free() gives it back. From 1 MiB on the
 * system is asked for large pages, which it may refuse without a word; the block is then rounded up to whole
 * ones. */
void *oc_pages_alloc(size_t n_bytes);

#endif
