/* One input channel per group, in rows that are not wide: as many channels as a vector has lanes
 * are computed at once, band by band of rows. A band's input is transposed into scratch, summed
 * from there, and the results transposed back, all of it in the first cache. Rows that the next
 * band needs too are moved up. */
#include <math.h>
#include <string.h>

#include "conv_internal.h"
#include "packed.h"
#include "simd.h"

#define COLUMNS_FEW  8           /* rows up to so wide leave much of a vector empty */
#define TASK_OUTPUTS 8192        /* of one task, at least, where there are so many planes */
#define BAND_BYTES   (24 * 1024) /* of scratch and results: less than a first cache of 32 KB */

/* Half as many lanes stream better from the second cache. */
static bool wants_all_lanes(const struct kn_conv *conv) {
    return conv->stride_h == 1 && conv->kh > 3;
}

static const struct kn_lanes_functions *functions_of(const struct kn_conv *conv,
                                                     const struct kn_simd *simd) {
    return wants_all_lanes(conv) ? &simd->by_lanes : &simd->by_half_lanes;
}

/* The widest rows for which this is better than slides (docs/kernels.md has the measurement). */
static ptrdiff_t columns_max(const struct kn_conv *conv, const struct kn_simd *simd) {
    if (conv->stride_h == 2)
        return 112;
    return simd->lanes == 16 && wants_all_lanes(conv) ? 28 : 56;
}

/* Groups of lanes that are not filled cost as much as others. Where rows do not fill vectors, half
 * of them is still enough to win. */
static bool fills_lanes(const struct kn_conv *conv, const struct kn_simd *simd) {
    ptrdiff_t lanes = functions_of(conv, simd)->lanes, ic = conv->ic;
    ptrdiff_t room = kn_ceil_div(ic, lanes) * lanes;

    return kn_max(conv->iw, conv->ow) <= COLUMNS_FEW ? ic >= room / 2 : ic >= room / 4 * 3;
}

static bool lanes_fits(const struct kn_conv *conv) {
    const struct kn_simd *simd = kn_simd();
    int kernel = conv->kh, stride = conv->stride_h;

    return conv->group == conv->ic && conv->oc == conv->ic && conv->group > 1 && !conv->residual &&
           fills_lanes(conv, simd) && (kernel == 3 || kernel == 5 || kernel == 7) &&
           conv->kw == kernel && (stride == 1 || stride == 2) && conv->stride_w == stride &&
           conv->dil_h == 1 && conv->dil_w == 1 && conv->pad_top >= 0 && conv->pad_left >= 0 &&
           conv->pad_top < kernel && conv->pad_left < kernel &&
           kn_max(conv->iw, conv->ow) <= columns_max(conv, simd);
}

static struct kn_lanes lanes_of(const struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;
    struct kn_lanes l = {.by = functions_of(conv, plan->simd),
                         .ih = conv->ih,
                         .iw = conv->iw,
                         .oh = conv->oh,
                         .ow = conv->ow,
                         .kernel = conv->kh,
                         .stride = conv->stride_h};
    ptrdiff_t width = kn_max((l.ow - 1) * l.stride + l.kernel, conv->pad_left + l.iw);

    l.pitch = width * l.by->lanes;
    ptrdiff_t most = BAND_BYTES / (ptrdiff_t)sizeof(float) - (l.kernel - l.stride) * l.pitch;
    l.rows = kn_min(kn_max(most / (l.stride * l.pitch + l.ow * l.by->lanes), 1), l.oh);
    l.rows = kn_ceil_div(l.oh, kn_ceil_div(l.oh, l.rows));
    l.height = (l.rows - 1) * l.stride + l.kernel;
    return l;
}

/* Scratch of one thread: a band, its results, and where pixels go. */
static ptrdiff_t band_floats(const struct kn_lanes *l) {
    return l->height * l->pitch;
}

static ptrdiff_t results_floats(const struct kn_lanes *l) {
    return l->rows * l->ow * l->by->lanes;
}

static size_t scratch_bytes(const struct kn_lanes *l) {
    size_t floats = (size_t)(band_floats(l) + results_floats(l));

    return kn_round_up(floats * sizeof(float) + (size_t)(l->height * l->iw) * sizeof(int32_t),
                       KN_ALIGN);
}

/* Channels that a packed layer has room for: whole groups of lanes. */
static ptrdiff_t room_of(const struct kn_conv_plan *plan) {
    ptrdiff_t lanes = functions_of(&plan->conv, plan->simd)->lanes;

    return kn_ceil_div(plan->conv.ic, lanes) * lanes;
}

static int lanes_size(struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;
    const struct kn_lanes l = lanes_of(plan);

    plan->panel = conv->ow;
    plan->packed_bytes = (size_t)(room_of(plan) * (conv->kh * conv->kw + 1)) * sizeof(float);
    plan->workspace_bytes = scratch_bytes(&l);
    return 0;
}

/* Biases of all channels, then each group's weights, [kernel][kernel][lanes]. */
static void lanes_pack(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                       void *packed) {
    const struct kn_conv *conv = &plan->conv;
    ptrdiff_t lanes = functions_of(conv, plan->simd)->lanes, room = room_of(plan);
    const struct kn_rows rows = {.w = weights->w,
                                 .scale = weights->scale,
                                 .count = weights->rows,
                                 .depth = (ptrdiff_t)conv->kh * conv->kw};
    float *to = (float *)packed + room;

    kn_conv_pack_bias(plan, weights, (size_t)room, packed);
    for (ptrdiff_t r = 0; r < rows.count; r += lanes, to += lanes * rows.depth) {
        struct kn_rows part = kn_rows_part(&rows, r, lanes);
        plan->simd->pack_panel(&part, lanes, to);
    }
}

struct lanes_job {
    const struct kn_conv_plan *plan;
    struct kn_lanes lanes;
    const float *packed, *x;
    float *y;
    char *workspace;
    float low, high;
    bool bounds;          /* the activation is done by them */
    ptrdiff_t groups;     /* of a task */
    ptrdiff_t all_groups; /* of all images */
};

static void clear_rows(float *scratch, ptrdiff_t pitch, ptrdiff_t from, ptrdiff_t to) {
    if (from < to)
        memset(scratch + from * pitch, 0, (size_t)((to - from) * pitch) * sizeof(float));
}

/* What output rows [oy, oy + rows) need of count planes from x on; the band before is there. */
static void fill_band(const struct lanes_job *job, const float *x, ptrdiff_t count, ptrdiff_t oy,
                      ptrdiff_t rows, float *scratch) {
    const struct kn_lanes *l = &job->lanes;
    ptrdiff_t keep = oy > 0 ? l->kernel - l->stride : 0, end = (rows - 1) * l->stride + l->kernel;
    ptrdiff_t top = oy * l->stride - job->plan->conv.pad_top; /* input row of scratch's first */
    ptrdiff_t lo = kn_min(kn_max(keep, -top), end), hi = kn_max(kn_min(l->ih - top, end), lo);

    if (keep > 0)
        memmove(scratch, scratch + l->rows * l->stride * l->pitch,
                (size_t)(keep * l->pitch) * sizeof(float));
    clear_rows(scratch, l->pitch, keep, lo);
    if (lo < hi)
        l->by->in(l, x + (top + lo) * l->iw, (hi - lo) * l->iw, count, scratch + lo * l->pitch);
    clear_rows(scratch, l->pitch, hi, end);
}

/* Group `index` of all images' groups. */
static void run_group(const struct lanes_job *job, ptrdiff_t index, float *scratch) {
    const struct kn_conv *conv = &job->plan->conv;
    const struct kn_lanes *l = &job->lanes;
    ptrdiff_t lanes = l->by->lanes, room = room_of(job->plan), first = index * lanes % room;
    ptrdiff_t plane = index * lanes / room * conv->ic + first;
    ptrdiff_t count = kn_min(lanes, conv->ic - first);
    const struct kn_lanes_sum sum = {.w = job->packed + room + first * l->kernel * l->kernel,
                                     .bias = job->packed + first,
                                     .low = job->low,
                                     .high = job->high};
    const float *x = job->x + plane * l->ih * l->iw;
    float *y = job->y + plane * l->oh * l->ow, *results = scratch + band_floats(l);

    for (ptrdiff_t oy = 0; oy < l->oh; oy += l->rows) {
        ptrdiff_t rows = kn_min(l->rows, l->oh - oy), pixels = rows * l->ow;
        fill_band(job, x, count, oy, rows, scratch);
        l->by->sum(l, &sum, rows, scratch, results);
        if (!job->bounds)
            kn_act_row(&conv->act, results, results, pixels * lanes);
        l->by->out(l, results, pixels, count, y + oy * l->ow);
    }
}

static void find_places(const struct lanes_job *job, int32_t *places) {
    const struct kn_lanes *l = &job->lanes;

    for (ptrdiff_t row = 0; row < band_floats(l); row += l->pitch)
        for (ptrdiff_t x = 0; x < l->iw; x++)
            *places++ = (int32_t)(row + (job->plan->conv.pad_left + x) * l->by->lanes);
}

static void lanes_task(void *arg, int task, int thread) {
    struct lanes_job job = *(const struct lanes_job *)arg;
    const struct kn_lanes *l = &job.lanes;
    ptrdiff_t first = task * job.groups, end = kn_min(first + job.groups, job.all_groups);
    float *scratch = (float *)(job.workspace + (size_t)thread * scratch_bytes(l));
    int32_t *places = (int32_t *)(scratch + band_floats(l) + results_floats(l));

    clear_rows(scratch, l->pitch, 0, l->height);
    find_places(&job, places);
    job.lanes.places = places;
    for (ptrdiff_t group = first; group < end; group++)
        run_group(&job, group, scratch);
}

static void lanes_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                      const float *residual, float *y, void *workspace,
                      struct kn_threads *threads) {
    const struct kn_conv *conv = &plan->conv;
    struct lanes_job job = {.plan = plan,
                            .lanes = lanes_of(plan),
                            .packed = packed,
                            .x = x,
                            .y = y,
                            .workspace = workspace};

    (void)residual; /* there is none: lanes_fits() */
    ptrdiff_t lanes = job.lanes.by->lanes, outputs = (ptrdiff_t)conv->oh * conv->ow * lanes;
    job.bounds = kn_act_bounds(&conv->act, &job.low, &job.high);
    job.groups = kn_max(TASK_OUTPUTS / outputs, 1);
    job.all_groups = conv->n * room_of(plan) / lanes;
    kn_parallel(threads, (int)kn_ceil_div(job.all_groups, job.groups), lanes_task, &job);
}

const struct kn_conv_algo kn_conv_depthwise_lanes = {
    .name = "depthwise-lanes",
    .fits = lanes_fits,
    .size = lanes_size,
    .pack = lanes_pack,
    .run = lanes_run,
};
