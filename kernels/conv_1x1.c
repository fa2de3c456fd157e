/* 1x1 with stride 1 and no padding: the picture is the matrix already. */
#include "conv_internal.h"

static bool conv_1x1_fits(const struct kn_conv *conv) {
    return conv->kh == 1 && conv->kw == 1 && conv->stride_h == 1 && conv->stride_w == 1 &&
           conv->pad_top == 0 && conv->pad_left == 0 && conv->oh == conv->ih &&
           conv->ow == conv->iw;
}

static int conv_1x1_size(struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;

    plan->panel = kn_conv_panel(conv->ic / conv->group, (ptrdiff_t)conv->oh * conv->ow);
    plan->packed_bytes = kn_conv_plain_bytes(conv);
    plan->workspace_bytes = 0;
    return 0;
}

struct conv_1x1_job {
    const struct kn_conv_plan *plan;
    struct kn_split split;
    const void *packed;
    const float *x, *residual;
    float *y;
};

static void conv_1x1_task(void *arg, int task, int thread) {
    const struct conv_1x1_job *job = arg;
    const struct kn_conv *conv = &job->plan->conv;
    const struct kn_split *split = &job->split;
    ptrdiff_t strip = task % split->strips, rest = task / split->strips;
    ptrdiff_t block = rest % split->blocks, batch_group = rest / split->blocks;
    ptrdiff_t group = batch_group % conv->group, n = batch_group / conv->group;
    ptrdiff_t icg = conv->ic / conv->group, ocg = conv->oc / conv->group;
    ptrdiff_t pixels = (ptrdiff_t)conv->oh * conv->ow;
    ptrdiff_t begin = strip * split->panel, first = block * split->block_rows;
    ptrdiff_t oc = group * ocg + first;
    ptrdiff_t at = (n * conv->oc + oc) * pixels + begin;
    struct kn_strip shape = {.rows = kn_min(split->block_rows, ocg - first),
                             .cols = kn_min(split->panel, pixels - begin),
                             .ld = pixels};
    struct kn_product product = {
        .m = (int)shape.rows,
        .n = (int)shape.cols,
        .k = (int)icg,
        .alpha = 1.0f,
        .lda = (int)icg,
        .ldb = (int)pixels,
        .ldy = (int)pixels,
    };

    (void)thread;
    kn_strip_begin(&shape, (const float *)job->packed + oc,
                   job->residual ? job->residual + at : NULL, job->y + at);
    kn_multiply(&product, kn_conv_plain_weights(conv, job->packed) + oc * icg,
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
    kn_conv_split(plan, &job.split);
    kn_parallel(threads, (int)(conv->n * conv->group * job.split.blocks * job.split.strips),
                conv_1x1_task, &job);
}

const struct kn_conv_algo kn_conv_1x1 = {
    .name = "1x1",
    .fits = conv_1x1_fits,
    .size = conv_1x1_size,
    .pack = kn_conv_plain_pack,
    .run = conv_1x1_run,
};
