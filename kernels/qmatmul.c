/* Products of matrices of quantised numbers. */
#include "quantized_internal.h"

/* Sums that are made before they are rounded: they stay in the first cache. */
#define BLOCK_M 16
#define BLOCK_N 64
/* One task's piece of y. */
#define TASK_M 64
#define TASK_N 256

void kn_qwiden(const struct kn_widen *widen, int16_t *y) {
    size_t depth = kn_qdepth(widen->k);
    const uint8_t *x = widen->x;
    bool is_signed = widen->type == KN_INT8;

    for (size_t r = 0; r < widen->rows; r++, y += depth) {
        int32_t zero = kn_byte(widen->type, widen->zero, r * widen->zero_step);
        const uint8_t *row = x + r * widen->row_step;
        for (size_t i = 0; i < widen->k; i++) {
            uint8_t bits = row[i * widen->step];
            y[i] = (int16_t)((is_signed ? (int8_t)bits : bits) - zero);
        }
        for (size_t i = widen->k; i < depth; i++)
            y[i] = 0;
    }
}

struct matmul_job {
    const struct kn_qmatmul *q;
    const int16_t *a, *b;
    void *y;
    ptrdiff_t tasks_n;
};

/* Rows of sums, from (i, j) of y on, become results. */
static void finish_block(const struct matmul_job *job, const int32_t *sums, ptrdiff_t i,
                         ptrdiff_t j, ptrdiff_t m, ptrdiff_t n) {
    const struct kn_qmatmul *q = job->q;
    float scale[BLOCK_N] = {0};

    for (ptrdiff_t r = 0; r < m; r++) {
        for (ptrdiff_t c = 0; q->y_type != KN_INT32 && c < n; c++)
            scale[c] = q->a_scale[(i + r) * (ptrdiff_t)q->a_step] *
                       q->b_scale[(j + c) * (ptrdiff_t)q->b_step] / q->y_scale;
        kn_requantize_row(q->y_type, sums + r * BLOCK_N, scale, 1, q->y_zero, job->y,
                          (i + r) * q->n + j, n);
    }
}

static void matmul_task(void *arg, int task, int thread) {
    const struct matmul_job *job = arg;
    const struct kn_qmatmul *q = job->q;
    ptrdiff_t depth = (ptrdiff_t)kn_qdepth((size_t)q->k);
    ptrdiff_t i0 = task / job->tasks_n * TASK_M, j0 = task % job->tasks_n * TASK_N;
    ptrdiff_t i1 = kn_min(i0 + TASK_M, q->m), j1 = kn_min(j0 + TASK_N, q->n);
    int32_t sums[BLOCK_M * BLOCK_N];

    (void)thread;
    for (ptrdiff_t j = j0; j < j1; j += BLOCK_N)
        for (ptrdiff_t i = i0; i < i1; i += BLOCK_M) {
            struct kn_qdots dots = {.a = job->a + i * depth,
                                    .b = job->b + j * depth,
                                    .y = sums,
                                    .m = kn_min(BLOCK_M, i1 - i),
                                    .n = kn_min(BLOCK_N, j1 - j),
                                    .k = depth,
                                    .lda = depth,
                                    .ldb = depth,
                                    .ldy = BLOCK_N};
            kn_simd()->qdots(&dots);
            finish_block(job, sums, i, j, dots.m, dots.n);
        }
}

void kn_qmatmul(const struct kn_qmatmul *matmul, const int16_t *a, const int16_t *b, void *y,
                struct kn_threads *threads) {
    struct matmul_job job = {.q = matmul, .a = a, .b = b, .y = y};

    job.tasks_n = kn_ceil_div(matmul->n, TASK_N);
    kn_parallel(threads, (int)(kn_ceil_div(matmul->m, TASK_M) * job.tasks_n), matmul_task, &job);
}
