#include "internal.h"

#include <cblas.h>

void kn_blas_init(void) {
    openblas_set_num_threads(1);
}

const char *kn_blas_core(void) {
    return openblas_get_corename();
}

void kn_blas_gemm(const struct kn_blas_gemm *gemm, const float *a, const float *b, float *y) {
    cblas_sgemm(CblasRowMajor, gemm->trans_a ? CblasTrans : CblasNoTrans,
                gemm->trans_b ? CblasTrans : CblasNoTrans, gemm->m, gemm->n, gemm->k, gemm->alpha,
                a, gemm->lda, b, gemm->ldb, 1.0f, y, gemm->ldy);
}
