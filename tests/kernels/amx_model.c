/* A model of the AMX tile instructions in plain C, for x86/amx_tile.h: "amx-model", "amxmany-model" and "amxbf16-model" are the
 * AMX kernels with it. As the manual has it: rows of bytes under the configured size, TDPBF16PS with even and odd k
 * summed apart, then added to the accumulator; small numbers count as zero. */
#include "check.h"

#if defined(__x86_64__)
#include <math.h>

#include "kernels/x86/x86.h"

struct model_tile {
    int rows, row_bytes; /* 0: not configured */
    uint8_t data[16][64];
};

static _Thread_local struct model_tile tiles[8];

static void model_config(const void *config) {
    uint8_t c[64];
    memcpy(c, config, sizeof c);
    OC_ASSERT(c[0] == 1 && c[1] == 0);
    for (int t = 0; t < 8; t++) {
        tiles[t] = (struct model_tile){.rows = c[48 + t], .row_bytes = oc_load_u16(c + 16 + 2 * t)};
        OC_ASSERT(tiles[t].rows <= 16 && tiles[t].row_bytes <= 64);
    }
}

static void model_release(void) {
    memset(tiles, 0, sizeof tiles);
}

static void model_zero(int t) {
    OC_ASSERT(tiles[t].rows > 0);
    memset(tiles[t].data, 0, sizeof tiles[t].data);
}

static void model_load(int t, const void *p, size_t stride) {
    OC_ASSERT(tiles[t].rows > 0);
    memset(tiles[t].data, 0, sizeof tiles[t].data);
    for (int r = 0; r < tiles[t].rows; r++)
        memcpy(tiles[t].data[r], (const uint8_t *)p + (size_t)r * stride, (size_t)tiles[t].row_bytes);
}

static void model_store(int t, void *p, size_t stride) {
    OC_ASSERT(tiles[t].rows > 0);
    for (int r = 0; r < tiles[t].rows; r++)
        memcpy((uint8_t *)p + (size_t)r * stride, tiles[t].data[r], (size_t)tiles[t].row_bytes);
}

static inline float or_zero(float f) {
    return fabsf(f) < 0x1p-126f ? 0.0f : f;
}

/* A row's even and odd elements. */
static void elements(const uint8_t *row, int pairs, float *even, float *odd) {
    for (int i = 0; i < pairs; i++) {
        even[i] = or_zero(oc_bf16_to_f32(oc_load_u16(row + 4 * i)));
        odd[i] = or_zero(oc_bf16_to_f32(oc_load_u16(row + 4 * i + 2)));
    }
}

/* The product of two bf16 is exact in f32, so fmaf is what the hardware's FMA does. (Where there is no AMX there is still
 * an FMA: as a function it would take most of the checker's time.) */
__attribute__((target("avx2,fma"))) static void model_dp(int c, int a, int b) {
    int columns = tiles[c].row_bytes / 4, pairs = tiles[a].row_bytes / 4;
    OC_ASSERT(tiles[a].rows == tiles[c].rows && tiles[b].rows == pairs && tiles[b].row_bytes == tiles[c].row_bytes);
    float be[16][16] = {{0}}, bo[16][16] = {{0}};
    for (int k = 0; k < pairs; k++) elements(tiles[b].data[k], columns, be[k], bo[k]);
    for (int m = 0; m < tiles[c].rows; m++) {
        float even[16] = {0}, odd[16] = {0}, ae[16], ao[16], sum[16];
        elements(tiles[a].data[m], pairs, ae, ao);
        for (int k = 0; k < pairs; k++) {
            for (int n = 0; n < 16; n++) {
                even[n] = or_zero(fmaf(ae[k], be[k][n], even[n]));
                odd[n] = or_zero(fmaf(ao[k], bo[k][n], odd[n]));
            }
        }
        memcpy(sum, tiles[c].data[m], sizeof sum);
        for (int n = 0; n < columns; n++) sum[n] = or_zero(or_zero(sum[n]) + or_zero(even[n] + odd[n]));
        memcpy(tiles[c].data[m], sum, sizeof sum);
    }
}

/* Products of signed bytes. */
static void model_dp_bytes(int c, int a, int b) {
    int columns = tiles[c].row_bytes / 4, quads = tiles[a].row_bytes / 4;
    OC_ASSERT(tiles[a].rows == tiles[c].rows && tiles[b].rows == quads && tiles[b].row_bytes == tiles[c].row_bytes);
    for (int m = 0; m < tiles[c].rows; m++) {
        const int8_t *row = (const int8_t *)tiles[a].data[m];
        int32_t sum[16] = {0};
        memcpy(sum, tiles[c].data[m], (size_t)(4 * columns));
        for (int k = 0; k < quads; k++) {
            const int8_t *x = (const int8_t *)tiles[b].data[k];
            for (int n = 0; n < columns; n++) {
                for (int i = 0; i < 4; i++) sum[n] += row[4 * k + i] * x[4 * n + i];
            }
        }
        memcpy(tiles[c].data[m], sum, (size_t)(4 * columns));
    }
}

#define AMX_CONFIG(p) model_config(p)
#define AMX_RELEASE() model_release()
#define AMX_ZERO(t) model_zero(t)
#define AMX_LOAD(t, p, stride) model_load(t, p, stride)
#define AMX_STORE(t, p, stride) model_store(t, p, stride)
#define AMX_DP(c, a, b) model_dp(c, a, b)
#define AMX_DP_BYTES(c, a, b) model_dp_bytes(c, a, b)

/* Small enough for several blocks, passes and chunks within the checker's shapes. */
#define AMX_BLOCKS .w_elements = 64 * 1024, .k_most = 384

#include "kernels/x86/amx_tile.h"

bool amx_model_ops(struct oc_ops *ops, const char *name) {
    bool rounded = strcmp(name, "amxbf16-model") == 0, many = strcmp(name, "amxmany-model") == 0;
    if (!rounded && !many && strcmp(name, "amx-model") != 0) return false;
    if (oc_ops_for_isa(ops, "avx512bf16", NULL) != OC_OK || !__builtin_cpu_supports("avx512vbmi") || !__builtin_cpu_supports("avx512vnni"))
        return false; /* the vector parts are the real ones */
    ops->isa = rounded ? "amxbf16-model" : many ? "amxmany-model" : "amx-model";
    amx_set(ops, rounded, many);
    return true;
}

#else

bool amx_model_ops(struct oc_ops *ops, const char *name) {
    (void)ops, (void)name;
    return false;
}

#endif
