/* kernels/impl.h - what the ISA folders share inside the room: the makers of tables, scratch, sizes.
 *
 * Not for other rooms. */
#ifndef OC_KERNELS_IMPL_H
#define OC_KERNELS_IMPL_H

#include "kernels/ops.h"

/* The widest attention head any kernel takes. */
#define OC_MAX_HD 256

/* Rows of one call that a D kernel keeps in scratch at once; more rows are done slice by slice. */
#define OC_D_SLICE 64

/* Below this many elements an element-wise op runs on the calling thread: waking the others costs more. */
#define OC_SMALL_OP 32768

/* Each sets the ops it has and the name; the rest of the table stays. */
void oc_ops_set_ref(struct oc_ops *ops);
void oc_ops_set_avx2(struct oc_ops *ops);
void oc_ops_set_avx512(struct oc_ops *ops);
void oc_ops_set_avxvnni(struct oc_ops *ops);
void oc_ops_set_avx512vnni(struct oc_ops *ops, bool bits24);
void oc_ops_set_avx512bf16(struct oc_ops *ops);
void oc_ops_set_amx(struct oc_ops *ops, unsigned wishes);
void oc_ops_set_neon(struct oc_ops *ops);
void oc_ops_set_neon_dot8(struct oc_ops *ops, bool i8mm);
void oc_ops_set_neon_bfmmla(struct oc_ops *ops);

/* The features of an aarch64 whose system gives these AT_HWCAP and AT_HWCAP2. */
unsigned oc_cpu_arm_features(uint64_t hwcap, uint64_t hwcap2);

/* Runs fn on all threads, or on the calling one when the work is small. */
static inline void oc_run_sized(const struct oc_kctx *ctx, int64_t n_elements, oc_pool_fn *fn, void *arg) {
    if (n_elements < OC_SMALL_OP) {
        fn(arg, 0, 1);
    } else {
        oc_pool_run(ctx->pool, fn, arg);
    }
}

static inline size_t oc_round_up(size_t n, size_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* Bytes between two rows of a weight. */
static inline size_t oc_weight_row_bytes(const struct oc_weight *w) {
    if (w->bits != 0) return (size_t)w->k * w->bits / 8;
    return (size_t)w->k * oc_dtype_bytes(w->dtype);
}

#endif
