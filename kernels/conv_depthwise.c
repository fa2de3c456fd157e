/* One input channel per group and a window of 3, 5 or 7: each output plane is computed directly
 * from its input plane, band by band, several rows at a time. */
#include <math.h>

#include "conv_internal.h"
#include "packed.h"
#include "simd.h"

#define TASK_OUTPUTS 8192 /* of one task, at least, where there are so many planes */

static bool slide_of(const struct kn_conv *conv, struct kn_slide *ret_slide) {
    *ret_slide = (struct kn_slide){.planes = (ptrdiff_t)conv->n * conv->ic,
                                   .ih = conv->ih,
                                   .iw = conv->iw,
                                   .oh = conv->oh,
                                   .ow = conv->ow,
                                   .pad_top = conv->pad_top,
                                   .pad_left = conv->pad_left,
                                   .kernel = conv->kh,
                                   .stride = conv->stride_h};
    return conv->kw == conv->kh && conv->stride_w == conv->stride_h && conv->dil_h == 1 &&
           conv->dil_w == 1 && kn_slide_init(ret_slide, true);
}

static bool depthwise_fits(const struct kn_conv *conv) {
    struct kn_slide slide;

    return conv->group == conv->ic && conv->group > 1 && slide_of(conv, &slide);
}

/* Sums that a residual is still to be added to lie behind the band's scratch. */
static size_t sums_bytes(const struct kn_conv *conv, const struct kn_slide *slide) {
    size_t count = (size_t)slide->rows * (size_t)conv->ow;

    return conv->residual ? kn_round_up(count * sizeof(float), KN_ALIGN) : 0;
}

static int depthwise_size(struct kn_conv_plan *plan) {
    struct kn_slide slide;

    slide_of(&plan->conv, &slide);
    plan->panel = plan->conv.ow;
    plan->packed_bytes = kn_conv_plain_bytes(&plan->conv);
    plan->workspace_bytes = slide.bytes + sums_bytes(&plan->conv, &slide);
    return 0;
}

struct depthwise_job {
    const struct kn_conv_plan *plan;
    struct kn_slide slide;
    const void *packed;
    const float *x, *residual;
    float *y;
    char *workspace;
    ptrdiff_t planes; /* input planes of a task */
};

static void add(const float *x, const float *residual, float *y, ptrdiff_t count) {
    KN_IVDEP
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = x[i] + residual[i];
}

/* Output rows [oy, oy + rows) of output channel oc in image n, from scratch that is filled. */
static void run_band(const struct depthwise_job *job, ptrdiff_t n, ptrdiff_t oc, ptrdiff_t oy,
                     ptrdiff_t rows, float *scratch) {
    const struct kn_conv *conv = &job->plan->conv;
    const struct kn_slide *slide = &job->slide;
    ptrdiff_t at = ((n * conv->oc + oc) * conv->oh + oy) * conv->ow, count = rows * conv->ow;
    struct kn_slide_sum sum = {.w = kn_conv_plain_weights(conv, job->packed) +
                                    oc * slide->kernel * slide->kernel,
                               .bias = ((const float *)job->packed)[oc],
                               .low = -INFINITY,
                               .high = INFINITY};
    struct kn_slide_band band = {.slide = slide,
                                 .scratch = scratch,
                                 .y = job->y + at,
                                 .rows = rows,
                                 .room = (conv->oh - oy) * conv->ow};

    if (job->residual) {
        band.y = scratch + slide->bytes / sizeof(float);
        band.room = count;
        kn_simd()->slide_sum(&band, &sum);
        add(band.y, job->residual + at, job->y + at, count);
        kn_act_row(&conv->act, job->y + at, job->y + at, count);
        return;
    }
    bool done = kn_act_bounds(&conv->act, &sum.low, &sum.high);
    kn_simd()->slide_sum(&band, &sum);
    if (!done)
        kn_act_row(&conv->act, job->y + at, job->y + at, count);
}

/* again: scratch has been used for another plane. */
static void run_plane(const struct depthwise_job *job, ptrdiff_t plane, bool again,
                      float *scratch) {
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t ic = plane % conv->ic, n = plane / conv->ic, multiplier = conv->oc / conv->ic;
    const float *x = job->x + plane * conv->ih * conv->iw;

    for (ptrdiff_t oy = 0; oy < conv->oh; oy += job->slide.rows) {
        ptrdiff_t rows = kn_min(job->slide.rows, conv->oh - oy);
        kn_simd()->slide_fill(&job->slide, x, oy, rows, 0.0f, again && rows == conv->oh, scratch);
        for (ptrdiff_t m = 0; m < multiplier; m++)
            run_band(job, n, ic * multiplier + m, oy, rows, scratch);
    }
}

static void depthwise_task(void *arg, int task, int thread) {
    const struct depthwise_job *job = arg;
    const struct kn_conv_plan *plan = job->plan;
    ptrdiff_t planes = (ptrdiff_t)plan->conv.n * plan->conv.ic, first = task * job->planes;
    size_t bytes = job->slide.bytes + sums_bytes(&plan->conv, &job->slide);
    float *scratch = (float *)(job->workspace + (size_t)thread * bytes);

    for (ptrdiff_t plane = first; plane < kn_min(first + job->planes, planes); plane++)
        run_plane(job, plane, plane > first, scratch);
}

static void depthwise_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                          const float *residual, float *y, void *workspace,
                          struct kn_threads *threads) {
    const struct kn_conv *conv = &plan->conv;
    ptrdiff_t planes = (ptrdiff_t)conv->n * conv->ic;
    struct depthwise_job job = {.plan = plan,
                                .packed = packed,
                                .x = x,
                                .residual = residual,
                                .y = y,
                                .workspace = workspace};

    slide_of(conv, &job.slide);
    job.planes = kn_max(TASK_OUTPUTS / ((ptrdiff_t)conv->oh * conv->ow), 1);
    kn_parallel(threads, (int)kn_ceil_div(planes, job.planes), depthwise_task, &job);
}

const struct kn_conv_algo kn_conv_depthwise = {
    .name = "depthwise",
    .fits = depthwise_fits,
    .size = depthwise_size,
    .pack = kn_conv_plain_pack,
    .run = depthwise_run,
};
