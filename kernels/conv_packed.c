/* Convolution as a product of our own: weights are packed into panels at load; the pixels of a
 * block of columns are copied into strips that stay in the second cache, one depth block after the
 * other, and multiplied by every panel. Bias, residual and activation are done as tiles are stored.
 *
 * 1x1 copies pixels as they lie. Larger windows go through a band (band.h) per input channel, which
 * brings padding and stride; each tap's row of the matrix is copied from it, so the whole matrix of
 * a layer never exists.
 *
 * An element's sum runs over depth in the order of the weights, cut into depth blocks that follow
 * from the shape. Columns and rows may be split in any way: the bits are the same.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "band.h"
#include "conv_internal.h"
#include "packed.h"

#define DEPTH_MOST  384          /* of a depth block, but for one channel with more taps */
#define BLOCK_BYTES (256 * 1024) /* of strips: a part of the second cache */
#define TASKS       4            /* per thread, where there is enough work */
#define STRIPS_FEW  2            /* of a task that only exists to keep a thread busy */
#define ROWS_FEW    64

/* How deep a depth block is. */
struct depth {
    ptrdiff_t taps, channels; /* of the layer's group */
    ptrdiff_t block_channels; /* the last block may have fewer */
};

static struct depth depth_of(const struct kn_conv *conv) {
    struct depth d = {.taps = (ptrdiff_t)conv->kh * conv->kw, .channels = conv->ic / conv->group};
    ptrdiff_t blocks = kn_min(kn_ceil_div(d.channels * d.taps, DEPTH_MOST), d.channels);

    d.block_channels = kn_ceil_div(d.channels, blocks);
    return d;
}

static bool is_pointwise(const struct kn_conv *conv) {
    return conv->kh == 1 && conv->kw == 1 && conv->stride_h == 1 && conv->stride_w == 1 &&
           conv->pad_top == 0 && conv->pad_left == 0 && conv->oh == conv->ih &&
           conv->ow == conv->iw;
}

static bool band_of(const struct kn_conv *conv, struct kn_band *ret_band) {
    const struct kn_window window = {
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
        .far = (ptrdiff_t)conv->ic * conv->ih * conv->iw > KN_FAR_BYTES / (ptrdiff_t)sizeof(float),
    };

    return kn_band_init(ret_band, &window);
}

static bool window_fits(const struct kn_conv *conv) {
    struct kn_band band;

    return band_of(conv, &band);
}

static size_t strip_floats(const struct kn_conv_plan *plan) {
    struct depth d = depth_of(&plan->conv);

    return (size_t)(d.block_channels * d.taps * plan->simd->strip_cols);
}

static ptrdiff_t strips_of(const struct kn_conv_plan *plan) {
    return kn_ceil_div((ptrdiff_t)plan->conv.oh * plan->conv.ow, plan->simd->strip_cols);
}

/* Packed: bias, then each group's panels. */
static size_t group_floats(const struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;
    struct depth d = depth_of(conv);

    return kn_panels_count(plan->simd, conv->oc / conv->group, d.channels * d.taps);
}

static float *panels_of(const struct kn_conv_plan *plan, const void *packed) {
    return (float *)packed + kn_round_up((size_t)plan->conv.oc, KN_ALIGN / sizeof(float));
}

/* Scratch of one thread: the strips of a block, then a band. */
static size_t strips_bytes(const struct kn_conv_plan *plan) {
    return kn_round_up((size_t)plan->panel * strip_floats(plan) * sizeof(float), KN_ALIGN);
}

static int packed_size(struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;
    struct depth d = depth_of(conv);
    struct kn_band band = {0};

    if (!kn_panels_fit(plan->simd, conv->oc / conv->group, d.channels * d.taps, conv->group,
                       conv->oc))
        return -EOVERFLOW;
    size_t bytes = strip_floats(plan) * sizeof(float);
    size_t floats = group_floats(plan) * (size_t)conv->group;
    plan->panel = (int)kn_min(kn_max(BLOCK_BYTES / (ptrdiff_t)bytes, 1), strips_of(plan));
    plan->packed_bytes = kn_round_up((size_t)conv->oc * sizeof(float), KN_ALIGN) +
                         kn_round_up(floats * sizeof(float), KN_ALIGN);
    if (!is_pointwise(conv))
        band_of(conv, &band);
    plan->workspace_bytes = strips_bytes(plan) + band.bytes;
    return 0;
}

static void packed_pack(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                        void *packed) {
    const struct kn_conv *conv = &plan->conv;
    struct depth d = depth_of(conv);
    float *panels = panels_of(plan, packed);
    const struct kn_rows all = {.w = weights->w,
                                .scale = weights->scale,
                                .count = weights->rows,
                                .depth = d.channels * d.taps};
    ptrdiff_t ocg = conv->oc / conv->group;

    kn_conv_pack_bias(plan, weights, (size_t)(panels - (float *)packed), packed);
    panels += weights->first * all.depth;
    for (int g = 0; g < conv->group; g++, panels += group_floats(plan)) {
        struct kn_rows rows = kn_rows_part(&all, g * ocg, ocg);
        kn_panels_pack(plan->simd, &rows, panels);
    }
}

struct packed_job {
    const struct kn_conv_plan *plan;
    const float *packed, *x, *residual;
    float *y;
    char *workspace;
    struct depth depth;
    struct kn_band band;
    bool pointwise;
    float low, high;
    bool bounds;          /* the activation is done by them */
    ptrdiff_t strips;     /* of a task */
    ptrdiff_t col_blocks; /* tasks along the columns */
    ptrdiff_t rows;       /* of a task */
    ptrdiff_t row_blocks;
};

/* One task: rows [first, first + rows) of columns [begin, begin + cols) of one group of one image.
 */
struct packed_task {
    ptrdiff_t group, first, rows, begin, cols;
    const float *x; /* the group's first input plane */
    ptrdiff_t at;   /* of the first row's first column, in y */
    float *strips, *band;
};

/* Channel c's rows of the block, from a band. */
static void copy_window(const struct packed_job *job, const struct packed_task *task, ptrdiff_t c,
                        float *b, ptrdiff_t b_stride) {
    const struct kn_conv *conv = &job->plan->conv;
    const struct kn_band *band = &job->band;
    ptrdiff_t ow = conv->ow, end = task->begin + task->cols;
    struct kn_to_strips copy = {.offsets = band->offsets,
                                .taps = band->taps,
                                .pitch = band->pitch,
                                .b = b,
                                .b_stride = b_stride};

    for (ptrdiff_t oy = task->begin / ow; oy * ow < end; oy += band->rows) {
        ptrdiff_t rows = kn_min(band->rows, kn_ceil_div(end, ow) - oy), r = 0;
        kn_band_fill(band, task->x + c * conv->ih * conv->iw, oy, rows, 0.0f, task->band);
        while (r < rows) {
            /* Whole rows, or the part of a row that lies in the block. */
            ptrdiff_t from = kn_max((oy + r) * ow, task->begin), x = from - (oy + r) * ow;
            bool whole = x == 0 && (oy + r + 1) * ow <= end;
            copy.x = task->band + r * band->pitch + x;
            copy.pos = from - task->begin;
            copy.rows = whole ? kn_min(rows - r, end / ow - (oy + r)) : 1;
            copy.cols = whole ? ow : kn_min(ow - x, end - from);
            job->plan->simd->copy_to_strips(&copy);
            r += copy.rows;
        }
    }
}

/* The strips of one depth block, multiplied by the task's rows. */
static void multiply_depth(const struct packed_job *job, const struct packed_task *task,
                           ptrdiff_t c0, ptrdiff_t channels) {
    const struct kn_conv_plan *plan = job->plan;
    const struct kn_conv *conv = &plan->conv;
    ptrdiff_t depth = channels * job->depth.taps, height = plan->simd->panel_rows;
    ptrdiff_t all = job->depth.channels * job->depth.taps;
    ptrdiff_t pixels = (ptrdiff_t)conv->oh * conv->ow;
    bool first = c0 == 0, last = c0 + channels == job->depth.channels;
    struct kn_block block = {
        .cols = task->cols,
        .depth = depth,
        .b = task->strips,
        .a_stride = all * height,
        .b_stride = depth * plan->simd->strip_cols,
        .ldy = pixels,
        .ldx = pixels,
        .low = last ? job->low : -INFINITY,
        .high = last ? job->high : INFINITY,
        .act = last && !job->bounds ? &conv->act : NULL,
    };

    if (job->pointwise)
        block.x = task->x + c0 * pixels + task->begin;
    block.rows = task->rows;
    block.a = panels_of(plan, job->packed) + (size_t)task->group * group_floats(plan) +
              (task->first * all + c0 * job->depth.taps * height);
    block.bias = first ? job->packed + task->group * (conv->oc / conv->group) + task->first : NULL;
    block.residual = first && job->residual ? job->residual + task->at : NULL;
    block.y = job->y + task->at;
    plan->simd->multiply_block(&block);
}

static void find_task(const struct packed_job *job, int index, int thread,
                      struct packed_task *ret_task) {
    const struct kn_conv_plan *plan = job->plan;
    const struct kn_conv *conv = &plan->conv;
    ptrdiff_t ocg = conv->oc / conv->group, icg = conv->ic / conv->group;
    ptrdiff_t pixels = (ptrdiff_t)conv->oh * conv->ow, width = job->strips * plan->simd->strip_cols;
    ptrdiff_t row_block = index % job->row_blocks, rest = index / job->row_blocks;
    ptrdiff_t n = rest / job->col_blocks / conv->group;
    struct packed_task task = {
        .group = rest / job->col_blocks % conv->group,
        .first = row_block * job->rows,
        .begin = rest % job->col_blocks * width,
    };
    char *scratch = job->workspace + (size_t)thread * (strips_bytes(plan) + job->band.bytes);

    task.rows = kn_min(job->rows, ocg - task.first);
    task.cols = kn_min(width, pixels - task.begin);
    task.x = job->x + (n * conv->ic + task.group * icg) * conv->ih * conv->iw;
    task.at = (n * conv->oc + task.group * ocg + task.first) * pixels + task.begin;
    task.strips = (float *)scratch;
    task.band = (float *)(scratch + strips_bytes(plan));
    *ret_task = task;
}

static void packed_task(void *arg, int index, int thread) {
    const struct packed_job *job = arg;
    const struct depth *d = &job->depth;
    ptrdiff_t width = job->plan->simd->strip_cols;
    struct packed_task task;

    find_task(job, index, thread, &task);
    for (ptrdiff_t c0 = 0; c0 < d->channels; c0 += d->block_channels) {
        ptrdiff_t channels = kn_min(d->block_channels, d->channels - c0);
        ptrdiff_t b_stride = channels * d->taps * width;
        for (ptrdiff_t c = 0; !job->pointwise && c < channels; c++)
            copy_window(job, &task, c0 + c, task.strips + c * d->taps * width, b_stride);
        multiply_depth(job, &task, c0, channels);
    }
}

/* How often rows are cut, which costs copying the columns again: just so often that each of the
 * threads has as many tasks as the others, or many. */
static ptrdiff_t cut_rows(ptrdiff_t tasks, ptrdiff_t threads, ptrdiff_t most) {
    ptrdiff_t blocks = 1;

    while (blocks < most && tasks * blocks < threads * TASKS && tasks * blocks % threads != 0)
        blocks++;
    return blocks;
}

/* One thread wants large blocks, several want several: fewer columns first, then fewer rows. */
static void split(struct packed_job *job, int threads) {
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t ocg = conv->oc / conv->group, strips = strips_of(job->plan);
    ptrdiff_t wanted =
        threads > 1 ? kn_ceil_div((ptrdiff_t)threads * TASKS, (ptrdiff_t)conv->n * conv->group) : 1;
    ptrdiff_t most = kn_max(kn_min(STRIPS_FEW, strips), kn_ceil_div(strips, wanted));

    job->strips = kn_min(job->plan->panel, most);
    job->strips = kn_ceil_div(strips, kn_ceil_div(strips, job->strips));
    job->col_blocks = kn_ceil_div(strips, job->strips);
    ptrdiff_t blocks = cut_rows(job->col_blocks * conv->n * conv->group, threads, ocg / ROWS_FEW);
    ptrdiff_t height = job->plan->simd->panel_rows;
    job->rows = kn_ceil_div(kn_ceil_div(ocg, blocks), height) * height;
    job->row_blocks = kn_ceil_div(ocg, job->rows);
}

static void packed_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                       const float *residual, float *y, void *workspace,
                       struct kn_threads *threads) {
    const struct kn_conv *conv = &plan->conv;
    struct packed_job job = {.plan = plan,
                             .packed = packed,
                             .x = x,
                             .residual = residual,
                             .y = y,
                             .workspace = workspace,
                             .depth = depth_of(conv),
                             .pointwise = is_pointwise(conv)};

    job.bounds = kn_act_bounds(&conv->act, &job.low, &job.high);
    if (!job.pointwise)
        band_of(conv, &job.band);
    split(&job, kn_threads_count(threads));
    kn_parallel(threads, (int)(conv->n * conv->group * job.col_blocks * job.row_blocks),
                packed_task, &job);
}

const struct kn_conv_algo kn_conv_1x1 = {
    .name = "1x1",
    .fits = is_pointwise,
    .size = packed_size,
    .pack = packed_pack,
    .run = packed_run,
};

const struct kn_conv_algo kn_conv_window = {
    .name = "window",
    .fits = window_fits,
    .size = packed_size,
    .pack = packed_pack,
    .run = packed_run,
};
