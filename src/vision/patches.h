/* vision/patches.h - where the patches of a picture come from: who has pixels need not hold their patches,
 * which are many times as large. Given to the engine by its callers; it reads each row once, in slices. */
#ifndef OC_VISION_PATCHES_H
#define OC_VISION_PATCHES_H

/* Rows of patch_dim f32, in merge-block order, in the host's memory. */
struct oc_vision_patches {
    const float *all; /* [n_patches, patch_dim]; NULL: they are made as they are needed, by */
    void (*make)(void *arg, int from, int to,
                 float *out); /* writes rows [from, to); called by several threads at once */
    void *arg;
};

#endif
