/* The general convolution: a matrix of input pixels (one row per weight, one column per output
 * pixel) is made strip by strip, small enough to stay in cache, and multiplied by the weights. */
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

static void im2col_size(struct kn_conv_plan *plan) {
    const struct kn_conv *conv = &plan->conv;

    plan->panel = kn_conv_panel(depth_of(conv), (ptrdiff_t)conv->oh * conv->ow);
    plan->packed_bytes = kn_conv_plain_bytes(conv);
    plan->workspace_bytes = panel_bytes(plan);
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

/* x is the group's first input plane. */
static void fill_panel(const struct kn_conv *conv, const float *x, ptrdiff_t begin, ptrdiff_t count,
                       float *col) {
    ptrdiff_t plane = (ptrdiff_t)conv->ih * conv->iw;

    for (ptrdiff_t c = 0; c < conv->ic / conv->group; c++)
        for (ptrdiff_t ky = 0; ky < conv->kh; ky++)
            for (ptrdiff_t kx = 0; kx < conv->kw; kx++, col += count) {
                struct tap tap = {.conv = conv, .plane = x + c * plane};
                tap.dy = ky * conv->dil_h - conv->pad_top;
                tap.dx = kx * conv->dil_w - conv->pad_left;
                kn_valid_range(conv->iw, conv->ow, conv->stride_w, tap.dx, &tap.lo_x, &tap.hi_x);
                fill_row(&tap, begin, count, col);
            }
}

struct im2col_job {
    const struct kn_conv_plan *plan;
    const void *packed;
    const float *x, *residual;
    float *y;
    char *workspace;
    ptrdiff_t strips;
};

static void im2col_task(void *arg, int task, int thread) {
    const struct im2col_job *job = arg;
    const struct kn_conv_plan *plan = job->plan;
    const struct kn_conv *conv = &plan->conv;
    ptrdiff_t strip = task % job->strips, batch_group = task / job->strips;
    ptrdiff_t group = batch_group % conv->group, n = batch_group / conv->group;
    ptrdiff_t icg = conv->ic / conv->group, ocg = conv->oc / conv->group;
    ptrdiff_t pixels = (ptrdiff_t)conv->oh * conv->ow;
    ptrdiff_t begin = strip * plan->panel, cols = kn_min(plan->panel, pixels - begin);
    ptrdiff_t at = (n * conv->oc + group * ocg) * pixels + begin;
    float *panel = (float *)(job->workspace + (size_t)thread * panel_bytes(plan));
    struct kn_strip shape = {.rows = ocg, .cols = cols, .ld = pixels};
    struct kn_blas_gemm gemm = {.m = (int)ocg, .n = (int)cols, .k = (int)depth_of(conv)};

    fill_panel(conv, job->x + (n * conv->ic + group * icg) * conv->ih * conv->iw, begin, cols,
               panel);
    kn_strip_begin(&shape, (const float *)job->packed + group * ocg,
                   job->residual ? job->residual + at : NULL, job->y + at);
    gemm.alpha = 1.0f;
    gemm.lda = gemm.k;
    gemm.ldb = (int)cols;
    gemm.ldy = (int)pixels;
    kn_blas_gemm(&gemm, kn_conv_plain_weights(conv, job->packed) + group * ocg * gemm.k, panel,
                 job->y + at);
    kn_strip_end(&shape, &conv->act, job->y + at);
}

static void im2col_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                       const float *residual, float *y, void *workspace,
                       struct kn_threads *threads) {
    const struct kn_conv *conv = &plan->conv;
    struct im2col_job job = {
        .plan = plan,
        .packed = packed,
        .x = x,
        .residual = residual,
        .y = y,
        .workspace = workspace,
        .strips = kn_ceil_div((ptrdiff_t)conv->oh * conv->ow, plan->panel),
    };

    kn_parallel(threads, (int)(conv->n * conv->group * job.strips), im2col_task, &job);
}

const struct kn_conv_algo kn_conv_im2col = {
    .name = "im2col",
    .fits = im2col_fits,
    .size = im2col_size,
    .pack = kn_conv_plain_pack,
    .run = im2col_run,
};
