/* One input channel per group: each output plane is computed directly from its input plane, row by
 * row, one tap after the other. */
#include "conv_internal.h"

static bool depthwise_fits(const struct kn_conv *conv) {
    return conv->group == conv->ic && conv->group > 1;
}

static void depthwise_size(struct kn_conv_plan *plan) {
    plan->panel = plan->conv.ow;
    plan->packed_bytes = kn_conv_plain_bytes(&plan->conv);
    plan->workspace_bytes = 0;
}

struct depthwise_job {
    const struct kn_conv_plan *plan;
    const void *packed;
    const float *x, *residual;
    float *y;
};

static KN_CLONES void add_tap(const float *restrict x, ptrdiff_t stride, float w, float *restrict y,
                              ptrdiff_t count) {
    if (stride == 1)
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] += w * x[i];
    else if (stride == 2)
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] += w * x[2 * i];
    else
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] += w * x[i * stride];
}

/* Adds every tap of kernel row ky to an output row; x is the input row that it reads. */
static void add_row(const struct kn_conv *conv, const float *x, const float *w, float *y) {
    for (ptrdiff_t kx = 0; kx < conv->kw; kx++) {
        ptrdiff_t offset = kx * conv->dil_w - conv->pad_left, lo, hi;
        kn_valid_range(conv->iw, conv->ow, conv->stride_w, offset, &lo, &hi);
        if (lo < hi)
            add_tap(x + lo * conv->stride_w + offset, conv->stride_w, w[kx], y + lo, hi - lo);
    }
}

static void depthwise_task(void *arg, int task, int thread) {
    const struct depthwise_job *job = arg;
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t oc = task % conv->oc, n = task / conv->oc;
    ptrdiff_t ic = oc / (conv->oc / conv->group);
    ptrdiff_t at = (ptrdiff_t)task * conv->oh * conv->ow;
    const float *x = job->x + (n * conv->ic + ic) * conv->ih * conv->iw;
    const float *w = kn_conv_plain_weights(conv, job->packed) + oc * conv->kh * conv->kw;
    const float *bias = (const float *)job->packed + oc;
    struct kn_strip row = {.rows = 1, .cols = conv->ow, .ld = conv->ow};

    (void)thread;
    for (ptrdiff_t oy = 0; oy < conv->oh; oy++, at += conv->ow) {
        float *y = job->y + at;
        kn_strip_begin(&row, bias, job->residual ? job->residual + at : NULL, y);
        for (ptrdiff_t ky = 0; ky < conv->kh; ky++) {
            ptrdiff_t iy = oy * conv->stride_h + ky * conv->dil_h - conv->pad_top;
            if (iy >= 0 && iy < conv->ih)
                add_row(conv, x + iy * conv->iw, w + ky * conv->kw, y);
        }
        kn_strip_end(&row, &conv->act, y);
    }
}

static void depthwise_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                          const float *residual, float *y, void *workspace,
                          struct kn_threads *threads) {
    struct depthwise_job job = {
        .plan = plan, .packed = packed, .x = x, .residual = residual, .y = y};

    (void)workspace;
    kn_parallel(threads, plan->conv.n * plan->conv.oc, depthwise_task, &job);
}

const struct kn_conv_algo kn_conv_depthwise = {
    .name = "depthwise",
    .fits = depthwise_fits,
    .size = depthwise_size,
    .pack = kn_conv_plain_pack,
    .run = depthwise_run,
};
