#include "../internal.h"

/* Sums are accumulated in double. */
void kn_gemm_ref(const struct kn_gemm *gemm, const float *a, const float *b, const float *c,
                 float *y) {
    for (ptrdiff_t i = 0; i < gemm->m; i++)
        for (ptrdiff_t j = 0; j < gemm->n; j++) {
            double sum = 0.0;
            for (ptrdiff_t k = 0; k < gemm->k; k++)
                sum += (double)a[gemm->trans_a ? k * gemm->m + i : i * gemm->k + k] *
                       (double)b[gemm->trans_b ? j * gemm->k + k : k * gemm->n + j];
            sum *= (double)gemm->alpha;
            if (c)
                sum += (double)gemm->beta * (double)c[i * gemm->c_stride_m + j * gemm->c_stride_n];
            y[i * gemm->n + j] = (float)sum;
            kn_act_row(&gemm->act, &y[i * gemm->n + j], &y[i * gemm->n + j], 1);
        }
}
