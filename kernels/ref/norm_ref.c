#include <math.h>

#include "../internal.h"

/* In double. */
void kn_lrn_ref(int n, int c, size_t inner, int size, float alpha, float beta, float bias,
                const float *x, float *y) {
    for (size_t b = 0; b < (size_t)n; b++)
        for (int k = 0; k < c; k++)
            for (size_t i = 0; i < inner; i++) {
                double sum = 0.0;
                for (int j = k - (size - 1) / 2; j <= k + size / 2; j++)
                    if (j >= 0 && j < c) {
                        double v = (double)x[(b * (size_t)c + (size_t)j) * inner + i];
                        sum += v * v;
                    }
                size_t at = (b * (size_t)c + (size_t)k) * inner + i;
                double d = (double)bias + (double)alpha / (double)size * sum;
                y[at] = (float)((double)x[at] / pow(d, (double)beta));
            }
}

/* In double; y may be x. The first of several largest is hardmax's one. */
static void softmax_line_ref(enum kn_softmax_kind kind, size_t axis, size_t stride, const float *x,
                             float *y) {
    size_t best = 0;
    double sum = 0.0;

    for (size_t i = 1; i < axis; i++)
        if (x[i * stride] > x[best * stride])
            best = i;
    double max = (double)x[best * stride];
    for (size_t i = 0; i < axis; i++)
        sum += exp((double)x[i * stride] - max);
    for (size_t i = 0; i < axis; i++) {
        double v = (double)x[i * stride] - max;
        y[i * stride] = kind == KN_SOFTMAX       ? (float)(exp(v) / sum)
                        : kind == KN_LOG_SOFTMAX ? (float)(v - log(sum))
                                                 : (float)(i == best);
    }
}

void kn_softmax_ref(enum kn_softmax_kind kind, size_t outer, size_t axis, size_t inner,
                    const float *x, float *y) {
    for (size_t o = 0; o < outer && axis > 0; o++)
        for (size_t i = 0; i < inner; i++)
            softmax_line_ref(kind, axis, inner, x + o * axis * inner + i, y + o * axis * inner + i);
}

/* In double; y may be x. */
void kn_standardize_ref(const struct kn_standardize *s, const float *scale, const float *bias,
                        const float *x, float *y, float *ret_mean, float *ret_inverse) {
    for (size_t row = 0; row < s->rows; row++) {
        double mean = 0.0, variance = 0.0;
        for (size_t i = 0; i < s->count; i++)
            mean += (double)x[row * s->count + i] / (double)s->count;
        for (size_t i = 0; i < s->count; i++) {
            double d = (double)x[row * s->count + i] - mean;
            variance += d * d / (double)s->count;
        }
        double inverse = 1.0 / sqrt(variance + (double)s->epsilon);
        for (size_t i = 0; i < s->count; i++) {
            size_t at = row * s->count + i, c = at / s->inner % s->channels;
            double v = ((double)x[at] - mean) * inverse * (double)scale[c];
            y[at] = (float)(v + (bias ? (double)bias[c] : 0.0));
        }
        if (ret_mean)
            ret_mean[row] = (float)mean;
        if (ret_inverse)
            ret_inverse[row] = (float)inverse;
    }
}
