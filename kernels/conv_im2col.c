/* The general convolution: a matrix of input pixels (one row per weight, one column per output
 * pixel) is made strip by strip, small enough to stay in cache, and multiplied by the weights.
 *
 * Usually each thread makes and multiplies strips of its own. Where there are fewer strips than
 * threads could use, all threads make one strip's matrix together and then share the output
 * channels. Both ways do the same products, block by block, so they give the same bits.
 */
#include <errno.h>
#include <string.h>

#include "conv_internal.h"

static ptrdiff_t depth_of(const struct kn_conv *conv) {
    return (ptrdiff_t)(conv->ic / conv->group) * conv->kh * conv->kw;
}

static size_t panel_bytes(const struct kn_conv_plan *plan) {
    return kn_round_up((size_t)depth_of(&plan->conv) * (size_t)plan->panel * sizeof(float),
                       KN_ALIGN);
}

static bool im2col_fits(const struct kn_conv *conv) {
    (void)conv;
    return true;
}

static int im2col_size(struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;
    size_t bytes;

    plan->panel = kn_conv_panel(depth_of(conv), (ptrdiff_t)conv->oh * conv->ow);
    if (__builtin_mul_overflow((size_t)depth_of(conv), (size_t)plan->panel * sizeof(float),
                               &bytes) ||
        bytes > PTRDIFF_MAX - KN_ALIGN)
        return -EOVERFLOW;
    plan->packed_bytes = kn_conv_plain_bytes(conv);
    plan->workspace_bytes = panel_bytes(plan);
    return 0;
}

/* One weight's row of the matrix: where it reads. */
struct tap {
    const struct kn_conv *conv;
    const float *plane;   /* its input channel */
    ptrdiff_t dy, dx;     /* input position = output position * stride + this */
    ptrdiff_t lo_x, hi_x; /* output columns that read inside the picture */
};

/* Writes count elements for output row oy from column ox on; they do not reach beyond that row. */
static void fill_segment(const struct tap *tap, ptrdiff_t oy, ptrdiff_t ox, ptrdiff_t count,
                         float *restrict col) {
    const struct kn_conv *conv = tap->conv;
    ptrdiff_t iy = oy * conv->stride_h + tap->dy;
    ptrdiff_t stride = conv->stride_w;

    if (iy < 0 || iy >= conv->ih) {
        memset(col, 0, (size_t)count * sizeof(float));
        return;
    }
    ptrdiff_t lo = kn_min(kn_max(tap->lo_x - ox, 0), count);
    ptrdiff_t hi = kn_max(kn_min(tap->hi_x - ox, count), lo);
    const float *row = tap->plane + iy * conv->iw + ox * stride + tap->dx;
    for (ptrdiff_t i = 0; i < lo; i++)
        col[i] = 0.0f;
    if (stride == 1)
        memcpy(col + lo, row + lo, (size_t)(hi - lo) * sizeof(float));
    else
        for (ptrdiff_t i = lo; i < hi; i++)
            col[i] = row[i * stride];
    for (ptrdiff_t i = hi; i < count; i++)
        col[i] = 0.0f;
}

/* One row of the matrix: output pixels [begin, begin + count) of the image, row by row. */
static void fill_row(const struct tap *tap, ptrdiff_t begin, ptrdiff_t count, float *col) {
    ptrdiff_t ow = tap->conv->ow;
    ptrdiff_t oy = begin / ow, ox = begin % ow;

    while (count > 0) {
        ptrdiff_t n = kn_min(ow - ox, count);
        fill_segment(tap, oy, ox, n, col);
        col += n;
        count -= n;
        oy++;
        ox = 0;
    }
}

/* Rows [first, last) of the matrix; x is the group's first input plane. */
static void fill_panel(const struct kn_conv *conv, const float *x, ptrdiff_t begin, ptrdiff_t count,
                       ptrdiff_t first, ptrdiff_t last, float *col) {
    for (ptrdiff_t row = first; row < last; row++) {
        ptrdiff_t kx = row % conv->kw, ky = row / conv->kw % conv->kh;
        ptrdiff_t c = row / conv->kw / conv->kh;
        struct tap tap = {.conv = conv, .plane = x + c * conv->ih * conv->iw};
        tap.dy = ky * conv->dil_h - conv->pad_top;
        tap.dx = kx * conv->dil_w - conv->pad_left;
        kn_valid_range(conv->iw, conv->ow, conv->stride_w, tap.dx, &tap.lo_x, &tap.hi_x);
        fill_row(&tap, begin, count, col + row * count);
    }
}

struct im2col_job {
    const struct kn_conv_plan *plan;
    struct kn_split split;
    const void *packed;
    const float *x, *residual;
    float *y;
    char *workspace;
    int shared; /* the strip that all threads work on */
};

/* One strip of one image and group: where it lies. */
struct strip {
    ptrdiff_t group;
    const float *x;  /* the group's first input plane */
    ptrdiff_t begin; /* first column */
    ptrdiff_t cols;
    ptrdiff_t at; /* of its first output, in y */
};

static void find_strip(const struct im2col_job *job, int index, struct strip *ret_strip) {
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t batch_group = index / job->split.strips;
    ptrdiff_t group = batch_group % conv->group, n = batch_group / conv->group;
    ptrdiff_t icg = conv->ic / conv->group, ocg = conv->oc / conv->group;
    ptrdiff_t pixels = (ptrdiff_t)conv->oh * conv->ow;
    ptrdiff_t begin = index % job->split.strips * job->split.panel;

    *ret_strip = (struct strip){
        .group = group,
        .x = job->x + (n * conv->ic + group * icg) * conv->ih * conv->iw,
        .begin = begin,
        .cols = kn_min(job->split.panel, pixels - begin),
        .at = (n * conv->oc + group * ocg) * pixels + begin,
    };
}

static void multiply_block(const struct im2col_job *job, const struct strip *strip, ptrdiff_t block,
                           const float *panel) {
    const struct kn_conv *conv = &job->plan->conv;
    ptrdiff_t ocg = conv->oc / conv->group, pixels = (ptrdiff_t)conv->oh * conv->ow;
    ptrdiff_t depth = depth_of(conv), first = block * job->split.block_rows;
    ptrdiff_t oc = strip->group * ocg + first, at = strip->at + first * pixels;
    struct kn_strip shape = {
        .rows = kn_min(job->split.block_rows, ocg - first), .cols = strip->cols, .ld = pixels};
    struct kn_product product = {
        .m = (int)shape.rows,
        .n = (int)shape.cols,
        .k = (int)depth,
        .alpha = 1.0f,
        .lda = (int)depth,
        .ldb = (int)shape.cols,
        .ldy = (int)pixels,
    };

    kn_strip_begin(&shape, (const float *)job->packed + oc,
                   job->residual ? job->residual + at : NULL, job->y + at);
    kn_multiply(&product, kn_conv_plain_weights(conv, job->packed) + oc * depth, panel,
                job->y + at);
    kn_strip_end(&shape, &conv->act, job->y + at);
}

/* A whole strip. */
static void strip_task(void *arg, int task, int thread) {
    const struct im2col_job *job = arg;
    float *panel = (float *)(job->workspace + (size_t)thread * panel_bytes(job->plan));
    struct strip strip;

    find_strip(job, task, &strip);
    fill_panel(&job->plan->conv, strip.x, strip.begin, strip.cols, 0, depth_of(&job->plan->conv),
               panel);
    for (ptrdiff_t block = 0; block < job->split.blocks; block++)
        multiply_block(job, &strip, block, panel);
}

#define FILL_ROWS 64 /* rows of a shared matrix that one task makes */

static void fill_task(void *arg, int task, int thread) {
    const struct im2col_job *job = arg;
    ptrdiff_t first = (ptrdiff_t)task * FILL_ROWS;
    struct strip strip;

    (void)thread;
    find_strip(job, job->shared, &strip);
    fill_panel(&job->plan->conv, strip.x, strip.begin, strip.cols, first,
               kn_min(first + FILL_ROWS, depth_of(&job->plan->conv)), (float *)job->workspace);
}

static void multiply_task(void *arg, int task, int thread) {
    const struct im2col_job *job = arg;
    struct strip strip;

    (void)thread;
    find_strip(job, job->shared, &strip);
    multiply_block(job, &strip, task, (const float *)job->workspace);
}

static void im2col_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                       const float *residual, float *y, void *workspace,
                       struct kn_threads *threads) {
    const struct kn_conv *conv = &plan->conv;
    struct im2col_job job = {.plan = plan,
                             .packed = packed,
                             .x = x,
                             .residual = residual,
                             .y = y,
                             .workspace = workspace};

    kn_conv_split(plan, &job.split);
    int strips = (int)(conv->n * conv->group * job.split.strips);
    if (job.split.blocks == 1 || strips >= 2 * kn_threads_count(threads)) {
        kn_parallel(threads, strips, strip_task, &job);
        return;
    }
    int fills = (int)kn_ceil_div(depth_of(conv), FILL_ROWS);
    for (job.shared = 0; job.shared < strips; job.shared++) {
        kn_parallel(threads, fills, fill_task, &job);
        kn_parallel(threads, (int)job.split.blocks, multiply_task, &job);
    }
}

const struct kn_conv_algo kn_conv_im2col = {
    .name = "im2col",
    .fits = im2col_fits,
    .size = im2col_size,
    .pack = kn_conv_plain_pack,
    .run = im2col_run,
};
