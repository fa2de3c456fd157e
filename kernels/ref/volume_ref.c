#include <math.h>

#include "../internal.h"
#include "../volume.h"

/* Sums are accumulated in double. The 3-D definitions go by every cell of the picture and ask
 * whether a tap of the kernel lies there. */

/* The tap of a kernel that begins at `start` which lies at `at`; -1: none. */
static ptrdiff_t tap_at(ptrdiff_t at, ptrdiff_t start, ptrdiff_t dil, ptrdiff_t kernel) {
    ptrdiff_t k = at - start;

    return k >= 0 && k % dil == 0 && k / dil < kernel ? k / dil : -1;
}

static double conv_at(const struct kn_conv3 *v, const float *w, const float *x, ptrdiff_t o,
                      ptrdiff_t oz, ptrdiff_t oy, ptrdiff_t ox) {
    const struct kn_conv *c = &v->plane;
    ptrdiff_t icg = c->ic / c->group, first = o / (c->oc / c->group) * icg;
    double sum = 0.0;

    for (ptrdiff_t z = 0; z < v->id; z++)
        for (ptrdiff_t y = 0; y < c->ih; y++)
            for (ptrdiff_t i = 0; i < c->iw; i++) {
                ptrdiff_t kz = tap_at(z, oz * v->stride_d - v->pad_front, v->dil_d, v->kd);
                ptrdiff_t ky = tap_at(y, oy * c->stride_h - c->pad_top, c->dil_h, c->kh);
                ptrdiff_t kx = tap_at(i, ox * c->stride_w - c->pad_left, c->dil_w, c->kw);
                if (kz < 0 || ky < 0 || kx < 0)
                    continue;
                for (ptrdiff_t ch = 0; ch < icg; ch++)
                    sum += (double)x[(((first + ch) * v->id + z) * c->ih + y) * c->iw + i] *
                           (double)w[(((o * icg + ch) * v->kd + kz) * c->kh + ky) * c->kw + kx];
            }
    return sum;
}

static double transpose_at(const struct kn_conv3 *v, const float *w, const float *x, ptrdiff_t o,
                           ptrdiff_t oz, ptrdiff_t oy, ptrdiff_t ox) {
    const struct kn_conv *c = &v->plane;
    ptrdiff_t icg = c->ic / c->group, ocg = c->oc / c->group, first = o / ocg * icg;
    double sum = 0.0;

    for (ptrdiff_t z = 0; z < v->id; z++)
        for (ptrdiff_t y = 0; y < c->ih; y++)
            for (ptrdiff_t i = 0; i < c->iw; i++) {
                ptrdiff_t kz = tap_at(oz, z * v->stride_d - v->pad_front, v->dil_d, v->kd);
                ptrdiff_t ky = tap_at(oy, y * c->stride_h - c->pad_top, c->dil_h, c->kh);
                ptrdiff_t kx = tap_at(ox, i * c->stride_w - c->pad_left, c->dil_w, c->kw);
                if (kz < 0 || ky < 0 || kx < 0)
                    continue;
                for (ptrdiff_t ch = first; ch < first + icg; ch++)
                    sum +=
                        (double)x[((ch * v->id + z) * c->ih + y) * c->iw + i] *
                        (double)w[(((ch * ocg + o % ocg) * v->kd + kz) * c->kh + ky) * c->kw + kx];
            }
    return sum;
}

typedef double (*at_fn)(const struct kn_conv3 *v, const float *w, const float *x, ptrdiff_t o,
                        ptrdiff_t oz, ptrdiff_t oy, ptrdiff_t ox);

static void for_each_output(const struct kn_conv3 *v, at_fn fn, const float *w, const float *bias,
                            const float *x, const float *residual, float *y) {
    const struct kn_conv *c = &v->plane;
    ptrdiff_t image = (ptrdiff_t)c->ic * v->id * c->ih * c->iw, i = 0;

    for (ptrdiff_t n = 0; n < c->n; n++)
        for (ptrdiff_t o = 0; o < c->oc; o++)
            for (ptrdiff_t oz = 0; oz < v->od; oz++)
                for (ptrdiff_t oy = 0; oy < c->oh; oy++)
                    for (ptrdiff_t ox = 0; ox < c->ow; ox++, i++) {
                        double sum = fn(v, w, x + n * image, o, oz, oy, ox);
                        sum +=
                            (bias ? (double)bias[o] : 0.0) + (residual ? (double)residual[i] : 0.0);
                        y[i] = (float)sum;
                        kn_act_row(&c->act, &y[i], &y[i], 1);
                    }
}

void kn_conv3_ref(const struct kn_conv3 *conv, const float *w, const float *bias, const float *x,
                  const float *residual, float *y) {
    for_each_output(conv, conv_at, w, bias, x, residual, y);
}

void kn_conv3_transpose_ref(const struct kn_conv3 *conv, const float *w, const float *bias,
                            const float *x, float *y) {
    for_each_output(conv, transpose_at, w, bias, x, NULL, y);
}

/* ---- pooling: in double, which holds every type of a maximum */

static double number_at(enum kn_type type, const void *x, ptrdiff_t i) {
    switch (type) {
    case KN_DOUBLE:
        return ((const double *)x)[i];
    case KN_UINT8:
        return ((const uint8_t *)x)[i];
    case KN_INT8:
        return ((const int8_t *)x)[i];
    default:
        return (double)((const float *)x)[i];
    }
}

static void put_number(enum kn_type type, void *y, ptrdiff_t i, double v) {
    if (type == KN_DOUBLE)
        ((double *)y)[i] = v;
    else if (type == KN_UINT8)
        ((uint8_t *)y)[i] = (uint8_t)v;
    else if (type == KN_INT8)
        ((int8_t *)y)[i] = (int8_t)v;
    else
        ((float *)y)[i] = (float)v;
}

/* What one window has seen. */
struct window {
    double max, sum;
    int64_t max_at; /* -1: nothing */
    int64_t inside, padded;
};

static void see(const struct kn_pool3 *p, const void *x, ptrdiff_t plane, const ptrdiff_t at[3],
                struct window *w) {
    bool inside = true;

    for (int axis = 0; axis < 3; axis++) {
        if (at[axis] >= p->in[axis] + p->end[axis])
            return;
        inside = inside && at[axis] >= 0 && at[axis] < p->in[axis];
    }
    w->padded++;
    if (!inside)
        return;
    w->inside++;
    int64_t first = (int64_t)plane * p->in[0] * p->in[1] * p->in[2];
    int64_t flat = first + ((int64_t)at[0] * p->in[1] + at[1]) * p->in[2] + at[2];
    double v = number_at(p->type, x, (ptrdiff_t)flat);
    w->sum += p->kind == KN_POOL_LP ? pow(fabs(v), (double)p->p) : v;
    if (w->max_at >= 0 && !(v > w->max || isnan(v)))
        return;
    w->max = v;
    w->max_at =
        p->column_major ? first + ((int64_t)at[2] * p->in[1] + at[1]) * p->in[0] + at[0] : flat;
}

static void finish(const struct kn_pool3 *p, const struct window *w, ptrdiff_t i, void *y,
                   int64_t *index) {
    double cells = (double)(p->count_include_pad ? w->padded : w->inside);
    double least = p->type == KN_UINT8 ? 0.0 : p->type == KN_INT8 ? -128.0 : (double)-INFINITY;

    if (p->kind == KN_POOL_LP)
        put_number(p->type, y, i, pow(w->sum, 1.0 / (double)p->p));
    else if (p->kind == KN_POOL_AVERAGE)
        put_number(p->type, y, i, cells > 0.0 ? w->sum / cells : 0.0);
    else
        put_number(p->type, y, i, w->max_at < 0 ? least : w->max);
    if (index)
        index[i] = w->max_at < 0 ? 0 : w->max_at;
}

void kn_pool3_ref(const struct kn_pool3 *p, const void *x, void *y, int64_t *ret_index) {
    ptrdiff_t out = 0, o[3], k[3], at[3];

    for (ptrdiff_t plane = 0; plane < p->planes; plane++)
        for (o[0] = 0; o[0] < p->out[0]; o[0]++)
            for (o[1] = 0; o[1] < p->out[1]; o[1]++)
                for (o[2] = 0; o[2] < p->out[2]; o[2]++, out++) {
                    struct window w = {.max_at = -1};
                    for (k[0] = 0; k[0] < p->kernel[0]; k[0]++)
                        for (k[1] = 0; k[1] < p->kernel[1]; k[1]++)
                            for (k[2] = 0; k[2] < p->kernel[2]; k[2]++) {
                                for (int axis = 0; axis < 3; axis++)
                                    at[axis] = o[axis] * p->stride[axis] + k[axis] * p->dil[axis] -
                                               p->begin[axis];
                                see(p, x, plane, at, &w);
                            }
                    finish(p, &w, out, y, ret_index);
                }
}
