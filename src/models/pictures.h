/* models/pictures.h - picture rules of families with one tile and a grid. Used by the family files and model.c. */
#ifndef OC_MODELS_PICTURES_H
#define OC_MODELS_PICTURES_H

#include "models/model.h"

/* Values of oc_picture_rules.kind. oc_picture_rules_plan (include/ocellus.h) is made here. */
enum {
    OC_MODELS_PICTURES_NONE = 0,
    OC_MODELS_PICTURES_GRID = 1, /* one tile; smart_resize to multiples of patch * merge */
};

/* Fills m->pictures from preprocessor_config.json beside the weights (patch, merge and temporal already come from
 * config.json and must agree); defaults of the family's image processor where the file or a key is absent. Errors:
 * OC_ERR_FORMAT, OC_ERR_UNSUPPORTED (a resampling filter we lack). */
OC_MUST_CHECK enum oc_err oc_models_pictures_read(struct oc_model *m, struct oc_errinfo *ei);

/* Width and height nearest to the picture's that are multiples of `factor` with an area in [min_pixels, max_pixels].
 * Formula: smart_resize of transformers' Qwen2-VL image processor; rounds half to even as Python does. Errors:
 * OC_ERR_LIMIT for an aspect ratio over 200. */
OC_MUST_CHECK enum oc_err oc_models_pictures_smart_resize(int width, int height, int factor, int64_t min_pixels,
                                                          int64_t max_pixels, int *out_width, int *out_height,
                                                          struct oc_errinfo *ei);

#endif
