/* What convolution means. Sums are accumulated in double, so that the reference is nearer to the
 * truth than anything it judges. */
#include "../internal.h"

/* Where things lie. */
struct place {
    ptrdiff_t n, g, oc; /* oc within the group */
    ptrdiff_t oy, ox;
};

static double conv_at(const struct kn_conv *conv, const float *w, const float *x,
                      const struct place *at) {
    ptrdiff_t icg = conv->ic / conv->group, ocg = conv->oc / conv->group;
    double sum = 0.0;

    for (ptrdiff_t c = 0; c < icg; c++)
        for (ptrdiff_t ky = 0; ky < conv->kh; ky++)
            for (ptrdiff_t kx = 0; kx < conv->kw; kx++) {
                ptrdiff_t iy = at->oy * conv->stride_h + ky * conv->dil_h - conv->pad_top;
                ptrdiff_t ix = at->ox * conv->stride_w + kx * conv->dil_w - conv->pad_left;
                if (iy < 0 || iy >= conv->ih || ix < 0 || ix >= conv->iw)
                    continue;
                ptrdiff_t ic = at->g * icg + c, oc = at->g * ocg + at->oc;
                sum += (double)w[((oc * icg + c) * conv->kh + ky) * conv->kw + kx] *
                       (double)x[((at->n * conv->ic + ic) * conv->ih + iy) * conv->iw + ix];
            }
    return sum;
}

/* The transpose asks which input pixels, moved by a tap, fall onto this output pixel. */
static double conv_transpose_at(const struct kn_conv *conv, const float *w, const float *x,
                                const struct place *at) {
    ptrdiff_t icg = conv->ic / conv->group, ocg = conv->oc / conv->group;
    double sum = 0.0;

    for (ptrdiff_t c = 0; c < icg; c++)
        for (ptrdiff_t ky = 0; ky < conv->kh; ky++)
            for (ptrdiff_t kx = 0; kx < conv->kw; kx++) {
                ptrdiff_t y = at->oy + conv->pad_top - ky * conv->dil_h;
                ptrdiff_t z = at->ox + conv->pad_left - kx * conv->dil_w;
                ptrdiff_t iy = y / conv->stride_h, ix = z / conv->stride_w;
                if (y < 0 || y % conv->stride_h != 0 || iy >= conv->ih || z < 0 ||
                    z % conv->stride_w != 0 || ix >= conv->iw)
                    continue;
                ptrdiff_t ic = at->g * icg + c;
                sum += (double)w[((ic * ocg + at->oc) * conv->kh + ky) * conv->kw + kx] *
                       (double)x[((at->n * conv->ic + ic) * conv->ih + iy) * conv->iw + ix];
            }
    return sum;
}

typedef double (*at_fn)(const struct kn_conv *conv, const float *w, const float *x,
                        const struct place *at);

static void for_each_output(const struct kn_conv *conv, at_fn fn, const float *w, const float *bias,
                            const float *x, const float *residual, float *y) {
    ptrdiff_t ocg = conv->oc / conv->group, i = 0;
    struct place at;

    for (at.n = 0; at.n < conv->n; at.n++)
        for (at.g = 0; at.g < conv->group; at.g++)
            for (at.oc = 0; at.oc < ocg; at.oc++)
                for (at.oy = 0; at.oy < conv->oh; at.oy++)
                    for (at.ox = 0; at.ox < conv->ow; at.ox++, i++) {
                        double sum = fn(conv, w, x, &at);
                        sum += bias ? (double)bias[at.g * ocg + at.oc] : 0.0;
                        sum += residual ? (double)residual[i] : 0.0;
                        y[i] = (float)sum;
                        kn_act_row(&conv->act, &y[i], &y[i], 1);
                    }
}

void kn_conv_ref(const struct kn_conv *conv, const float *w, const float *bias, const float *x,
                 const float *residual, float *y) {
    for_each_output(conv, conv_at, w, bias, x, residual, y);
}

void kn_conv_transpose_ref(const struct kn_conv *conv, const float *w, const float *bias,
                           const float *x, float *y) {
    for_each_output(conv, conv_transpose_at, w, bias, x, NULL, y);
}
