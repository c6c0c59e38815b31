/* kernels/convert.h - bit-level number formats, shared by every ISA of the room and by weights/.
 *
 * Inline, no state, any thread. Loads are through memcpy: tensors of a mapped checkpoint start at any byte. */
#ifndef OC_KERNELS_CONVERT_H
#define OC_KERNELS_CONVERT_H

#include <stdint.h>
#include <string.h>

#include "kernels/ops.h"

static inline float oc_f32_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t oc_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float oc_bf16_to_f32(uint16_t h) {
    return oc_f32_from_bits((uint32_t)h << 16);
}

/* Round to nearest, ties to even; a NaN stays a (quiet) NaN. */
static inline uint16_t oc_f32_to_bf16(float f) {
    uint32_t u = oc_f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* Exact, subnormals, infinities and NaN included. */
static inline float oc_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 31u, man = h & 0x3ffu;
    if (exp == 31) return oc_f32_from_bits(sign | 0x7f800000u | man << 13);
    if (exp != 0) return oc_f32_from_bits(sign | (exp + 112u) << 23 | man << 13);
    float subnormal = (float)man * 0x1p-24f;
    return oc_f32_from_bits(sign | oc_f32_bits(subnormal));
}

static inline uint16_t oc_load_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t oc_load_u32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Element i of an array of F32, F16 or BF16. */
static inline float oc_load_float(const uint8_t *p, enum oc_dtype t, int64_t i) {
    if (t == OC_BF16) return oc_bf16_to_f32(oc_load_u16(p + 2 * i));
    if (t == OC_F16) return oc_f16_to_f32(oc_load_u16(p + 2 * i));
    return oc_f32_from_bits(oc_load_u32(p + 4 * i));
}

#endif
