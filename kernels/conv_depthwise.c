/* One input channel per group: each output plane is computed directly from its input plane.
 *
 * A band of input rows is copied with its padding into scratch that stays in the first cache, split
 * by the phases of the strides: rows r and columns c of phase (r % stride_h, c % stride_w) lie
 * together. Then every tap reads its phase at a fixed distance, whatever stride and dilation, rows
 * follow one another without a border between them, and one loop over the band does it all.
 */
#include <errno.h>
#include <string.h>

#include "conv_internal.h"

#define BAND_BYTES (24 * 1024) /* scratch of a band: less than a first cache of 32 KB */
#define TAPS_MAX   128
#define REACH_MAX  1024 /* of a kernel, in input rows or columns */
#define WIDTH_MAX  65536
#define STRIDE_MAX 8

/* Elements at once, at any address. The compiler makes one or two registers of it. */
typedef float vec __attribute__((vector_size(32), aligned(4), may_alias));
#define VEC  8
#define UNIT (4 * VEC) /* outputs that are summed side by side */

static bool depthwise_fits(const struct kn_conv *conv) {
    return conv->group == conv->ic && conv->group > 1 &&
           (ptrdiff_t)conv->kh * conv->kw <= TAPS_MAX &&
           (ptrdiff_t)(conv->kh - 1) * conv->dil_h <= REACH_MAX &&
           (ptrdiff_t)(conv->kw - 1) * conv->dil_w <= REACH_MAX && conv->ow <= WIDTH_MAX &&
           conv->stride_h <= STRIDE_MAX && conv->stride_w <= STRIDE_MAX;
}

/* How scratch is laid out: [phases_h][phases_w][rows + reach_h][pitch] inputs, then [rows][pitch]
 * outputs; pitch - ow outputs of each row mean nothing. */
struct band {
    ptrdiff_t phases_h, phases_w;
    ptrdiff_t reach_h; /* input rows of one phase beyond the outputs' number */
    ptrdiff_t pitch;
    ptrdiff_t rows;    /* output rows of a band */
    ptrdiff_t inputs;  /* elements of all phases */
    ptrdiff_t outputs; /* elements */
};

static void band_init(struct band *band, const struct kn_conv *conv) {
    ptrdiff_t reach_h = (ptrdiff_t)(conv->kh - 1) * conv->dil_h;
    ptrdiff_t reach_w = (ptrdiff_t)(conv->kw - 1) * conv->dil_w;

    band->phases_h = kn_min(conv->stride_h, reach_h + 1);
    band->phases_w = kn_min(conv->stride_w, reach_w + 1);
    band->reach_h = reach_h / conv->stride_h;
    band->pitch = conv->ow + reach_w / conv->stride_w;

    ptrdiff_t phases = band->phases_h * band->phases_w;
    ptrdiff_t room = BAND_BYTES / (ptrdiff_t)sizeof(float) / band->pitch;
    ptrdiff_t rows = (room - phases * band->reach_h) / (phases + 1);
    band->rows = kn_min(kn_max(rows, 1), conv->oh);
    band->inputs = phases * (band->rows + band->reach_h) * band->pitch;
    band->outputs = band->rows * band->pitch;
}

/* Loops go on to the next multiple of UNIT, on the input side from the last row of the last tap. */
static size_t band_bytes(const struct band *band) {
    return kn_round_up((size_t)(band->inputs + band->outputs + 2 * UNIT) * sizeof(float), KN_ALIGN);
}

static int depthwise_size(struct kn_conv_plan *plan) {
    struct band band;

    band_init(&band, &plan->conv);
    plan->panel = plan->conv.ow;
    plan->packed_bytes = kn_conv_plain_bytes(&plan->conv);
    plan->workspace_bytes = band_bytes(&band);
    return 0;
}

static void copy_phase_row(const struct kn_conv *conv, const float *row, ptrdiff_t offset,
                           ptrdiff_t pitch, float *restrict to) {
    ptrdiff_t lo, hi, stride = conv->stride_w;

    kn_valid_range(conv->iw, pitch, stride, offset, &lo, &hi);
    for (ptrdiff_t i = 0; i < lo; i++)
        to[i] = 0.0f;
    row += offset;
    if (stride == 1)
        for (ptrdiff_t i = lo; i < hi; i++)
            to[i] = row[i];
    else if (stride == 2)
        for (ptrdiff_t i = lo; i < hi; i++)
            to[i] = row[2 * i];
    else
        for (ptrdiff_t i = lo; i < hi; i++)
            to[i] = row[i * stride];
    for (ptrdiff_t i = hi; i < pitch; i++)
        to[i] = 0.0f;
}

/* Copies what output rows [oy, oy + rows) need from the plane x. */
static KN_CLONES void fill_band(const struct kn_conv *conv, const struct band *band, const float *x,
                                ptrdiff_t oy, ptrdiff_t rows, float *to) {
    for (ptrdiff_t py = 0; py < band->phases_h; py++)
        for (ptrdiff_t px = 0; px < band->phases_w; px++) {
            ptrdiff_t iy = oy * conv->stride_h + py - conv->pad_top;
            float *row =
                to + (py * band->phases_w + px) * (band->rows + band->reach_h) * band->pitch;
            for (ptrdiff_t r = 0; r < rows + band->reach_h; r++, row += band->pitch) {
                if (iy >= 0 && iy < conv->ih)
                    copy_phase_row(conv, x + iy * conv->iw, px - conv->pad_left, band->pitch, row);
                else
                    memset(row, 0, (size_t)band->pitch * sizeof(float));
                iy += conv->stride_h;
            }
        }
}

/* Where each tap reads, relative to the output that it is for. */
static void find_taps(const struct kn_conv *conv, const struct band *band,
                      ptrdiff_t ret_offsets[TAPS_MAX]) {
    ptrdiff_t phase = (band->rows + band->reach_h) * band->pitch;

    for (ptrdiff_t ky = 0; ky < conv->kh; ky++)
        for (ptrdiff_t kx = 0; kx < conv->kw; kx++) {
            ptrdiff_t y = ky * conv->dil_h, x = kx * conv->dil_w;
            ptrdiff_t py = y % conv->stride_h, px = x % conv->stride_w;
            ret_offsets[ky * conv->kw + kx] = (py * band->phases_w + px) * phase +
                                              y / conv->stride_h * band->pitch + x / conv->stride_w;
        }
}

/* y[i] = bias + the taps' sum, for count outputs, rounded up to UNIT. */
static KN_CLONES void sum_taps(const float *x, const ptrdiff_t *offsets, const float *w,
                               ptrdiff_t taps, float bias, float *y, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += UNIT) {
        vec s0 = (vec){0} + bias, s1 = s0, s2 = s0, s3 = s0;
        for (ptrdiff_t t = 0; t < taps; t++) {
            const vec *from = (const vec *)(x + i + offsets[t]);
            s0 += w[t] * from[0];
            s1 += w[t] * from[1];
            s2 += w[t] * from[2];
            s3 += w[t] * from[3];
        }
        vec *to = (vec *)(y + i);
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

struct depthwise_job {
    const struct kn_conv_plan *plan;
    const void *packed;
    const float *x, *residual;
    float *y;
    char *workspace;
    struct band band;
    ptrdiff_t offsets[TAPS_MAX];
};

/* Output rows [oy, oy + rows) of output channel oc in image n, from a band that is filled. */
static void run_band(const struct depthwise_job *job, ptrdiff_t n, ptrdiff_t oc, ptrdiff_t oy,
                     ptrdiff_t rows, float *scratch) {
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t taps = (ptrdiff_t)conv->kh * conv->kw;
    ptrdiff_t at = ((n * conv->oc + oc) * conv->oh + oy) * conv->ow;
    float *sums = scratch + job->band.inputs + UNIT;

    sum_taps(scratch, job->offsets, kn_conv_plain_weights(conv, job->packed) + oc * taps, taps,
             ((const float *)job->packed)[oc], sums, rows * job->band.pitch);
    store_rows(sums, job->band.pitch, job->residual ? job->residual + at : NULL, job->y + at, rows,
               conv->ow);
    if (conv->act.kind != KN_ACT_NONE)
        kn_act_row(&conv->act, job->y + at, job->y + at, rows * conv->ow);
}

/* One input plane. */
static void depthwise_task(void *arg, int task, int thread) {
    const struct depthwise_job *job = arg;
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t ic = task % conv->ic, n = task / conv->ic, multiplier = conv->oc / conv->ic;
    const float *x = job->x + (ptrdiff_t)task * conv->ih * conv->iw;
    float *scratch = (float *)(job->workspace + (size_t)thread * band_bytes(&job->band));

    for (ptrdiff_t oy = 0; oy < conv->oh; oy += job->band.rows) {
        ptrdiff_t rows = kn_min(job->band.rows, conv->oh - oy);
        fill_band(conv, &job->band, x, oy, rows, scratch);
        for (ptrdiff_t m = 0; m < multiplier; m++)
            run_band(job, n, ic * multiplier + m, oy, rows, scratch);
    }
}

static void depthwise_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                          const float *residual, float *y, void *workspace,
                          struct kn_threads *threads) {
    struct depthwise_job job = {.plan = plan,
                                .packed = packed,
                                .x = x,
                                .residual = residual,
                                .y = y,
                                .workspace = workspace};

    band_init(&job.band, &plan->conv);
    find_taps(&plan->conv, &job.band, job.offsets);
    kn_parallel(threads, plan->conv.n * plan->conv.ic, depthwise_task, &job);
}

const struct kn_conv_algo kn_conv_depthwise = {
    .name = "depthwise",
    .fits = depthwise_fits,
    .size = depthwise_size,
    .pack = kn_conv_plain_pack,
    .run = depthwise_run,
};
