#include "internal.h"

/* Blocks of y, one task each. Fixed, so that the bits do not depend on the number of threads. */
#define BLOCK_M 128
#define BLOCK_N 512
/* Elements where y is one row or one column: dot products, or sums of whole rows of the matrix,
 * which want to be long. */
#define BLOCK_DOTS 128
#define BLOCK_SUMS 1024

struct gemm_job {
    const struct kn_gemm *gemm;
    const float *a, *b, *c;
    float *y;
    ptrdiff_t blocks_n;
    ptrdiff_t block_m, block_n;
};

/* y = beta * c, or zeros. */
static void begin_block(const struct gemm_job *job, ptrdiff_t i0, ptrdiff_t j0, ptrdiff_t m,
                        ptrdiff_t n) {
    const struct kn_gemm *gemm = job->gemm;

    for (ptrdiff_t i = i0; i < i0 + m; i++) {
        float *y = job->y + i * gemm->n + j0;
        if (!job->c) {
            for (ptrdiff_t j = 0; j < n; j++)
                y[j] = 0.0f;
            continue;
        }
        const float *c = job->c + i * gemm->c_stride_m + j0 * gemm->c_stride_n;
        for (ptrdiff_t j = 0; j < n; j++)
            y[j] = gemm->beta * c[j * gemm->c_stride_n];
    }
}

static void gemm_task(void *arg, int task, int thread) {
    const struct gemm_job *job = arg;
    const struct kn_gemm *gemm = job->gemm;
    ptrdiff_t i0 = task / job->blocks_n * job->block_m, j0 = task % job->blocks_n * job->block_n;
    ptrdiff_t m = kn_min(job->block_m, gemm->m - i0), n = kn_min(job->block_n, gemm->n - j0);
    struct kn_product product = {
        .m = (int)m,
        .n = (int)n,
        .k = gemm->k,
        .trans_a = gemm->trans_a,
        .trans_b = gemm->trans_b,
        .alpha = gemm->alpha,
        .lda = gemm->trans_a ? gemm->m : gemm->k,
        .ldb = gemm->trans_b ? gemm->k : gemm->n,
        .ldy = gemm->n,
    };
    float *y = job->y + i0 * gemm->n + j0;

    (void)thread;
    begin_block(job, i0, j0, m, n);
    kn_multiply(&product, job->a + i0 * (gemm->trans_a ? 1 : (ptrdiff_t)gemm->k),
                job->b + j0 * (gemm->trans_b ? (ptrdiff_t)gemm->k : 1), y);
    for (ptrdiff_t i = 0; i < m; i++)
        kn_act_row(&gemm->act, y + i * gemm->n, y + i * gemm->n, n);
}

void kn_gemm(const struct kn_gemm *gemm, const float *a, const float *b, const float *c, float *y,
             struct kn_threads *threads) {
    struct gemm_job job = {.gemm = gemm, .a = a, .b = b, .c = c, .y = y};

    job.block_m = gemm->n > 1 ? BLOCK_M : gemm->trans_a ? BLOCK_SUMS : BLOCK_DOTS;
    job.block_n = gemm->m > 1 ? BLOCK_N : gemm->trans_b ? BLOCK_DOTS : BLOCK_SUMS;
    job.blocks_n = kn_ceil_div(gemm->n, job.block_n);
    kn_parallel(threads, (int)(kn_ceil_div(gemm->m, job.block_m) * job.blocks_n), gemm_task, &job);
}
