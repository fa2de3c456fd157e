/* One input channel per group, windows of any shape: each output plane is computed directly from
 * its input plane, band by band. conv_depthwise.c does the usual windows faster. */
#include "band.h"
#include "conv_internal.h"

static void window_of(const struct kn_conv *conv, struct kn_window *ret_window) {
    *ret_window = (struct kn_window){
        .ih = conv->ih,
        .iw = conv->iw,
        .oh = conv->oh,
        .ow = conv->ow,
        .kh = conv->kh,
        .kw = conv->kw,
        .stride_h = conv->stride_h,
        .stride_w = conv->stride_w,
        .dil_h = conv->dil_h,
        .dil_w = conv->dil_w,
        .pad_top = conv->pad_top,
        .pad_left = conv->pad_left,
    };
}

static bool band_of(const struct kn_conv *conv, struct kn_band *ret_band) {
    struct kn_window window;

    window_of(conv, &window);
    return kn_band_init(ret_band, &window);
}

static bool banded_fits(const struct kn_conv *conv) {
    struct kn_band band;

    return conv->group == conv->ic && conv->group > 1 && band_of(conv, &band);
}

static int banded_size(struct kn_conv_plan *plan) {
    struct kn_band band;

    band_of(&plan->conv, &band);
    plan->panel = plan->conv.ow;
    plan->packed_bytes = kn_conv_plain_bytes(&plan->conv);
    plan->workspace_bytes = band.bytes;
    return 0;
}

/* y[i] = bias + the taps' sum, for count outputs, rounded up to KN_UNIT. */
static KN_CLONES void sum_taps(const float *x, const ptrdiff_t *offsets, const float *w,
                               ptrdiff_t taps, float bias, float *y, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += KN_UNIT) {
        kn_vec s0 = (kn_vec){0} + bias, s1 = s0, s2 = s0, s3 = s0;
        for (ptrdiff_t t = 0; t < taps; t++) {
            const kn_vec *from = (const kn_vec *)(x + i + offsets[t]);
            s0 += w[t] * from[0];
            s1 += w[t] * from[1];
            s2 += w[t] * from[2];
            s3 += w[t] * from[3];
        }
        kn_vec *to = (kn_vec *)(y + i);
        to[0] = s0;
        to[1] = s1;
        to[2] = s2;
        to[3] = s3;
    }
}

static KN_CLONES void store_rows(const float *restrict from, ptrdiff_t pitch, const float *residual,
                                 float *y, ptrdiff_t rows, ptrdiff_t cols) {
    for (ptrdiff_t r = 0; r < rows; r++, from += pitch, y += cols) {
        if (!residual) {
            for (ptrdiff_t i = 0; i < cols; i++)
                y[i] = from[i];
            continue;
        }
        KN_IVDEP
        for (ptrdiff_t i = 0; i < cols; i++)
            y[i] = from[i] + residual[i];
        residual += cols;
    }
}

struct banded_job {
    const struct kn_conv_plan *plan;
    const void *packed;
    const float *x, *residual;
    float *y;
    char *workspace;
    struct kn_band band;
};

/* Output rows [oy, oy + rows) of output channel oc in image n, from a band that is filled. */
static void run_band(const struct banded_job *job, ptrdiff_t n, ptrdiff_t oc, ptrdiff_t oy,
                     ptrdiff_t rows, float *scratch) {
    const struct kn_conv *conv = &job->plan->conv;
    const struct kn_band *band = &job->band;
    const float *w = kn_conv_plain_weights(conv, job->packed) + oc * band->taps;
    ptrdiff_t at = ((n * conv->oc + oc) * conv->oh + oy) * conv->ow;
    float *sums = scratch + band->results;

    sum_taps(scratch, band->offsets, w, band->taps, ((const float *)job->packed)[oc], sums,
             rows * band->pitch);
    store_rows(sums, band->pitch, job->residual ? job->residual + at : NULL, job->y + at, rows,
               conv->ow);
    if (conv->act.kind != KN_ACT_NONE)
        kn_act_row(&conv->act, job->y + at, job->y + at, rows * conv->ow);
}

/* One input plane. */
static void banded_task(void *arg, int task, int thread) {
    const struct banded_job *job = arg;
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t ic = task % conv->ic, n = task / conv->ic, multiplier = conv->oc / conv->ic;
    const float *x = job->x + (ptrdiff_t)task * conv->ih * conv->iw;
    float *scratch = (float *)(job->workspace + (size_t)thread * job->band.bytes);

    for (ptrdiff_t oy = 0; oy < conv->oh; oy += job->band.rows) {
        ptrdiff_t rows = kn_min(job->band.rows, conv->oh - oy);
        kn_band_fill(&job->band, x, oy, rows, 0.0f, scratch);
        for (ptrdiff_t m = 0; m < multiplier; m++)
            run_band(job, n, ic * multiplier + m, oy, rows, scratch);
    }
}

static void banded_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                       const float *residual, float *y, void *workspace,
                       struct kn_threads *threads) {
    struct banded_job job = {.plan = plan,
                             .packed = packed,
                             .x = x,
                             .residual = residual,
                             .y = y,
                             .workspace = workspace};

    band_of(&plan->conv, &job.band);
    kn_parallel(threads, plan->conv.n * plan->conv.ic, banded_task, &job);
}

const struct kn_conv_algo kn_conv_banded = {
    .name = "depthwise-banded",
    .fits = banded_fits,
    .size = banded_size,
    .pack = kn_conv_plain_pack,
    .run = banded_run,
};
