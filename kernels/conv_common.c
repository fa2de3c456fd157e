#include <string.h>

#include "conv_internal.h"

/* docs/kernels.md has the measurement behind these. The panel should stay in half of a second cache
 * of 1 MB, but below PANEL_MIN columns the GEMM library spends too much time on its edges. */
#define PANEL_BYTES  (512 * 1024)
#define PANEL_MIN    192
#define PANEL_MAX    512
#define PANEL_FACTOR 16 /* widths are multiples of the widest micro-kernel */

#define STRIPS_ENOUGH 8   /* so many need no blocks of rows */
#define BLOCK_ROWS    128 /* at least */
#define BLOCKS_MAX    8

static size_t bias_bytes(const struct kn_conv *conv) {
    return kn_round_up((size_t)conv->oc * sizeof(float), KN_ALIGN);
}

static size_t weights_bytes(const struct kn_conv *conv) {
    return (size_t)conv->oc * (size_t)(conv->ic / conv->group) * (size_t)conv->kh *
           (size_t)conv->kw * sizeof(float);
}

size_t kn_conv_plain_bytes(const struct kn_conv *conv) {
    return bias_bytes(conv) + weights_bytes(conv);
}

void kn_conv_pack_bias(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                       size_t room, float *to) {
    size_t first = (size_t)weights->first, rows = (size_t)weights->rows, end = first + rows;

    if (weights->bias)
        memcpy(to + first, weights->bias, rows * sizeof(float));
    else
        memset(to + first, 0, rows * sizeof(float));
    if (end == (size_t)plan->conv.oc)
        memset(to + end, 0, (room - end) * sizeof(float));
}

void kn_conv_plain_pack(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                        void *packed) {
    const struct kn_conv *conv = &plan->conv;
    size_t head = bias_bytes(conv), row = weights_bytes(conv) / (size_t)conv->oc / sizeof(float);
    float *to = (float *)((char *)packed + head) + (size_t)weights->first * row;

    kn_conv_pack_bias(plan, weights, head / sizeof(float), packed);
    memcpy(to, weights->w, (size_t)weights->rows * row * sizeof(float));
    for (int r = 0; weights->scale && r < weights->rows; r++, to += row)
        for (size_t i = 0; i < row; i++)
            to[i] = (float)((double)to[i] * weights->scale[r]);
}

const float *kn_conv_plain_weights(const struct kn_conv *conv, const void *packed) {
    return (const float *)((const char *)packed + bias_bytes(conv));
}

static void fill(float *y, float value, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = value;
}

static KN_CLONES void add_scalar(const float *x, float value, float *y, ptrdiff_t count) {
    KN_IVDEP
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = x[i] + value;
}

void kn_strip_begin(const struct kn_strip *strip, const float *bias, const float *residual,
                    float *y) {
    for (ptrdiff_t i = 0; i < strip->rows; i++) {
        float *row = y + i * strip->ld;
        float value = bias ? bias[i] : 0.0f;
        if (residual)
            add_scalar(residual + i * strip->ld, value, row, strip->cols);
        else
            fill(row, value, strip->cols);
    }
}

void kn_strip_end(const struct kn_strip *strip, const struct kn_activation *act, float *y) {
    if (act->kind == KN_ACT_NONE)
        return;
    for (ptrdiff_t i = 0; i < strip->rows; i++) {
        float *row = y + i * strip->ld;
        kn_act_row(act, row, row, strip->cols);
    }
}

int kn_conv_panel(ptrdiff_t depth, ptrdiff_t cols) {
    ptrdiff_t most = PANEL_BYTES / (depth * (ptrdiff_t)sizeof(float));

    most = kn_min(kn_max(most / PANEL_FACTOR * PANEL_FACTOR, PANEL_MIN), PANEL_MAX);
    ptrdiff_t strips = kn_ceil_div(cols, most);
    ptrdiff_t width = kn_ceil_div(kn_ceil_div(cols, strips), PANEL_FACTOR) * PANEL_FACTOR;
    return (int)kn_min(width, cols);
}

void kn_conv_split(const struct kn_conv_plan *plan, struct kn_split *ret_split) {
    const struct kn_conv *conv = &plan->conv;
    ptrdiff_t rows = conv->oc / conv->group, cols = (ptrdiff_t)conv->oh * conv->ow;
    struct kn_split split = {.panel = plan->panel, .strips = kn_ceil_div(cols, plan->panel)};
    ptrdiff_t blocks = split.strips < STRIPS_ENOUGH ? kn_min(rows / BLOCK_ROWS, BLOCKS_MAX) : 1;

    split.block_rows = kn_ceil_div(rows, kn_max(blocks, 1));
    split.blocks = kn_ceil_div(rows, split.block_rows);
    *ret_split = split;
}

void kn_valid_range(ptrdiff_t in, ptrdiff_t out, ptrdiff_t stride, ptrdiff_t offset,
                    ptrdiff_t *ret_lo, ptrdiff_t *ret_hi) {
    ptrdiff_t lo = offset < 0 ? kn_ceil_div(-offset, stride) : 0;
    ptrdiff_t hi = in > offset ? kn_ceil_div(in - offset, stride) : 0;

    *ret_lo = kn_min(lo, out);
    *ret_hi = kn_max(kn_min(hi, out), *ret_lo);
}
