/* 1x1 with stride 1 and no padding: the picture is the matrix already. */
#include "conv_internal.h"

#define ROWS_MAX 256 /* output channels of one task where there are few pixels */

static bool conv_1x1_fits(const struct kn_conv *conv) {
    return conv->kh == 1 && conv->kw == 1 && conv->stride_h == 1 && conv->stride_w == 1 &&
           conv->pad_top == 0 && conv->pad_left == 0 && conv->oh == conv->ih &&
           conv->ow == conv->iw;
}

static void conv_1x1_size(struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;

    plan->panel = kn_conv_panel(conv->ic / conv->group, (ptrdiff_t)conv->oh * conv->ow);
    plan->packed_bytes = kn_conv_plain_bytes(conv);
    plan->workspace_bytes = 0;
}

struct conv_1x1_job {
    const struct kn_conv_plan *plan;
    const void *packed;
    const float *x, *residual;
    float *y;
    ptrdiff_t strips, blocks;
};

static void conv_1x1_task(void *arg, int task, int thread) {
    const struct conv_1x1_job *job = arg;
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t strip = task % job->strips, rest = task / job->strips;
    ptrdiff_t block = rest % job->blocks, batch_group = rest / job->blocks;
    ptrdiff_t group = batch_group % conv->group, n = batch_group / conv->group;
    ptrdiff_t icg = conv->ic / conv->group, ocg = conv->oc / conv->group;
    ptrdiff_t pixels = (ptrdiff_t)conv->oh * conv->ow;
    ptrdiff_t begin = strip * job->plan->panel;
    ptrdiff_t first = block * ROWS_MAX;
    ptrdiff_t oc = group * ocg + first;
    ptrdiff_t at = (n * conv->oc + oc) * pixels + begin;
    struct kn_strip shape = {.rows = kn_min(ROWS_MAX, ocg - first),
                             .cols = kn_min(job->plan->panel, pixels - begin),
                             .ld = pixels};
    struct kn_blas_gemm gemm = {
        .m = (int)shape.rows, .n = (int)shape.cols, .k = (int)icg, .alpha = 1.0f};

    (void)thread;
    if (job->blocks == 1)
        shape.rows = gemm.m = (int)ocg;
    kn_strip_begin(&shape, (const float *)job->packed + oc,
                   job->residual ? job->residual + at : NULL, job->y + at);
    gemm.lda = (int)icg;
    gemm.ldb = gemm.ldy = (int)pixels;
    kn_blas_gemm(&gemm, kn_conv_plain_weights(conv, job->packed) + oc * icg,
                 job->x + (n * conv->ic + group * icg) * pixels + begin, job->y + at);
    kn_strip_end(&shape, &conv->act, job->y + at);
}

static void conv_1x1_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                         const float *residual, float *y, void *workspace,
                         struct kn_threads *threads) {
    const struct kn_conv *conv = &plan->conv;
    struct conv_1x1_job job = {
        .plan = plan, .packed = packed, .x = x, .residual = residual, .y = y};

    (void)workspace;
    job.strips = kn_ceil_div((ptrdiff_t)conv->oh * conv->ow, plan->panel);
    job.blocks = job.strips > 1 ? 1 : kn_ceil_div(conv->oc / conv->group, ROWS_MAX);
    kn_parallel(threads, (int)(conv->n * conv->group * job.blocks * job.strips), conv_1x1_task,
                &job);
}

const struct kn_conv_algo kn_conv_1x1 = {
    .name = "1x1",
    .fits = conv_1x1_fits,
    .size = conv_1x1_size,
    .pack = kn_conv_plain_pack,
    .run = conv_1x1_run,
};
