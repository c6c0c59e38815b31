/* What src/kernels/cuda/products.cu gets from a library, for the model: products in f32, in order. */
#include "kernels/cuda/cuda.cuh"

struct cu_products {
    int unused;
};

struct cu_products *cu_products_open(void) {
    return (struct cu_products *)calloc(1, sizeof(struct cu_products));
}

void cu_products_close(struct cu_products *p) {
    free(p);
}

bool cu_products_can(struct cu_state *, const struct cu_weight *) {
    return true;
}

void cu_product(struct cu_state *, const struct cu_weight *w, int64_t m, const __half *x, const __half *part_of_w, float *c, bool add) {
    int64_t k = w->blocks * 64, columns = cu_product_columns(w);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t n = 0; n < w->n; n++) {
            double sum = 0;
            for (int64_t j = 0; j < k; j++) sum += (double)x[i * k + j] * (double)part_of_w[n * k + j];
            c[i * columns + n] = (float)sum + (add ? c[i * columns + n] : 0.0f);
        }
    }
}
