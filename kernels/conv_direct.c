/* The first layer of a network: few input channels, many output channels, large planes. A band of
 * every input plane lies in scratch as slides have it (simd.h), and each row of results is a
 * product of packed weights with what the taps find there: the matrix is neither made nor gathered.
 */
#include <errno.h>

#include "conv_internal.h"
#include "packed.h"
#include "simd.h"

#define CHANNELS_MAX 4
#define TASKS        4 /* per thread, where there are so many rows */
#define ROWS_FEW     4 /* of a band that only exists to keep a thread busy */
#define DEPTH_MAX    (CHANNELS_MAX * KN_SLIDE_KERNEL_MAX * KN_SLIDE_KERNEL_MAX)

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
    return kn_slide_init(ret_slide, true);
}

static bool direct_fits(const struct kn_conv *conv) {
    struct kn_slide slide;

    return conv->group == 1 && conv->ic <= CHANNELS_MAX && conv->oc >= kn_simd()->panel_rows &&
           conv->ow >= kn_simd()->strip_cols && !conv->residual && conv->kw == conv->kh &&
           conv->stride_w == conv->stride_h && conv->dil_h == 1 && conv->dil_w == 1 &&
           slide_of(conv, &slide);
}

static ptrdiff_t depth_of(const struct kn_conv *conv) {
    return (ptrdiff_t)conv->ic * conv->kh * conv->kw;
}

static float *panels_of(const struct kn_conv *conv, const void *packed) {
    return (float *)packed + kn_round_up((size_t)conv->oc, KN_ALIGN / sizeof(float));
}

static int direct_size(struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;
    struct kn_slide slide = {0};

    if (!kn_panels_fit(plan->simd, conv->oc, depth_of(conv), 1, conv->oc))
        return -EOVERFLOW;
    slide_of(conv, &slide);
    plan->panel = conv->ow;
    plan->packed_bytes = (kn_round_up((size_t)conv->oc, KN_ALIGN / sizeof(float)) +
                          kn_panels_count(plan->simd, conv->oc, depth_of(conv))) *
                         sizeof(float);
    plan->workspace_bytes = slide.bytes * (size_t)conv->ic;
    return 0;
}

static void direct_pack(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                        void *packed) {
    const struct kn_conv *conv = &plan->conv;
    float *panels = panels_of(conv, packed);
    const struct kn_rows rows = {
        .w = weights->w, .scale = weights->scale, .count = weights->rows, .depth = depth_of(conv)};

    kn_conv_pack_bias(plan, weights, (size_t)(panels - (float *)packed), packed);
    kn_panels_pack(plan->simd, &rows, panels + weights->first * rows.depth);
}

struct direct_job {
    const struct kn_conv_plan *plan;
    struct kn_slide slide;
    struct kn_direct direct;
    const float *x;
    float *y;
    char *workspace;
    bool bounds;     /* the activation is done by them */
    ptrdiff_t rows;  /* of a band */
    ptrdiff_t bands; /* of an image */
};

static void finish_row(const struct direct_job *job, float *y) {
    const struct kn_conv *conv = &job->plan->conv;

    for (int oc = 0; oc < conv->oc; oc++, y += job->direct.ldy)
        kn_act_row(&conv->act, y, y, conv->ow);
}

static void direct_task(void *arg, int task, int thread) {
    const struct direct_job *job = arg;
    const struct kn_conv *conv = &job->plan->conv;
    const struct kn_slide *slide = &job->slide;
    ptrdiff_t n = task / job->bands, oy = task % job->bands * job->rows;
    ptrdiff_t rows = kn_min(job->rows, conv->oh - oy);
    float *scratch = (float *)(job->workspace + (size_t)thread * slide->bytes * (size_t)conv->ic);

    for (ptrdiff_t c = 0; c < conv->ic; c++)
        job->plan->simd->slide_fill(slide, job->x + (n * conv->ic + c) * conv->ih * conv->iw, oy,
                                    rows, 0.0f, false,
                                    scratch + c * (ptrdiff_t)(slide->bytes / sizeof(float)));
    for (ptrdiff_t r = 0; r < rows; r++) {
        float *y = job->y + n * conv->oc * job->direct.ldy + (oy + r) * conv->ow;
        job->plan->simd->direct_row(&job->direct,
                                    scratch + r * slide->stride * slide->stride * slide->pitch, y);
        if (!job->bounds)
            finish_row(job, y);
    }
}

/* Where each tap of each channel finds the first result's input. */
static void find_offsets(const struct direct_job *job, ptrdiff_t *offsets) {
    const struct kn_slide *slide = &job->slide;
    int kernel = slide->kernel, stride = slide->stride;

    for (ptrdiff_t c = 0; c < job->plan->conv.ic; c++)
        for (int ky = 0; ky < kernel; ky++)
            for (int kx = 0; kx < kernel; kx++)
                *offsets++ = c * (ptrdiff_t)(slide->bytes / sizeof(float)) +
                             (ky * stride + kx % stride) * slide->pitch + kx / stride;
}

/* One thread wants large bands, several want several: a small picture may be one band. */
static ptrdiff_t rows_of(const struct direct_job *job, int threads) {
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t wanted = threads > 1 ? kn_ceil_div((ptrdiff_t)threads * TASKS, conv->n) : 1;

    return kn_min(job->slide.rows, kn_max(kn_ceil_div(conv->oh, wanted), ROWS_FEW));
}

static void direct_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                       const float *residual, float *y, void *workspace,
                       struct kn_threads *threads) {
    const struct kn_conv *conv = &plan->conv;
    ptrdiff_t offsets[DEPTH_MAX];
    struct direct_job job = {.plan = plan, .x = x, .y = y, .workspace = workspace};

    (void)residual; /* there is none: direct_fits() */
    slide_of(conv, &job.slide);
    find_offsets(&job, offsets);
    job.direct = (struct kn_direct){.w = panels_of(conv, packed),
                                    .bias = packed,
                                    .offsets = offsets,
                                    .depth = depth_of(conv),
                                    .oc = conv->oc,
                                    .ow = conv->ow,
                                    .ldy = (ptrdiff_t)conv->oh * conv->ow};
    job.bounds = kn_act_bounds(&conv->act, &job.direct.low, &job.direct.high);
    job.rows = rows_of(&job, kn_threads_count(threads));
    job.bands = kn_ceil_div(conv->oh, job.rows);
    kn_parallel(threads, (int)(conv->n * job.bands), direct_task, &job);
}

const struct kn_conv_algo kn_conv_direct = {
    .name = "direct",
    .fits = direct_fits,
    .size = direct_size,
    .pack = direct_pack,
    .run = direct_run,
};
