/* Products of role P by cuBLASLt, where it is installed: c [m, n] = x w^T of f16 matrices with f32 sums, nothing else.
 *
 * One algorithm for a weight, chosen at its first use for 1024 rows and used for any number of them, with no workspace and no reduction
 * over parts of k: an element's sum then does not depend on how many rows there are (check_kernels compares bits at real shapes).
 * A weight for which no such algorithm is found, and a machine without the library, use the kernel of linear_p.cu. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

#if __has_include(<cublasLt.h>) && !defined(OC_CUDA_NO_LT)
#include <cublasLt.h>

#define CHOSEN_FOR 1024 /* rows */

struct cu_products {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulPreference_t preference;
#define LT(name) decltype(&cublasLt##name) name;
#define LT_ALL                                                                                                                     \
    LT(Create) LT(Destroy) LT(Matmul) LT(MatmulAlgoCheck) LT(MatmulAlgoGetHeuristic) LT(MatmulDescCreate) LT(MatmulDescDestroy)    \
    LT(MatmulDescSetAttribute) LT(MatrixLayoutCreate) LT(MatrixLayoutDestroy) LT(MatmulPreferenceCreate) LT(MatmulPreferenceDestroy) \
    LT(MatmulPreferenceSetAttribute)
    LT_ALL
#undef LT
};

static void *find_library(void) {
    static const char *const names[] = {"libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13", "libcublasLt.so.12",
                                        "/usr/local/cuda/lib64/libcublasLt.so.12"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        void *lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (lib) return lib;
    }
    return NULL;
}

static bool find_functions(struct cu_products *p, void *lib) {
    bool all = true;
#define LT(name) all = (p->name = (decltype(p->name))dlsym(lib, "cublasLt" #name)) != NULL && all;
    LT_ALL
#undef LT
    return all;
}

/* W stands row by row, so as a matrix by columns it is its transpose; x and c likewise. */
static bool describe(struct cu_products *p) {
    cublasOperation_t turned = CUBLAS_OP_T;
    uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t no_bytes = 0;
    return p->Create(&p->handle) == CUBLAS_STATUS_SUCCESS &&
           p->MatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           p->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned) == CUBLAS_STATUS_SUCCESS &&
           p->MatmulPreferenceCreate(&p->preference) == CUBLAS_STATUS_SUCCESS &&
           p->MatmulPreferenceSetAttribute(p->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_reduction,
                                           sizeof no_reduction) == CUBLAS_STATUS_SUCCESS &&
           p->MatmulPreferenceSetAttribute(p->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &no_bytes, sizeof no_bytes) ==
               CUBLAS_STATUS_SUCCESS;
}

struct cu_products *cu_products_open(void) {
    void *lib = find_library();
    if (!lib) return NULL;
    struct cu_products *p = (struct cu_products *)calloc(1, sizeof *p);
    OC_ASSERT(p);
    if (find_functions(p, lib) && describe(p)) return p;
    free(p);
    return NULL;
}

void cu_products_close(struct cu_products *p) {
    if (!p) return;
    p->MatmulPreferenceDestroy(p->preference);
    p->MatmulDescDestroy(p->desc);
    p->Destroy(p->handle);
    free(p);
}

struct layouts {
    cublasLtMatrixLayout_t w, x, c;
};

static bool layouts_new(struct cu_products *p, struct layouts *l, int64_t m, int64_t n, int64_t k, int64_t ldc) {
    memset(l, 0, sizeof *l);
    return p->MatrixLayoutCreate(&l->w, CUDA_R_16F, (uint64_t)k, (uint64_t)n, k) == CUBLAS_STATUS_SUCCESS &&
           p->MatrixLayoutCreate(&l->x, CUDA_R_16F, (uint64_t)k, (uint64_t)m, k) == CUBLAS_STATUS_SUCCESS &&
           p->MatrixLayoutCreate(&l->c, CUDA_R_32F, (uint64_t)n, (uint64_t)m, ldc) == CUBLAS_STATUS_SUCCESS;
}

static void layouts_free(struct cu_products *p, struct layouts *l) {
    if (l->w) p->MatrixLayoutDestroy(l->w);
    if (l->x) p->MatrixLayoutDestroy(l->x);
    if (l->c) p->MatrixLayoutDestroy(l->c);
}

/* The algorithm does any number of rows. */
static bool does_all(struct cu_products *p, const cublasLtMatmulAlgo_t *algo, int64_t n, int64_t k, int64_t ldc) {
    static const int64_t rows[] = {16, 128, 512, CHOSEN_FOR, 2048, 4800};
    bool good = true;
    for (size_t i = 0; good && i < sizeof rows / sizeof rows[0]; i++) {
        struct layouts l;
        cublasLtMatmulHeuristicResult_t r;
        good = layouts_new(p, &l, rows[i], n, k, ldc) &&
               p->MatmulAlgoCheck(p->handle, p->desc, l.w, l.x, l.c, l.c, algo, &r) == CUBLAS_STATUS_SUCCESS && r.workspaceSize == 0;
        layouts_free(p, &l);
    }
    return good;
}

static bool choose(struct cu_products *p, int64_t n, int64_t k, int64_t ldc, cublasLtMatmulAlgo_t *algo) {
    struct layouts l;
    cublasLtMatmulHeuristicResult_t found[8];
    int n_found = 0;
    if (!layouts_new(p, &l, CHOSEN_FOR, n, k, ldc) ||
        p->MatmulAlgoGetHeuristic(p->handle, p->desc, l.w, l.x, l.c, l.c, p->preference, 8, found, &n_found) != CUBLAS_STATUS_SUCCESS) {
        n_found = 0;
    }
    layouts_free(p, &l);
    for (int i = 0; i < n_found; i++) {
        if (found[i].state != CUBLAS_STATUS_SUCCESS || !does_all(p, &found[i].algo, n, k, ldc)) continue;
        *algo = found[i].algo;
        return true;
    }
    return false;
}

bool cu_products_can(struct cu_state *s, const struct cu_weight *weight) {
    struct cu_weight *w = (struct cu_weight *)weight;
    if (!s->products) return false;
    if (w->algorithm == CU_UNKNOWN) {
        cublasLtMatmulAlgo_t algo;
        static_assert(sizeof algo == sizeof w->algo, "an algorithm fits");
        bool found = choose(s->products, cu_product_columns(w), w->blocks * 64, cu_product_columns(w), &algo);
        if (found) memcpy(w->algo, &algo, sizeof algo);
        w->algorithm = found ? CU_FOUND : CU_NONE;
    }
    return w->algorithm == CU_FOUND;
}

void cu_product(struct cu_state *s, const struct cu_weight *w, int64_t m, const __half *x, const __half *part_of_w, float *c, bool add) {
    struct cu_products *p = s->products;
    struct layouts l;
    cublasLtMatmulAlgo_t algo;
    float one = 1.0f, before = add ? 1.0f : 0.0f;
    int64_t n = cu_product_columns(w);
    memcpy(&algo, w->algo, sizeof algo);
    bool good = layouts_new(p, &l, cu_up(m, 16), n, w->blocks * 64, n) &&
                p->Matmul(p->handle, p->desc, &one, part_of_w, l.w, x, l.x, &before, c, l.c, c, l.c, &algo, NULL, 0, s->stream) ==
                    CUBLAS_STATUS_SUCCESS;
    layouts_free(p, &l);
    if (!good) cu_die("a product by cuBLASLt", cudaErrorUnknown);
}

#else

struct cu_products *cu_products_open(void) {
    return NULL;
}

void cu_products_close(struct cu_products *p) {
    (void)p;
}

bool cu_products_can(struct cu_state *s, const struct cu_weight *w) {
    (void)s, (void)w;
    return false;
}

void cu_product(struct cu_state *s, const struct cu_weight *w, int64_t m, const __half *x, const __half *part_of_w, float *c, bool add) {
    (void)s, (void)w, (void)m, (void)x, (void)part_of_w, (void)c, (void)add;
}

#endif
