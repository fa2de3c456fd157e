#include "internal.h"

#include <cblas.h>

void kn_blas_init(void) {
    openblas_set_num_threads(1);
}

const char *kn_blas_core(void) {
    return openblas_get_corename();
}

void kn_blas_gemm(const struct kn_product *product, const float *a, const float *b, float *y) {
    cblas_sgemm(CblasRowMajor, product->trans_a ? CblasTrans : CblasNoTrans,
                product->trans_b ? CblasTrans : CblasNoTrans, product->m, product->n, product->k,
                product->alpha, a, product->lda, b, product->ldb, 1.0f, y, product->ldy);
}
