/* Products with a vector are our own: the GEMM library would copy the whole matrix first. */
#include "simd.h"

static void matvec(const struct kn_matvec *m, bool along_rows) {
    if (along_rows)
        kn_simd()->matvec_rows(m);
    else
        kn_simd()->matvec_columns(m);
}

void kn_multiply(const struct kn_product *p, const float *a, const float *b, float *y) {
    struct kn_matvec m = {.y = y, .depth = p->k, .alpha = p->alpha};

    if (p->m == 0 || p->n == 0 || p->k == 0)
        return;
    if (p->m == 1 && (!p->trans_a || p->lda == 1)) {
        m.a = b;
        m.x = a;
        m.rows = p->n;
        m.ld = p->ldb;
        matvec(&m, p->trans_b);
    } else if (p->n == 1 && (p->trans_b || p->ldb == 1) && p->ldy == 1) {
        m.a = a;
        m.x = b;
        m.rows = p->m;
        m.ld = p->lda;
        matvec(&m, !p->trans_a);
    } else {
        kn_blas_gemm(p, a, b, y);
    }
}
