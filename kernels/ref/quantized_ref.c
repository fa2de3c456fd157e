#include <errno.h>
#include <math.h>
#include <string.h>

#include "../internal.h"
#include "../quantized.h"

/* Element i of an array of 8- or 16-bit numbers or int32, which may be unaligned. NULL: 0. */
static int64_t integer_at(enum kn_type type, const void *x, size_t i) {
    int32_t wide;
    int16_t half;
    uint16_t uhalf;

    if (!x)
        return 0;
    switch (type) {
    case KN_UINT8:
        return ((const uint8_t *)x)[i];
    case KN_INT8:
        return ((const int8_t *)x)[i];
    case KN_UINT16:
        memcpy(&uhalf, (const char *)x + 2 * i, sizeof(uhalf));
        return uhalf;
    case KN_INT16:
        memcpy(&half, (const char *)x + 2 * i, sizeof(half));
        return half;
    default:
        memcpy(&wide, (const char *)x + 4 * i, sizeof(wide));
        return wide;
    }
}

static float float_at(const float *x, size_t i) {
    float f;

    memcpy(&f, (const char *)x + sizeof(f) * i, sizeof(f));
    return f;
}

/* y[i] = saturate(round(value) + zero). */
static void store_rounded(enum kn_type type, float value, int64_t zero, void *y, size_t i) {
    double least = type == KN_UINT8 || type == KN_UINT16 ? 0 : type == KN_INT8 ? -128 : -32768;
    double most = type == KN_UINT8    ? 255
                  : type == KN_INT8   ? 127
                  : type == KN_UINT16 ? 65535
                                      : 32767;
    double rounded = rint((double)value) + (double)zero;
    int64_t q = (int64_t)(rounded > most ? most : rounded >= least ? rounded : least);

    if (type == KN_UINT8 || type == KN_INT8)
        ((uint8_t *)y)[i] = (uint8_t)q;
    else
        ((uint16_t *)y)[i] = (uint16_t)q;
}

static size_t scale_of(const struct kn_scaling *s, size_t i) {
    size_t inner = i % s->inner, axis = i / s->inner % s->axis, outer = i / s->inner / s->axis;

    return outer * s->outer_step + axis / s->block * s->axis_step + inner * s->inner_step;
}

void kn_quantize_ref(const struct kn_scaling *scaling, enum kn_type y_type, const float *x,
                     const float *scale, const void *zero, void *y) {
    for (size_t i = 0; i < scaling->outer * scaling->axis * scaling->inner; i++) {
        size_t s = scale_of(scaling, i);
        store_rounded(y_type, x[i] / scale[s], integer_at(y_type, zero, s), y, i);
    }
}

void kn_dequantize_ref(const struct kn_scaling *scaling, enum kn_type x_type, const void *x,
                       const float *scale, const void *zero, float *y) {
    for (size_t i = 0; i < scaling->outer * scaling->axis * scaling->inner; i++) {
        size_t s = scale_of(scaling, i);
        y[i] = (float)(integer_at(x_type, x, i) - integer_at(x_type, zero, s)) * scale[s];
    }
}

/* One output's sum, modulo 2^32. */
static int32_t conv_sum(const struct kn_qconv *q, const struct kn_qconv_numbers *numbers,
                        const void *x, ptrdiff_t n, ptrdiff_t o, ptrdiff_t oy, ptrdiff_t ox) {
    const struct kn_conv *c = &q->conv;
    ptrdiff_t icg = c->ic / c->group, first = o / (c->oc / c->group) * icg;
    int64_t x_zero = integer_at(q->x_type, numbers->x_zero, 0), sum = 0;
    int64_t w_zero = integer_at(q->w_type, numbers->w_zero, (size_t)o * numbers->w_zero_step);

    for (ptrdiff_t i = 0; i < icg; i++)
        for (ptrdiff_t ky = 0; ky < c->kh; ky++)
            for (ptrdiff_t kx = 0; kx < c->kw; kx++) {
                ptrdiff_t iy = oy * c->stride_h + ky * c->dil_h - c->pad_top;
                ptrdiff_t ix = ox * c->stride_w + kx * c->dil_w - c->pad_left;
                if (iy < 0 || iy >= c->ih || ix < 0 || ix >= c->iw)
                    continue;
                ptrdiff_t at = ((n * c->ic + first + i) * c->ih + iy) * c->iw + ix;
                ptrdiff_t w_at = ((o * icg + i) * c->kh + ky) * c->kw + kx;
                sum += (integer_at(q->x_type, x, (size_t)at) - x_zero) *
                       (integer_at(q->w_type, numbers->w, (size_t)w_at) - w_zero);
            }
    if (numbers->bias)
        sum += integer_at(KN_INT32, numbers->bias, (size_t)o);
    return (int32_t)(uint32_t)sum;
}

void kn_qconv_ref(const struct kn_qconv *q, const struct kn_qconv_numbers *numbers, const void *x,
                  void *y) {
    const struct kn_conv *c = &q->conv;
    size_t out = 0;

    for (ptrdiff_t n = 0; n < c->n; n++)
        for (ptrdiff_t o = 0; o < c->oc; o++)
            for (ptrdiff_t oy = 0; oy < c->oh; oy++)
                for (ptrdiff_t ox = 0; ox < c->ow; ox++, out++) {
                    int32_t sum = conv_sum(q, numbers, x, n, o, oy, ox);
                    if (q->y_type == KN_INT32) {
                        ((int32_t *)y)[out] = sum;
                        continue;
                    }
                    float scale = float_at(numbers->x_scale, 0) *
                                  float_at(numbers->w_scale, (size_t)o * numbers->w_scale_step) /
                                  float_at(numbers->y_scale, 0);
                    store_rounded(q->y_type, (float)sum * scale,
                                  integer_at(q->y_type, numbers->y_zero, 0), y, out);
                }
}
