/* Any bytes through the picture reader, small limits so that a run is short. */
#include "image_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    return image_target(data, n, OC_IMAGE_PNG);
}
