/* ConvTranspose: the weights' products with every input pixel (a GEMM), scattered into the output.
 * Groups and images are parallel inside the scatter and the products, never across them, so that
 * each output element is summed in one order. */
#include <limits.h>
#include <string.h>

#include "conv_internal.h"

static ptrdiff_t taps_of(const struct kn_conv *conv) {
    return (ptrdiff_t)(conv->oc / conv->group) * conv->kh * conv->kw;
}

/* A multiple of KN_ALIGN that nobody can allocate, with room to add to it. */
#define NO_SUCH_SIZE ((size_t)PTRDIFF_MAX / KN_ALIGN * KN_ALIGN)

size_t kn_conv_transpose_workspace(const struct kn_conv *conv) {
    size_t kernel, taps, pixels, bytes;

    if (__builtin_mul_overflow((size_t)conv->kh, (size_t)conv->kw, &kernel) ||
        __builtin_mul_overflow(kernel, (size_t)(conv->oc / conv->group), &taps) ||
        __builtin_mul_overflow((size_t)conv->ih, (size_t)conv->iw, &pixels) || taps > INT_MAX ||
        pixels > INT_MAX || __builtin_mul_overflow(taps, pixels, &bytes) ||
        bytes > NO_SUCH_SIZE / sizeof(float))
        return NO_SUCH_SIZE;
    return kn_round_up(bytes * sizeof(float), KN_ALIGN);
}

struct transpose_job {
    const struct kn_conv *conv;
    const float *w, *bias, *x; /* of this image and group */
    float *y, *products;       /* products [oc/group][kh][kw][ih][iw] */
    int rows;                  /* of products, per task */
};

static void products_task(void *arg, int task, int thread) {
    const struct transpose_job *job = arg;
    const struct kn_conv *conv = job->conv;
    ptrdiff_t taps = taps_of(conv), first = (ptrdiff_t)task * job->rows;
    int pixels = conv->ih * conv->iw;
    struct kn_product product = {
        .m = (int)kn_min(job->rows, taps - first),
        .n = pixels,
        .k = conv->ic / conv->group,
        .trans_a = true,
        .alpha = 1.0f,
        .lda = (int)taps,
        .ldb = pixels,
        .ldy = pixels,
    };
    float *y = job->products + first * pixels;

    (void)thread;
    memset(y, 0, (size_t)product.m * (size_t)pixels * sizeof(float));
    kn_multiply(&product, job->w + first, job->x, y);
}

static void scatter_row(const struct kn_conv *conv, ptrdiff_t offset, const float *restrict from,
                        float *restrict to) {
    ptrdiff_t lo, hi, stride = conv->stride_w;

    kn_valid_range(conv->ow, conv->iw, stride, offset, &lo, &hi);
    for (ptrdiff_t ix = lo; ix < hi; ix++)
        to[ix * stride + offset] += from[ix];
}

/* One output plane. */
static void scatter_task(void *arg, int task, int thread) {
    const struct transpose_job *job = arg;
    const struct kn_conv *conv = job->conv;
    ptrdiff_t pixels = (ptrdiff_t)conv->oh * conv->ow;
    float *y = job->y + task * pixels;
    const float *from = job->products + (ptrdiff_t)task * conv->kh * conv->kw * conv->ih * conv->iw;

    (void)thread;
    for (ptrdiff_t i = 0; i < pixels; i++)
        y[i] = job->bias ? job->bias[task] : 0.0f;
    for (ptrdiff_t ky = 0; ky < conv->kh; ky++)
        for (ptrdiff_t kx = 0; kx < conv->kw; kx++)
            for (ptrdiff_t iy = 0; iy < conv->ih; iy++, from += conv->iw) {
                ptrdiff_t oy = iy * conv->stride_h + ky * conv->dil_h - conv->pad_top;
                if (oy >= 0 && oy < conv->oh)
                    scatter_row(conv, kx * conv->dil_w - conv->pad_left, from, y + oy * conv->ow);
            }
    kn_act_row(&conv->act, y, y, pixels);
}

void kn_conv_transpose(const struct kn_conv *conv, const float *w, const float *bias,
                       const float *x, float *y, void *workspace, struct kn_threads *threads) {
    ptrdiff_t icg = conv->ic / conv->group, ocg = conv->oc / conv->group, taps = taps_of(conv);
    ptrdiff_t in = (ptrdiff_t)conv->ih * conv->iw, out = (ptrdiff_t)conv->oh * conv->ow;
    struct transpose_job job = {.conv = conv, .products = workspace, .rows = 64};

    for (ptrdiff_t n = 0; n < conv->n; n++)
        for (ptrdiff_t g = 0; g < conv->group; g++) {
            job.w = w + g * icg * taps;
            job.bias = bias ? bias + g * ocg : NULL;
            job.x = x + (n * conv->ic + g * icg) * in;
            job.y = y + (n * conv->oc + g * ocg) * out;
            kn_parallel(threads, (int)kn_ceil_div(taps, job.rows), products_task, &job);
            kn_parallel(threads, (int)ocg, scatter_task, &job);
        }
}
