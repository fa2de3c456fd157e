#include <math.h>

#include "../internal.h"

static double kernel(const struct kn_resize *r, double d) {
    double a = (double)r->cubic_a;

    d = fabs(d);
    if (r->mode == KN_RESIZE_LINEAR)
        return d < 1 ? 1 - d : 0;
    if (d < 1)
        return (a + 2) * d * d * d - (a + 3) * d * d + 1;
    return d < 2 ? a * d * d * d - 5 * a * d * d + 8 * a * d - 4 * a : 0;
}

static double original_ref(const struct kn_resize *r, const struct kn_resize_axis *a, int o) {
    double length = a->in * a->scale, span = a->roi_end - a->roi_begin;

    switch (r->coord) {
    case KN_COORD_PYTORCH_HALF_PIXEL:
        return a->out > 1 ? (o + 0.5) / a->scale - 0.5 : 0;
    case KN_COORD_ALIGN_CORNERS:
        return a->out > 1 ? o * (a->in - 1) / (length - 1) : 0;
    case KN_COORD_ASYMMETRIC:
        return o / a->scale;
    case KN_COORD_HALF_PIXEL_SYMMETRIC:
        return a->in / 2.0 * (1 - a->out / length) + (o + 0.5) / a->scale - 0.5;
    case KN_COORD_HALF_PIXEL_FOR_NN:
        return (o + 0.5) / a->scale;
    case KN_COORD_CROP:
        return (a->in - 1) * (a->out > 1 ? a->roi_begin + o * span / (length - 1)
                                         : (a->roi_begin + a->roi_end) / 2);
    default:
        return (o + 0.5) / a->scale - 0.5;
    }
}

/* The weight of input i for output o; *ret_outside: it is extrapolated instead. */
static double weight_ref(const struct kn_resize *r, const struct kn_resize_axis *a, int o, int i,
                         bool *ret_outside) {
    double x = original_ref(r, a, o), sum = 0, all = 0;
    double narrow = r->antialias && a->scale < 1 ? a->scale : 1, far = 2 / narrow + 1;

    if (a->in == a->out && fabs(a->scale - 1) < 1e-9 &&
        (r->coord != KN_COORD_CROP || (a->roi_begin == 0 && a->roi_end == 1)))
        return i == o;
    if (r->coord == KN_COORD_CROP && (x < 0 || x > a->in - 1))
        *ret_outside = true;
    for (int cell = (int)floor(x - far); cell <= (int)ceil(x + far); cell++) {
        bool inside = cell >= 0 && cell < a->in;
        double w = inside || !r->exclude_outside ? kernel(r, (cell - x) * narrow) : 0;
        all += w;
        if ((cell < 0 ? 0 : cell >= a->in ? a->in - 1 : cell) == i)
            sum += w;
    }
    return sum / all;
}

static size_t count_of(const struct kn_resize *r, bool out) {
    size_t count = 1;

    for (int d = 0; d < r->rank; d++)
        count *= (size_t)(out ? r->axes[d].out : r->axes[d].in);
    return count;
}

void kn_resize_ref(const struct kn_resize *r, const float *x, float *y) {
    for (size_t o = 0; o < count_of(r, true); o++) {
        double sum = 0;
        bool outside = false;
        for (size_t i = 0; i < count_of(r, false); i++) {
            size_t rest_o = o, rest_i = i;
            double w = 1;
            for (int d = r->rank; d-- > 0;) {
                const struct kn_resize_axis *a = &r->axes[d];
                w *= weight_ref(r, a, (int)(rest_o % (size_t)a->out), (int)(rest_i % (size_t)a->in),
                                &outside);
                rest_o /= (size_t)a->out;
                rest_i /= (size_t)a->in;
            }
            sum += w * (double)x[i];
        }
        y[o] = outside ? *(const float *)r->outside : (float)sum;
    }
}
